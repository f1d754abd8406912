"""Validate the images of a dataset before a run fails on one hours later.

Every image that a run will use is decoded once. The good ones are cached by relative path, size and
modification time, so that later runs only read the file's metadata.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from PIL import Image
from tqdm import tqdm

from dplq.errors import UserError

from .folders import CHECKED_FILE
from .store import Store, read_json


def decode_problem(path: str) -> str:
    """Decode an image in full, as a data loader will; return the problem, "" if none."""
    try:
        with Image.open(path) as image:
            image.convert("RGB")
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged data
        return f"{type(error).__name__}: {error}".replace(path, os.path.basename(path))
    return ""


class ImageCheck:
    """Validator of images with a cache of the good ones.

    Args:
        image_dir: what paths are relative to.
        store: where the cache is kept; without a writable folder, it is not kept.
    """

    def __init__(self, image_dir: str, store: Store) -> None:
        self.image_dir = image_dir
        self.store = store
        self.good = self._load_cache()

    def broken(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the problem of each image that cannot be decoded.

        Args:
            paths: images to decode, unless the cache has them.

        Returns:
            Problem by relative path, sorted by path.
        """
        stamps = {path: self._stamp(path) for path in sorted(set(paths))}
        todo = [path for path, stamp in stamps.items() if self.good.get(path) != stamp]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes GIL-free
            results = pool.map(decode_problem, (os.path.join(self.image_dir, p) for p in todo))
            bar = tqdm(results, "Checking images", len(todo), leave=False, disable=None)
            problems = dict(zip(todo, bar, strict=True))
        self.good |= {path: stamps[path] for path, problem in problems.items() if not problem}
        if any(not problem for problem in problems.values()):
            self._save_cache()
        return {path: problem for path, problem in problems.items() if problem}

    def _stamp(self, path: str) -> list[int]:
        status = os.stat(os.path.join(self.image_dir, path))
        return [status.st_size, status.st_mtime_ns]

    def _load_cache(self) -> dict[str, list[int]]:
        path = self.store.find(CHECKED_FILE)
        try:
            cached = read_json(path) if path else {}
        except UserError:
            return {}
        return cached if isinstance(cached, dict) else {}

    def _save_cache(self) -> None:
        with contextlib.suppress(UserError):  # only time is lost: the next run decodes again
            self.store.write(CHECKED_FILE, self.good)
