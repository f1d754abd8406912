"""Find images that cannot be decoded before a run trips over them hours later.

Every image that a run will use is decoded once. What was found good is remembered by relative
path, size and modification time, so later runs only look at the file's metadata.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from PIL import Image
from tqdm import tqdm

from dplq.errors import UserError

from .store import Store, read_json

MEMORY_NAME = "images_checked.json"


def decode_problem(path: str) -> str:
    """Decode an image in full, as a data loader will. Returns what is wrong, "" if nothing."""
    try:
        with Image.open(path) as image:
            image.convert("RGB")
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged data
        return f"{type(error).__name__}: {error}".replace(path, os.path.basename(path))
    return ""


class ImageCheck:
    """Decodes images and remembers the good ones.

    Args:
        image_dir: what paths are relative to.
        store: where the memory is kept; without a place to write, it is not kept.
    """

    def __init__(self, image_dir: str, store: Store) -> None:
        self.image_dir = image_dir
        self.store = store
        self.good = self._recall()

    def broken(self, paths: Iterable[str]) -> dict[str, str]:
        """Check the images at `paths`.

        Returns:
            What is wrong with each image that cannot be decoded, by relative path, sorted.
        """
        stamps = {path: self._stamp(path) for path in sorted(set(paths))}
        todo = [path for path, stamp in stamps.items() if self.good.get(path) != stamp]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes GIL-free
            results = pool.map(decode_problem, (os.path.join(self.image_dir, p) for p in todo))
            bar = tqdm(results, "Checking images", len(todo), leave=False, disable=None)
            problems = dict(zip(todo, bar, strict=True))
        self.good |= {path: stamps[path] for path, problem in problems.items() if not problem}
        if any(not problem for problem in problems.values()):
            self._remember()
        return {path: problem for path, problem in problems.items() if problem}

    def _stamp(self, path: str) -> list[int]:
        status = os.stat(os.path.join(self.image_dir, path))
        return [status.st_size, status.st_mtime_ns]

    def _recall(self) -> dict[str, list[int]]:
        path = self.store.find(MEMORY_NAME)
        try:
            memory = read_json(path) if path else {}
        except UserError:
            return {}
        return memory if isinstance(memory, dict) else {}

    def _remember(self) -> None:
        try:
            self.store.write(MEMORY_NAME, self.good)
        except UserError:
            pass  # only time is lost: the next run decodes again
