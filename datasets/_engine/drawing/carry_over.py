"""Keeping images in the part they were drawn into, when a dataset changes.

A stored split is the memory of a draw. A new split takes from it the part of every image that it
knows, so that reordering, renaming, adding or dropping classes moves no image from train to test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from ..protocol import Split, by_place
from .recognition import first_part


def parts_of(split: Split) -> dict[str, str]:
    """Return the part of every image by its path; of an image in two, the first."""
    return {i.path: part for part in Split._fields[::-1] for i in getattr(split, part)}


def torn_groups(split: Split, groups: Mapping[str, str], drawn: Collection[str]) -> set[str]:
    """Return the groups that are in more than one of the parts that were drawn."""
    found = _group_parts(
        ((path, part) for path, part in parts_of(split).items() if part in drawn), groups
    )
    return {group for group, parts in found.items() if len(parts) > 1}


def carry_over(
    fresh: Split,
    earlier: Mapping[str, str],
    groups: Mapping[str, str],
    drawn: Collection[str] = Split._fields,
) -> Split:
    """Return the new split with every image in the part that it had before.

    Args:
        fresh: the new split.
        earlier: the part that an image had, by its path now.
        groups: group by path; all images of a group go into one part, the first of train, val and
            test that any of them had.
        drawn: the parts between which images were drawn; the others are given by folders.
    """
    by_group = _group_parts(earlier.items(), groups)
    result = Split([], [], [])
    for part in Split._fields:
        for item in getattr(fresh, part):
            group = groups.get(item.path, "")
            before = earlier.get(item.path, "")
            if by_group.get(group):
                before = first_part(by_group[group])
            kept = before if before and {before, part} <= set(drawn) else part
            getattr(result, kept).append(item)
    return Split(*(sorted(items, key=by_place) for items in result))


def _group_parts(
    parts: Iterable[tuple[str, str]], groups: Mapping[str, str]
) -> dict[str, set[str]]:
    found = defaultdict(set)
    for path, part in parts:
        if groups.get(path):
            found[groups[path]].add(part)
    return dict(found)
