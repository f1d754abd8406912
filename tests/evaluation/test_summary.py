"""The metrics of a test against scikit-learn, or a plain computation where they are its own."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from sklearn import metrics

from dplq.errors import UserError
from dplq.evaluation.calibration import fit_temperature, log_loss_of_logits, reliability, softmax
from dplq.evaluation.metrics import scores
from dplq.evaluation.prediction_table import PredictionTable
from dplq.evaluation.summary import short_line, summarise

TABLES = 1000
NEAR = 1e-9


def table_of(labels, probabilities, predictions=None, groups=None, classes=None):
    probabilities = np.asarray(probabilities, dtype=np.float32)
    images, count = probabilities.shape
    return PredictionTable(
        classes or [f"class {index}" for index in range(count)],
        [f"{index}.png" for index in range(images)],
        labels,
        probabilities.argmax(1) if predictions is None else predictions,
        groups or [""] * images,
        probabilities,
    )


def random_table(seed):
    """Return a table; in turn plain, of few levels (ties), of absent classes, of one class."""
    random = np.random.default_rng(seed)
    classes, images = int(random.integers(1, 6)), int(random.integers(1, 60))
    kind = seed % 4
    numbers = random.dirichlet(np.full(classes, 0.5), images)
    if kind == 1:  # eighths: sums of float32 that are exact, and many equal scores
        numbers = random.multinomial(8, np.full(classes, 1 / classes), images) / 8
    used = {2: max(1, classes // 2), 3: 1}.get(kind, classes)
    labels = random.permutation(classes)[:used][random.integers(0, used, images)]
    table = table_of(labels, numbers)
    if seed % 5 == 0:  # predictions that are not the most probable class
        table.predictions = random.integers(0, classes, images)
    return table


def plain_auroc(positive, scores):
    """Pairs in the right order, ties one half: all of them are counted."""
    ones, rest = scores[positive][:, None], scores[~positive][None]
    return ((ones > rest) + 0.5 * (ones == rest)).mean()


def plain_average_precision(positive, scores):
    """Sum of precision times the step in recall, over the levels of the scores."""
    total, before, area = positive.sum(), 0, 0.0
    for level in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= level
        hits = (chosen & positive).sum()
        area += hits / chosen.sum() * (hits - before) / total
        before = hits
    return area


def plain_ece(confidence, hits):
    total = 0.0
    for index in range(15):
        low, high = index / 15, (index + 1) / 15
        inside = (confidence > low) & (confidence <= high)
        inside |= (confidence == 0) & (index == 0)
        if inside.any():
            total += inside.mean() * abs(hits[inside].mean() - confidence[inside].mean())
    return total


def expected_of(table):
    """Return the same metrics, otherwise."""
    y, guess, count = table.labels, table.predictions, len(table.classes)
    p = table.probabilities.astype(np.float64)
    present, rows = np.unique(y), np.arange(len(y))
    found = {
        "accuracy": metrics.accuracy_score(y, guess),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, guess),
        "macro_f1": metrics.f1_score(y, guess, average="macro", labels=present, zero_division=0),
        "ece": plain_ece(p[rows, guess], y == guess),
        "brier": ((p - np.eye(count)[y]) ** 2).sum(axis=1).mean(),
        "log_loss": np.mean([-np.log(max(p[i, y[i]], np.finfo(float).eps)) for i in rows]),
    }
    per_class = []
    for label in range(count):
        positive, chosen = y == label, guess == label
        both = positive.any() and not positive.all()
        some = positive.any() or chosen.any()
        scores, has = p[:, label], positive.any()
        per_class.append(
            {
                "support": positive.sum(),
                "sensitivity": chosen[positive].mean() if has else None,
                "specificity": None if positive.all() else (~chosen[~positive]).mean(),
                "precision": positive[chosen].mean() if chosen.any() else None,
                "f1": 2 * (positive & chosen).sum() / (positive.sum() + chosen.sum())
                if some
                else None,
                "auroc": plain_auroc(positive, scores) if both else None,
                "average_precision": plain_average_precision(positive, scores) if has else None,
            }
        )
    for name in ("auroc", "average_precision"):
        known = [one[name] for one in per_class if one[name] is not None]
        found[f"macro_{name}"] = np.mean(known) if known else None
    return found, dict(zip(table.classes, per_class, strict=True))


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:.*single label was found")
@pytest.mark.parametrize("first", range(0, TABLES, 250))
def test_a_thousand_random_tables(first):
    for seed in range(first, first + 250):
        table = random_table(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # ours warns of nothing
            found = summarise(table, with_intervals=False)
        overall, per_class = expected_of(table)
        for name, value in overall.items():
            assert found[name] == pytest.approx(value, abs=NEAR), (seed, name)
        assert found["per_class"].keys() == per_class.keys()
        for name, values in per_class.items():
            assert found["per_class"][name] == pytest.approx(values, abs=NEAR), (seed, name)
        confusion = np.zeros((len(table.classes),) * 2, dtype=int)
        np.add.at(confusion, (table.labels, table.predictions), 1)
        assert found["confusion_matrix"] == confusion.tolist()
        json.dumps(found, allow_nan=False)


def test_the_metrics_are_scikit_learns():
    random = np.random.default_rng(0)
    labels = np.concatenate([np.arange(6), random.integers(0, 6, 300)])
    table = table_of(labels, random.dirichlet(np.ones(6), len(labels)))
    p = table.probabilities.astype(np.float64)
    found = summarise(table, with_intervals=False)
    exact = p / p.sum(axis=1, keepdims=True)  # scikit-learn wants sums of 1 to the last bit
    area = metrics.roc_auc_score(labels, exact, multi_class="ovr", average="macro")
    assert found["macro_auroc"] == pytest.approx(area, abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, p), abs=NEAR)
    of_classes = [metrics.brier_score_loss(labels == k, p[:, k]) for k in range(6)]
    assert found["brier"] == pytest.approx(sum(of_classes), abs=NEAR)
    y, guess = table.labels, table.predictions
    assert found["confusion_matrix"] == metrics.confusion_matrix(y, guess).tolist()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(y, guess)
    for label, values in enumerate(found["per_class"].values()):
        assert values["support"] == support[label]
        assert values["sensitivity"] == pytest.approx(recall[label], abs=NEAR)
        assert values["precision"] == pytest.approx(precision[label], abs=NEAR)
        assert values["f1"] == pytest.approx(f1[label], abs=NEAR)
        rest = metrics.recall_score(y != label, guess != label)
        assert values["specificity"] == pytest.approx(rest, abs=NEAR)


def test_classes_without_images_are_named_and_have_no_sensitivity():
    table = table_of([0, 0, 2], [[1, 0, 0], [0, 1, 0], [0, 0, 1]], classes=["a", "b", "c"])
    found = summarise(table)
    assert found["classes_without_images"] == ["b"]
    assert found["per_class"]["b"] == {
        **{"support": 0, "sensitivity": None, "specificity": pytest.approx(2 / 3)},
        **{"precision": 0.0, "f1": 0.0, "auroc": None, "average_precision": None},
    }
    assert found["balanced_accuracy"] == 0.75
    assert found["macro_auroc"] == pytest.approx((0.75 + 1) / 2)


def test_one_class_has_no_auroc():
    table = table_of([1, 1], [[0.4, 0.6], [0.9, 0.1]])
    found = summarise(table)
    assert found["macro_auroc"] is None
    assert found["intervals"]["macro_auroc"] is None
    assert found["per_class"]["class 1"]["specificity"] is None
    assert short_line(found) == (
        "* balanced accuracy: 50.0%, macro AUROC: none (one class), ECE: 0.650"
    )


def test_the_line_of_the_log():
    table = table_of([0, 1, 1], [[0.75, 0.25], [0.25, 0.75], [0.75, 0.25]])
    expected = "* balanced accuracy: 75.0%, macro AUROC: 0.750, ECE: 0.083"
    assert short_line(summarise(table)) == expected


@pytest.mark.parametrize("row", [[np.nan, 1], [1.5, -0.5], [0.5, 0.4], [np.inf, 0]])
def test_what_is_no_probability_is_refused(row):
    table = table_of([0, 1], [[0.5, 0.5], row])
    with pytest.raises(UserError, match=r"1 of 2 images have no probabilities.*1\.png"):
        summarise(table)


def test_images_without_a_label_are_left_out():
    numbers = [[1, 0], [0.2, 0.8], [0.6, 0.4]]
    both = summarise(table_of([0, -1, 1], numbers, groups=["a", "b", "c"]))
    assert (both.pop("images"), both.pop("unlabelled")) == (2, 1)
    numbers.pop(1)
    table = table_of([0, 1], numbers, groups=["a", "c"])
    alone = summarise(table)
    assert (alone.pop("images"), alone.pop("unlabelled")) == (2, 0)
    assert both == alone
    with pytest.raises(UserError, match="None of the 2 images has a label"):
        summarise(table_of([-1, -1], numbers))


def test_bins_are_closed_on_the_right():
    edges = np.array([0.0, 1 / 15, 2 / 15, 1.0])
    bins = reliability(edges, np.array([True, True, False, True]))
    assert bins.images.tolist() == [2, 1] + [0] * 12 + [1]
    assert bins.accuracy[[0, 1, 14]].tolist() == [1, 0, 1]
    assert np.isnan(bins.accuracy[2:14]).all()


def test_a_confusion_matrix_of_very_many_classes_is_left_out():
    numbers = np.full((2, 201), 1 / 201)
    assert summarise(table_of([0, 1], numbers))["confusion_matrix"] is None
    fewer = numbers[:, :200] * 201 / 200
    assert len(summarise(table_of([0, 1], fewer))["confusion_matrix"]) == 200


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_the_temperature_is_that_of_a_search_on_a_grid(scale):
    random = np.random.default_rng(0)
    logits = random.normal(size=(400, 5)).astype(np.float32)
    p = softmax(logits)
    labels = np.array([random.choice(5, p=row / row.sum()) for row in p.astype(np.float64)])
    logits *= scale  # too sure, or too unsure: the temperature takes the scale back
    found = fit_temperature(logits, labels)
    grid = scale * np.linspace(0.7, 1.4, 701)
    losses = [log_loss_of_logits(logits, labels, temperature) for temperature in grid]
    assert found == pytest.approx(grid[np.argmin(losses)], rel=2e-3)
    assert log_loss_of_logits(logits, labels, found) <= min(losses)
    mean = -np.log(softmax(logits, found)[np.arange(400), labels].astype(np.float64)).mean()
    assert log_loss_of_logits(logits, labels, found) == pytest.approx(mean, abs=1e-6)
    assert (softmax(logits, found).argmax(1) == logits.argmax(1)).all()


def test_the_temperature_stays_in_its_bounds():
    logits = np.eye(3, dtype=np.float32)
    assert 0.01 <= fit_temperature(logits, np.arange(3)) < 0.05  # every image is right
    assert 99 < fit_temperature(-logits, np.arange(3)) <= 100  # every image is wrong


def test_classes_of_equal_names_keep_their_accuracies():
    found = scores([0, 0, 1, 2], [0, 1, 1, 0], {0: "crane", 1: "bulbul", 2: "crane"})
    assert found["per_class_accuracy"] == {"crane": 50.0, "bulbul": 100.0, "crane (2)": 0.0}
