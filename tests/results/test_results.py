"""dplq.results: reading runs, pairing seeds, the tables, the curve and the command line."""

import csv
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dplq.errors import UserError
from dplq.results import Stat, collect, render, summarise
from dplq.results.__main__ import main
from dplq.results.rendering import STYLES
from tests.oddities import KINDS, make_odd

KIND = {"base": "base2new/train_base", "new": "base2new/test_new", "all": "few_shot"}
BASE = {1: 97.31, 2: 96.05, 3: 98.4}
NEW = {1: 71.2, 2: 80.9, 3: 64.0}


def place(out, dataset, subset, seed, trainer="QuaternionPrompt"):
    return out / KIND[subset] / dataset / "shots_16" / trainer / "tiny" / f"seed{seed}"


def write_run(out, dataset, subset, seed, accuracy, trainer="QuaternionPrompt", **more):
    folder = place(out, dataset, subset, seed, trainer)
    folder.mkdir(parents=True)
    data = {
        **{"format": 1, "trainer": trainer, "dataset": dataset, "subsample": subset},
        **{"split": "test", "shots": 16, "seed": seed, "accuracy": accuracy},
        **more,
    }
    (folder / "results.json").write_text(json.dumps(data))
    return folder


def write_pairs(out, dataset="RSSCN7", base=BASE, new=NEW, **kwargs):
    for subset, accuracies in (("base", base), ("new", new)):
        for seed, accuracy in accuracies.items():
            write_run(out, dataset, subset, seed, accuracy, **kwargs)


def write_log(out, dataset, subset, seed, text, name="log.txt"):
    folder = place(out, dataset, subset, seed, "CoOp")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder


def harmonic(base, new):
    return 2 * base * new / (base + new)


def test_mean_std_and_harmonic_mean(tmp_path):
    write_pairs(tmp_path)
    (row,) = summarise(collect([tmp_path]))
    base, new = np.array([*BASE.values()]), np.array([*NEW.values()])
    for name, values in (("base", base), ("new", new)):
        assert row.stats[name].mean == pytest.approx(values.mean())
        assert row.stats[name].std == pytest.approx(np.std(values))
    # H of the averages, which is not the average of H.
    assert row.stats["H"].mean == pytest.approx(harmonic(base.mean(), new.mean()))
    assert row.stats["H"].mean != pytest.approx(harmonic(base, new).mean(), abs=0.1)
    assert row.stats["H"].std == pytest.approx(np.std(harmonic(base, new)))
    assert row.seeds == {"base": (1, 2, 3), "new": (1, 2, 3)}
    assert not row.rounded
    assert row.setting == (str(tmp_path / "base2new"), "QuaternionPrompt", "tiny", 16)


def test_zero_accuracy_has_zero_harmonic_mean(tmp_path):
    write_pairs(tmp_path, base={1: 0.0}, new={1: 50.0})
    assert summarise(collect([tmp_path]))[0].stats["H"] == Stat(0.0, 0.0, 1)


def test_ci95():
    values = [50.0, 52.0, 54.0, 49.0]  # scipy.stats.t.interval(0.95, 3, ...)
    half = Stat(np.mean(values), np.std(values), 4).spread(ci95=True)
    assert half == pytest.approx(3.182446 * np.std(values, ddof=1) / 2, rel=1e-6)
    assert Stat(50.0, 0.0, 1).spread(ci95=True) is Stat(50.0, 0.0, 1).spread(ci95=False) is None
    assert Stat(50.0, 2.0, 4).spread(ci95=False) == 2.0


def test_missing_run_is_named_and_left_out_of_h(tmp_path, caplog):
    write_pairs(tmp_path, new={1: 71.2, 2: 80.9})
    (row,) = summarise(collect([tmp_path]))
    assert row.stats["base"].count == 3
    assert row.stats["new"].count == 2
    expected = harmonic((97.31 + 96.05) / 2, (71.2 + 80.9) / 2)
    assert row.stats["H"].mean == pytest.approx(expected)
    assert row.stats["H"].count == 2
    (message,) = caplog.messages
    folder = place(tmp_path, "RSSCN7", "new", 3)
    assert message.startswith(f"RSSCN7, seed 3: no finished run on the new classes in {folder}")
    assert "base 1 2 3, new 1 2" in render([row])


