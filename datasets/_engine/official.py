"""Official splits: train, val and test folders, or lists of file names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from dplq.errors import UserError, printable
from dplq.io.validation.schema import read_text

from .entries import check_labels, check_paths
from .layout.folders import ClassTable
from .layout.layouts import Layout
from .layout.listing import Listing
from .protocol import SPLIT_SEED, Item, Split, by_label, by_place, drawn_by, in_random_order

VAL_FRACTION = 0.2  # of train, where there is no val folder: CoOp's `split_trainval`
VAL_SOURCES = ("train", "test", "half")


def labelled(images: Sequence[Sequence[str]], prompts: Sequence[str]) -> list[Item]:
    """Return the paths of every label as items, by label."""
    pairs = zip(images, prompts, strict=True)
    return [Item(path, i, prompt) for i, (paths, prompt) in enumerate(pairs) for path in paths]


def require_parts(layout: Layout, folders: Sequence[str], name: str) -> None:
    """Raise (UserError) if one of the train, val and test folders is missing; "" is none."""
    for folder in filter(None, folders):
        if not os.path.isdir(os.path.join(layout.image_dir, folder)):
            raise UserError(
                f"{name}: {layout.image_dir} has no folder '{folder}', but has "
                f"'{layout.parts[0]}' or '{layout.parts[-1]}'. All of them are needed, or put the "
                "class folders directly there to have them split."
            )


def split_from_folders(listing: Listing, folders: Sequence[str]) -> Split:
    """Return the split given by train, val and test folders; "" for a part that is absent."""
    prompts = listing.table.prompts
    return Split(*(labelled(listing.in_part(f), prompts) if f else [] for f in folders))


def split_from_lists(
    dataset_dir: str, files: Sequence[str], line: str, image: str, table: ClassTable
) -> Split:
    """Return the split given by three text files.

    Args:
        dataset_dir: what files and image paths are relative to.
        files: train, val and test list; "" for a part that is absent.
        line: regular expression that a line matches from its beginning, with a group `class`.
        image: path of the image, a format string of the groups and of `folder`, the first
            folder spelling of the class.
        table: the classes.

    Raises:
        UserError: a file is missing, or a line is not as expected.
    """
    pattern = re.compile(line)

    def item(text: str, path: Path, number: int) -> Item:
        match = pattern.match(text)
        label = table.label_of(match["class"]) if match else None
        if match is None or label is None:
            near = table.nearest(match["class"]) if match else None
            hint = f"Expected: {line}" if near is None else f"Nearest: '{table.folder_of(near)}'"
            raise UserError(
                f"{path}, line {number}: '{printable(text)}' names no known class. {hint}."
            )
        found = image.format(**match.groupdict(), folder=table.folder_of(label))
        return Item(found, label, table.prompts[label])

    def items(path: Path) -> list[Item]:
        lines = read_text(path, remedy="It lists images: get it again.").splitlines()
        return [item(text, path, i) for i, text in enumerate(lines, 1) if text.strip()]

    split = Split(*(items(Path(dataset_dir, file)) if file else [] for file in files))
    for file, part in zip(files, split, strict=True):
        check_paths([i.path for i in part], str(Path(dataset_dir, file)), "get the list again")
    check_labels(split, dataset_dir, "get the lists again")
    return split


def drawn_parts(split: Split, source: str) -> tuple[str, ...]:
    """Return between which parts of a given split `fill_val` draws; none where it has val."""
    assert source in VAL_SOURCES
    if split.val or source == "test":
        return ()
    return ("val", "test") if source == "half" else ("train", "val")


def fill_val(
    split: Split, source: str, name: str, groups: Mapping[str, str] | None = None
) -> Split:
    """Return the split with a val part, made if it has none.

    Args:
        split: any split; one with a val part is returned as it is.
        source: `train` moves a fifth of every class, at least one image, from train to val;
            `half` moves half of test; `test` repeats the test images, as CoOp does for ImageNet.
        name: of the dataset, for messages.
        groups: group by path; a group is moved as a whole, if it is not too large.

    Raises:
        UserError: a class has one training image only.
    """
    if not drawn_parts(split, source):
        return split if split.val else split._replace(val=split.test)
    if source == "half":
        val, rest = _cut(split.test, 0.5, "half", name, groups or {})
        return split._replace(val=val, test=rest)
    val, rest = _cut(split.train, VAL_FRACTION, "val", name, groups or {})
    return split._replace(val=val, train=rest)


def _cut(
    items: list[Item], fraction: float, seed: str, name: str, groups: Mapping[str, str]
) -> tuple[list[Item], list[Item]]:
    """Return a fraction of every class, in whole groups, and the rest."""
    for group in by_label(items).values():
        if len(group) < 2:
            raise UserError(
                f"{name}: class '{group[0].classname}' has one {_PART[seed]} image and there is no "
                "val folder: at least 2 are needed. Add images or a val folder."
            )
    left = Counter(item.label for item in items)
    wanted = Counter({k: max(1, round(fraction * n)) for k, n in left.items()})
    units: dict[str, list[Item]] = {}
    for item in items:
        units.setdefault(groups.get(item.path) or drawn_by(item.path), []).append(item)
    taken: set[str] = set()
    for unit in in_random_order(units, seed, SPLIT_SEED, name=str):
        counts = Counter(item.label for item in units[unit])
        if all(n <= wanted[label] and n < left[label] for label, n in counts.items()):
            taken.add(unit)
            wanted -= counts
            left -= counts
    parts = ([i for u in units if (u in taken) == chosen for i in units[u]] for chosen in (1, 0))
    first, rest = (sorted(part, key=by_place) for part in parts)
    return first, rest


_PART = {"val": "training", "half": "test"}
