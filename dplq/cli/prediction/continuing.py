"""Which images an output file has already, and whether they are still what it says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dplq.errors import UserError, few, printable

from .inputs import ClassFinder, InputImage, Places
from .output import Output


def remaining(
    images: Sequence[InputImage],
    output: Output,
    label_of: ClassFinder,
    *,
    out: Path,
    folder: str,
    written: float,
) -> list[InputImage]:
    """Return the images that an output file does not have.

    Args:
        images: all.
        output: what is written to.
        label_of: finds the labels.
        out: path of the file.
        folder: that relative paths in it are from.
        written: when its last row was, in seconds since the epoch.

    Raises:
        UserError: an image was changed after that, it has another label or group than the file
            says, or its path is relative to another folder.
    """
    place_there, place_here = Places(folder), Places()
    known = {
        place_there(path): known for path, known in zip(output.done, output.known, strict=True)
    }
    todo, changed, newer = [], [], []
    for image in images:
        row = known.get(place_here(image.path))
        if row is None:
            todo.append(image)
            continue
        if os.path.isfile(image.path) and os.path.getmtime(image.path) > written:
            newer.append(image.path)
        # an image without a label, as of a folder, contradicts nothing
        has_label = image.label and label_of(image) != row.label
        if has_label or (image.group and output.has_groups and image.group != row.group):
            changed.append(image.path)
    if newer:
        raise UserError(
            f"{len(newer)} of the images are newer than {out}, which has rows of what they were: "
            f"{few(map(printable, newer), 3)}. Give another --out, or --overwrite to begin anew; "
            f"if they are the same images, set the file's time (touch {out}) and go on."
        )
    if changed:
        raise UserError(
            f"{len(changed)} of {len(known)} images in {out} have another label or group now: "
            f"{few(map(printable, changed), 3)}. Give another --out, or --overwrite to begin anew."
        )
    relative = [image.path for image in todo if not os.path.isabs(image.path)]
    if known and relative and os.path.realpath(folder) != os.path.realpath("."):
        raise UserError(
            f"Relative paths in {out} are from {os.path.relpath(folder)}, not from here "
            f"({few(map(printable, relative), 3)}). Run the command there, or give whole paths or "
            "another --out."
        )
    return todo