def write_generalised(out, seed, base, new, trainer="QuaternionPrompt"):
    place = out / "base2new/test_all/RSSCN7/shots_16" / trainer / f"tiny/seed{seed}"
    folder = write_run(out, "RSSCN7", "all", seed, 1.0, trainer)
    path = folder / "results.json"
    data = json.loads(path.read_text()) | {"generalised": {"base": base, "new": new, "H": 0.0}}
    path.write_text(json.dumps(data))
    place.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(place)


def test_generalised_runs_are_columns_of_their_own(tmp_path, caplog):
    write_pairs(tmp_path)
    bases, news = {1: 50.0, 2: 60.0, 3: 80.0}, {1: 40.0, 2: 30.0, 3: 20.0}
    for seed in bases:
        write_generalised(tmp_path, seed, bases[seed], news[seed])
    (row,) = summarise(collect([tmp_path]))
    assert set(row.stats) == {"base", "new", "H", "gen. base", "gen. new", "gen. H"}
    assert row.stats["gen. base"].mean == pytest.approx(np.mean([*bases.values()]))
    assert row.stats["gen. H"].mean == pytest.approx(harmonic(190 / 3, 30))
    per_seed = [harmonic(bases[seed], news[seed]) for seed in bases]
    assert row.stats["gen. H"].std == pytest.approx(np.std(per_seed))
    header = render([row]).splitlines()[0]
    assert " ".join(header.split()[5:]) == "base new H gen. base gen. new gen. H"
    assert "chooses among all class names" in render([row])
    assert caplog.text == ""


def test_all_class_runs_elsewhere_are_not_generalised(tmp_path):
    """A zero-shot run of all classes has both halves, too."""
    folder = write_run(tmp_path, "RSSCN7", "all", 1, 70.0, "ZeroshotCLIP")
    data = json.loads((folder / "results.json").read_text())
    data["generalised"] = {"base": 80.0, "new": 60.0}
    (folder / "results.json").write_text(json.dumps(data))
    assert [(run.subset, run.accuracy) for run in collect([tmp_path])] == [("all", 70.0)]


def test_trainings_that_failed_are_named(tmp_path):
    ends = {1: (60.0, 50.0), 2: (60.0, 99.0), 3: (60.0, 59.0), 4: (None, 40.0)}
    for seed, (start, end) in ends.items():
        folder = write_run(tmp_path, "RSSCN7", "base", seed, 90.0)
        data = json.loads((folder / "results.json").read_text())
        data["train_accuracy"] = {"start": start, "end": end}
        (folder / "results.json").write_text(json.dumps(data))
    text = render(summarise(collect([tmp_path])))
    which = "QuaternionPrompt (tiny, RSSCN7, seeds"
    start = "On its own training images the training"
    assert f"{start} did not fit: {which} 4).\n" in text
    assert f"{start} ended below its start: {which} 1 3)." in text
    folder = tmp_path / "train_base/RSSCN7/shots_4/QuaternionPrompt/tiny/seed4"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(data | {"shots": 4}))
    text = render(summarise(collect([tmp_path])))
    (said,) = (line for line in text.splitlines() if "did not fit" in line)
    found = [f"QuaternionPrompt (tiny, RSSCN7, {shots} shots, seeds 4)" for shots in (16, 4)]
    assert sorted(said.partition(": ")[2].rstrip(".").split("; ")) == found


def test_only_base(tmp_path, caplog):
    write_run(tmp_path, "RSSCN7", "base", 1, 90.0)
    (row,) = summarise(collect([tmp_path]))
    assert set(row.stats) == {"base"}
    assert render([row]).splitlines()[2].split()[-5:] == ["90.00", "+-", "-", "-", "-"]
    assert "no finished run on the new classes" in caplog.text


def test_average_row(tmp_path, caplog):
    write_pairs(tmp_path, "RSSCN7", {1: 90.0, 2: 80.0}, {1: 60.0, 2: 70.0})
    write_pairs(tmp_path, "AID", {1: 70.0, 2: 70.0}, {1: 50.0, 2: 50.0})
    rows = summarise(collect([tmp_path]))
    assert [row.dataset for row in rows] == ["AID", "RSSCN7", "average of 2"]
    means = {name: stat.mean for name, stat in rows[2].stats.items()}
    assert means == pytest.approx({"base": 77.5, "new": 57.5, "H": harmonic(77.5, 57.5)})
    assert caplog.text == ""
    assert rows[2].seeds == rows[0].seeds


