"""The few-shot protocol of the CoOp family: split, sample shots, select classes.

Pure functions on names and numbers: no image is opened, no folder is listed, no global random
state is read. Everything drawn is a function of the split and a seed alone, so that the first run,
a later one and another machine use the same images. (But for a run of version 0.1.0 that is
resumed: `dplq.training.seeding.drawing`.)

Deliberate deviations from CoOp and its relatives, which draw from Python's global generator, so
that their images depend on which run came first and on the order of a directory listing:

* the split has its own fixed seed, and an image is drawn by the name of its class folder and file,
  never by a position: other classes, their order and their prompts change nothing;
* the shots of a class are the beginning of one seeded permutation, so they are *nested*: the
  1-shot images of a seed are among its 4-shot images.
"""

from __future__ import annotations

import logging
import posixpath
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, TypeVar

from dplq.errors import UserError, shown, suggest
from dplq.evaluation.halves import base_count
from dplq.io.files import bytes_digest
from dplq.io.runs.results import SUBSETS
from dplq.training.seeding import BY_NAME, current_draw

logger = logging.getLogger(__name__)
T = TypeVar("T")

SPLIT_SEED = 1
FRACTIONS = (0.5, 0.2)  # of train and val; the rest is test
MAX_VAL_SHOTS = 4


class Item(NamedTuple):
    """One image: POSIX path relative to the image folder, 0-based label, prompt name."""

    path: str
    label: int
    classname: str


class Split(NamedTuple):
    """The three parts of a dataset."""

    train: list[Item]
    val: list[Item]
    test: list[Item]


def draw_key(name: str, *seed: object) -> str:
    """Return what decides the place of a name in a random order: a hash of seed and name."""
    return bytes_digest("/".join(map(str, (*seed, name))).encode(), "blake2b-128")


def in_random_order(items: Iterable[T], *seed: object, name: Callable[[T], str]) -> list[T]:
    """Return the items in an order that depends on each one's name and the seed alone.

    Adding or removing others leaves the order of the rest as it is. Items of one name keep theirs.
    """
    return sorted(items, key=lambda item: (draw_key(name(item), *seed), name(item)))


def drawn_by(path: str) -> str:
    """Return the name by which an image is drawn: its path without the extension.

    So a folder that is converted to another kind of file has the same split and the same shots.
    """
    return posixpath.splitext(path)[0]


def _item_drawn_by(item: Item) -> str:
    return drawn_by(item.path)


def by_place(item: Item) -> tuple[int, str]:
    """Return the key of the order of a split: label, then path."""
    return item.label, item.path


def all_as_test(items: Iterable[Item]) -> Split:
    """Return the split in which every image is test; Dassl takes the classes from train."""
    every = sorted(set(items), key=by_place)
    return Split(every, [], every)


def split_digest(split: Split) -> str:
    """Return the hash of which image is in which part, 16 hex digits; labels do not count."""
    lines = sorted(f"{part} {i.path}" for part in Split._fields for i in getattr(split, part))
    return bytes_digest("\n".join(lines).encode(), "blake2b-128")[:16]


def split_sizes(n: int, fractions: Sequence[float] = FRACTIONS) -> tuple[int, int, int]:
    """Return the sizes of train, val and test of a class of `n` images.

    Args:
        n: number of images.
        fractions: of train and of val; the rest is test. `round` is Python's, to even at one
            half, as in CoOp's `read_and_split_data`: 5 images are cut into 2, 1, 2.
    """
    train, val = (round(n * fraction) for fraction in fractions)
    return train, val, n - train - val


def split_classes(
    items: Iterable[Item], source: str, fractions: Sequence[float] = FRACTIONS
) -> Split:
    """Split every class into train, val and test.

    Args:
        items: all images.
        source: the name of the data in an error message, e.g. ``"RSSCN7 in /data/RSSCN7"``.
        fractions: see `split_sizes`.

    Returns:
        The split; the parts are ordered by label, then by path.

    Raises:
        UserError: a class is too small for three parts that are not empty (with the default
            fractions: fewer than 4 images).
    """
    classes = by_label(items)
    sizes = {label: split_sizes(len(group), fractions) for label, group in classes.items()}
    small = [
        f"'{group[0].classname}' ({len(group)})"
        for label, group in classes.items()
        if min(sizes[label]) < 1
    ]
    if small:
        raise UserError(
            f"{source}: too few images to split into train, val and test in class "
            f"{', '.join(small)}. Every class needs at least 4: add images, remove the class, or "
            "provide a split file."
        )
    split = Split([], [], [])
    for label, group in classes.items():
        shuffled = in_random_order(sorted(group), "split", SPLIT_SEED, name=_item_drawn_by)
        start = 0
        for part, size in zip(split, sizes[label], strict=True):
            part += sorted(shuffled[start : start + size])
            start += size
    return split


