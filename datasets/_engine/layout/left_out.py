"""What folders hold besides the images that are used, in words."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from dplq.errors import few
from dplq.images.reader import EXTENSIONS

from .folders import is_dead_link
from .names import unsupported


def dead_links(folder: str, others: Iterable[str]) -> list[str]:
    """Return the links that lead to no file; one in place of a class folder is no class.

    Args:
        folder: that the paths begin in.
        others: paths of what is no image.
    """
    return [path for path in others if is_dead_link(os.path.join(folder, path))]


def devices(folder: str, others: Iterable[str]) -> list[str]:
    """Return what is called like an image and is no file: pipes, devices."""
    named = {path for path in others if path.lower().endswith(EXTENSIONS)}
    return sorted(named - set(dead_links(folder, named)))


def left_out(folder: str, others: Sequence[str], masks: Sequence[str]) -> list[str]:
    """Return a line for each kind of file that looks like data, but is not used.

    Args:
        folder: that the paths begin in.
        others: paths of what is no image.
        masks: paths of segmentations.
    """
    lines = []
    if counts := unsupported([path.rsplit("/", 1)[-1] for path in others]):
        kinds = few(f"{count} {extension}" for extension, count in counts.items())
        lines.append(f"left out: files of a kind that is not read: {kinds}")
    for one, several, paths in (
        ("link leads to no file", "links lead to no file", dead_links(folder, others)),
        (
            "is called like an image, but is a pipe or device",
            "are called like images, but are pipes or devices",
            devices(folder, others),
        ),
        ("mask", "masks", masks),
    ):
        if paths:
            what = one if len(paths) == 1 else several
            lines.append(f"left out: {len(paths)} {what}: {few(paths, 3)}")
    return lines
