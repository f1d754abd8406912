"""Finished runs as a pandas table: columns, --where, --by, --runs; against plain computations."""

from __future__ import annotations

import csv
import json
import re
from statistics import fmean, harmonic_mean, pstdev

import pandas
import pytest

from dplq.errors import UserError
from dplq.results import accuracy_table, collect, frame, grouped_table, select, summarise
from dplq.results.__main__ import main
from dplq.results.frames import listed
from tests.results.test_grids import write_shots
from tests.results.test_results import BASE, NEW, write_log, write_pairs, write_run

SECOND = {1: 80.0, 2: 81.0, 3: 85.5}


@pytest.fixture
def two_datasets(tmp_path):
    """CoOp and MaPLe on two datasets, base and new classes, three seeds."""
    for trainer, less in (("CoOp", 0.0), ("MaPLe", 10.0)):
        for dataset, base in (("RSSCN7", BASE), ("AID", SECOND)):
            lower = {seed: value - less for seed, value in base.items()}
            write_pairs(tmp_path, dataset, lower, NEW, trainer=trainer)
    return tmp_path


def test_a_line_per_run_with_metrics_and_costs(tmp_path):
    folder = write_run(tmp_path, "RSSCN7", "base", 1, 90.0)
    content = json.loads((folder / "results.json").read_text())
    content["metrics"] = {"macro_auroc": 0.75, "macro_f1": None}
    content |= {"peak_memory_mib": 1234.5, "seconds": {"step": 0.25}}
    (folder / "results.json").write_text(json.dumps(content))
    write_log(tmp_path, "eurosat", "new", 2, "* accuracy: 61.2%\n")
    table = frame(collect([tmp_path])).set_index("dataset")
    ours, log = table.loc["RSSCN7"], table.loc["eurosat"]
    assert ours[["trainer", "config", "classes", "shots", "seed"]].tolist() == [
        *("QuaternionPrompt", "tiny", "base", 16, 1)
    ]
    assert ours[["accuracy", "macro_auroc", "peak_memory_mib"]].tolist() == [90.0, 75.0, 1234.5]
    assert ours["seconds_per_step"] == 0.25
    assert pandas.isna(ours["macro_f1"])
    assert ours["folder"] == str(folder)
    assert (log["accuracy"], bool(log["rounded"]), log["trainer"]) == (61.2, True, "CoOp")
    assert pandas.isna(log["macro_auroc"])


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        (["trainer=coop"], 12),
        (["trainer=CoOp,MaPLe", "dataset=aid"], 12),
        (["trainer!=CoOp", "classes=base", "seed=1,3"], 4),
        (["dataset=RS*"], 12),
        (["shots=16"], 24),
    ],
)
def test_conditions(two_datasets, conditions, left):
    runs = collect([two_datasets])
    chosen = select(runs, conditions)
    assert len(chosen) == left
    assert [run for run in runs if run in chosen] == chosen  # order is kept


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("trainer=CoOpp", "--where trainer=CoOpp: no run is left. Did you mean 'CoOp'?"),
        ("shots=4", "--where shots=4: no run is left. Choices: 16."),
        ("trainr=CoOp", "--where trainr=CoOp: no column 'trainr'. Did you mean 'trainer'?"),
        ("CoOp", "--where CoOp: write COLUMN=VALUE, such as trainer=CoOp"),
        ("trainer=", "--where trainer=: write COLUMN=VALUE, such as trainer=CoOp"),
        ("trainer!=CoOp,MaPLe", "--where trainer!=CoOp,MaPLe: no run is left."),
    ],
)
def test_conditions_that_cannot_be(two_datasets, capsys, condition, message):
    assert main([str(two_datasets), "--where", condition]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_groups_are_means_of_each_seed(two_datasets, caplog):
    table = grouped_table(collect([two_datasets]), ["trainer"])
    lines = {line.labels["trainer"]: line for line in table.lines}
    base = [fmean([BASE[seed], SECOND[seed]]) for seed in (1, 2, 3)]
    new = [NEW[seed] for seed in (1, 2, 3)]
    stats = lines["CoOp"].stats
    assert stats["base"].mean == pytest.approx(fmean(base))
    assert stats["base"].std == pytest.approx(pstdev(base))
    assert stats["H"].mean == pytest.approx(harmonic_mean([fmean(base), fmean(new)]))
    per_seed = [harmonic_mean(pair) for pair in zip(base, new, strict=True)]
    assert stats["H"].std == pytest.approx(pstdev(per_seed))
    assert lines["MaPLe"].stats["base"].mean == pytest.approx(fmean(base) - 10)
    assert lines["CoOp"].labels == {"trainer": "CoOp", "runs": "12", "seeds": "1 2 3"}
    assert caplog.text == ""
    text = table.render("github")
    assert "Of each seed the mean over all of: dataset." in text
    assert f"**{fmean(base):.2f} +- {pstdev(base):.2f}**" in text  # MaPLe is 10 points behind


def test_groups_of_several_columns(two_datasets):
    table = grouped_table(collect([two_datasets]), ["dataset", "trainer"])
    names = [(line.labels["dataset"], line.labels["trainer"]) for line in table.lines]
    assert names == [("AID", "CoOp"), ("AID", "MaPLe"), ("RSSCN7", "CoOp"), ("RSSCN7", "MaPLe")]
    assert table.lines[0].stats["base"].mean == pytest.approx(fmean(SECOND.values()))
    assert "Of each seed" not in table.render("simple")


def test_groups_whose_seeds_have_other_runs_are_named(two_datasets, caplog):
    write_run(two_datasets, "EuroSAT", "base", 2, 50.0, trainer="CoOp")
    grouped_table(collect([two_datasets]), ["trainer"])
    assert caplog.messages == [
        "CoOp: the seeds have different runs on base classes (seed 1: 2, seed 2: 3, seed 3: 2)",
        "base: these means are not of the same runs, so none is bold (MaPLe lacks EuroSAT)",
    ]


def test_means_of_unequal_runs_are_named_and_not_bold(tmp_path, caplog):
    for seed in (1, 2):
        write_run(tmp_path, "Easy", "base", seed, 90.0 + seed, trainer="CoOp")
        write_run(tmp_path, "Hard", "base", seed, 30.0 + seed, trainer="CoOp")
        write_run(tmp_path, "Easy", "base", seed, 85.0 + seed, trainer="MaPLe")
        write_run(tmp_path, "Easy", "new", seed, 60.0 + seed, trainer="MaPLe")
        write_run(tmp_path, "Easy", "new", seed, 70.0 + seed, trainer="CoOp")
        write_run(tmp_path, "Hard", "new", seed, 20.0 + seed, trainer="CoOp")
    text = grouped_table(collect([tmp_path]), ["trainer"]).render("github")
    assert "**" not in text  # not of H either
    assert caplog.messages == [
        f"{classes}: these means are not of the same runs, so none is bold (MaPLe lacks Hard)"
        for classes in ("base", "new")
    ]
    caplog.clear()
    text = grouped_table(collect([tmp_path]), ["dataset", "trainer"]).render("github")
    assert text.count("**91.50 +- 0.50**") == text.count("**71.50 +- 0.50**") == 1
    assert caplog.messages == []


def test_seeds_with_other_runs_in_equal_number_are_named(tmp_path, caplog):
    for seed, names in {1: "AB", 2: "BA"}.items():
        for trainer, dataset in zip(("CoOp", "MaPLe"), names, strict=True):
            write_run(tmp_path, dataset, "base", seed, 50.0 + seed, trainer=trainer)
    text = grouped_table(collect([tmp_path]), ["trainer"]).render("github")
    assert "**" not in text
    assert caplog.messages == [
        "CoOp: the seeds have different runs on base classes (seed 1: A, seed 2: B)",
        "MaPLe: the seeds have different runs on base classes (seed 1: B, seed 2: A)",
        "base: these means are not of the same runs, so none is bold (their numbers, or their "
        "seeds, differ)",
    ]


def test_averages_of_other_datasets_are_not_compared(tmp_path, caplog):
    for trainer, names in (("CoOp", ("AID", "Easy")), ("MaPLe", ("AID", "Hard"))):
        for dataset in names:
            write_pairs(tmp_path, dataset, BASE, NEW, trainer=trainer)
    text = accuracy_table(summarise(collect([tmp_path]))).render("github")
    averages = [line for line in text.splitlines() if "average of 2" in line]
    assert len(averages) == 2
    assert "**" not in "".join(averages)
    assert caplog.messages[0] == (
        "average of 2, base: these means are not of the same runs, so none is bold (CoOp lacks "
        "Hard; MaPLe lacks Easy)"
    )


def test_shots_are_sorted_as_numbers(tmp_path):
    for shots in (16, 2, 4):
        write_shots(tmp_path, shots, {1: 50.0 + shots})
    table = grouped_table(collect([tmp_path]), ["shots"])
    assert [line.labels["shots"] for line in table.lines] == ["2", "4", "16"]
    assert table.columns == ["all"]


def test_a_grouping_that_cannot_be(two_datasets, capsys):
    assert main([str(two_datasets), "--by", "trainer,seed"]) == 2
    assert capsys.readouterr().err.startswith("error: --by seed: no such column. Choices: config,")
    with pytest.raises(UserError, match="Did you mean 'dataset'"):
        grouped_table(collect([two_datasets]), ["datset"])


@pytest.mark.parametrize("columns", ["", ",", " , "])
def test_no_column_is_refused(two_datasets, capsys, columns):
    assert main([str(two_datasets), "--by", columns]) == 2
    assert capsys.readouterr().err == (
        "error: --by names no column. Choices: output, trainer, config, dataset, shots.\n"
    )


def test_a_column_that_is_named_twice_is_one(two_datasets):
    runs = collect([two_datasets])
    assert grouped_table(runs, ["trainer", "trainer"]) == grouped_table(runs, ["trainer"])


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        (["--runs"], ["--curve", "c.png"]),
        (["--runs"], ["--diagram", "d.png"]),
        (["--runs"], ["--composite"]),
        (["--runs"], ["--ci95"]),
        (["--compare", "CoOp"], ["--curve", "c.png"]),
        (["--compare", "CoOp"], ["--ci95"]),
    ],
)
def test_options_without_use_are_refused(two_datasets, capsys, monkeypatch, kind, option):
    monkeypatch.chdir(two_datasets)
    assert main([str(two_datasets), *kind, *option]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {kind[0]} makes no use of {option[0]}: leave one of them out\n"


def test_what_is_empty_is_not_what_is_left_out(two_datasets, capsys):
    for option in ("--compare", "--curve", "--diagram"):
        assert main([str(two_datasets), option, ""]) == 2
    assert main([str(two_datasets), "--compare", "CoOp", "--format", "csv"]) == 2
    assert capsys.readouterr().err.endswith("--compare has no format csv: leave it out\n")


def test_the_command_line(two_datasets, capsys):
    out = str(two_datasets)
    assert (
        main([out, "--by", "trainer,dataset", "--format", "csv", "--where", "trainer=MaPLe"]) == 0
    )
    records = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [record["dataset"] for record in records] == ["AID", "RSSCN7"]
    assert float(records[0]["base_mean"]) == pytest.approx(fmean(SECOND.values()) - 10, abs=1e-4)
    assert main([out, "--runs", "--format", "csv", "--where", "seed=2"]) == 0
    records = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(records) == 8
    assert {record["seed"] for record in records} == {"2"}
    assert {record["macro_f1"] for record in records} == {""}
    assert main([out, "--runs"]) == 0
    shown = capsys.readouterr().out
    assert "QuaternionPrompt" not in shown
    assert "MaPLe" in shown
    assert "macro_f1" not in shown  # nothing has it
    assert main([out, "--runs", "--format", "latex"]) == 2
    assert "--runs has no format latex" in capsys.readouterr().err


def test_latex_has_the_rules_of_booktabs(two_datasets, capsys):
    assert main([str(two_datasets), "--by", "trainer", "--format", "latex"]) == 0
    text = capsys.readouterr().out
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{l"):
        assert text.count(rule) == 1
    assert text.count(r"\textbf{\boldmath $") >= 2
    assert r"\hline" not in text


def test_repeated_runs_count_once(two_datasets, caplog):
    place = two_datasets / "base2new/train_base/AID/shots_16/CoOp/tiny/seed1"
    copy = two_datasets / "base2new/test_base/AID/shots_16/CoOp/tiny/seed1"
    copy.mkdir(parents=True)
    content = (place / "results.json").read_text()
    (copy / "results.json").write_text(content)
    runs = collect([two_datasets])
    assert sum(run.folder in (place, copy) for run in runs) == 2
    table = grouped_table(runs, ["trainer"])
    assert table.lines[0].labels["runs"] == "12"
    assert "the same run twice" in caplog.text


def test_nothing_of_pandas_without_a_table(tmp_path):
    """The table in text needs none of it."""
    import subprocess
    import sys

    write_run(tmp_path, "RSSCN7", "all", 1, 90.0)
    code = (
        "import sys; from dplq.results.__main__ import main; "
        f"code = main([{str(tmp_path)!r}]); sys.exit(code or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_breaks_a_cell_is_escaped(tmp_path):
    for name in ("C|pipe*", "D<b>"):
        write_run(tmp_path, "RSSCN7", "all", 1, 50.0, trainer=name)
    runs = collect([tmp_path])
    for text in (listed(runs, "github"), accuracy_table(summarise(runs)).render("github")):
        rows = [row for row in text.splitlines() if row.startswith("|")]
        assert any(r"C\|pipe\*" in row for row in rows)
        assert any(r"D\<b\>" in row for row in rows)
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_a_generalised_test_counts_as_one_run(tmp_path):
    halves = {"base": 30.0, "new": 60.0}
    for seed in (1, 2):
        write_run(tmp_path, "RSSCN7", "all", seed, 45.0, generalised=halves)
    (line,) = grouped_table(collect([tmp_path]), ["trainer"]).lines
    assert line.labels["runs"] == "2"
