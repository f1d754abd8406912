"""dplq.results: what methods cost, accuracy over shots and on other datasets, and the curve."""

import csv
import json
import sys

import pytest

from dplq.errors import UserError
from dplq.results import (
    collect,
    draw_curve,
    render,
    shots_table,
    summarise,
    transfer_table,
)
from dplq.results.__main__ import main
from dplq.results.curve import curve_figure, curves
from dplq.results.frames import grouped_table
from dplq.results.tables import accuracy_table

COSTS = {
    **{"learnable_parameters": 2147104, "checkpoint_bytes": 8600400, "peak_memory_mib": 1234.6},
    **{"seconds": {"train": 10.0, "test": 3.0, "step": 0.125}, "device": "cpu"},
    "precision": "fp32",
}


def write_run(folder, subset, accuracy, dataset="Aerial", trainer="CoOp", shots=16, **more):
    folder.mkdir(parents=True)
    data = {
        **{"format": 1, "trainer": trainer, "dataset": dataset, "subsample": subset},
        **{"split": "test", "shots": shots, "seed": int(folder.name[4:]), "accuracy": accuracy},
    }
    (folder / "results.json").write_text(json.dumps({**data, **more}))


def write_shots(out, shots, accuracies, trainer="CoOp", config="demo", **more):
    for seed, accuracy in accuracies.items():
        folder = out / f"aerial/shots_{shots}/{trainer}/{config}/seed{seed}"
        write_run(folder, "all", accuracy, trainer=trainer, shots=shots, **more)


def write_target(out, target, accuracies, trainer="CoOp"):
    for seed, accuracy in accuracies.items():
        folder = out / f"evaluation/aerial/{trainer}/demo_16shots/{target.lower()}/seed{seed}"
        write_run(folder, "all", accuracy, dataset=target, trainer=trainer)


@pytest.fixture
def pairs(tmp_path):
    """CoOp over two seeds, zero-shot CLIP over one, and a linear probe without new classes."""
    for kind, subset, accuracy in (("train_base", "base", 90.0), ("test_new", "new", 60.0)):
        place = tmp_path / kind / "aerial/shots_16"
        for seed in (1, 2):
            more = {**COSTS, "seconds": {"step": 0.125 * seed}}
            more |= (
                {"peak_memory_mib": 9999.0, "seconds": {"step": None}} if subset == "new" else {}
            )
            write_run(place / f"CoOp/demo/seed{seed}", subset, accuracy, **more)
        write_run(place / "ZeroshotCLIP/demo/seed1", subset, 50.0, trainer="ZeroshotCLIP")
        if subset == "base":
            write_run(
                place / "LinearProbe/demo/seed1", subset, 80.0, trainer="LinearProbe", **COSTS
            )
    return tmp_path


def test_costs_are_those_of_training(pairs, caplog):
    rows = {row.setting.trainer: row for row in summarise(collect([pairs]))}
    assert rows["CoOp"].costs == {
        **{"learnable_parameters": 2147104, "checkpoint_bytes": 8600400},
        **{"peak_memory_mib": 1234.6, "seconds_per_step": 0.1875},
    }
    assert rows["ZeroshotCLIP"].costs == {}
    assert caplog.text == ""


@pytest.mark.parametrize("table", [shots_table, transfer_table])
def test_trainings_that_did_not_fit_are_named(table, tmp_path):
    low = {"start": 30.0, "end": 31.0}
    write_shots(tmp_path, 16, {2: 60.0, 1: 61.0}, train_accuracy=low)
    write_shots(tmp_path, 16, {3: 61.0}, train_accuracy={"start": 30.0, "end": 100.0})
    text = table(collect([tmp_path])).render("github")
    said = "On its own training images the training did not fit: CoOp (demo, Aerial, 16 shots, "
    assert f"{said}seeds 1 2)." in text


@pytest.mark.parametrize("table", [shots_table, curves])
def test_seeds_of_several_configs_are_named(table, tmp_path, caplog):
    write_shots(tmp_path, 16, {1: 60.0, 2: 61.0}, config="rn50")
    table(collect([tmp_path]))
    assert caplog.text == ""
    write_shots(tmp_path, 16, {3: 80.0}, config="vit_b16")
    table(collect([tmp_path]))
    assert (
        "CoOp on Aerial: seeds of several configs or folders are averaged as if they were one "
        f"(rn50 below {tmp_path}: 1 2; vit_b16 below {tmp_path}: 3)"
    ) in caplog.text


