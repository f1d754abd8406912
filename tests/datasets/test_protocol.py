"""The pure part: splitting, drawing shots, base and new classes."""

from __future__ import annotations

import random
import re

import pytest

from dplq.datasets._engine.official import labelled
from dplq.datasets._engine.protocol import (
    Item,
    Split,
    by_label,
    check_split,
    draw_shots,
    few_shot,
    in_random_order,
    split_classes,
    split_digest,
    split_sizes,
    take_subset,
)
from dplq.errors import UserError


def make_split(*counts: int) -> Split:
    """A split with `counts` images in class 0, 1, ..."""
    names = [f"class {i}" for i in range(len(counts))]
    images = [[f"{i}/{k:03d}.jpg" for k in range(n)] for i, n in enumerate(counts)]
    return split_classes(labelled(images, names), "toy")


def labels(items: list[Item]) -> list[int]:
    return [item.label for item in items]


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (4, (2, 1, 1)),
        (5, (2, 1, 2)),  # 2.5 rounds to the even 2
        (7, (4, 1, 2)),  # 3.5 rounds to the even 4
        (10, (5, 2, 3)),
        (40, (20, 8, 12)),
        (400, (200, 80, 120)),
        (53, (26, 11, 16)),
    ],
)
def test_split_sizes_round_half_to_even(n, sizes):
    assert split_sizes(n) == sizes
    assert tuple(len(part) for part in make_split(n)) == sizes


def test_split_is_a_partition_and_mixes_the_names():
    split = make_split(40, 13)
    paths = [item.path for part in split for item in part]
    assert len(set(paths)) == len(paths) == 53
    assert [i.path for i in split.train if i.label == 0] != [f"0/{k:03d}.jpg" for k in range(20)]


def test_split_never_changes():
    """Written down: another Python or another release must give the same images."""
    split = make_split(20)
    assert [int(item.path[2:5]) for item in split.test] == [1, 3, 7, 8, 14, 15]
    drawn = few_shot(split, 3, seed=1).train
    assert [int(item.path[2:5]) for item in drawn] == [12, 18, 4]


def test_nothing_touches_the_global_generator():
    random.seed(3)
    before = random.getstate()
    few_shot(make_split(10, 10), 2, 1)
    assert random.getstate() == before


def test_too_small_classes_are_named():
    with pytest.raises(UserError, match=r"toy: too few .* class 'class 1' \(3\), 'class 2' \(1\)"):
        make_split(8, 3, 1)


def test_random_order_depends_on_every_part_of_the_seed_and_on_each_name_alone():
    names = [f"{i:02d}.jpg" for i in range(50)]
    seeds = [(1, 2), (1, 3), (12,), ("a", 1, 2)]
    orders = [in_random_order(names, *seed, name=str) for seed in seeds]
    assert len(set(map(tuple, orders))) == 4
    assert all(sorted(order) == names for order in orders)
    some = names[::3]
    assert in_random_order(reversed(some), 1, 2, name=str) == [n for n in orders[0] if n in some]


def test_split_digest_is_of_images_and_parts_alone():
    split = make_split(10, 10)
    renamed = Split(*([i._replace(label=1 - i.label, classname="x") for i in p] for p in split))
    moved = split._replace(train=split.train[1:], val=[split.train[0], *split.val])
    assert split_digest(split) == split_digest(renamed) != split_digest(moved)
    assert len(split_digest(split)) == 16


def test_shots_per_class_and_at_most_four_in_val():
    split = make_split(40, 40, 40)
    for shots, val in [(1, 1), (2, 2), (4, 4), (8, 4), (16, 4)]:
        chosen = few_shot(split, shots, seed=1)
        assert [len(group) for group in by_label(chosen.train).values()] == [shots] * 3
        assert [len(group) for group in by_label(chosen.val).values()] == [val] * 3
        assert chosen.test == split.test


@pytest.mark.parametrize("shots", [0, -1])
def test_no_shots_means_the_full_set(shots):
    split = make_split(10, 10)
    assert few_shot(split, shots, seed=1) == split


def test_shots_are_nested_and_differ_between_seeds_and_classes():
    train = make_split(40, 40).train
    drawn = {shots: draw_shots(train, shots, 1) for shots in (1, 2, 4, 8, 16)}
    for few, more in [(1, 2), (2, 4), (4, 8), (8, 16)]:
        assert set(drawn[few]) < set(drawn[more])
    assert set(draw_shots(train, 8, 2)) != set(drawn[8])
    positions = [[int(i.path[2:5]) for i in drawn[8] if i.label == label] for label in (0, 1)]
    assert positions[0] != positions[1]


