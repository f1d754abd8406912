"""Recognition of images that were drawn before: at their place, moved, renamed or edited."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from ..protocol import Split, drawn_by
from .contents import Contents

RANK = {part: rank for rank, part in enumerate(Split._fields)}  # train wins where in doubt


class Known(NamedTuple):
    """An image that was drawn before.

    Attributes:
        path: where it was.
        part: into which it was drawn.
        mark: of its content; "" in splits of version 0.1.0.
        is_current: whether it was in the latest split, not only in earlier ones.
    """

    path: str
    part: str
    mark: str = ""
    is_current: bool = True


def recognize(
    paths: Iterable[str], known: Collection[Known], contents: Contents
) -> dict[str, Known]:
    """Return what is known of every image that was drawn before, by its path now.

    In this order: the same content at the same path; a folder that was renamed; a single image that
    was moved or renamed; other content at the same path, but for the extension, for an image that
    was edited or converted.

    Args:
        paths: of the images now.
        known: images that were drawn before; two may have had one path, one after the other.
        contents: the images now.
    """
    paths = set(paths)
    at_place = _at_place(known, contents)
    found = {path: at_place[path] for path in paths & at_place.keys()}
    strange = paths - found.keys()
    loose = set(known) - set(at_place.values())
    if strange and loose:
        marked = any(image.mark for image in loose)
        marks = contents.marks(strange) if marked else dict.fromkeys(strange, "")
        found |= _moved_folders(marks, loose)
        found |= _moved_images(marks, loose, found)
    return _edited(strange - found.keys(), loose - set(found.values())) | found


def _edited(paths: Collection[str], loose: Iterable[Known]) -> dict[str, Known]:
    """Return the images with other content at the same path, or only another extension."""
    current = {image.path: image for image in loose if image.is_current}
    found = {path: current[path] for path in current.keys() & paths}
    converted = {drawn_by(path): image for path, image in current.items() if path not in found}
    for path in sorted(set(paths) - found.keys()):
        if drawn_by(path) in converted:
            found[path] = converted.pop(drawn_by(path))
    return found


def _at_place(known: Iterable[Known], contents: Contents) -> dict[str, Known]:
    """Return the images that are where they were, by path."""
    found: dict[str, Known] = {}
    for is_current in (False, True):
        images = {image.path: image for image in known if image.is_current == is_current}
        same = contents.unchanged({path: image.mark for path, image in images.items()})
        found |= {path: images[path] for path in same}
    return found


def _moved_folders(marks: Mapping[str, str], loose: Collection[Known]) -> dict[str, Known]:
    """Return the images with the same file name in another folder.

    Folders are paired one to one, those with most files in common first. Files without a mark count
    by their name alone, if most of the folder agrees.
    """
    by_name = defaultdict(list)
    for image in loose:
        by_name[_name(image.path)].append(image)
    pairs: dict[tuple[str, str], dict[str, Known]] = defaultdict(dict)
    for path, mark in marks.items():
        for image in sorted(by_name[_name(path)], key=lambda image: image.is_current):
            if image.mark in ("", mark):
                pairs[_folder(path), _folder(image.path)][path] = image
    sizes = Counter(map(_folder, marks))

    def order(pair: tuple[str, str]) -> tuple[object, ...]:
        images = pairs[pair].values()
        lately = any(image.is_current for image in images)
        return -sum(bool(image.mark) for image in images), -len(images), not lately, pair

    found: dict[str, Known] = {}
    seen: set[tuple[int, str]] = set()
    for pair in sorted(pairs, key=order):
        ends, images = set(enumerate(pair)), pairs[pair]
        certain = any(image.mark for image in images.values())
        if not ends & seen and (certain or 2 * len(images) > sizes[pair[0]]):
            seen |= ends
            found |= images
    return found


def _moved_images(
    marks: Mapping[str, str], loose: Iterable[Known], found: Mapping[str, Known]
) -> dict[str, Known]:
    """Return the other images by their content; of copies, that in train comes first."""
    taken = set(found.values())
    by_mark = defaultdict(list)
    for image in sorted(loose, key=lambda image: (RANK[image.part], image.path), reverse=True):
        if image not in taken:
            by_mark[image.mark].append(image)
    moved = {}
    for path in sorted(marks.keys() - found.keys()):
        if marks[path] and by_mark[marks[path]]:
            moved[path] = by_mark[marks[path]].pop()
    return moved


def first_part(parts: Collection[str]) -> str:
    """Return the part of images that belong together: train if any is in train, then val."""
    return min(parts, key=lambda part: RANK[part])


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]
