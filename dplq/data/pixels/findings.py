"""What the pixels of a dataset reveal before a run: problems and notes."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import comb
from typing import NamedTuple

import numpy as np

from dplq.data.survey import Finding
from dplq.errors import few
from dplq.images.reader import ImageFacts, beyond_window, unused_range
from dplq.images.settings import ReadSettings

from .similarity import near_duplicates
from .statistics import FLAT_SPREAD, Look

WHITE_SHARE = 0.9  # of the pixels; above it an image is saturated
BLACK_SHARE = 0.98  # CT and MRI are black around the body
OUTLIER_RATIO = 4.0  # to the median number of pixels or aspect ratio
TINY_EDGE = 32  # px
MOST, HARDLY = 0.9, 0.1  # shares of a class that has, and of one that lacks, a trait
CHANCE = 0.05  # probability of a difference by chance, over all pairs of classes
SAME_EXTENSION = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}


class _Images(NamedTuple):
    """The statistics of a dataset, with the class of every image."""

    looks: Mapping[str, Look]
    label_of: Mapping[str, int]
    names: Sequence[str]

    def class_of(self, path: str) -> str:
        label = self.label_of.get(path)
        return "no class" if label is None else f"'{self.names[label]}'"

    def by_class(self) -> dict[str, list[str]]:
        """Return the sorted paths of every class that has any, by label."""
        last = len(self.names)
        found: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self.looks, key=lambda path: (self.label_of.get(path, last), path)):
            found[self.class_of(path)].append(path)
        return dict(found)

    def those(self, condition: Callable[[Look], bool]) -> list[str]:
        return sorted(path for path, one in self.looks.items() if condition(one))

    def described(self, paths: Sequence[str], text: Callable[[Look], str]) -> str:
        """Return the first paths with a text each, then the counts per class."""
        rows = few(f"{path} ({text(self.looks[path])})" for path in paths)
        return f"{rows}; {self.counts(paths)}"

    def counts(self, paths: Iterable[str]) -> str:
        """Return the number of images per class, most first."""
        counts = Counter(self.class_of(path) for path in paths).most_common()
        return "per class: " + few(f"{name} {count}" for name, count in counts)


def pixel_findings(
    looks: Mapping[str, Look],
    label_of: Mapping[str, int],
    names: Sequence[str],
    part_of: Mapping[str, str],
    *,
    settings: ReadSettings | None = None,
    already: Collection[frozenset[str]] = (),
) -> tuple[list[Finding], list[str]]:
    """Return the problems and the notes that the pixels of a dataset give.

    Args:
        looks: statistics by path.
        label_of: label by path.
        names: class names by label.
        part_of: train, val or test by path; empty without a split.
        settings: of the reader, None for its defaults.
        already: groups of files with equal bytes, which are reported elsewhere.
    """
    images = _Images(looks, label_of, names)
    if not looks:
        return [], []
    problems = _unused_range(images, settings or ReadSettings())
    problems += _saturated(images) + _constant(images) + _equal_classes(images)
    telling, telling_notes = _telling_formats(images)
    copies, copy_notes = _copies(images, part_of, already)
    notes = [*_kinds(images), *telling_notes, *_conversions(images), *_sizes(images)]
    return [*problems, *telling, *copies], [*notes, *copy_notes]


def _unused_range(images: _Images, settings: ReadSettings) -> list[Finding]:
    facts = [one.facts for one in images.looks.values()]
    if text := unused_range(facts, settings):
        return [Finding(text, "No run starts before this is fixed.")]
    text = beyond_window(facts, settings)
    return [Finding(text, "A run warns of it.")] if text else []


def _saturated(images: _Images) -> list[Finding]:
    found = []
    shares: tuple[tuple[str, float, Callable[[Look], float]], ...] = (
        ("white", WHITE_SHARE, lambda one: one.white),
        ("black", BLACK_SHARE, lambda one: one.black),
    )
    for colour, limit, share in shares:
        full = [path for path in sorted(images.looks) if share(images.looks[path]) > limit]
        full = [path for path in full if not _is_constant(images.looks[path])]
        if full:
            rows = images.described(full, _text_of(share, "{:.1%}"))
            found.append(
                Finding(
                    f"{len(full)} saturated image(s), more than {limit:.0%} of the pixels "
                    f"{colour}: {rows}.",
                    "Open them: values clipped when they were made cannot be restored, so get the "
                    "originals; a wrong INPUT.WINDOW clips too.",
                )
            )
    return found


def _text_of(value: Callable[[Look], float], pattern: str) -> Callable[[Look], str]:
    return lambda one: pattern.format(value(one))


def _is_constant(one: Look) -> bool:
    return one.spread < FLAT_SPREAD


def _constant(images: _Images) -> list[Finding]:
    flat = images.those(_is_constant)
    if not flat:
        return []
    rows = images.described(flat, lambda one: f"grey value {one.mean:.0f}")
    return [
        Finding(
            f"{len(flat)} constant image(s), standard deviation below {FLAT_SPREAD:g} of 255: "
            f"{rows}.",
            "Delete them or get them again; if the values use a small part of the format's range, "
            "set INPUT.WINDOW.",
        )
    ]


def _equal_classes(images: _Images) -> list[Finding]:
    """Report classes whose images are all the same picture; constant ones are reported above."""
    return [
        Finding(
            f"All {len(paths)} images of class {name} have equal pixels: {few(paths, 3)}.",
            "Get the images of this class again.",
        )
        for name, paths in images.by_class().items()
        if len(paths) > 1
        and not _is_constant(images.looks[paths[0]])
        and len({images.looks[path].content for path in paths}) == 1
    ]


def _kinds(images: _Images) -> list[str]:
    """Note the kinds of images, and those of every class if they differ."""
    kinds = Counter(one.facts.kind for one in images.looks.values()).most_common()
    if len(kinds) == 1:
        return [f"All {kinds[0][1]} images are {kinds[0][0]}."]
    total = ", ".join(f"{kind} {count}" for kind, count in kinds)
    rows = []
    for name, paths in images.by_class().items():
        counts = Counter(images.looks[path].facts.kind for path in paths).most_common()
        rows.append(f"{name} " + ", ".join(f"{kind} {count}" for kind, count in counts))
    return [f"Kinds of images: {total}; per class: {few(rows, 20, '; ')}."]


def _telling_formats(images: _Images) -> tuple[list[Finding], list[str]]:
    """Report formats that tell classes apart, and note file types and sizes that do."""
    problems: list[Finding] = []
    notes: list[str] = []
    for what, trait in (("The kind of image", _kind), ("Colour", _colour)):
        told = _telling(images, trait)
        if told and not problems:
            problems.append(
                Finding(
                    f"{what} tells classes apart: {told}.",
                    "A model learns the format instead of the content: bring all images to one "
                    "format, and take the classes from one source if you can.",
                )
            )
    for what, trait in (("The file type", _file_type), ("The size", _size)):
        told = _telling(images, trait)
        if told:
            notes.append(
                f"{what} tells classes apart: {told}. Compression and scaling leave traces that a "
                "model can learn instead of the content."
            )
    return problems, notes


def _kind(path: str, one: Look) -> str:
    return one.facts.kind


def _colour(path: str, one: Look) -> str:
    return "in colour" if one.coloured else "without colour"


def _file_type(path: str, one: Look) -> str:
    extension = os.path.splitext(path)[1].lower()
    return SAME_EXTENSION.get(extension, extension)


def _size(path: str, one: Look) -> str:
    return f"{one.facts.width}x{one.facts.height} px"


def _telling(images: _Images, trait: Callable[[str, Look], str]) -> str:
    """Return the traits that most of one class has and hardly any of another, in words.

    Not those of so few images that the difference may be chance.
    """
    classes = images.by_class()
    sizes = {name: len(paths) for name, paths in classes.items()}
    counts: dict[str, Counter[str]] = defaultdict(Counter)  # trait -> class -> images
    for name, paths in classes.items():
        for path in paths:
            counts[trait(path, images.looks[path])][name] += 1
    told = []
    for value, here in sorted(counts.items()):
        most = [name for name, count in here.items() if count >= MOST * sizes[name]]
        hardly = [name for name in sizes if here[name] <= HARDLY * sizes[name]] if most else []
        if not hardly:
            continue
        pair = [max(names, key=lambda name: sizes[name]) for names in (most, hardly)]
        chance = _chance(*((here[name], sizes[name]) for name in pair))
        if chance * len(sizes) * (len(sizes) - 1) < CHANCE:
            yes, no = (
                few((f"{here[name]} of {sizes[name]} of {name}" for name in names), 3)
                for names in (most, hardly)
            )
            told.append(f"{value} are {yes}, but {no}")
    return few(told, 3, "; ")


def _chance(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Return how probable so large a share of `one` against `other` is by chance.

    One-sided exact test of Fisher.

    Args:
        one: images with the trait, and all images, of the class with the larger share.
        other: the same of the class with the smaller share.
    """
    (have, size), (have_other, size_other) = one, other
    total = have + have_other
    ways = sum(comb(size, n) * comb(size_other, total - n) for n in range(have, total + 1))
    return ways / comb(size + size_other, total)