def test_average_over_different_seeds_warns(tmp_path, caplog):
    write_pairs(tmp_path, "RSSCN7", {1: 90.0, 2: 80.0}, {1: 60.0, 2: 70.0})
    write_pairs(tmp_path, "AID", {1: 70.0}, {1: 50.0})
    rows = summarise(collect([tmp_path]))
    assert "the average mixes different seeds (1 / 1 2)" in caplog.text
    assert "mixed" in render(rows)


def test_average_of_datasets_without_a_pair_of_seeds(tmp_path, caplog):
    """H of AID has no seed, its averages have one; H of the averages is printed."""
    write_pairs(tmp_path, "AID", {1: 70.0}, {2: 50.0})
    write_pairs(tmp_path, "RSSCN7", {1: 90.0, 2: 80.0}, {1: 60.0, 2: 70.0})
    row = summarise(collect([tmp_path]))[-1]
    assert row.stats["H"].mean == pytest.approx(harmonic(77.5, 57.5))
    assert row.values["H"] == {
        ("RSSCN7", 1): pytest.approx(harmonic(90, 60)),
        ("RSSCN7", 2): pytest.approx(harmonic(80, 70)),
    }
    assert f"{harmonic(77.5, 57.5):.2f}" in render([row])
    assert caplog.text.count("H leaves this seed out") == 2


def test_no_average_of_what_a_dataset_lacks(tmp_path, caplog):
    write_pairs(tmp_path, "RSSCN7", {1: 90.0}, {1: 60.0})
    write_run(tmp_path, "AID", "base", 1, 70.0)
    rows = summarise(collect([tmp_path]))
    assert set(rows[-1].stats) == {"base"}
    assert "no average of 'new', which lacks AID" in caplog.text


def test_trainers_and_experiments_are_kept_apart(tmp_path):
    write_pairs(tmp_path / "a", base={1: 90.0}, new={1: 60.0})
    write_pairs(tmp_path / "a", base={1: 80.0}, new={1: 60.0}, trainer="CoOp")
    write_pairs(tmp_path / "b", base={1: 70.0}, new={1: 60.0})
    write_run(tmp_path / "b", "RSSCN7", "all", 1, 50.0)
    rows = summarise(collect([tmp_path]))
    bases = [row.stats["base"].mean if "base" in row.stats else None for row in rows]
    assert bases == [80.0, 90.0, 70.0, None]
    header = render(rows).splitlines()[0].split()
    assert " ".join(header) == "output trainer config shots dataset seeds base new H all"


def test_the_same_folder_twice_counts_once(tmp_path):
    write_pairs(tmp_path)
    assert len(collect([tmp_path, tmp_path / "base2new"])) == 6


def test_the_same_run_in_two_places_warns(tmp_path, caplog):
    write_run(tmp_path, "RSSCN7", "base", 1, 90.0)
    copy = tmp_path / "base2new/test_base/RSSCN7/shots_16/QuaternionPrompt/tiny/seed1"
    copy.parent.mkdir(parents=True)
    (place(tmp_path, "RSSCN7", "base", 1)).rename(copy)
    write_run(tmp_path, "RSSCN7", "base", 1, 70.0)
    (row,) = summarise(collect([tmp_path]))
    assert row.stats["base"] == Stat(90.0, 0.0, 1)
    assert f"the same run twice: {copy} is used" in caplog.text


def test_results_outside_the_layout(tmp_path):
    write_run(tmp_path, "RSSCN7", "new", 1, 60.0)
    place(tmp_path, "RSSCN7", "new", 1).rename(tmp_path / "mine")
    (run,) = collect([tmp_path])
    assert run.setting == (str(tmp_path), "QuaternionPrompt", "mine", 16)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"format": 1, "trai', "not valid JSON"),
        ("", "not valid JSON"),
        ("[]", "expected `object`, got `array`"),
        ("[" * 10_000, "nested too deeply"),
        ('{"format": 2}', "format: invalid enum value 2"),
        ('{"format": 1, "trainer": "T"}', "object missing required field `dataset`"),
    ],
)
def test_bad_results_are_skipped_by_name(tmp_path, caplog, text, reason):
    write_run(tmp_path, "RSSCN7", "base", 1, 90.0)
    bad = write_run(tmp_path, "RSSCN7", "base", 2, 90.0)
    (bad / "results.json").write_text(text)
    (bad / "log.txt").write_text("* accuracy: 12.0%\n")
    assert [run.seed for run in collect([tmp_path])] == [1]
    assert caplog.messages[0].startswith(f"skipped {bad}: {bad}/results.json cannot be used: ")
    assert reason in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": float("nan")},
        {"accuracy": 101},
        {"accuracy": None},
        {"accuracy": True},
        {"subsample": "old"},
        {"split": "val"},
        {"shots": 1.5},
        {"shots": -2},
        {"seed": -2},
        {"seed": 2**32},
        {"trainer": ""},
        {"seconds": 3},
        {"seconds": {"step": -1}},
        {"learnable_parameters": [1]},
        {"device": 1},
        {"device": "a\nb"},
        {"trainer": "\udce9"},
    ],
)
def test_bad_values_are_skipped(tmp_path, caplog, change):
    write_run(tmp_path, "RSSCN7", "base", 1, 90.0)
    bad = write_run(tmp_path, "RSSCN7", "base", 2, 90.0)
    data = json.loads((bad / "results.json").read_text())
    (bad / "results.json").write_text(json.dumps({**data, **change}))
    assert [run.seed for run in collect([tmp_path])] == [1]
    assert caplog.messages[0].startswith(f"skipped {bad}: ")
    assert "results.json" in caplog.messages[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["results.json", "log.txt"])
