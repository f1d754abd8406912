"""Split by group: no patient, scene or site on both sides.

A group is what several images have in common: a patient with many slices, a scene cut into tiles.
All images of a group go into one part. The assignment is a function of the groups' names and sizes
alone; neither the order of the images nor the labels count, and classes that share no group do not
influence each other.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import NamedTuple

from dplq.errors import UserError, few

from ..protocol import FRACTIONS, SPLIT_SEED, Item, Split, by_label, by_place, drawn_by

TRAIN, VAL, TEST = range(3)
TOLERANCE = 10  # percentage points of a class by which a share may differ without a word
MAX_EXACT_GROUPS = 6  # all 3^6 assignments are compared up to here
MAX_SWAP_GROUPS = 200  # swaps are tried up to here: their number is quadratic
MAX_PASSES = 50
MAX_NODES = 100_000  # of the search for groups that give every class train and test images
WEIGHT = 1 << 80  # integer weights: sums do not depend on the order of the classes
SUBJECT = r"([^/]*?\d+)[-_ .][^/]+\.\w+$"  # file name up to its first number, when more follows


class Group(NamedTuple):
    """One group: keyed hash of its name, and how many images of each label it has."""

    digest: bytes
    name: str
    counts: dict[int, int]


def split_by_group(
    items: Sequence[Item],
    groups: Mapping[str, str],
    source: str,
    fractions: Sequence[float] = FRACTIONS,
) -> Split:
    """Split images so that no group is in two parts.

    The largest groups are placed first, each into the part that its classes lack most; then groups
    are moved or swapped as long as the shares come nearer to `fractions`. Where linked classes
    have six groups at most, all assignments are compared instead.

    Args:
        items: all images.
        groups: path to group name; a path without one is a group of its own.
        source: the name of the data in an error message.
        fractions: of train and of val; the rest is test.

    Returns:
        The split; the parts are ordered by label, then by path. A class may be without val images,
        see `deviations`; none is without train or test images.

    Raises:
        UserError: a class cannot be in both train and test.
    """
    members: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        name = groups.get(item.path, "")
        members.setdefault(("group", name) if name else ("image", item.path), []).append(item)
    _require_two_groups(members, source)
    found = [
        Group(_digest(kind, name), name, Counter(item.label for item in group))
        for (kind, name), group in members.items()
    ]
    names = {item.label: item.classname for item in items}
    parts: dict[tuple[bytes, str], int] = {}
    for linked in _components(found):
        parts |= _Component(linked, _shares(fractions)).assign(names, source)
    split = Split([], [], [])
    for group, content in zip(found, members.values(), strict=True):
        split[parts[group.digest, group.name]].extend(content)
    return Split(*(sorted(part, key=by_place) for part in split))


def deviations(
    split: Split, groups: Mapping[str, str], fractions: Sequence[float] = FRACTIONS
) -> list[str]:
    """Return in words which classes are far from the wanted shares, by label.

    Args:
        split: any split.
        groups: path to group name; a path without one is a group of its own.
        fractions: wanted share of train and of val; the rest is test.

    Returns:
        A text per class of which a share differs by more than 10 percentage points, or that has no
        val image although some are wanted.
    """
    shares = _shares(fractions)
    counts = [Counter(item.label for item in part) for part in split]
    wanted = _percent(shares, 1)
    texts = []
    for label, items in by_label(item for part in split for item in part).items():
        have = [count[label] for count in counts]
        off = max(abs(n - share * len(items)) for n, share in zip(have, shares, strict=True))
        if 100 * off <= TOLERANCE * len(items) and (have[VAL] or not shares[VAL]):
            continue
        number = len({groups.get(item.path) or ("image", item.path) for item in items})
        texts.append(
            f"class '{items[0].classname}': train / val / test {' / '.join(map(str, have))} images "
            f"({_percent(have, len(items))} % instead of {wanted} %) in {number} groups"
        )
    return texts


def _percent(parts: Iterable[float | Fraction], whole: int) -> str:
    return " / ".join(f"{round(100 * float(n) / whole)}" for n in parts)


def repeated_subjects(split: Split) -> tuple[str, int, list[str]] | None:
    """Find names that look like one subject in both train and test.

    A subject is a file name up to its first number if a separator and more follow: `patient12` in
    `patient12_slice3.png`. A class counts if it has two subjects or more and most of its images
    belong to subjects with at least two of them.

    Args:
        split: a split that was made without groups.

    Returns:
        None, or a regular expression for `DATASET.GROUP`, the number of subjects that are in train
        and in test, and the first three of them with a file of either side.
    """
    everything = [item for part in split for item in part]
    suspects = {label for label, items in by_label(everything).items() if _has_subjects(items)}
    torn, texts = _torn(split, lambda i: _subject(i.path) if i.label in suspects else "")
    complete = all(_subject(item.path) for item in everything)
    return ((SUBJECT if complete else or_alone(SUBJECT)), torn, texts) if torn else None


def repeated_folders(split: Split) -> tuple[str, int, list[str]] | None:
    """Find folders that look like one subject each, whose images are in both train and test.

    Those are the folders of a level whose names have a number, and which are more than two for
    each class; a year's or a site's are fewer. Most of them hold several images.

    Args:
        split: a split that was made without groups.

    Returns:
        As `repeated_subjects`.
    """
    everything = [item for part in split for item in part]
    classes = len({item.label for item in everything})
    depth = min((item.path.count("/") for item in everything), default=0)
    for level in range(depth):
        counts = Counter(_folder(item, level) for item in everything)
        repeated = sum(count > 1 for count in counts.values())
        if len(counts) <= 2 * classes or 2 * repeated < len(counts):
            continue
        if not all(re.search(r"\d", name) for name in counts):
            continue
        torn, texts = _torn(split, partial(_folder, level=level))
        if torn:
            return f"^(?:[^/]+/){{{level}}}([^/]+)/", torn, texts
    return None


def _torn(split: Split, subject_of: Callable[[Item], str]) -> tuple[int, list[str]]:
    """Return how many subjects are in train and in test, and the first three in words.

    Args:
        split: any split.
        subject_of: the subject of an image; "" for none.
    """
    train, test = (
        {subject_of(item): item.path for item in reversed(part)}
        for part in (split.train, split.test)
    )
    both = sorted(name for name in train.keys() & test.keys() if name)
    return len(both), [f"{n} ({train[n]} in train, {test[n]} in test)" for n in both[:3]]


def _folder(item: Item, level: int) -> str:
    """Return the name of a folder in a path, 0 for the first."""
    return item.path.split("/")[level]


def or_alone(pattern: str) -> str:
    """Return an expression that makes each path without a match a group of its own.

    Not `pattern|.*`: the second part would match further to the left, so always.
    """
    inner = pattern if re.compile(pattern).groups else f"({pattern})"
    return f".*?(?:{inner})|.*"


def groups_from_pattern(paths: Iterable[str], pattern: str) -> dict[str, str]:
    """Return the group of every path by a regular expression.

    Args:
        paths: POSIX paths below the image folder.
        pattern: `DATASET.GROUP`, searched in the path. The group's name is what the first
            parenthesis matched, or the whole match.

    Raises:
        UserError: it is not a regular expression, or some paths do not match.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"DATASET.GROUP '{pattern}' is not a regular expression: {error}. Example: "
            r"'(patient\d+)_' makes one group of all images of a patient."
        ) from error
    found = {path: _name(compiled.search(path)) for path in paths}
    absent = sorted(path for path, name in found.items() if not name)
    if absent:
        raise UserError(
            f"DATASET.GROUP '{pattern}' finds no group in {len(absent)} of {len(found)} paths: "
            f"{few(absent, 3)}. It is searched in the path below the image folder; "
            f"'{or_alone(pattern)}' makes each of these images a group of its own."
        )
    return found


