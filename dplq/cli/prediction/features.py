"""Image features in a safetensors file that is written row by row.

The header has a fixed length and is completed at the end, so that nothing is held in memory. Until
then the file has the suffix ``.part``, and another command continues it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType

from torch import Tensor

from dplq.errors import UserError

NAME = "features"  # of the tensor
HEADER = 1024  # bytes of the length and the header together; safetensors ignores spaces at its end
ITEM = 4  # bytes of a float32


class FeatureFile:
    """Features (N, d), float32, of images in the order of the CSV file's rows.

    Args:
        path: the file; while it is written ``<path>.part``.
        width: d.
        rows: that the CSV file has already; later ones are cut off.
        overwrite: begin anew.

    Raises:
        UserError: it has fewer rows, or cannot be written.
    """

    def __init__(self, path: Path, width: int, rows: int, overwrite: bool) -> None:
        self.path, self.part, self.width = path, path.with_name(path.name + ".part"), width
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if overwrite or not rows:
                path.unlink(missing_ok=True)
                self.part.unlink(missing_ok=True)
            elif path.exists():
                os.replace(path, self.part)
            self._file = open(self.part, "r+b" if self.part.exists() else "w+b")  # noqa: SIM115
            there = (os.path.getsize(self.part) - HEADER) // (ITEM * width)
            if rows and there < rows:
                self._file.close()
                raise UserError(
                    f"{path} has the features of {max(there, 0)} images, but the CSV file has "
                    f"{rows} rows. Use --overwrite to begin anew."
                )
            end = HEADER + rows * ITEM * width
            self._file.truncate(end)
            self._file.seek(end)
        except OSError as error:
            raise self._unwritable(error) from error

    def add(self, features: Tensor) -> None:
        """Write features (B, d), float32."""
        try:
            self._file.write(features.contiguous().numpy().astype("<f4", copy=False).tobytes())
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def finish(self, metadata: dict[str, str]) -> None:
        """Write the header, and give the file its name.

        Args:
            metadata: texts for the header, 500 characters at most.
        """
        try:
            size = self._file.seek(0, os.SEEK_END) - HEADER
            tensor = {
                "dtype": "F32",
                "shape": [size // (ITEM * self.width), self.width],
                "data_offsets": [0, size],
            }
            text = json.dumps({"__metadata__": metadata, NAME: tensor}).encode()
            assert len(text) <= HEADER - 8
            self._file.seek(0)
            self._file.write((HEADER - 8).to_bytes(8, "little") + text.ljust(HEADER - 8))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.part, self.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"Cannot write {self.part}: {error.strerror or error}. Free some space or give another "
            "--features, then run the same command again: it continues."
        )

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
