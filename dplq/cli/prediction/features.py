"""Image features in a safetensors file that is written row by row.

The header has a fixed length: it says from the start whose features they are, and at the end how
many, so that nothing is held in memory. Until then the file has the suffix ``.part``, and another
command continues it. Digests of the images' paths tell whether the CSV file still has their rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from dplq.errors import UserError
from dplq.io.validation.paths import is_file

NAME = "features"  # of the tensor
HEADER = 1 << 14  # bytes of length and header together, for a path; spaces at its end are ignored
ITEM = 4  # bytes of a float32
ROWS = "rows"  # entry of the header: digests of the last rows
DIGITS = 8  # of each digest
MOST = 1000  # digests in the header; a command that was cut lacks fewer rows


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
        if is_file(file) and os.path.getsize(file) and _without_rows(file) != metadata:
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


def _without_rows(path: Path) -> dict[str, str]:
    """Return what a file says of itself but for its rows."""
    return {key: value for key, value in (_metadata(path) or {}).items() if key != ROWS}


class RowDigests:
    """Digests of the first 0, 1, 2, ... paths, of which the last `MOST` are kept."""

    def __init__(self, paths: Sequence[str] = ()) -> None:
        self._hash, self.first = hashlib.sha256(), 0
        self.kept = [self._now()]
        self.add(paths)

    def add(self, paths: Sequence[str]) -> None:
        """Add a batch."""
        for path in paths:
            self._hash.update(path.encode("utf-8", "surrogateescape") + b"\0")
            self.kept.append(self._now())
        if (left := len(self.kept) - MOST) > 0:
            self.first, self.kept = self.first + left, self.kept[left:]

    def _now(self) -> str:
        return self._hash.hexdigest()[:DIGITS]

    def entry(self) -> str:
        """Return what the header has of them."""
        return json.dumps([self.first, "".join(self.kept)])

    def fit(self, entry: str) -> bool:
        """Return whether rows of which a header has this entry begin with these."""
        first, text = json.loads(entry)
        start = (self.first + len(self.kept) - 1 - first) * DIGITS
        return start >= 0 and text[start : start + DIGITS] == self._now()


class FeatureFile:
    """Features (N, d), float32, of images in the order of the CSV file's rows.

    Args:
        path: the file; while it is written ``<path>.part``.
        width: d.
        done: paths of the rows that the CSV file has already; what a batch that was cut has more is
            removed.
        metadata: texts for the header, which say what the features are of.
        overwrite: begin anew, whatever is there.

    Raises:
        UserError: it holds something else or other rows, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        done: Sequence[str],
        metadata: dict[str, str],
        overwrite: bool,
    ) -> None:
        self.path, self.part, self.width, self.metadata = path, part_of(path), width, metadata
        self._digests, rows = RowDigests(done), len(done)
        if not overwrite:
            check_features(path, metadata)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if overwrite or not rows:
                for file in (path, self.part):
                    if is_file(file):
                        file.unlink()
            else:
                self._check_rows(rows)
                if path.exists():
                    os.replace(path, self.part)
            self._file = open(self.part, "r+b" if self.part.exists() else "w+b")  # noqa: SIM115
            end = HEADER + rows * ITEM * width
            self._file.truncate(end)
            self._write_header(rows)
            self._file.seek(end)
        except OSError as error:
            raise self._unwritable(error) from error

    def _check_rows(self, rows: int) -> None:
        """Refuse (UserError) a file whose rows are not those, so many, of the CSV file."""
        is_whole = is_file(self.path)
        file = self.path if is_whole else self.part
        size = os.path.getsize(file) if is_file(file) else HEADER
        there = max((size - HEADER) // (ITEM * self.width), 0)
        if there < rows or (is_whole and there > rows):
            raise UserError(
                f"{self.path} has the features of {there} images, but the CSV file has {rows} "
                "rows. Use --overwrite to begin anew."
            )
        entry = (_metadata(file) or {}).get(ROWS)  # older files have none
        if entry is not None and not self._digests.fit(entry):
            raise UserError(
                f"{self.path} has the features of other images than the rows of the CSV file, or "
                "in another order: the CSV file was changed. Use --overwrite to begin anew."
            )

    def add(self, features: Tensor, paths: Sequence[str]) -> None:
        """Write features (B, d), float32, of the images with these paths."""
        try:
            self._digests.add(paths)
            self._write_header(0)
            self._file.seek(0, os.SEEK_END)
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
        about = {**self.metadata, ROWS: self._digests.entry()}
        entries = {"__metadata__": about, NAME: tensor}
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
        with contextlib.suppress(OSError):  # said where it was written
            self._file.close()