def _conversions(images: _Images) -> list[str]:
    """Note what the reader did to how many images, and how many frames and bands there are."""
    steps: dict[str, list[str]] = defaultdict(list)
    for path, one in images.looks.items():
        for step in one.facts.steps:
            steps[step].append(path)
    notes = [
        f"{len(paths)} image(s): {step}; {images.counts(sorted(paths))}."
        for step, paths in sorted(steps.items())
    ]
    numbers: tuple[tuple[str, int, Callable[[Look], int]], ...] = (
        ("several frames or pages", 1, lambda one: one.facts.frames),
        ("more than three bands", 3, _colour_bands),
    )
    for what, limit, number in numbers:
        paths = [p for p, one in sorted(images.looks.items()) if number(one) > limit]
        if paths:
            rows = images.described(paths, _text_of(number, "{}"))
            notes.append(f"{len(paths)} image(s) with {what}: {rows}.")
    return notes


def _colour_bands(one: Look) -> int:
    """Return the number of bands without alpha; the four of CMYK are three colours."""
    facts = one.facts
    return 3 if "CMYK" in facts.kind else facts.bands - ("with alpha" in facts.kind)


def _sizes(images: _Images) -> list[str]:
    """Note images of a size or shape far from the dataset's median, and tiny ones."""
    notes = []
    measures: tuple[tuple[str, Callable[[ImageFacts], float]], ...] = (
        ("number of pixels", lambda facts: facts.width * facts.height),
        ("aspect ratio", lambda facts: facts.width / facts.height),
    )
    for what, measure in measures:
        values = {path: measure(one.facts) for path, one in sorted(images.looks.items())}
        median = float(np.median(list(values.values())))
        low, high = median / OUTLIER_RATIO, median * OUTLIER_RATIO
        outliers = [path for path, value in values.items() if not low <= value <= high]
        if outliers:
            notes.append(
                f"{len(outliers)} image(s) whose {what} is more than {OUTLIER_RATIO:g} times, or "
                f"less than 1/{OUTLIER_RATIO:g} of, the median: "
                f"{images.described(outliers, lambda one: _size('', one))}."
            )
    tiny = images.those(lambda one: min(one.facts.width, one.facts.height) < TINY_EDGE)
    if tiny:
        rows = images.described(tiny, lambda one: _size("", one))
        notes.append(f"{len(tiny)} image(s) with an edge below {TINY_EDGE} px: {rows}.")
    return notes