def test_what_is_no_file_is_skipped(tmp_path, caplog, kind, name):
    write_run(tmp_path, "RSSCN7", "base", 1, 90.0)
    bad = write_run(tmp_path, "RSSCN7", "base", 2, 90.0)
    (bad / "results.json").unlink()
    make_odd(bad / name, kind)
    assert [run.seed for run in collect([tmp_path])] == [1]
    if kind != "folder":  # which os.walk does not list as a file
        assert caplog.messages[0].startswith(f"skipped {bad}: {bad}/{name} ")


@pytest.mark.parametrize(("name", "shown"), [(b"caf\xe9", r"caf\xe9"), (b"a\nb", r"a\nb")])
def test_folders_whose_names_cannot_be_written_are_skipped(tmp_path, caplog, name, shown):
    write_run(tmp_path, "RSSCN7", "base", 1, 90.0)
    write_run(tmp_path / os.fsdecode(name), "RSSCN7", "base", 2, 90.0)
    assert [run.seed for run in collect([tmp_path])] == [1]
    assert caplog.messages[0].startswith(f"skipped {tmp_path}/{shown}/")
    assert "\n" not in caplog.messages[0]


@pytest.mark.parametrize("accuracy", ["900", "1.2.3"])
def test_accuracies_in_logs_are_validated(tmp_path, caplog, accuracy):
    write_log(tmp_path, "eurosat", "base", 1, "* accuracy: 97.3%\n")
    write_log(tmp_path, "eurosat", "base", 2, f"* accuracy: {accuracy}%\n")
    assert [run.seed for run in collect([tmp_path])] == [1]
    assert "seed2: " in caplog.messages[0]


