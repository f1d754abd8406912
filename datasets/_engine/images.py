"""Validate the images of a dataset before a run fails on one hours later.

Every image that a run will use is decoded once. The good ones are cached by relative path, size,
modification time and reader's settings, with what they hold, so that later runs only read the
file's metadata. A checksum of the cache keeps a damaged entry from passing for a good image.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
from tqdm import tqdm

from dplq.errors import UserError, few
from dplq.images.reader import (
    ImageFacts,
    UnreadableImage,
    read_with_facts,
    reading_key,
)
from dplq.images.settings import DEFAULTS, ReadSettings
from dplq.images.stored import WindowNeeded
from dplq.images.summary import Summary
from dplq.io.files import bytes_digest
from dplq.io.validation.schema import read_json

from .layout.folders import CHECKED_FILE
from .store import Store

logger = logging.getLogger(__name__)


def examine(path: str, settings: ReadSettings) -> ImageFacts | str:
    """Decode an image in full, as a data loader will; return what it holds, or the problem."""
    try:
        return read_with_facts(path, settings)[1]
    except UnreadableImage as error:
        return error.problem


class ImageCheck:
    """Validator of images with a cache of the good ones.

    Args:
        image_dir: what paths are relative to.
        store: where the cache is kept; without a writable folder, it is not kept.
        settings: of the reader.

    Attributes:
        facts: what the good images hold that `broken` was asked for, by path.
    """

    def __init__(self, image_dir: str, store: Store, settings: ReadSettings = DEFAULTS) -> None:
        self.image_dir, self.store, self.settings = image_dir, store, settings
        self.facts: dict[str, ImageFacts] = {}
        self._key = reading_key(settings)
        self._entries = self._load_cache()

    def broken(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the problem of each image that cannot be read.

        Args:
            paths: images to decode, unless the cache has them.

        Returns:
            Problem by relative path, sorted by path.
        """
        stamps = {path: self._stamp(path) for path in sorted(set(paths))}
        known = {path: self._cached(path, stamp) for path, stamp in stamps.items()}
        todo = [path for path, facts in known.items() if facts is None]
        examine_one = partial(examine, settings=self.settings)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes GIL-free
            results = pool.map(examine_one, (os.path.join(self.image_dir, p) for p in todo))
            bar = tqdm(results, "Checking images", len(todo), leave=False, disable=None)
            found = dict(zip(todo, bar, strict=True))
        good = {path: facts for path, facts in found.items() if not isinstance(facts, str)}
        self.remember(good)
        self.facts = {path: f for path, f in known.items() if f is not None} | good
        return {path: problem for path, problem in found.items() if isinstance(problem, str)}

    def remember(self, good: Mapping[str, ImageFacts]) -> None:
        """Keep the facts of images that have been read for later runs."""
        self._entries |= {path: [*self._stamp(path), list(facts)] for path, facts in good.items()}
        if good:
            self._save_cache()

    def _stamp(self, path: str) -> list[Any]:
        status = os.stat(os.path.join(self.image_dir, path))
        return [status.st_size, status.st_mtime_ns, self._key]

    def _cached(self, path: str, stamp: list[Any]) -> ImageFacts | None:
        """Return the facts of an image that is unchanged; entries of older versions have none."""
        entry = self._entries.get(path)
        if not isinstance(entry, list) or entry[:-1] != stamp:
            return None
        return _facts_from(entry[-1])

    def _load_cache(self) -> dict[str, Any]:
        path = None
        try:
            path = self.store.find(CHECKED_FILE)
            if path is None:
                return {}
            cached: _Cache | None = read_json(path, _Cache)
        except UserError:
            cached = None
        if cached is None or cached.checksum != _checksum(cached.images):
            logger.warning(
                "%s is damaged, or of an earlier version: the images are checked again", path
            )
            return {}
        return cached.images

    def _save_cache(self) -> None:
        content = {"checksum": _checksum(self._entries), "images": self._entries}
        with contextlib.suppress(UserError):  # only time is lost: the next run decodes again
            self.store.write(CHECKED_FILE, content)


class _Cache(msgspec.Struct):
    """Content of the cache: facts by relative path, and their digest."""

    checksum: str
    images: dict[str, Any]


def _checksum(entries: Mapping[str, Any]) -> str:
    """Return the digest of the cache's entries, in hex."""
    return bytes_digest(json.dumps(entries, sort_keys=True).encode(), "blake2b-128")


def _facts_from(stored: Any) -> ImageFacts | None:
    """Return facts from JSON, None if they are damaged."""
    try:
        facts = ImageFacts(*stored)
        most, span = (pair and (pair[0], pair[1]) for pair in (facts.most, facts.span))
        return facts._replace(steps=tuple(map(str, facts.steps)), most=most, span=span)
    except (TypeError, IndexError):
        return None


def describe_problems(problems: Mapping[str, str]) -> str:
    """Return the problems of files on one line, the files with the same one together."""
    windows: dict[str, WindowNeeded] = {}  # by kind: all images of a run have one window
    for problem in problems.values():
        if isinstance(problem, WindowNeeded):
            windows[problem.kind] = problem.together(windows.get(problem.kind, problem))
    files: dict[str, list[str]] = {}
    for path, problem in problems.items():
        common = windows[problem.kind] if isinstance(problem, WindowNeeded) else problem
        files.setdefault(common, []).append(path)
    return few([f"{few(paths, 3)}: {problem}" for problem, paths in files.items()], 3, "; ")


def report_images(
    name: str, check: ImageCheck | None, settings: ReadSettings
) -> dict[str, Any] | None:
    """Log what the images of a run are and what was done to them.

    Args:
        name: of the dataset.
        check: that has examined them; None: they have not been.
        settings: of the reader.

    Returns:
        The summary, as in results.json; None without a check.

    Raises:
        UserError: data of more than 8 bits use a small part of their range.
    """
    if check is None:
        logger.info(
            "%s: DATASET.CHECK_IMAGES is False, so conversions of images (depth, alpha, "
            "orientation, frames) are not reported",
            name,
        )
        return None
    summary = Summary(check.facts.values())
    logger.info("%s: images: %s", name, summary.in_words())
    if problem := summary.unused_range(settings):
        raise UserError(f"{name}: {problem}")
    if problem := summary.beyond_window(settings):
        logger.warning("%s: %s", name, problem)
    return summary.as_dict()