@pytest.mark.parametrize(
    ("table", "joins"),
    [
        (curves, True),
        (lambda runs: grouped_table(runs, ["trainer"]), True),
        (shots_table, False),
        (lambda runs: grouped_table(runs, ["output"]), False),
    ],
)
def test_two_datasets_of_one_name_are_not_joined_in_silence(table, joins, tmp_path, caplog):
    """As two own datasets are, below one folder; a line of each joins none."""
    write_shots(tmp_path / "a", 4, {1: 60.0}, split_hash="11")
    write_shots(tmp_path / "a", 16, {1: 61.0}, split_hash="11")
    table(collect([tmp_path]))
    assert "splits or sets of images" not in caplog.text
    write_shots(tmp_path / "b", 8, {1: 80.0}, split_hash="22")
    table(collect([tmp_path]))
    assert ("Aerial: these runs are of 2 splits or sets of images" in caplog.text) is joins


def test_table_of_costs(pairs, capsys):
    folders = [
        str(pairs / kind / "aerial/shots_16" / trainer)
        for trainer in ("ZeroshotCLIP", "CoOp", "LinearProbe")
        for kind in ("train_base", "test_new")
        if (kind, trainer) != ("test_new", "LinearProbe")
    ]
    assert main(["--costs", "--format", "github", *folders]) == 0
    text = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[:5]]
    assert cells[0][-4:] == ["learnable", "s/step", "memory (MiB)", "checkpoint (kB)"]
    assert [row[0] for row in cells[2:]] == ["ZeroshotCLIP", "CoOp", "LinearProbe"]  # as given
    assert cells[2][-4:] == ["-"] * 4
    assert cells[3][-4:] == ["2,147,104", "0.188", "1,235", "8,600.4"]
    assert cells[4][3:5] == ["-", "-"]
    assert "All lines: config demo, shots 16, dataset Aerial." in text
    assert "LinearProbe: for training classes only" in text
    assert "Run on: cpu, fp32." in text


def test_time_and_memory_of_runs_with_cached_features_are_left_out(pairs):
    place = pairs / "train_base/aerial/shots_16/CoOp/demo/seed1/results.json"
    content = json.loads(place.read_text())
    content["seconds"] |= {"step": 0.01, "cached_batches": 3}
    place.write_text(json.dumps(content))
    runs = collect([pairs])
    rows = summarise(runs)
    (coop,) = [row for row in rows if row.setting.trainer == "CoOp"]
    assert coop.costs["seconds_per_step"] == 0.25  # of seed 2 alone
    assert coop.costs["learnable_parameters"] == 2147104
    (cached,) = [run for run in runs if run.cached]
    assert set(cached.costs) == {"learnable_parameters", "checkpoint_bytes"}
    line = (
        "Not in s/step and memory, for frozen features were read from the cache "
        "(TRAIN.FEATURE_CACHE 0 computes them in each run): CoOp (demo, Aerial, seeds 1)."
    )
    assert line in accuracy_table(rows, costs=True).note
    assert line not in accuracy_table(rows).note


def test_csv_of_costs(pairs):
    records = csv.DictReader(render(summarise(collect([pairs])), "csv", costs=True).splitlines())
    first = next(records)
    assert (first["trainer"], first["config"], first["dataset"]) == ("CoOp", "demo", "Aerial")
    assert (first["checkpoint_bytes"], first["seconds_per_step"]) == ("8600400", "0.1875")


def test_accuracy_over_shots(tmp_path, caplog):
    write_shots(tmp_path, 16, {1: 80.0, 2: 90.0})
    write_shots(tmp_path, 1, {1: 50.0, 2: 60.0}, config="other")  # CoOp trains fewer epochs then
    write_shots(tmp_path, -1, {1: 95.0, 2: 95.0})
    write_shots(tmp_path, 16, {1: 40.0, 2: 40.0}, trainer="ZeroshotCLIP")
    table = shots_table(collect([tmp_path]))
    assert table.columns == ["0 shots", "1 shot", "16 shots", "all images"]
    lines = {line.labels["trainer"]: line for line in table.lines}
    means = {name: (stat.mean, stat.std) for name, stat in lines["CoOp"].stats.items()}
    assert means == {"1 shot": (55, 5), "16 shots": (85, 5), "all images": (95, 0)}
    assert set(lines["ZeroshotCLIP"].stats) == {"0 shots"}
    assert caplog.text == ""
    text = table.render("simple")
    assert "All lines: dataset Aerial, seeds 1 2." in text
    assert text.splitlines()[0].split()[0] == "trainer"


