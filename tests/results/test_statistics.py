"""Intervals cover what they promise; paired tests are right and are wrong no more than 5 %."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dplq.errors import UserError
from dplq.results import collect
from dplq.results.__main__ import main
from dplq.results.comparison import comparison
from dplq.results.composite import NOTE, composites
from dplq.results.diagram import draw_diagram
from dplq.results.names import row_names
from dplq.results.statistics import average_ranks, compare, half_interval
from dplq.results.summary import summarise
from dplq.results.tables import accuracy_table


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_covers_the_mean_in_95_of_100(seeds):
    """20,000 drawn tables; the population deviation over sqrt(n) times 1.96 covered 75 at three."""
    random = np.random.default_rng(seeds)
    drawn = random.normal(70, 2, (20_000, seeds))
    covered = np.mean([abs(np.mean(row) - 70) <= half_interval(row) for row in drawn])
    assert 0.945 < covered < 0.955


@pytest.mark.parametrize("pairs", [6, 12, 24])
def test_false_positives_of_the_paired_tests(pairs):
    random = np.random.default_rng(pairs)
    found = {"t_test": 0, "wilcoxon": 0}
    for row in random.normal(0, 2, (2000, pairs)):
        result = compare(dict(enumerate(row)), dict.fromkeys(range(pairs), 0.0))
        for name in found:
            found[name] += getattr(result, name) < 0.05
    # 2.3 standard errors of a share of 5 % in 2,000
    assert found["t_test"] / 2000 < 0.0613
    assert found["wilcoxon"] / 2000 < 0.0613


def test_comparison_equals_scipy():
    random = np.random.default_rng(0)
    one, other = random.normal(70, 3, 9), random.normal(68, 3, 9)
    keys = [("RSSCN7", seed) for seed in range(9)]
    result = compare(
        dict(zip(keys, one, strict=True)), dict(zip(reversed(keys), other[::-1], strict=True))
    )
    assert result.pairs == 9
    assert result.difference == pytest.approx(np.mean(one - other))
    assert result.t_test == pytest.approx(stats.ttest_rel(one, other).pvalue, rel=1e-9)
    assert result.wilcoxon == pytest.approx(stats.wilcoxon(one, other).pvalue)
    low, high = stats.t.interval(0.95, 8, np.mean(one - other), stats.sem(one - other))
    assert result.half == pytest.approx((high - low) / 2)


def test_where_a_test_has_no_result():
    assert compare({1: 70.0}, {2: 70.0}) is None
    one = compare({1: 70.0}, {1: 69.0})
    assert (one.pairs, one.difference, one.half, one.t_test) == (1, 1.0, None, None)
    same = compare({1: 70.0, 2: 71.0}, {1: 70.0, 2: 71.0})
    assert (same.half, same.t_test, same.wilcoxon) == (0.0, None, None)


def test_equal_differences_of_accuracies_are_equal():
    """Accuracies are quotients: one image more is not the same float each time."""

    def accuracies(*correct):
        return {seed: 100 * number / 70 for seed, number in enumerate(correct)}

    one_more = compare(accuracies(50, 40, 34), accuracies(49, 39, 33))
    assert (one_more.t_test, one_more.half) == (None, 0.0)
    random = np.random.default_rng(0)
    for first, second in random.integers(20, 50, (200, 2, 6)):
        moved = [a - b for a, b in zip(first, second, strict=True) if a != b]
        wanted = stats.wilcoxon(moved).pvalue
        assert compare(accuracies(*first), accuracies(*second)).wilcoxon == pytest.approx(wanted)


def test_average_ranks():
    """Four methods, five blocks; q is 2.569 in Demsar's table, times sqrt(k (k + 1) / 6 N)."""
    values = {
        "a": dict(enumerate([90, 91, 92, 93, 94])),
        "b": dict(enumerate([80, 91, 82, 83, 84])),
        "c": dict(enumerate([70, 71, 72, 73, 95])),
        "d": dict(enumerate([60, 61, 62, 63, 64])),
    }
    ranks = average_ranks(values)
    assert ranks.average == pytest.approx({"a": 1.3, "b": 2.1, "c": 2.6, "d": 4.0})
    assert ranks.critical_difference == pytest.approx(2.569 * np.sqrt(20 / 30), abs=1e-3)
    by_block = [list(v.values()) for v in values.values()]
    assert ranks.friedman == pytest.approx(stats.friedmanchisquare(*by_block).pvalue)
    assert average_ranks({"a": values["a"], "b": values["b"]}) is None