def _copies(
    images: _Images, part_of: Mapping[str, str], already: Collection[frozenset[str]]
) -> tuple[list[Finding], list[str]]:
    """Report near-duplicates: across parts, in two classes, and (as a note) the others."""
    pairs, is_complete = near_duplicates(images.looks)
    group_of = {path: i for i, group in enumerate(already) for path in group}
    across, contradicting, others = [], [], []
    for one, other in pairs:
        if one in group_of and group_of[one] == group_of.get(other):
            continue
        is_across = len({part_of.get(path) for path in (one, other)} - {None}) == 2
        is_contradicting = images.label_of.get(one) != images.label_of.get(other)
        across += [(one, other)] * is_across
        contradicting += [(one, other)] * is_contradicting
        others += [(one, other)] * (not is_across and not is_contradicting)
    least = "" if is_complete else "at least "
    problems, notes = [], []
    if across:
        held_out = {path for pair in across for path in pair if part_of[path] != "train"}
        problems.append(
            Finding(
                f"{least}{len(across)} near-duplicate pair(s) across train, val and test, with "
                f"{len(held_out)} image(s) of val and test: {_pairs(across, part_of.__getitem__)}.",
                "They inflate the test accuracy. Compare them, then delete one of each pair, or "
                "keep the images of one subject or scene in one part by DATASET.GROUP.",
            )
        )
    if contradicting:
        problems.append(
            Finding(
                f"{least}{len(contradicting)} near-duplicate pair(s) in two classes: "
                f"{_pairs(contradicting, images.class_of)}.",
                "Compare them: only one class can be right, delete the others.",
            )
        )
    if others:
        where = "within one part" if part_of else "within one class"
        notes.append(f"{least}{len(others)} near-duplicate pair(s) {where}: {_pairs(others)}.")
    return problems, notes


def _pairs(pairs: Iterable[tuple[str, str]], text: Callable[[str], str] | None = None) -> str:
    """Return the first pairs, with a text for each path."""
    return few(
        " ~ ".join(path if text is None else f"{path} ({text(path)})" for path in pair)
        for pair in pairs
    )
