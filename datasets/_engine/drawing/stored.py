"""The stored split: reading it, bringing it up to date, and what it remembers.

Beside the three parts it holds the marks of their images (`contents`), and the images that are not
used any more (`earlier`), so that all are known again wherever they turn up.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from dplq.errors import UserError, few
from dplq.io.validation.schema import Name, read_json

from ..entries import repeated_names
from ..protocol import Split, check_split
from ..splits import classes_of, find_image_dir, read_split
from ..store import Store
from .carry_over import carry_over, parts_of, torn_groups
from .contents import Contents
from .draft import Draft
from .recognition import Known, recognize

logger = logging.getLogger(__name__)
_REPAIR = "Repair it, or delete that entry."


class _Memory(msgspec.Struct):
    """What a stored split holds beside the parts.

    Attributes:
        contents: mark by path, see `contents.py`.
        earlier: path, part and mark of images that were in an earlier split.
    """

    contents: dict[Name, str] = msgspec.field(default_factory=dict)
    earlier: list[tuple[Name, Literal["train", "val", "test"], str]] = msgspec.field(
        default_factory=list
    )


def read_or_store(
    store: Store, filename: str, draft: Draft, groups: Mapping[str, str]
) -> tuple[Path, Split]:
    """Return the stored split, brought up to date; the new one where there is none.

    Args:
        store: of the dataset.
        filename: of the split.
        draft: the split that would be drawn now.
        groups: group by path.

    Raises:
        UserError: the stored file is damaged, or images of it are gone.
    """
    image_dir, fresh, drawn = draft
    versions = store.versions(filename)
    contents = Contents(image_dir)
    if not versions:
        return _write(store, filename, fresh, [], contents), fresh
    path = versions[-1]
    same = repeated_names(classes_of(fresh))
    stored = read_split(path, same_names=same)
    known = read_known(versions, stored, same)
    found = recognize([item.path for part in fresh for item in part], known, contents)
    torn = torn_groups(stored, groups, drawn)
    if drawn == Split._fields and not torn and _still_holds(stored, fresh, found, image_dir):
        find_image_dir(stored, path, [image_dir])
        new = sum(map(len, fresh)) - sum(map(len, stored))
        if new > 0:
            logger.warning("%s: %d images are not in it; delete it to use them", path, new)
        return path, stored
    split = carry_over(fresh, {path: i.part for path, i in found.items()}, groups, drawn)
    _report(path, stored, split, found)
    if torn:
        _require_test(split, path, torn)
    check_split(split, f"{path}, brought up to date")
    if split == stored:
        return path, split
    gone = sorted(set(known) - set(found.values()))
    return _write(store, filename, split, gone, contents), split


def read_known(
    versions: list[Path], latest: Split, same_names: Collection[str] = ()
) -> list[Known]:
    """Return all images that stored splits know.

    Args:
        versions: of one split, oldest first; a later one counts more.
        latest: the content of the last version.
        same_names: as for `read_split`.
    """
    known: dict[tuple[str, str], Known] = {}
    for path in versions:
        memory: _Memory = read_json(path, _Memory, remedy=_REPAIR)
        marks = memory.contents
        earlier = [Known(old, part, mark, False) for old, part, mark in memory.earlier]
        split = latest if path == versions[-1] else read_split(path, same_names=same_names)
        parts = parts_of(split)
        now = [Known(name, part, marks.get(name, "")) for name, part in parts.items()]
        known = {key: image._replace(is_current=False) for key, image in known.items()}
        known |= {(image.path, image.mark): image for image in (*earlier, *now)}
    return list(known.values())


def _still_holds(stored: Split, fresh: Split, found: Mapping[str, Known], image_dir: str) -> bool:
    """Return whether the stored split needs no change; images may have been added, or be gone."""
    now = {item.path: item for part in fresh for item in part}
    items = [item for part in stored for item in part]
    unused = (item.path for item in items if item.path not in now)
    return (
        classes_of(stored) == classes_of(fresh)
        and all(now.get(item.path, item) == item for item in items)
        and all(path == image.path and image.is_current for path, image in found.items())
        and not any(os.path.isfile(os.path.join(image_dir, path)) for path in unused)
    )


def _require_test(split: Split, path: Path, torn: Collection[str]) -> None:
    """Raise if a class has no test image left after groups were brought together."""
    left = {item.label for item in split.test}
    names = {item.label: item.classname for item in split.train if item.label not in left}
    if names:
        raise UserError(
            f"{path} was drawn without today's groups: {len(torn)} of them are in two parts "
            f"({few(sorted(torn), 3)}), and without these class {few(names.values())} has no test "
            "image. Delete the file to have a new split drawn by group, and train again: images "
            "of earlier training may be tested."
        )


def _report(path: Path, stored: Split, split: Split, found: Mapping[str, Known]) -> None:
    """Warn of what has changed since the stored split."""
    names = classes_of(split)
    before = {item.path: item for part in stored for item in part}
    items = {item.path: item for part in split for item in part}
    parts = parts_of(split)
    earlier = {now: image for now, image in found.items() if image.path in before}
    changes = {
        "moved or renamed": sum(image.path != now for now, image in earlier.items()),
        "of another class": sum(
            items[now].classname != before[image.path].classname for now, image in earlier.items()
        ),
        "in the part of their group": sum(
            image.part != parts[now] for now, image in earlier.items()
        ),
    }
    if names != classes_of(stored):
        logger.warning("%s: the classes have changed since; every image stays in its part", path)
        del changes["of another class"]
    texts = [f"{count} {what}" for what, count in changes.items() if count]
    if texts:
        logger.warning("%s: images have changed since it was drawn: %s", path, few(texts))
    known = {image.path for image in found.values()}
    gone = sorted(p for p, item in before.items() if p not in known and item.classname in names)
    if gone:
        logger.warning("%s: %d images are gone or left out: %s", path, len(gone), few(gone, 3))


def _write(
    store: Store, filename: str, split: Split, gone: Sequence[Known], contents: Contents
) -> Path:
    """Store a split, with the images that are not used any more and the marks of all."""
    if not store.is_writable:
        return store.write(filename, split._asdict())
    marks = contents.marks(parts_of(split))
    payload: dict[str, object] = {**split._asdict()}
    payload["contents"] = {path: mark for path, mark in marks.items() if mark}
    if gone:
        payload["earlier"] = [[image.path, image.part, image.mark] for image in gone]
    return store.write(filename, payload)