def test_unequal_seeds_over_shots_are_named(tmp_path, caplog):
    write_shots(tmp_path, 1, {1: 50.0, 2: 60.0})
    write_shots(tmp_path, 2, {1: 50.0})
    (line,) = shots_table(collect([tmp_path])).lines
    assert line.labels["seeds"] == "mixed"
    assert "Aerial, CoOp: not the same seeds everywhere (1 shot: 1 2; 2 shots: 1)" in caplog.text


def test_two_configs_for_one_place_are_named(tmp_path, caplog):
    write_shots(tmp_path, 1, {1: 50.0})
    write_shots(tmp_path, 1, {1: 70.0}, config="other")
    (line,) = shots_table(collect([tmp_path])).lines
    assert line.stats["1 shot"].mean == 50.0
    assert "two runs for one place" in caplog.text


def test_base_and_new_runs_are_no_all_class_runs(pairs, capsys):
    assert main([str(pairs), "--by", "shots"]) == 2
    assert "no finished run on all classes" in capsys.readouterr().err


def test_accuracy_on_targets(tmp_path, caplog):
    write_shots(tmp_path, 16, {1: 80.0, 2: 90.0})
    write_target(tmp_path, "Tissue", {1: 40.0, 2: 50.0})
    write_target(tmp_path, "Cells", {1: 20.0, 2: 20.0})
    write_shots(tmp_path, 16, {1: 70.0, 2: 70.0}, trainer="LinearProbe")
    table = transfer_table(collect([tmp_path]))
    assert table.columns == ["on source", "Cells", "Tissue", "average"]
    lines = {line.labels["trainer"]: line for line in table.lines}
    means = {name: stat.mean for name, stat in lines["CoOp"].stats.items()}
    assert means == {"on source": 85, "Cells": 20, "Tissue": 45, "average": 32.5}
    assert set(lines["LinearProbe"].stats) == {"on source"}
    assert caplog.text == ""
    assert "All lines: source aerial, config demo, shots 16, seeds 1 2." in table.render("simple")
    record = next(csv.DictReader(table.render("csv").splitlines()))
    assert (record["source"], record["Tissue_std"], record["average_std"]) == (
        "aerial",
        "5.0000",
        "",
    )


def test_curve(tmp_path):
    write_shots(tmp_path, 1, {1: 50.0, 2: 60.0})
    write_shots(tmp_path, 4, {1: 70.0, 2: 80.0})
    write_shots(tmp_path, -1, {1: 90.0})
    write_shots(tmp_path, 16, {1: 40.0}, trainer="ZeroshotCLIP")
    path = tmp_path / "curve.png"
    drawn = draw_curve(collect([tmp_path]), path)
    assert {n: stat.mean for n, stat in drawn["Aerial", "CoOp"].items()} == {1: 55, 4: 75, -1: 90}
    assert drawn["Aerial", "ZeroshotCLIP"][0].mean == 40
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


def test_the_legend_of_many_trainers_is_beside_the_lines(tmp_path):
    for number in range(25):
        write_shots(tmp_path, 1, {1: 50.0}, trainer=f"T{number:02}")
    figure, _ = curve_figure(collect([tmp_path]))
    (axes,) = figure.axes
    figure.draw_without_rendering()
    legend = axes.get_legend()
    assert legend.get_window_extent().x0 > axes.get_window_extent().x1
    whole = figure.bbox
    assert legend.get_window_extent().x1 <= whole.x1
    assert legend.get_window_extent().y0 >= whole.y0
    looks = {(line.get_color(), line.get_marker()) for line in axes.get_lines()}
    assert len(looks) == 25


def test_curve_that_cannot_be_written(tmp_path, capsys):
    write_shots(tmp_path, 1, {1: 50.0})
    path = tmp_path / "no folder" / "curve.png"
    assert main([str(tmp_path), "--by", "shots", "--curve", str(path)]) == 2
    captured = capsys.readouterr()
    assert "1 shot" in captured.out
    assert (
        captured.err == f"error: the curve cannot be written to {path}: No such file or directory\n"
    )


def test_curve_without_matplotlib(tmp_path, monkeypatch):
    write_shots(tmp_path, 1, {1: 50.0})
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        draw_curve(collect([tmp_path]), tmp_path / "curve.png")
