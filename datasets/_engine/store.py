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
from dplq.io.validation.paths import is_file

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
        digest = bytes_digest(os.fsencode(os.path.realpath(dataset_dir)))[:12]
        self.dataset_dir = Path(dataset_dir)
        self.outside = cache_root() / f"{name}-{digest}"
        chosen = os.environ.get("DPLQ_CACHE", "")
        self._write_to = [self.outside] if chosen else [self.dataset_dir, self.outside]
        self._announced = False

    def find(self, filename: str) -> Path | None:
        """Return the path of a file written before, in the cache or beside the data.

        Raises:
            UserError: something else has its name.
        """
        folders = dict.fromkeys([*self._write_to, self.dataset_dir])
        return next((path for f in folders if is_file(path := f / filename)), None)

    def versions(self, filename: str) -> list[Path]:
        """Return the paths of all files of a name, in the cache and beside the data, oldest first.

        There are two where the data folder was read-only, or `DPLQ_CACHE` set, for some time.

        Raises:
            UserError: something else has its name.
        """
        folders = dict.fromkeys([*self._write_to, self.dataset_dir])
        found = [path for f in folders if is_file(path := f / filename)]
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


def write_json(path: Path, payload: Any) -> None:
    """Write a JSON file atomically; make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(payload), encoding="utf-8")
