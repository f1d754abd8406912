"""Groups from sub-folders: `class/patient/*.png`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Steps = tuple[str, ...]


def groups_from_subfolders(
    images: Sequence[Sequence[str]], depth: int
) -> tuple[dict[str, str], list[int]]:
    """Return the group of every image in a sub-folder of its class folder.

    The groups are the folders of the first level at which every class with sub-folders has two of
    them or more; without such a level, of the one at which most classes have. A folder name means
    the same group in all classes.

    Args:
        images: POSIX paths per class.
        depth: number of steps in them before the sub-folders, that of the class folder included.

    Returns:
        Group by path, and the labels whose images are in one sub-folder alone: these have no
        groups.
    """
    inner = [{path: tuple(path.split("/")[depth:-1]) for path in paths} for paths in images]
    nested = [label for label, paths in enumerate(inner) if any(paths.values())]
    if not nested:
        return {}, []
    levels = range(1, 1 + max(len(steps) for paths in inner for steps in paths.values()))
    counts = {
        level: [len(_names(inner[label].values(), level)) for label in nested] for level in levels
    }
    best = max(levels, key=lambda level: (sum(n > 1 for n in counts[level]), -level))
    single = [label for label, n in zip(nested, counts[best], strict=True) if n < 2]
    groups = {
        path: "/".join(steps[:best])
        for label in nested
        if label not in single
        for path, steps in inner[label].items()
        if steps
    }
    return groups, single


def _names(folders: Iterable[Steps], level: int) -> set[Steps]:
    return {steps[:level] for steps in folders if steps}
