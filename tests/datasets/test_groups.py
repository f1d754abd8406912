"""Splits by group: nothing shared, shares as the groups allow, nothing else counts."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dplq.datasets._engine.drawing.groups import (
    SUBJECT,
    deviations,
    groups_from_pattern,
    or_alone,
    repeated_subjects,
    split_by_group,
)
from dplq.datasets._engine.protocol import FRACTIONS, Item, Split, check_split, split_sizes
from dplq.errors import UserError

WANTED = (0.5, 0.2, 0.3)
FAST = settings(derandomize=True, deadline=None, max_examples=100, database=None)


def build(table: list[list[tuple[str, int]]]) -> tuple[list[Item], dict[str, str]]:
    """Items and groups of classes given as lists of (group, number of images)."""
    items, groups = [], {}
    for label, rows in enumerate(table):
        for group, count in rows:
            for _ in range(count):
                path = f"class{label}/{len(items):04d}.png"
                items.append(Item(path, label, f"class {label}"))
                groups[path] = group
    return items, groups


def shared_groups(split: Split, groups: dict[str, str]) -> int:
    sides = [{groups.get(item.path, item.path) for item in part} for part in split]
    return sum(len(a & b) for a, b in itertools.combinations(sides, 2))


def excess(split: Split, label: int) -> list[float]:
    """Images of a class above the wanted ones, per part."""
    counts = [sum(item.label == label for item in part) for part in split]
    return [n - share * sum(counts) for n, share in zip(counts, WANTED, strict=True)]


def cost(split: Split, labels: range) -> float:
    """Sum of squared excess shares."""
    sizes = Counter(item.label for part in split for item in part)
    return sum((e / sizes[label]) ** 2 for label in labels for e in excess(split, label))


def own_groups(sizes: list[list[int]]) -> list[list[tuple[str, int]]]:
    """Classes whose groups are their own."""
    return [[(f"p{c}.{i}", n) for i, n in enumerate(row)] for c, row in enumerate(sizes)]


sizes_of_class = st.lists(st.integers(1, 30), min_size=2, max_size=20)
own_tables = st.lists(sizes_of_class, min_size=1, max_size=5).map(own_groups)
mixed_tables = st.lists(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8)), min_size=2, max_size=12),
    min_size=2,
    max_size=5,
).map(lambda table: [[(f"p{name}", n) for name, n in row] for row in table])


@FAST
@given(own_tables)
def test_shares_of_a_class_with_groups_of_its_own(table):
    """No group is shared; no part is off by more than 0.77 of the largest group.

    Placing leaves every part within 2/3 of the largest group g (each overshoot is at most 2/3 g, as
    the part that lacks most lacks at least a third of what is left), with excesses that sum to 0:
    their squares sum to 8/9 g^2 at most, and moves only lower that, so |e| <= sqrt(16/27) g.
    """
    items, groups = build(table)
    split = split_by_group(items, groups, "toy")
    assert shared_groups(split, groups) == 0
    check_split(split, "toy")
    assert sorted(item for part in split for item in part) == sorted(items)
    for label, rows in enumerate(table):
        assert max(map(abs, excess(split, label))) <= (16 / 27) ** 0.5 * max(n for _, n in rows)


@FAST
@given(mixed_tables)
def test_groups_that_span_classes(table):
    """No group is shared, and no single move of a group brings the shares nearer."""
    items, groups = build(table)
    if not possible(items, groups):
        with pytest.raises(UserError):
            split_by_group(items, groups, "toy")
        return
    split = split_by_group(items, groups, "toy")
    check_split(split, "toy")
    assert shared_groups(split, groups) == 0
    assert sorted(item for part in split for item in part) == sorted(items)
    best = cost(split, range(len(table)))
    for name, part in itertools.product(set(groups.values()), range(3)):
        moved = Split([], [], [])
        for old, content in enumerate(split):
            for item in content:
                moved[part if groups[item.path] == name else old].append(item)
        if complete(moved, len(table)):
            assert cost(moved, range(len(table))) >= best - 1e-9


def complete(split: Split, classes: int) -> bool:
    return all(len({item.label for item in split[part]}) == classes for part in (0, 2))


def possible(items: list[Item], groups: dict[str, str]) -> bool:
    """Whether any assignment to train and test gives every class both, by trying all."""
    names = sorted(set(groups.values()))
    classes: dict[int, int] = {}
    for item in items:
        bit = 1 << names.index(groups[item.path])
        classes[item.label] = classes.get(item.label, 0) | bit
    return any(
        all(held & mask and held & ~mask for held in classes.values())
        for mask in range(1 << len(names))
    )


@FAST
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=2, max_size=5),
        min_size=2,
        max_size=3,
    )
)
def test_shares_are_the_best_that_six_groups_allow(table):
    """Trying all assignments finds no smaller sum of squared share errors."""
    items, groups = build([[(f"p{name}", n) for name, n in row] for row in table])
    if not possible(items, groups):
        return
    labels = range(len(table))
    names = sorted(set(groups.values()))
    tables = Counter((item.label, groups[item.path]) for item in items)
    sizes = Counter(item.label for item in items)
    best = float("inf")
    for parts in itertools.product(range(3), repeat=len(names)):
        count = [[0] * 3 for _ in labels]
        for (label, name), n in tables.items():
            count[label][parts[names.index(name)]] += n
        if all(row[0] and row[2] for row in count):
            pairs = (
                (row[p] / sizes[c] - WANTED[p]) for c, row in enumerate(count) for p in (0, 1, 2)
            )
            best = min(best, sum(e * e for e in pairs))
    assert cost(split_by_group(items, groups, "toy"), labels) <= best + 1e-9


@FAST
@given(own_tables, st.randoms(use_true_random=False))
def test_order_and_other_classes_do_not_count(table, random):
    items, groups = build(table)
    split = split_by_group(items, groups, "toy")
    shuffled = list(items)
    random.shuffle(shuffled)
    assert split_by_group(shuffled, dict(sorted(groups.items(), reverse=True)), "toy") == split

    first = [[item for item in part if item.label == 0] for part in split]
    alone = split_by_group([item for item in items if item.label == 0], groups, "toy")
    assert [list(part) for part in alone] == first  # the other classes were removed

    label = {c: len(table) - c for c in range(len(table))}
    edited = [i._replace(label=label[i.label], classname="another") for i in items]
    extra = [Item(f"new/{k}.png", 0, "new") for k in range(5)]
    after = split_by_group(extra + edited, groups, "toy")  # renamed, reversed, one class added
    for part, old in zip(after, split, strict=True):
        paths = {item.path for item in part if not item.path.startswith("new/")}
        assert paths == {item.path for item in old}


@FAST
@given(mixed_tables, st.randoms(use_true_random=False))
def test_linked_classes_in_any_order_give_one_split(table, random):
    items, groups = build(table)
    if not possible(items, groups):
        return
    label = list(range(len(table)))
    random.shuffle(label)
    edited = [item._replace(label=label[item.label], classname="x") for item in items]
    random.shuffle(edited)
    old, new = (split_by_group(i, groups, "toy") for i in (items, edited))
    for before, after in zip(old, new, strict=True):
        assert {item.path for item in before} == {item.path for item in after}


@pytest.mark.parametrize("n", [4, 5, 7, 10, 40, 53])
def test_without_groups_the_sizes_are_those_of_a_plain_split(n):
    items = [Item(f"a/{i}.png", 0, "a") for i in range(n)]
    sizes = [len(part) for part in split_by_group(items, {}, "toy")]
    plain = split_sizes(n)
    assert sum(abs(a - b) for a, b in zip(sizes, plain, strict=True)) <= 2
    assert sizes == [round(n * f) for f in WANTED] or n % 10


def test_split_never_changes():
    """Written down: another Python or another release must give the same images."""
    items, groups = build([[(f"patient{i}", 1 + i % 4) for i in range(12)]])
    split = split_by_group(items, groups, "toy")
    names = [sorted({groups[i.path] for i in part}, key=lambda n: int(n[7:])) for part in split]
    assert [[int(n[7:]) for n in part] for part in names] == [
        [1, 3, 5, 7, 10],
        [2, 4, 9],
        [0, 6, 8, 11],
    ]
    assert [len(part) for part in split] == [15, 6, 9]


def test_renaming_a_class_folder_moves_no_image():
    old = [Item(f"oak/{i}.png", 0, "oak") for i in range(30)]
    new = [item._replace(path=item.path.replace("oak", "elm")) for item in old]
    before, after = (split_by_group(items, {}, "toy") for items in (old, new))
    for a, b in zip(before, after, strict=True):
        assert [i.path[4:] for i in a] == [i.path[4:] for i in b]


def test_images_without_a_group_are_split_one_by_one():
    items = [Item(f"oak/{i}.png", 0, "oak") for i in range(20)]
    groups = {f"oak/{i}.png": "tree 1" for i in range(6)} | {"oak/6.png": ""}
    split = split_by_group(items, groups, "toy")
    assert [len(part) for part in split] == [10, 4, 6]
    assert {f"oak/{i}.png" for i in range(6)} <= {item.path for item in split.train}


def test_one_group_or_one_image_is_refused():
    items, groups = build([[("patient7", 5)], [("a", 2), ("b", 2)], [("", 1)]])
    with pytest.raises(UserError) as error:
        split_by_group(items, groups, "labels.csv")
    assert str(error.value) == (
        "labels.csv: class 'class 0' has images of one group only (patient7); class 'class 2' has "
        "one image only (class2/0009.png): it cannot be in both train and test without a group on "
        "both sides. Add images of another group, remove the class, or give the parts yourself (a "
        "split column, or train/ and test/ folders)."
    )


def test_groups_in_a_triangle_are_refused():
    table = [[("x", 2), ("y", 2)], [("y", 2), ("z", 2)], [("z", 2), ("x", 2)], [("u", 1), ("v", 1)]]
    with pytest.raises(UserError, match="'class 0', 'class 1', 'class 2' in both") as error:
        split_by_group(*build(table), "toy")
    assert "they share their 3 groups (x, y, z)" in str(error.value)


def test_train_and_test_images_come_before_the_shares():
    """Placed by size alone, p1 is train and p0 val: the second class has no test image."""
    table = [
        [("p5", 4), ("p3", 1), ("p6", 6), ("p0", 1)],
        [("p1", 6), ("p0", 1)],
        [("p6", 2), ("p5", 4), ("p4", 1), ("p2", 1)],
    ]
    items, groups = build(table)
    split = split_by_group(items, groups, "toy")
    check_split(split, "toy")
    assert shared_groups(split, groups) == 0


def test_deviations_in_words():
    items, groups = build([[("a", 8), ("b", 2)], [(f"p{i}", 1) for i in range(10)]])
    split = split_by_group(items, groups, "toy")
    assert deviations(split, groups) == [
        "class 'class 0': train / val / test 8 / 0 / 2 images (80 / 0 / 20 % instead of "
        "50 / 20 / 30 %) in 2 groups"
    ]
    assert deviations(split, {})[0].endswith("in 10 groups")
    assert FRACTIONS == (0.5, 0.2)


def test_no_val_image_is_a_deviation_even_within_ten_points():
    items = [Item(f"a/{i}", 0, "a") for i in range(10)]
    within = Split(items[:6], [], items[6:])
    assert len(deviations(within, {}, (0.6, 0.05))) == 1
    assert deviations(within, {}, (0.6, 0.0)) == []


def halves(names: list[str], classes: int = 2) -> Split:
    """Every second image is train, the others test."""
    parts: tuple[list[Item], list[Item]] = ([], [])
    for label in range(classes):
        for i, name in enumerate(names):
            parts[i % 2].append(Item(f"class{label}/{name}", label, f"class {label}"))
    return Split(parts[0], [], parts[1])


@pytest.mark.parametrize(
    "name",
    [
        "patient{s}_slice{i}.png",
        "P{s:03d}-{i}.png",
        "case_{s:03d}_{i:02d}.png",
        "ISIC_{s:04d}_{i}a.jpg",
        "v_Archery_g{s:02d}_c{i:02d}.jpg",
        "{s}.{i}.tif",
        "scan {s} ({i}).png",
    ],
)
def test_repeated_subjects_are_found(name):
    split = halves([name.format(s=i // 4, i=i) for i in range(20)])
    found = repeated_subjects(split)
    assert found is not None
    pattern, number, examples = found
    assert (pattern, number, len(examples)) == (SUBJECT, 5, 3)
    subject = re.match(r".*?\d+(?=[-_ .])", name.format(s=0, i=0))[0]
    assert examples[0].startswith(f"{subject} (class0/{name.format(s=0, i=0)} in train, class0/")
    items = [item for part in split for item in part]
    groups = groups_from_pattern([item.path for item in items], pattern)
    assert len(set(groups.values())) == 5
    assert repeated_subjects(split_by_group(items, groups, "toy")) is None


@pytest.mark.parametrize(
    "name",
    [
        "oak_{i:02d}.png",
        "a{i:03d}.jpg",
        "AnnualCrop_{i}.jpg",
        "Tr-gl_{i:04d}.jpg",
        "COVID-19 ({i}).png",
        "n01440764_{i}.JPEG",
        "image ({i}).jpg",
        "train{i}_0.png",
        "0b2f{i:04d}-7c1d-4e0a-9b1e-{i:012d}.jpg",
        "{i}_CRC-Prim-HE-03_009.tif_Row_301_Col_151.tif",
        "v1.2_sub/oak_{i}.png",
    ],
)
def test_plain_numbering_is_no_subject(name):
    assert repeated_subjects(halves([name.format(i=i) for i in range(20)])) is None


def test_subjects_on_one_side_only_are_no_leak():
    items = [Item(f"a/p{s}_{i}.png", 0, "a") for s in range(6) for i in range(4)]
    assert repeated_subjects(Split(items[:12], [], items[12:])) is None


def test_few_repeated_names_are_no_subjects():
    names = [f"p{i}_0.png" for i in range(20)] + ["p0_1.png"]
    assert repeated_subjects(halves(names)) is None


def test_pattern_leaves_names_without_number_alone():
    split = halves([f"p{i // 4}_{i}.png" for i in range(16)] + ["other.png"])
    pattern, number, _ = repeated_subjects(split)
    assert (pattern, number) == (or_alone(SUBJECT), 4)
    paths = ["v1_2.x/other.png", "v1_2.x/p3_7.png"]
    assert list(groups_from_pattern(paths, pattern).values()) == ["v1_2.x/other.png", "p3"]


@pytest.mark.parametrize("pattern", [r"(p\d+)_", r"p\d+", r"(?:x|(p\d+))", r"(p\d+)|z"])
def test_other_paths_become_groups_of_their_own(pattern):
    """Wherever the pattern matches, and though file names are alike."""
    paths = ["oak/scan p1_1.png", "elm/p1_2.png", "oak/0.png", "elm/0.png"]
    found = groups_from_pattern(paths, or_alone(pattern))
    assert found["oak/0.png"] != found["elm/0.png"]
    assert found["oak/scan p1_1.png"] == found["elm/p1_2.png"] == "p1"


def test_groups_from_pattern():
    paths = ["oak/p1_1.png", "oak/p1_2.png", "elm/p2_1.png"]
    assert set(groups_from_pattern(paths, r"(p\d+)_").values()) == {"p1", "p2"}
    assert groups_from_pattern(paths, r"p\d+")["elm/p2_1.png"] == "p2"
    assert groups_from_pattern(paths, r"^[^/]+")["elm/p2_1.png"] == "elm"
    with pytest.raises(
        UserError, match=r"^DATASET.GROUP 'p1' finds no group in 1 of 3 paths: elm/"
    ):
        groups_from_pattern(paths, "p1")
    with pytest.raises(UserError, match=r"^DATASET.GROUP '\(p' is not a regular expression: .*\.$"):
        groups_from_pattern(paths, "(p")
    with pytest.raises(UserError, match="3 of 3"):
        groups_from_pattern(paths, "x*")  # an empty match is no name
