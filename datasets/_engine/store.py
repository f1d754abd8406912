"""Storage of a dataset's small files: the split, the cache of valid images.

Beside the images, as CoOp has it. With `DPLQ_CACHE` set, or where the data folder cannot be
written to, in a folder of its own outside: `$DPLQ_CACHE` or `~/.cache/dplq`, then
`<name>-<hash of the data folder's path>`. Files hold relative paths only.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from dplq.errors import UserError
from dplq.io.atomic import atomic_write
from dplq.io.files import bytes_digest, cache_root

logger = logging.getLogger(__name__)


class Store:
    """Storage of the small files of one dataset.

    Args:
        dataset_dir: the data folder.
        name: of the dataset.

    Attributes:
        is_writable: False where nothing may be written, and `write` only takes notes.
    """

    is_writable = True

    def __init__(self, dataset_dir: str, name: str) -> None:
        digest = bytes_digest(os.fsencode(Path(dataset_dir).resolve()))[:12]
        self.dataset_dir = Path(dataset_dir)
        self.outside = cache_root() / f"{name}-{digest}"
        chosen = os.environ.get("DPLQ_CACHE", "")
        self._write_to = [self.outside] if chosen else [self.dataset_dir, self.outside]
        self._announced = False

    def find(self, filename: str) -> Path | None:
        """Return the path of a file written before, in the cache or beside the data."""
        folders = dict.fromkeys([*self._write_to, self.dataset_dir])
        return next((path for f in folders if (path := f / filename).is_file()), None)

    def versions(self, filename: str) -> list[Path]:
        """Return the paths of all files of a name, in the cache and beside the data, oldest first.

        There are two where the data folder was read-only, or `DPLQ_CACHE` set, for some time.
        """
        folders = dict.fromkeys([*self._write_to, self.dataset_dir])
        found = [path for f in folders if (path := f / filename).is_file()]
        return sorted(found[::-1], key=lambda path: path.stat().st_mtime_ns)

    def write(self, filename: str, payload: Any) -> Path:
        """Write a JSON file atomically.

        Returns:
            Its path.

        Raises:
            UserError: no folder is writable.
        """
        for folder in self._write_to:
            try:
                write_json(folder / filename, payload)
            except OSError as error:
                problem = error
                continue
            if folder == self.outside and not self._announced:
                logger.info("Split and caches of %s go to %s", self.dataset_dir, folder)
                self._announced = True
            return folder / filename
        raise UserError(
            f"Cannot write {filename} to {' or '.join(map(str, self._write_to))}: "
            f"{problem.strerror or problem}. Set DPLQ_CACHE to a folder that can be written to."
        )


def read_json(path: Path, remedy: str = "delete it") -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        remedy: what to do if it cannot be repaired.

    Raises:
        UserError: it cannot be read, is not JSON, or has a key twice, of which one would be lost.
    """
    try:
        # Windows begins UTF-8 with a byte order mark
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as JSON: {error}. Repair it, or {remedy}."
        ) from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key '{twice}' is there twice")
    return content


def write_json(path: Path, payload: Any) -> None:
    """Write a JSON file atomically; make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(payload), encoding="utf-8")