def test_shots_do_not_depend_on_the_order_or_the_other_classes():
    train = make_split(40, 40).train
    mixed = in_random_order(train, "any", name=lambda item: item.path)
    assert draw_shots(mixed, 4, 1) == draw_shots(train, 4, 1)
    only_second = [item for item in train if item.label == 1]
    assert draw_shots(only_second, 4, 1) == [i for i in draw_shots(train, 4, 1) if i.label == 1]


def test_converting_the_files_moves_no_image():
    """Another extension, for all files or some, changes neither the split nor the shots."""
    before = [Item(f"{k % 3}/{k:03d}.jpg", k % 3, f"c{k % 3}") for k in range(120)]
    want, wanted = split_classes(before, "toy"), few_shot(split_classes(before, "toy"), 4, 1)
    for ending in (".jpg", "0.jpg"):
        turned = ending.replace("jpg", "dcm")
        after = [i._replace(path=i.path.replace(ending, turned)) for i in reversed(before)]
        split = split_classes(after, "toy")
        for old, new in zip((*want, *wanted), (*split, *few_shot(split, 4, 1)), strict=True):
            assert [i.path[:-4] for i in old] == [i.path[:-4] for i in new]


def test_files_of_one_name_are_drawn_whatever_their_order():
    items = [Item(f"0/{k:03d}.{e}", 0, "c") for k in range(9) for e in ("jpg", "png")]
    assert split_classes(items, "toy") == split_classes(items[::-1], "toy")
    train = split_classes(items, "toy").train
    assert draw_shots(train[::-1], 3, 1) == draw_shots(train, 3, 1)


def test_an_image_left_out_is_replaced_by_the_next():
    train = make_split(40).train
    five = draw_shots(train, 5, 1)
    assert draw_shots(train, 4, 1, leave_out={five[1].path}) == [five[0], *five[2:]]


def test_a_class_with_fewer_images_gives_all_and_is_named(caplog):
    chosen = few_shot(make_split(40, 10), 16, seed=1)
    assert [len(group) for group in by_label(chosen.train).values()] == [16, 5]
    assert "16 shots per class, but class 'class 1' (5) has fewer: using all" in caplog.text
    assert "class 0" not in caplog.text


@pytest.mark.parametrize(("k", "half"), [(2, 1), (7, 4), (19, 10), (4, 2)])
def test_base_is_the_first_half_rounded_up(k, half):
    split = make_split(*[10] * k)
    base, new = take_subset(split, "base"), take_subset(split, "new")
    for kept, first, size in [(base, 0, half), (new, half, k - half)]:
        for part in kept:
            assert sorted(set(labels(part))) == list(range(size))
            assert all(item.classname == f"class {item.label + first}" for item in part)
    assert sorted(i.path for i in base.test + new.test) == sorted(i.path for i in split.test)
    assert take_subset(split, "all") == split


def test_base_of_few_shot_is_few_shot_of_base():
    split = make_split(20, 20, 20)
    base = take_subset(few_shot(split, 4, 1), "base")
    assert base.train == [item for item in few_shot(split, 4, 1).train if item.label < 2]


def test_unknown_subset_lists_the_choices():
    with pytest.raises(UserError, match=r"'novel'.* Choices: all, base, new\."):
        take_subset(make_split(10, 10), "novel")
    with pytest.raises(UserError, match="no new half"):
        take_subset(make_split(10), "new")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"test": []}, "s.json: no test image for class 'a', 'b'. Add images"),
        ({"train": [Item("x", 0, "a")]}, "s.json: no train image for class 'b'"),
        ({"val": [Item("x", 0, "b")]}, "label 0 is called both 'a' and 'b'"),
        ({"val": [Item("x", 3, "d")]}, "labels must be 0, 1, ..., K-1, found [0, 1, 3]"),
        ({"train": [], "val": [], "test": []}, "found no image"),
    ],
)
def test_splits_that_dassl_would_misread_are_refused(changes, text):
    both = [Item("x", 0, "a"), Item("y", 1, "b")]
    good = Split(both, [], both)
    check_split(good, "s.json")
    with pytest.raises(UserError, match=re.escape(text)):
        check_split(good._replace(**changes), "s.json")