def by_label(items: Iterable[Item]) -> dict[int, list[Item]]:
    """Return the items by label; labels ascend, the order within a class is kept."""
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return dict(sorted(groups.items()))


def draw_shots(
    items: Iterable[Item], shots: int, *seed: object, leave_out: Collection[str] = ()
) -> list[Item]:
    """Return up to `shots` images of every class, by label, in the order drawn.

    Args:
        items: one part of a split.
        shots: images per class; below 1 nothing is drawn and all are returned.
        seed: of the draw. Another `shots` with the same seed gives a prefix or a continuation.
        leave_out: paths not to use. The next ones of the permutation replace them, the
            others stay.
    """
    if shots < 1:
        return [item for item in items if item.path not in leave_out]
    drawn: list[Item] = []
    for label, group in by_label(items).items():
        if current_draw() == BY_NAME:
            order = in_random_order(sorted(group), "shots", *seed, name=_item_drawn_by)
        else:
            order = _in_order_of_0_1_0(sorted(group), "shots", *seed, label)
        drawn += [item for item in order if item.path not in leave_out][:shots]
    return drawn


def _in_order_of_0_1_0(items: Sequence[Item], *seed: object) -> list[Item]:
    """Return the items in an order that depends on their number and the label."""
    generator = random.Random("/".join(map(str, seed)))
    return sorted(items, key=lambda _: generator.random())


def few_shot(split: Split, shots: int, seed: int, leave_out: Collection[str] = ()) -> Split:
    """Return the few-shot sample of a split: `shots` per class in train, at most 4 in val.

    Test is never reduced. It is drawn over *all* classes, so base, new and all runs of one seed
    share their images. A class with fewer images contributes all of them.

    Args:
        split: the full split.
        shots: `cfg.DATASET.NUM_SHOTS`; below 1 the split is returned in full.
        seed: `cfg.SEED`.
        leave_out: paths not to use, e.g. images that cannot be decoded.
    """
    chosen = Split(
        draw_shots(split.train, shots, seed, "train", leave_out=leave_out),
        draw_shots(split.val, min(shots, MAX_VAL_SHOTS), seed, "val", leave_out=leave_out),
        draw_shots(split.test, 0, leave_out=leave_out),
    )
    short = [
        f"'{group[0].classname}' ({len(group)})"
        for group in by_label(chosen.train).values()
        if len(group) < shots
    ]
    if short:
        logger.warning(
            "%d shots per class, but class %s has fewer: using all", shots, ", ".join(short)
        )
    return chosen


def take_subset(split: Split, which: str) -> Split:
    """Return the images of all, the base or the new classes; labels count from 0 again.

    Args:
        split: any split.
        which: `cfg.DATASET.SUBSAMPLE_CLASSES`: `all`; `base`, the first `base_count`
            labels present in train; `new`, the others.

    Raises:
        UserError: another value, or only one class, which leaves no new one.
    """
    if which not in SUBSETS:
        raise UserError(f"DATASET.SUBSAMPLE_CLASSES is '{which}'.{suggest(which, SUBSETS)}")
    if which == "all":
        return split
    labels = list(by_label(split.train))
    half = base_count(len(labels))
    kept = labels[:half] if which == "base" else labels[half:]
    if not kept:
        raise UserError("DATASET.SUBSAMPLE_CLASSES is 'new', but one class has no new half.")
    relabel = {old: new for new, old in enumerate(kept)}
    return Split(
        *(
            [item._replace(label=relabel[item.label]) for item in part if item.label in relabel]
            for part in split
        )
    )


def check_split(split: Split, source: str, whole: Split | None = None) -> None:
    """Raise if Dassl would misread a split.

    Args:
        split: the split; its labels may come from a file.
        source: its name in an error message.
        whole: the split that it is a selection of; it must have the classes of this one.

    Raises:
        UserError: labels that are not 0..K-1, one label under two names, or a class without any
            image in train or in test.
    """
    names: dict[int, str] = {}
    for item in (item for part in whole or split for item in part):
        if names.setdefault(item.label, item.classname) != item.classname:
            raise UserError(
                f"{source}: label {item.label} is called both {shown(names[item.label])} and "
                f"{shown(item.classname)}. Give every label one class name."
            )
    if sorted(names) != list(range(len(names))) or not names:
        raise UserError(
            f"{source}: the labels must be 0, 1, ..., K-1, found {sorted(names) or 'no image'}."
        )
    for title, part in (("train", split.train), ("test", split.test)):
        absent = sorted(set(names) - {item.label for item in part})
        if absent:
            raise UserError(
                f"{source}: no {title} image for class "
                f"{', '.join(repr(names[label]) for label in absent)}. Add images or remove the "
                "class."
            )