@pytest.mark.parametrize("flags", [["OUT"], [".", "--curve", "OUT"]])
@pytest.mark.parametrize("path", ["~nobody-has-this-name/x", "a" * 300, "a\0b", "\udce9"])
def test_paths_that_cannot_be_used(capsys, flags, path):
    assert main([path if flag == "OUT" else flag for flag in flags]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {flags[-2] if flags[1:] else 'OUT'} is ")
    assert captured.err.count("\n") == 1


def test_logs_of_coop_and_maple(tmp_path):
    train = "Evaluate on the *val* set\n* accuracy: 99.9%\nEvaluate on the *test* set\n"
    write_log(tmp_path, "eurosat", "base", 1, f"{train}* total: 48\n* accuracy: 97.3%\n")
    write_log(tmp_path, "eurosat", "new", 1, "interrupted\n")
    write_log(tmp_path, "eurosat", "new", 1, "* accuracy: 61.2%\n", "log.txt-2024-01-01-10-00-00")
    (row,) = summarise(collect([tmp_path]))
    assert (row.stats["base"].mean, row.stats["new"].mean, row.rounded) == (97.3, 61.2, True)
    text = render([row])
    assert "eurosat*" in text
    assert "log.txt gives rounded" in text


def test_log_of_a_cross_dataset_test(tmp_path):
    folder = tmp_path / "evaluation/MaPLe/vit_b16_c2_16shots/eurosat/seed2"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("* accuracy: 48.1%\n")
    (run,) = collect([tmp_path])
    assert run.setting == (str(tmp_path / "evaluation"), "MaPLe", "vit_b16_c2", 16)
    assert (run.dataset, run.subset, run.seed, run.accuracy) == ("eurosat", "all", 2, 48.1)


@pytest.mark.parametrize(
    ("folder", "root", "trainer", "config", "dataset"),
    [
        (  # scripts/coop/main.sh
            "output/caltech101/CoOp/vit_b16_16shots/nctx16_cscFalse_ctpend",
            *("output", "CoOp", "vit_b16_nctx16_cscFalse_ctpend", "caltech101"),
        ),
        (  # scripts/coop/eval.sh
            "output/evaluation/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/imagenetv2",
            *("output/evaluation", "CoOp", "rn50_nctx16_cscFalse_ctpend", "imagenetv2"),
        ),
        (  # scripts/cocoop/xd_train.sh
            "output/imagenet/CoCoOp/vit_b16_c4_16shots",
            *("output", "CoCoOp", "vit_b16_c4", "imagenet"),
        ),
        (  # scripts/cocoop/xd_test.sh
            "output/evaluation/CoCoOp/vit_b16_c4_16shots/dtd",
            *("output/evaluation", "CoCoOp", "vit_b16_c4", "dtd"),
        ),
        (  # this project's, which names the source
            "output/evaluation/rsscn7/CoOp/vit_b16@slow_16shots/ucm",
            *("output/evaluation/rsscn7", "CoOp", "vit_b16@slow", "ucm"),
        ),
        ("moved/CoCoOp/vit_b16_c4_16shots/dtd", "moved", "CoCoOp", "vit_b16_c4", "dtd"),
        (
            "evaluation/output/dtd/CoOp/vit_b16_16shots/nctx4_cscTrue_ctpmiddle",
            *("evaluation/output", "CoOp", "vit_b16_nctx4_cscTrue_ctpmiddle", "dtd"),
        ),
    ],
)
def test_the_layouts_of_coops_and_maples_scripts(tmp_path, folder, root, trainer, config, dataset):
    for seed in (1, 2):
        (tmp_path / folder / f"seed{seed}").mkdir(parents=True)
        (tmp_path / folder / f"seed{seed}/log.txt").write_text("* accuracy: 48.1%\n")
    runs = collect([tmp_path])
    assert {run.setting for run in runs} == {(str(tmp_path / root), trainer, config, 16)}
    assert {(run.dataset, run.seed) for run in runs} == {(dataset, 1), (dataset, 2)}


@pytest.mark.parametrize("what", ["split", "settings", "both", "nothing"])
def test_runs_of_one_row_that_differ_in_more_than_the_seed_are_said(tmp_path, caplog, what):
    for seed in (1, 2, 3):
        write_run(tmp_path, "rsscn7", "base", seed, 70)
        path = next(tmp_path.glob(f"**/seed{seed}/results.json"))
        content = json.loads(path.read_text())
        rate = 0.1 if seed == 3 and what in ("settings", "both") else 0.2
        content["split_hash"] = "b" if seed == 3 and what in ("split", "both") else "a"
        content["config"] = {"OPTIM": {"LR": rate}, "SEED": seed, "TRAIN": {"PRINT_FREQ": seed}}
        path.write_text(json.dumps(content))
    summarise(collect([tmp_path]))
    said = [text for text in caplog.messages if "averaged all the same" in text]
    assert [text.partition(" differ in ")[2].partition(", and")[0] for text in said] == {
        "split": ["the split of their data"],
        "settings": ["OPTIM.LR"],
        "both": ["the split of their data", "OPTIM.LR"],
        "nothing": [],
    }[what]
    assert all("seeds 1 2 3 differ" in text for text in said)


def test_unfinished_logs_are_skipped(tmp_path, caplog):
    write_log(tmp_path, "eurosat", "base", 1, "* accuracy: 97.3%\n")
    write_log(tmp_path, "eurosat", "base", 2, "Evaluate on the *val* set\n* accuracy: 9.0%\n")
    ours = write_log(tmp_path, "eurosat", "base", 3, "* accuracy: 97.3%\n")
    (ours / "settings.txt").touch()
    assert [run.seed for run in collect([tmp_path])] == [1]
    assert "seed2: log.txt has no test accuracy" in caplog.messages[0]
    assert "seed3: not finished" in caplog.messages[1]


def test_formats(tmp_path):
    write_pairs(tmp_path, base={1: 97.0, 2: 97.5}, new={1: 60.0, 2: 61.0}, trainer="My_Trainer")
    rows = summarise(collect([tmp_path]))
    assert "97.25 +- 0.25" in render(rows)
    assert "population" in render(rows)
    assert "| My_Trainer | tiny" in render(rows, "github")
    latex = render(rows, "latex")
    assert r"My\_Trainer" in latex
    assert STYLES["latex"].escape(r"c^1~{z}\d%") == (
        r"c\textasciicircum{}1\textasciitilde{}\{z\}\textbackslash{}d\%"
    )
    assert r"$97.25 \pm 0.25$" in latex
    assert all(line.startswith("% ") for line in latex.split("\n\n")[1].splitlines())
    (record,) = csv.DictReader(render(rows, "csv", ci95=True).splitlines())
    assert record["base_mean"] == "97.2500"
    assert record["rounded"] == "no"
    assert float(record["base_ci95"]) == pytest.approx(12.7062 * 0.25, abs=1e-3)
    with pytest.raises(UserError, match=r"'pdf'\. Choices: csv, github, html, latex, simple\."):
        render(rows, "pdf")


def test_nothing_found(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: no finished run")
    assert str(tmp_path) in captured.err
    assert main([str(tmp_path / "absent")]) == 2
    assert f"no folder {tmp_path / 'absent'}" in capsys.readouterr().err


def test_command_line(tmp_path, capsys):
    write_pairs(tmp_path)
    assert main([str(tmp_path), "--ci95"]) == 0
    assert "95 % interval" in capsys.readouterr().out
    assert main([str(tmp_path), "--format", "csv"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 2
    assert "population" in captured.err
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path), "--format", "pdf"])
    assert stop.value.code == 2
    assert "invalid choice: 'pdf'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "population standard deviation" in " ".join(capsys.readouterr().out.split())


def test_import_is_light():
    code = "import sys, dplq.results; sys.exit('torch' in sys.modules or 'yacs' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_warnings_go_to_logging(tmp_path, caplog):
    write_run(tmp_path, "RSSCN7", "new", 4, 60.0)
    summarise(collect([tmp_path]))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(place(tmp_path, "RSSCN7", "base", 4)) in caplog.text


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("\n}", ', "accuracy": 3.0\n}', "accuracy"),  # on a line with another key
        ("\n}", ',\n "accuracy" : 3.0\n}', "accuracy"),
        ('"a": 1.5', '"a": 1.5, "a": 2.5', "a"),
        ('"LR": 0.1', '"LR": 0.1,\n  "LR": 0.2', "LR"),
        ("[{}]", '[{"x": 1, "x": 2}]', "x"),
        ('"path": ""', '"path": "a\\\\", "path": ""', "path"),
    ],
)
def test_no_key_may_be_there_twice(tmp_path, caplog, before, after, key):
    folder = write_run(tmp_path, "RSSCN7", "base", 1, 90.0)
    path = folder / "results.json"
    content = {
        **json.loads(path.read_text()),
        **{"per_class_accuracy": {"a": 1.5}, "images": {"path": ""}},
        "config": {"OPTIM": {"LR": 0.1}, "MORE": [{}]},
    }
    text = json.dumps(content, indent=1)
    path.write_text(text)
    assert [run.accuracy for run in collect([tmp_path])] == [90.0]
    text = re.sub(r"\[\s*\{\}\s*\]", "[{}]", text)
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(UserError, match="no finished run"):
        collect([tmp_path])
    assert f"the key '{key}' is there twice" in caplog.text


def test_what_we_write_is_read_as_strictly_as_anything_else(tmp_path, caplog):
    """A results.json in the layout of `write_results` has a decoder of its own."""
    good = write_run(tmp_path, "RSSCN7", "base", 1, 90.0)
    content = json.loads((good / "results.json").read_text())
    lines = json.dumps({**content, "per_class_accuracy": {"a": 1.5}}, indent=1)
    (good / "results.json").write_text(lines)
    changes = {
        2: (lines, lines.replace(' "seed": 1,', ' "seed": 1,\n "seed": 2,')),
        3: (lines, lines.replace("90.0", "NaN")),
        4: (lines, lines.replace("1.5", "1e999")),
        5: (lines, lines.replace('"base"', '"old"')),
        6: (lines, lines[:-3]),
    }
    for seed, (before, after) in changes.items():
        assert before != after
        bad = write_run(tmp_path, "RSSCN7", "base", seed, 90.0)
        (bad / "results.json").write_text(after)
    assert [run.seed for run in collect([tmp_path])] == [1]
    reasons = ["the key 'seed' is there twice", "NaN is not a finite", "1e999 is not", "subsample"]
    for reason, message in zip([*reasons, "not valid JSON"], caplog.messages, strict=True):
        assert reason in message