def _name(match: re.Match[str] | None) -> str:
    if match is None:
        return ""
    return (match.lastindex and match.group(1)) or match.group()


def _subject(path: str) -> str:
    match = re.search(SUBJECT, path)
    return match.group(1) if match else ""


def _has_subjects(items: Collection[Item]) -> bool:
    sizes = Counter(filter(None, (_subject(item.path) for item in items)))
    repeated = sum(size for size in sizes.values() if size > 1)
    return len(sizes) > 1 and 2 * repeated > len(items)


def _digest(kind: str, name: str) -> bytes:
    """Return the key that orders groups of one size.

    A single image is keyed by its file name without extension, so that renaming a class folder or
    converting the files moves nothing.
    """
    short = name if kind == "group" else drawn_by(name.rsplit("/", 1)[-1])
    text = f"{kind}/{SPLIT_SEED}/{short}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _shares(fractions: Sequence[float]) -> tuple[Fraction, Fraction, Fraction]:
    train, val = (Fraction(str(fraction)) for fraction in fractions)
    return train, val, 1 - train - val


def _require_two_groups(members: Mapping[tuple[str, str], list[Item]], source: str) -> None:
    """Raise if a class has one group only."""
    groups_of: dict[int, dict[tuple[str, str], None]] = {}
    names: dict[int, str] = {}
    for key, items in members.items():
        for item in items:
            groups_of.setdefault(item.label, {})[key] = None
            names[item.label] = item.classname
    single = [
        f"'{names[label]}' has {'images of one group' if kind == 'group' else 'one image'} only "
        f"({name})"
        for label, found in sorted(groups_of.items())
        if len(found) == 1
        for kind, name in found
    ]
    if single:
        raise UserError(
            f"{source}: class {few(single, 3, '; class ')}: it cannot be in both train and test "
            "without a group on both sides. Add images of another group, remove the class, or "
            "give the parts yourself (a split column, or train/ and test/ folders)."
        )


