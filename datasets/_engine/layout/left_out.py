"""What folders hold besides the images that are used, in words."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from dplq.errors import few
from dplq.images.dicom import is_dicom
from dplq.images.reader import EXTENSIONS

from .folders import is_dead_link
from .names import unsupported

_MAY_BE_DICOM = re.compile(r"[^.].*\.[0-9]+|[^.]+")  # no ending, or a number


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


def dicom_files(folder: str, others: Iterable[str]) -> list[str]:
    """Return the DICOM files that do not end as such: archives call them slice_0, or by a number.

    Args:
        folder: that the paths begin in.
        others: paths of what is no image by its name.
    """
    found = []
    for path in others:
        name = path.rpartition("/")[2]
        if _MAY_BE_DICOM.fullmatch(name) and _is_dicom(os.path.join(folder, path)):
            found.append(path)
    return found


def _is_dicom(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return is_dicom(file.read(132))
    except OSError:  # what reads the folder says so
        return False


def left_out(folder: str, others: Sequence[str], masks: Sequence[str]) -> list[str]:
    """Return a line for each kind of file that looks like data, but is not used.

    Args:
        folder: that the paths begin in.
        others: paths of what is no image.
        masks: paths of segmentations.
    """
    lines = []
    dicom = dicom_files(folder, others)
    if dicom:
        lines.append(
            f"left out: {len(dicom)} DICOM without an ending ({few(dicom, 3)}): rename them to .dcm"
        )
    rest = set(others).difference(dicom)
    if counts := unsupported(path.rsplit("/", 1)[-1] for path in rest):
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
