"""Bootstrap intervals: over groups or images, against draws that are made one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dplq.evaluation import bootstrap, intervals
from dplq.evaluation.bootstrap import drawn_counts, percentile_interval, units_of
from dplq.evaluation.prediction_table import PredictionTable
from dplq.evaluation.summary import summarise

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "ece")


def random_table(images=60, classes=4, grouped=True, seed=0):
    random = np.random.default_rng(seed)
    numbers = random.multinomial(16, np.full(classes, 1 / classes), images) / 16  # ties
    return PredictionTable(
        [f"c{index}" for index in range(classes)],
        [f"{index}.png" for index in range(images)],
        random.integers(0, classes, images),
        numbers.argmax(1),
        [f"p{index // 4}" if grouped and index < 40 else "" for index in range(images)],
        numbers,
    )


def test_every_draw_has_the_metrics_of_a_table_of_the_drawn_images(monkeypatch):
    table = random_table(images=30)
    unit = units_of(table.groups, table.paths)
    monkeypatch.setattr(bootstrap, "CHUNK", 50)  # several chunks
    monkeypatch.setattr(intervals, "drawn_counts", lambda units: drawn_counts(units, 40))
    units = int(unit.max()) + 1
    drawn = intervals._drawn(table, unit, units, auroc_draws=40)
    counts = np.concatenate(list(drawn_counts(units, 40)), axis=1)
    assert counts.shape == (units, 40)
    assert (counts.sum(axis=0) == units).all()
    for draw in range(40):
        rows = np.repeat(np.arange(30), counts[unit, draw])
        expected = summarise(table.rows(rows), with_intervals=False)
        for name in METRICS:
            assert drawn[name][draw] == pytest.approx(expected[name], abs=1e-9), (draw, name)


def test_groups_are_drawn_whole():
    groups = ["a", "", "b", "a", ""]
    paths = ["1", "2", "3", "4", "5"]
    unit = units_of(groups, paths)
    assert unit[0] == unit[3]
    assert len(set(unit.tolist())) == 4
    assert units_of(["a", ""], ["x", "a"]).tolist() == [1, 0]  # a path is no group of that name


def test_images_of_a_group_are_no_independent_evidence():
    """Copies of one image each: over groups as wide as the originals, over images narrower."""
    one = random_table(images=50, grouped=False)
    copies = one.rows(np.repeat(np.arange(50), 9))
    copies.paths = [f"{path}-{index}" for index, path in enumerate(copies.paths)]
    apart = summarise(copies)["intervals"]
    copies.groups = [path.split("-")[0] for path in copies.paths]
    together = summarise(copies)["intervals"]
    original = summarise(one)["intervals"]
    assert (apart["over"], apart["units"]) == ("images", 450)
    assert (together["over"], together["units"]) == ("groups", 50)
    for name in METRICS:
        assert together[name] == pytest.approx(original[name], abs=1e-9)
        low, high = apart[name]
        assert high - low < 0.6 * (original[name][1] - original[name][0])


def test_the_order_of_the_images_does_not_count():
    table = random_table()
    shuffled = table.rows(np.random.default_rng(1).permutation(len(table)))
    one, other = (summarise(some)["intervals"] for some in (table, shuffled))
    for name in METRICS:
        assert one[name] == pytest.approx(other[name], abs=1e-12)


def test_the_interval_of_an_accuracy_is_that_of_the_binomial():
    """700 of 1000 right: 0.7 +- 1.96 sqrt(0.21 / 1000)."""
    labels = np.zeros(1000, dtype=np.int64)
    numbers = np.tile([0.9, 0.1], (1000, 1))
    numbers[:300] = [0.1, 0.9]
    paths = [f"{index}.png" for index in range(1000)]
    table = PredictionTable(["a", "b"], paths, labels, numbers.argmax(1), [""] * 1000, numbers)
    found = summarise(table)["intervals"]
    half = 1.96 * np.sqrt(0.21 / 1000)
    assert found["accuracy"] == pytest.approx([0.7 - half, 0.7 + half], abs=0.004)
    assert (found["level"], found["draws"]) == (0.95, 1000)


def test_one_unit_has_no_interval():
    table = random_table(images=8)
    table.groups = ["the only one"] * 8
    found = summarise(table)["intervals"]
    assert found["units"] == 1
    assert [found[name] for name in METRICS] == [None] * 5


def test_too_many_probabilities_leave_the_auroc_without_interval(monkeypatch):
    table = random_table()
    monkeypatch.setattr(intervals, "NUMBERS", table.probabilities.size * 300)
    some = intervals.intervals(table)
    assert some["auroc_draws"] == 300
    assert some["macro_auroc"] is not None
    monkeypatch.setattr(intervals, "NUMBERS", table.probabilities.size * 199)
    none = intervals.intervals(table)
    assert (none["auroc_draws"], none["macro_auroc"]) == (0, None)
    assert none["accuracy"] == some["accuracy"]


def test_a_draw_without_value_is_left_out():
    assert percentile_interval(np.array([np.nan, np.nan])) is None
    values = np.arange(101.0)
    values[0] = np.nan
    expected = np.percentile(np.arange(1, 101), [2.5, 97.5])
    assert percentile_interval(values) == pytest.approx(expected)


def alike(images, right, groups=()):
    """Predictions of which all are right, or none."""
    labels = np.arange(images) % 2
    numbers = np.full((images, 2), 0.3, dtype=np.float32)
    numbers[np.arange(images), labels if right else 1 - labels] = 0.7
    paths = [f"{index}.png" for index in range(images)]
    groups = list(groups) or [""] * images
    return PredictionTable(["a", "b"], paths, labels, numbers.argmax(1), groups, numbers)


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("images", [5, 900])
def test_draws_that_are_all_alike_are_no_certainty(right, images):
    """The accuracy has Clopper and Pearson's interval; nothing else has any."""
    found = intervals.intervals(alike(images, right))
    exact = stats.binomtest(images * right, images).proportion_ci(0.95, method="exact")
    assert found["accuracy"] == pytest.approx([exact.low, exact.high], abs=1e-12)
    assert [found[name] for name in METRICS if name not in ("accuracy", "ece")] == [None] * 3
    patients = [f"p{index % 5}" for index in range(images)]
    assert intervals.intervals(alike(images, right, patients))["accuracy"] is None


@pytest.mark.parametrize(("patients", "has_interval"), [(2, False), (4, False), (5, True)])
def test_few_groups_have_no_interval(patients, has_interval):
    table = random_table(images=200)
    table.groups = [f"p{index % patients}" for index in range(200)]
    found = intervals.intervals(table)
    assert (found["over"], found["units"]) == ("groups", patients)
    assert (found["accuracy"] is not None) == has_interval
