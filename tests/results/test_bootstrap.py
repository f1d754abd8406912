"""The bootstrap over test images: of one dataset and one seed."""

import numpy as np
import pytest
from scipy import stats

from dplq.evaluation.hits import decode_hits, encode_hits
from dplq.results import collect
from dplq.results.bootstrap import bootstrap_interval
from dplq.results.comparison import comparison
from tests.results.test_statistics import write


@pytest.mark.parametrize("total", [1, 7, 8, 9, 100])
def test_hits_come_back(total):
    random = np.random.default_rng(total)
    labels, guesses = random.integers(0, 3, (2, total)).tolist()
    text = encode_hits(labels, guesses)
    assert len(text) == 2 * -(-total // 8)
    assert decode_hits(text, total).tolist() == [
        a == b for a, b in zip(labels, guesses, strict=True)
    ]
    with pytest.raises(ValueError, match="not of"):
        decode_hits(text, total + 8)


def drawn(total=400, seed=0):
    random = np.random.default_rng(seed)
    first = random.random(total) < 0.8
    second = np.where(random.random(total) < 0.9, first, random.random(total) < 0.5)
    return first, second


def test_accuracy_against_scipys_bootstrap():
    first, second = drawn()
    expected = stats.bootstrap(
        (100.0 * first, 100.0 * second),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        **{"paired": True, "vectorized": True, "method": "percentile", "n_resamples": 10_000},
        random_state=np.random.default_rng(1),  # as scipy before 1.15 calls rng
    ).confidence_interval
    assert bootstrap_interval([(first, second)]) == pytest.approx(tuple(expected), abs=0.3)


def test_harmonic_mean_against_images_drawn_one_by_one():
    parts, random = [drawn(200, 1), drawn(300, 2)], np.random.default_rng(3)
    differences = []
    for _ in range(4000):
        accuracies = []
        for first, second in parts:
            index = random.integers(0, len(first), len(first))
            accuracies.append((100 * first[index].mean(), 100 * second[index].mean()))
        h = [2 * base * new / (base + new) for base, new in zip(*accuracies, strict=True)]
        differences.append(h[0] - h[1])
    expected = np.percentile(differences, [2.5, 97.5])
    assert bootstrap_interval(parts) == pytest.approx(tuple(expected), abs=0.4)


def test_methods_that_are_never_right_differ_by_nothing():
    never = np.zeros(10, dtype=bool)
    assert bootstrap_interval([(never, never), (never, never)]) is None


def write_hits(out, trainer, hits, subset="base", split="abc", **more):
    text = encode_hits(hits.tolist(), [True] * len(hits))
    more |= {"hits": text, "total": len(hits), "split_hash": split}
    write(out, subset, trainer, 1, 100.0 * hits.mean(), **more)


def test_a_single_pair_has_the_interval_of_its_images(tmp_path):
    first, second = drawn()
    write_hits(tmp_path, "MaPLe", first)
    write_hits(tmp_path, "CoOp", second)
    low, high = bootstrap_interval([(first, second)])
    difference = 100 * (first.mean() - second.mean())
    text = comparison(collect([tmp_path]), "CoOp")
    assert f"MaPLe      base      1        {difference:+.2f} [{low:+.2f}, {high:+.2f}]" in text
    groups = {"metrics": {"intervals": {"over": "groups"}}}
    write_hits(tmp_path, "IVLP", first, **groups)  # images of a patient are no independent draws
    text = comparison(collect([tmp_path]), "CoOp")
    assert f"IVLP       base      1        {difference:+.2f} +- -" in text
    write_hits(tmp_path, "VPT", first, split="other")  # not the same images, so no pair
    assert "VPT" not in comparison(collect([tmp_path]), "CoOp")


def test_other_seeds_of_one_trainer_leave_the_interval_of_the_only_pair(tmp_path):
    first, second = drawn()
    write_hits(tmp_path, "MaPLe", first)
    write_hits(tmp_path, "CoOp", second)
    write(tmp_path, "base", "CoOp", 2, 80.0)
    low, high = bootstrap_interval([(first, second)])
    assert f"[{low:+.2f}, {high:+.2f}]" in comparison(collect([tmp_path]), "CoOp")
    write(tmp_path, "base", "MaPLe", 2, 80.0)
    assert "[" not in comparison(collect([tmp_path]), "CoOp").split("difference:")[0]


def test_hits_of_another_number_of_images_are_refused(tmp_path, caplog):
    write(tmp_path, "base", "CoOp", 1, 80.0, hits="ff", total=20, split_hash="abc")
    write(tmp_path, "base", "MaPLe", 1, 80.0)
    assert [run.setting.trainer for run in collect([tmp_path])] == ["MaPLe"]
    assert "hits of 8 images at most, not of 20" in caplog.text
