"""Marks of image files: to know an image again under another name.

A mark is the size and a hash of the start, the middle and the end of a file: three short reads, so
that a whole dataset is marked in seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from dplq.io.files import bytes_digest

PIECE = 8192  # bytes read at each of the three places


class Contents:
    """Marks of the images in a folder; each is computed once, when it is needed.

    Args:
        image_dir: what paths are relative to.
    """

    def __init__(self, image_dir: str) -> None:
        self.image_dir = image_dir
        self._marks: dict[str, str] = {}

    def marks(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the mark of every path, "" where there is no file that can be read."""
        paths = list(paths)
        todo = [path for path in paths if path not in self._marks]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            found = pool.map(mark_of, (os.path.join(self.image_dir, path) for path in todo))
            self._marks |= zip(todo, found, strict=True)
        return {path: self._marks[path] for path in paths}

    def unchanged(self, known: Mapping[str, str]) -> set[str]:
        """Return the paths at which still is what their mark says.

        Sizes are compared, and the mark of one image per folder; where one of a folder differs, all
        of its marks are.

        Args:
            known: mark by path; "" where it is not known, which any file matches.
        """
        sizes = {path: self._size(path) for path in known}
        present = {path for path, size in sizes.items() if size is not None}
        folders: dict[str, list[str]] = {}
        for path in sorted(present):
            if known[path]:
                folders.setdefault(os.path.dirname(path), []).append(path)
        samples = self.marks(paths[0] for paths in folders.values())
        doubtful = [
            path
            for paths in folders.values()
            if samples[paths[0]] != known[paths[0]]
            or any(known[path].partition("-")[0] != str(sizes[path]) for path in paths)
            for path in paths
        ]
        now = self.marks(doubtful)
        return present - {path for path in doubtful if now[path] != known[path]}

    def _size(self, path: str) -> int | None:
        try:
            return os.stat(os.path.join(self.image_dir, path)).st_size
        except OSError:
            return None


def mark_of(path: str) -> str:
    """Return the mark of a file, "" if it cannot be read."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            pieces = []
            for start in (0, (size - PIECE) // 2, size - PIECE):
                file.seek(max(0, start))
                pieces.append(file.read(PIECE))
    except OSError:
        return ""
    return f"{size}-{bytes_digest(b''.join(pieces), 'blake2b-128')[:16]}"