def write(out, subset, trainer, seed, accuracy, config="tiny", **more):
    kind = {"base": "train_base", "new": "test_new"}[subset]
    folder = out / kind / "RSSCN7/shots_16" / trainer / config / f"seed{seed}"
    folder.mkdir(parents=True)
    data = {
        **{"format": 1, "trainer": trainer, "dataset": "RSSCN7", "subsample": subset},
        **{"split": "test", "shots": 16, "seed": seed, "accuracy": accuracy},
        **more,
    }
    (folder / "results.json").write_text(json.dumps(data))


def test_the_table(tmp_path, capsys):
    for seed, base in enumerate((80.0, 81.0, 82.0)):
        write(tmp_path, "base", "CoOp", seed, base)
        write(tmp_path, "new", "CoOp", seed, 60.0)
        write(tmp_path, "base", "MaPLe", seed, base + 1 + seed)
        write(tmp_path, "new", "MaPLe", seed, 60.0)
        write(tmp_path, "base", "LinearProbe", seed, base)
    write(tmp_path, "base", "MaPLe", 9, 10.0)  # no partner
    assert main([str(tmp_path), "--compare", "coop"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split() for line in lines]
    assert ["MaPLe", "base", "3", "+2.00", "+-", "2.48", "0.074", "0.250"] in cells
    assert ["MaPLe", "new", "3", "+0.00", "+-", "0.00", "-", "-"] in cells
    assert ["LinearProbe", "base", "3", "+0.00", "+-", "0.00", "-", "-"] in cells
    assert any(row[:2] == ["MaPLe", "H"] for row in cells)
    assert not any(row[:2] == ["LinearProbe", "H"] for row in cells)


def test_what_cannot_be_compared(tmp_path):
    write(tmp_path, "base", "CoOp", 1, 80.0)
    runs = collect([tmp_path])
    with pytest.raises(UserError, match="no run of 'MaPLe' to compare with"):
        comparison(runs, "MaPLe")
    with pytest.raises(UserError, match="no trainer has a run of the dataset, seed and number"):
        comparison(runs, "CoOp")
    runs = collect([tmp_path])
    with pytest.raises(UserError, match="CoOp has two runs of RSSCN7, seed 1"):
        comparison([*runs, *runs], "CoOp")


def test_a_zero_shot_run_is_compared_at_every_number_of_shots(tmp_path):
    """Its folder says 16, and it has no training images."""
    runs = []
    for shots, accuracy in ((1, 52.0), (4, 55.0)):
        write(tmp_path / str(shots), "base", "CoOp", 1, accuracy)
        (one,) = collect([tmp_path / str(shots)])
        setting = one.setting._replace(shots=shots, root=str(tmp_path))
        runs.append(replace(one, setting=setting, subset="all"))
    write(tmp_path / "16", "base", "ZeroshotCLIP", 1, 40.0)
    (one,) = collect([tmp_path / "16"])
    runs.append(replace(one, setting=one.setting._replace(root=str(tmp_path)), subset="all"))
    row = comparison(runs, "ZeroshotCLIP").splitlines()[2].split()
    assert row[:4] == ["CoOp", "all", "2", "+13.50"]  # of 12 and 15


def same_place(out, accuracies, shots=16, **more):
    """Return a run of all classes per trainer, as if all were below one folder."""
    runs = []
    for trainer, by_seed in accuracies.items():
        for seed, accuracy in by_seed.items():
            folder = out / f"{trainer}{shots}{seed}"
            write(folder, "base", trainer, seed, accuracy)
            (one,) = collect([folder])
            setting = one.setting._replace(shots=shots, root=str(out))
            runs.append(replace(one, setting=setting, subset="all", **more))
    return runs


def test_zero_shot_runs_are_paired_once_whatever_the_shots_of_others(tmp_path):
    """Ten numbers of shots of CoOp made ten pairs of each seed."""
    zero_shot = {"ZeroshotCLIP": {1: 60.0, 2: 50.0}, "ZeroshotCLIP2": {1: 61.0, 2: 53.0}}
    runs = same_place(tmp_path / "a", zero_shot)
    expected = comparison(runs, "ZeroshotCLIP").splitlines()[2]
    assert expected.split()[:4] == ["ZeroshotCLIP2", "all", "2", "+2.00"]
    setting = runs[0].setting
    for shots in (1, 2, 4):
        more = same_place(tmp_path / "a", {"CoOp": {1: 70.0, 2: 71.0}}, shots)
        runs += [replace(r, setting=r.setting._replace(root=setting.root)) for r in more]
    rows = comparison(runs, "ZeroshotCLIP").splitlines()
    assert [row.split()[:4] for row in rows[2:4]] == [
        ["CoOp", "all", "6", "+15.50"],
        ["ZeroshotCLIP2", "all", "2", "+2.00"],
    ]
    assert rows[3].split() == expected.split()


def test_zero_shot_runs_that_are_alike_are_one_pair(tmp_path):
    """Three seeds of one deterministic run are no three pairs."""
    alike = {"ZeroshotCLIP": dict.fromkeys((1, 2, 3), 60.0), "ZeroshotCLIP2": {1: 61.0, 2: 61.0}}
    row = comparison(same_place(tmp_path, alike), "ZeroshotCLIP").splitlines()[2]
    assert row.split() == ["ZeroshotCLIP2", "all", "1", "+1.00", "+-", "-", "-", "-"]


def test_ties_are_not_broken_by_the_last_bits():
    values = {"a": {1: 0.1 + 0.2, 2: 1.0}, "b": {1: 0.3, 2: 1.0}, "c": {1: 0.0, 2: 0.0}}
    assert average_ranks(values).average == {"a": 1.5, "b": 1.5, "c": 3.0}


def test_small_p_are_not_zero(tmp_path):
    accuracies = {"CoOp": dict.fromkeys(range(1, 9), 60.0)}
    accuracies["MaPLe"] = {seed: 70 + 0.1 * seed for seed in range(1, 9)}
    row = comparison(same_place(tmp_path, accuracies), "CoOp").splitlines()[2]
    assert row.split()[-2:] == ["<0.001", "0.008"]


def test_runs_on_other_splits_are_no_pairs(tmp_path, caplog):
    one = same_place(tmp_path, {"CoOp": {1: 60.0, 2: 50.0, 3: 40.0}}, split="aa")
    other = same_place(tmp_path, {"MaPLe": {1: 66.0, 2: 56.0, 3: 40.0}}, split="aa")
    other[2] = replace(other[2], split="bb")
    assert comparison([*one, *other], "CoOp").splitlines()[2].split()[:4] == [
        *("MaPLe", "all", "2", "+6.00"),
    ]
    assert (
        "MaPLe and CoOp were tested on other images of RSSCN7 (the splits of their data differ): "
        "these runs are not paired"
    ) in caplog.text


def test_splits_are_compared_of_each_number_of_shots(tmp_path, caplog):
    """Each trainer has both splits, and no two of its runs have the other's."""
    runs = []
    for shots, (one, other) in {4: ("aa", "bb"), 16: ("bb", "aa")}.items():
        runs += same_place(tmp_path, {"CoOp": {1: 60.0, 2: 50.0}}, shots, split=one)
        runs += same_place(tmp_path, {"MaPLe": {1: 66.0, 2: 56.0}}, shots, split=other)
    with pytest.raises(UserError, match="no trainer has a run of the dataset"):
        comparison(runs, "CoOp")


def test_ranks_are_of_runs_on_the_same_images(tmp_path):
    accuracies = {
        "CoOp": {1: 60.0, 2: 50.0},
        "VPT": {1: 61.0, 2: 51.0},
        "MaPLe": {1: 66.0, 2: 56.0},
    }
    runs = [
        run
        for name in accuracies
        for run in same_place(tmp_path, {name: accuracies[name]}, split="aa")
    ]
    assert "Average rank in all over 2 datasets" in comparison(runs, "CoOp")
    other = [replace(r, split="bb") if r.setting.trainer == "MaPLe" else r for r in runs]
    assert "Average rank" not in comparison(other, "CoOp")


def test_nothing_is_bold_among_rows_of_other_splits(tmp_path, caplog):
    runs = same_place(tmp_path, {"CoOp": {1: 60.0, 2: 50.0}}, split="aa")
    for split in ("aa", "bb"):
        others = same_place(tmp_path / split, {"MaPLe": {1: 66.0, 2: 56.0}}, split=split)
        others = [replace(r, setting=r.setting._replace(root=str(tmp_path))) for r in others]
        text = accuracy_table(summarise([*runs, *others])).render("github")
        assert ("**61.00" in text) is (split == "aa")
    assert "the splits of the data differ, so these means are of other images" in caplog.text


def test_configs_of_a_trainer_are_compared_by_what_their_names_add(tmp_path):
    for out, config in (("one", "demo"), ("two", "vit_b16")):
        write(tmp_path / out, "base", "GDA", 1, 80.0, config=config)
        write(tmp_path / out, "base", "GDA", 1, 81.0, config=f"{config}_ctx")
    text = comparison(collect([tmp_path]), "GDA")
    assert "GDA (ctx)  base      2        +1.00 +- 0.00" in text


def test_a_config_alone_in_its_folder_is_not_taken_for_the_plain_one(tmp_path):
    """`both` is alone in the second folder, and was the trainer's plain row there."""
    for out, config in (("one", "vit_b16"), ("two", "vit_b16_both")):
        write(tmp_path / out, "base", "MaPLe", 1, 80.0, config="demo")
        write(tmp_path / out, "base", "LinearProbe", 1, 70.0, config=config)
    text = comparison(collect([tmp_path]), "MaPLe")
    assert re.search(r"LinearProbe +base +1 +-10\.00", text)
    assert re.search(r"LinearProbe \(both\) +base +1 +-10\.00", text)


def composite_runs(out):
    """Two heads, two zero-shot CLIPs; the better ones are GDA and ZeroshotCLIP2."""
    for seed, (probe, gda) in {1: (90.0, 80.0), 2: (60.0, 80.0), 3: (60.0, 80.0)}.items():
        write(out, "base", "LinearProbe", seed, probe)
        write(out, "base", "GDA", seed, gda + seed, any_classes=False)
    for seed in (1, 2, 4):
        write(out, "new", "ZeroshotCLIP", seed, 50.0)
        write(out, "new", "ZeroshotCLIP2", seed, 55.0, config="tiny_ctx")
        write(out, "new", "MaPLe", seed, 99.0)


def test_a_composite_is_the_best_head_and_the_best_zero_shot_clip_by_seed(tmp_path, capsys):
    composite_runs(tmp_path)
    found = composites(collect([tmp_path]))
    assert [(run.subset, run.seed, run.accuracy) for run in found] == [
        *(("base", 1, 81.0), ("new", 1, 55.0)),
        *(("base", 2, 82.0), ("new", 2, 55.0)),
    ]
    assert {run.setting[1:] for run in found} == {
        ("GDA + ZeroshotCLIP2 (composite)", "tiny + tiny_ctx", 16)
    }
    assert main([str(tmp_path), "--composite"]) == 0
    table = capsys.readouterr().out
    h = 2 * 81.5 * 55 / (81.5 + 55)
    assert re.search(rf"81.50 \+- 0.50 +55.00 \+- 0.00 +{h:.2f} \+- ", table)
    assert "(composite): two models" in table
    assert main([str(tmp_path), "--composite", "--compare", "GDA"]) == 0
    assert re.search(r"composite +base +2 +\+0.00", capsys.readouterr().out)


def test_a_composite_has_the_best_of_those_with_all_seeds(tmp_path):
    """LinearProbe's lucky seed does not compete; the others do over seeds 2 and 3 alone."""
    write(tmp_path, "base", "LinearProbe", 1, 90.0)
    for seed, accuracy in {1: 99.0, 2: 80.0, 3: 80.0}.items():
        write(tmp_path, "base", "GDA", seed, accuracy, any_classes=False)
    for seed, accuracy in {2: 81.0, 3: 81.0, 4: 60.0}.items():
        write(tmp_path, "base", "CLAP", seed, accuracy, any_classes=False)
    for seed in (1, 2, 3, 4):
        write(tmp_path, "new", "ZeroshotCLIP", seed, 50.0)
    found = composites(collect([tmp_path]))
    assert {run.setting.trainer for run in found} == {"CLAP + ZeroshotCLIP (composite)"}
    assert [run.seed for run in found if run.subset == "base"] == [2, 3, 4]
    assert "only those with the most seeds compete, over the seeds that they share" in NOTE


def test_no_composite_of_heads_without_a_seed_in_common(tmp_path, caplog):
    for seed, trainer in ((1, "GDA"), (2, "CLAP")):
        write(tmp_path, "base", trainer, seed, 80.0, any_classes=False)
        write(tmp_path, "new", "ZeroshotCLIP", seed, 50.0)
    with pytest.raises(UserError, match="with the same seeds"):
        composites(collect([tmp_path]))
    (message,) = caplog.messages
    assert message.endswith("no seed in common: CLAP, tiny / GDA, tiny")


def test_a_composite_says_which_configs_it_has(tmp_path):
    write(tmp_path, "base", "LinearProbe", 1, 80.0, config="demo_both")
    write(tmp_path, "new", "ZeroshotCLIP", 1, 50.0, config="demo")
    runs = composites(collect([tmp_path]))
    (setting,) = {run.setting for run in runs}
    assert setting.trainer == "LinearProbe (both) + ZeroshotCLIP (composite)"
    assert row_names([setting]) == {setting: setting.trainer}


def test_no_composite_without_both(tmp_path):
    write(tmp_path, "base", "LinearProbe", 1, 80.0)
    write(tmp_path, "new", "MaPLe", 1, 80.0)
    with pytest.raises(UserError, match="no composite: give folders with runs on base classes"):
        composites(collect([tmp_path]))


def test_the_diagram_draws_the_ranks_and_who_is_alike(tmp_path, capsys):
    pytest.importorskip("scikit_posthocs")
    for seed in range(8):
        for trainer, base in {"CoOp": 60.0, "MaPLe": 70.0, "VPT": 69.0 + 2 * (seed % 2)}.items():
            write(tmp_path, "base", trainer, seed, base + seed)
            write(tmp_path, "new", trainer, seed, 50.0)
    path = tmp_path / "ranks.png"
    assert main([str(tmp_path), "--diagram", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert f"Diagram: {path}" in capsys.readouterr().out
    ranks = draw_diagram(collect([tmp_path]), path)
    assert ranks.average == {"MaPLe": 1.5, "VPT": 1.5, "CoOp": 3.0}
    assert ranks.are_alike("MaPLe", "VPT")
    assert not ranks.are_alike("CoOp", "VPT")


def test_a_diagram_of_two_trainers_is_refused(tmp_path):
    for trainer in ("CoOp", "MaPLe"):
        write(tmp_path, "base", trainer, 1, 80.0)
    with pytest.raises(UserError, match="the diagram needs all of three trainers or more"):
        draw_diagram(collect([tmp_path]), tmp_path / "ranks.png")


def test_a_diagram_without_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scikit_posthocs", None)
    for trainer in ("CoOp", "MaPLe", "VPT"):
        for seed in (1, 2):
            write(tmp_path, "base", trainer, seed, 80.0 + seed)
            write(tmp_path, "new", trainer, seed, 60.0)
    with pytest.raises(UserError, match="pip install scikit-posthocs"):
        draw_diagram(collect([tmp_path]), tmp_path / "ranks.png")
