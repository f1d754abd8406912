"""Image features in a safetensors file that is written row by row.

The header has a fixed length: it says from the start whose features they are, and at the end how
many, so that nothing is held in memory. Until then the file has the suffix ``.part``, and another
command continues it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from torch import Tensor

from dplq.errors import UserError
from dplq.io.validation.paths import is_file

NAME = "features"  # of the tensor
HEADER = 1 << 14  # bytes of length and header together, for a path; spaces at its end are ignored
ITEM = 4  # bytes of a float32


def part_of(path: Path) -> Path:
    """Return the name of a file of features until it is finished."""
    return path.with_name(path.name + ".part")


def check_features(path: Path, metadata: dict[str, str]) -> None:
    """Refuse (UserError) a file, finished or not, that does not hold the same features.

    Args:
        path: of the features.
        metadata: of those that are to be written.
    """
    for file in (path, part_of(path)):
        if is_file(file) and os.path.getsize(file) and _metadata(file) != metadata:
            raise UserError(
                f"{file} is there, and has no features of this checkpoint for this --out. Give "
                "another --features, or --overwrite to replace it."
            )


def _metadata(path: Path) -> dict[str, str] | None:
    """Return what a file of `FeatureFile` says of itself; None for any other file."""
    try:
        with open(path, "rb") as file:
            if int.from_bytes(file.read(8), "little") != HEADER - 8:
                return None
            found: dict[str, str] = json.loads(file.read(HEADER - 8))["__metadata__"]
            return found
    except (OSError, ValueError, KeyError, TypeError):
        return None


class FeatureFile:
    """Features (N, d), float32, of images in the order of the CSV file's rows.

    Args:
        path: the file; while it is written ``<path>.part``.
        width: d.
        rows: that the CSV file has already; later ones are cut off.
        metadata: texts for the header, which say what the features are of.
        overwrite: begin anew, whatever is there.

    Raises:
        UserError: it holds something else, has fewer rows, or cannot be written.
    """

    def __init__(
        self, path: Path, width: int, rows: int, metadata: dict[str, str], overwrite: bool
    ) -> None:
        self.path, self.part, self.width, self.metadata = path, part_of(path), width, metadata
        if not overwrite:
            check_features(path, metadata)
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
            self._write_header(rows)
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

    def finish(self) -> None:
        """Complete the header, and give the file its name."""
        try:
            size = self._file.seek(0, os.SEEK_END) - HEADER
            self._write_header(size // (ITEM * self.width))
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.part, self.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def _write_header(self, rows: int) -> None:
        tensor = {
            "dtype": "F32",
            "shape": [rows, self.width],
            "data_offsets": [0, rows * ITEM * self.width],
        }
        entries = {"__metadata__": self.metadata, NAME: tensor}
        text = json.dumps(entries, ensure_ascii=False).encode()
        assert len(text) <= HEADER - 8  # no path is so long
        self._file.seek(0)
        self._file.write((HEADER - 8).to_bytes(8, "little") + text.ljust(HEADER - 8))
        self._file.flush()

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"Cannot write {self.part}: {error.strerror or error}. Free some space or give another "
            "--features, then run the same command again: it continues."
        )

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
