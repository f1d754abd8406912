"""Keeping images in the part they were drawn into, when the classes of a dataset change.

A stored split is the memory of a draw. A new split takes from it the part of every image that it
knows, so that reordering, renaming, adding or dropping classes moves no image from train to test.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

from ..protocol import Item, Split


def parts_of(split: Split) -> dict[str, str]:
    """Return the part of every image by its path."""
    return {i.path: part for part in Split._fields for i in getattr(split, part)}


def carry_over(
    fresh: Split,
    earlier: Mapping[str, str],
    groups: Mapping[str, str],
    drawn: Collection[str] = Split._fields,
) -> Split:
    """Return the new split with every image in the part that it had before.

    Args:
        fresh: the new split.
        earlier: part by path, from the stored split. A folder that is not in `fresh` any more
            counts for a new folder with mostly the same file names: it was renamed.
        groups: group by path; a new image joins the part of its group.
        drawn: the parts between which images were drawn; the others are given by folders.
    """
    now = [(item, part) for part in Split._fields for item in getattr(fresh, part)]
    known = dict(earlier) | renamed([item.path for item, _ in now], earlier)
    group_parts = {groups[path]: part for path, part in known.items() if path in groups}
    result = Split([], [], [])
    for item, part in now:
        before = known.get(item.path) or group_parts.get(groups.get(item.path, ""))
        kept = before if before and {before, part} <= set(drawn) else part
        getattr(result, kept).append(item)
    return Split(*(sorted(items, key=_place) for items in result))


def _place(item: Item) -> tuple[int, str]:
    return item.label, item.path


def renamed(paths: Iterable[str], earlier: Mapping[str, str]) -> dict[str, str]:
    """Return the part of images in renamed folders, by their new path."""
    new, old = _by_folder(paths), _by_folder(earlier)
    free = {folder: names for folder, names in old.items() if folder not in new}
    found: dict[str, str] = {}
    for folder, names in sorted(new.items()):
        if folder in old or not free:
            continue
        shared = Counter({other: len(names & theirs) for other, theirs in free.items()})
        (other, count), *_ = shared.most_common(1)
        if 2 * count > len(names):
            theirs = free.pop(other)
            found |= {f"{folder}/{n}": earlier[f"{other}/{n}"] for n in names & theirs}
    return found


def _by_folder(paths: Iterable[str]) -> dict[str, set[str]]:
    folders: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, _, name = path.rpartition("/")
        folders[folder].add(name)
    return folders