def _components(groups: Sequence[Group]) -> list[list[Group]]:
    """Return the groups by sets of classes that shared groups link."""
    root: dict[int, int] = {}

    def find(label: int) -> int:
        while root.setdefault(label, label) != label:
            root[label] = root[root[label]]
            label = root[label]
        return label

    for group in groups:
        first, *others = group.counts
        for label in others:
            root[find(label)] = find(first)
    linked: dict[int, list[Group]] = {}
    for group in groups:
        linked.setdefault(find(next(iter(group.counts))), []).append(group)
    return list(linked.values())


class _Component:
    """The assignment of linked groups to parts.

    `excess[part][label]` is the number of images above the wanted one, in units of
    1 / `unit` image, so that all arithmetic is exact.
    """

    def __init__(self, groups: Iterable[Group], shares: Sequence[Fraction]) -> None:
        self.groups = sorted(groups, key=lambda g: (-sum(g.counts.values()), g.digest, g.name))
        self.shares = shares
        self.unit = math.lcm(*(share.denominator for share in shares))
        self.holders: dict[int, list[int]] = {}
        for index, group in enumerate(self.groups):
            for label in group.counts:
                self.holders.setdefault(label, []).append(index)
        self.sizes = {
            label: sum(self.groups[i].counts[label] for i in held)
            for label, held in self.holders.items()
        }
        self.weight = {label: WEIGHT // size**2 for label, size in self.sizes.items()}
        # an order of the classes that no renumbering changes
        self.labels = sorted(
            self.holders,
            key=lambda c: [(i, self.groups[i].counts[c]) for i in self.holders[c]],
        )

    def assign(self, names: Mapping[int, str], source: str) -> dict[tuple[bytes, str], int]:
        """Return the part of every group, by digest and name."""
        pinned_for: set[int] = set()
        while True:
            pins = self._find_pins(pinned_for)
            if pins is None:
                raise self._impossible(pinned_for, names, source)
            self._place_all(pins)
            lacking = self._lacking()
            if not lacking:
                break
            pinned_for |= lacking
        if len(self.groups) <= MAX_EXACT_GROUPS:
            self._place_all(dict(enumerate(self._best())))
        else:
            self._improve()
        pairs = zip(self.groups, self.part, strict=True)
        return {(group.digest, group.name): part for group, part in pairs}

    def _place_all(self, pins: Mapping[int, int]) -> None:
        self.part = [-1] * len(self.groups)
        self.count = [dict.fromkeys(self.labels, 0) for _ in self.shares]
        self.excess = [
            {c: -int(share * self.unit) * self.sizes[c] for c in self.labels}
            for share in self.shares
        ]
        for index, part in pins.items():
            self._put(index, part)
        for index, group in enumerate(self.groups):
            if index not in pins:
                self._put(index, min(range(3), key=lambda p: self._fill(group, p)))

    def _fill(self, group: Group, part: int) -> int:
        """Return how full a part is with the classes of a group."""
        excess = self.excess[part]
        return sum(self.weight[c] * n * excess[c] for c, n in group.counts.items())

    def _put(self, index: int, part: int, sign: int = 1) -> None:
        for label, n in self.groups[index].counts.items():
            self.count[part][label] += sign * n
            self.excess[part][label] += sign * n * self.unit
        self.part[index] = part

    def _best(self) -> tuple[int, ...]:
        """Return the best of all assignments of a few groups that give train and test images."""

        def cost(parts: tuple[int, ...]) -> tuple[bool, int]:
            self._place_all(dict(enumerate(parts)))
            squares = (
                self.weight[c] * excess[c] ** 2 for excess in self.excess for c in self.labels
            )
            return bool(self._lacking()), sum(squares)

        return min(itertools.product(range(3), repeat=len(self.groups)), key=cost)

    def _lacking(self) -> set[int]:
        """Return the classes without train or without test images."""
        return {c for c in self.labels if not (self.count[TRAIN][c] and self.count[TEST][c])}

    def _improve(self) -> None:
        """Move and swap groups until nothing helps."""
        for _ in range(MAX_PASSES):
            if not (self._move_groups() or self._swap_groups()):
                break

    def _move_groups(self) -> bool:
        """Move single groups as long as it helps; return whether any moved."""
        moved = False
        for index, group in enumerate(self.groups):
            old = self.part[index]
            gains = {p: self._gain(group.counts, old, p) for p in range(3) if p != old}
            new = min(gains, key=lambda p: gains[p])
            if gains[new] < 0 and self._allowed(group.counts, old):
                self._put(index, old, -1)
                self._put(index, new)
                moved = True
        return moved

    def _swap_groups(self) -> bool:
        """Swap pairs of groups as long as it helps; return whether any were swapped."""
        swapped = False
        if len(self.groups) > MAX_SWAP_GROUPS:
            return False
        for first, group in enumerate(self.groups):
            for second in range(first + 1, len(self.groups)):
                here, there = self.part[first], self.part[second]
                if here == there:
                    continue
                change = Counter(group.counts)
                change.subtract(self.groups[second].counts)
                back = {label: -n for label, n in change.items()}
                if (
                    self._gain(change, here, there) < 0
                    and self._allowed(change, here)
                    and self._allowed(back, there)
                ):
                    for index, part in ((first, here), (second, there)):
                        self._put(index, part, -1)
                    self._put(first, there)
                    self._put(second, here)
                    swapped = True
        return swapped

    def _gain(self, change: Mapping[int, int], old: int, new: int) -> int:
        """Return the change of the weighted squared excess when images go from old to new."""
        return sum(
            self.weight[c] * n * (self.excess[new][c] - self.excess[old][c] + self.unit * n)
            for c, n in change.items()
        )

    def _allowed(self, change: Mapping[int, int], part: int) -> bool:
        """Return whether a part may lose these images."""
        return part == VAL or all(self.count[part][c] > n for c, n in change.items())

    def _find_pins(self, labels: Collection[int]) -> dict[int, int] | None:
        """Return groups to fix in train and test so that these classes have images of both.

        A depth-first search that continues with the class with the fewest free groups; None if
        there is no such choice (or none within the limit of steps).
        """
        pins: dict[int, int] = {}
        trail: list[int] = []
        options = self._next_pins(pins, labels)
        if options is None:
            return pins
        levels = [options]
        for _ in range(MAX_NODES):
            while levels and not levels[-1]:
                levels.pop()
                if trail:
                    del pins[trail.pop()]
            if not levels:
                return None
            index, part = levels[-1].pop()
            pins[index] = part
            trail.append(index)
            options = self._next_pins(pins, labels)
            if options is None:
                return pins
            levels.append(options)
        return None

    def _next_pins(
        self, pins: Mapping[int, int], labels: Collection[int]
    ) -> list[tuple[int, int]] | None:
        """Return the choices for the most constrained class, best last; None if all are served."""
        best: tuple[int, list[tuple[int, int]]] | None = None
        for label in (c for c in self.labels if c in labels):
            held = self.holders[label]
            missing = {TRAIN, TEST} - {pins[i] for i in held if i in pins}
            free = [i for i in held if i not in pins]
            if len(free) < len(missing):
                return []
            if missing and (best is None or len(free) < best[0]):
                best = (len(free), [(i, min(missing)) for i in free])  # the smallest group is last
        return best[1] if best else None

    def _impossible(
        self, labels: Collection[int], names: Mapping[int, str], source: str
    ) -> UserError:
        shared = {index for label in labels for index in self.holders[label]}
        classes = few([f"'{names[label]}'" for label in sorted(labels)])
        return UserError(
            f"{source}: found no way to have classes {classes} in both train and test: they share "
            f"their {len(shared)} groups ({few(sorted(self.groups[i].name for i in shared), 3)}). "
            "Add images of other groups, remove a class, or give the parts yourself (a split "
            "column, or train/ and test/ folders)."
        )
