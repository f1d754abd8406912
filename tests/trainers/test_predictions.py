"""``predictions.csv`` and the metrics of a run, from the command line; temperature scaling."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dplq.evaluation.prediction_table import PredictionTable
from dplq.evaluation.predictions import EvaluationRecord
from dplq.evaluation.summary import summarise
from tests.runner import CLASSES, make_project, train

FOLDERS = sorted(CLASSES)  # in the order of the labels


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Flags of a small project, and the folder of a finished run with groups and temperature."""
    folder = tmp_path_factory.mktemp("predictions")
    flags = [*make_project(folder), "--output-dir", str(folder / "run")]
    more = ["OPTIM.MAX_EPOCH", "1", "DATASET.GROUP", r"(\w+/\d)", "TEST.TEMPERATURE", "val"]
    done = train(folder / "log", [*flags, *more])
    assert done.code == 0, done.err
    return SimpleNamespace(
        folder=folder,
        flags=flags[:-2],
        run=folder / "run",
        more=more,
        out=done.out,
        results=json.loads((folder / "run" / "results.json").read_text()),
        table=PredictionTable.read(folder / "run" / "predictions.csv"),
    )


def test_every_test_image_is_there_with_its_group(project):
    table = project.table
    assert table.classes == [name.replace("_", " ") for name in FOLDERS]
    assert len(table) == project.results["total"] == len(set(table.paths))
    for path, group, label in zip(table.paths, table.groups, table.labels, strict=True):
        folder, file = path.split("/")
        assert (project.folder / "data" / path).is_file()
        assert FOLDERS[label] == folder
        assert group == f"{folder}/{file[0]}"  # 1, 10 and 11 are one group


def test_the_numbers_of_the_run_are_those_of_the_table(project):
    table, results = project.table, project.results
    assert 100 * np.mean(table.labels == table.predictions) == pytest.approx(results["accuracy"])
    assert (table.probabilities.argmax(1) == table.predictions).all()
    metrics = dict(results["metrics"])
    assert metrics.pop("temperature")["val_images"] > 0
    assert metrics == summarise(table)
    assert metrics["intervals"]["over"] == "groups"
    assert 100 * metrics["macro_f1"] == pytest.approx(results["macro_f1"])


def test_the_log_block_has_one_more_line(project):
    lines = project.out.splitlines()
    start = lines.index("=> result")
    shown = [line.partition(":")[0] for line in lines[start + 1 : start + 8]]
    assert shown == [
        *("* total", "* correct", "* accuracy", "* error", "* macro_f1"),
        *("* balanced accuracy", "* temperature"),
    ]
    metrics = project.results["metrics"]
    assert f"ECE: {metrics['ece']:.3f}" in lines[start + 6]


def test_the_temperature_changes_probabilities_and_no_prediction(project, tmp_path):
    model = ["--eval-only", "--model-dir", str(project.run), *project.more[:-1]]
    out = tmp_path / "plain"
    done = train(tmp_path / "log", [*project.flags, "--output-dir", str(out), *model, "none"])
    assert done.code == 0, done.err
    plain = PredictionTable.read(out / "predictions.csv")
    results = json.loads((out / "results.json").read_text())
    scaled, scaling = project.table, project.results["metrics"]["temperature"]
    assert results["metrics"]["temperature"] is None
    assert plain.paths == scaled.paths
    assert (plain.predictions == scaled.predictions).all()
    logs = np.log(plain.probabilities.astype(np.float64)) / scaling["value"]
    expected = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scaled.probabilities, expected, rtol=1e-4)
    assert abs(scaling["value"] - 1) > 0.01
    assert scaling["ece_before"] == pytest.approx(results["metrics"]["ece"], abs=1e-6)
    assert scaling["ece_after"] == pytest.approx(project.results["metrics"]["ece"], abs=1e-6)
    assert scaling["log_loss_before"] == pytest.approx(results["metrics"]["log_loss"], abs=1e-5)
    assert results["accuracy"] == project.results["accuracy"]


def test_a_test_in_the_folder_of_the_run_has_a_file_of_its_own(project, tmp_path):
    before = (project.run / "predictions.csv").read_bytes()
    flags = [*project.flags, "--eval-only", "--model-dir", str(project.run)]
    flags += ["--output-dir", str(project.run), *project.more, "TEST.SPLIT", "val"]
    done = train(tmp_path / "log", [*flags, "TEST.TEMPERATURE", "none"])
    assert done.code == 0, done.err
    name = "OwnImages-all-val"
    table = PredictionTable.read(project.run / f"predictions-{name}.csv")
    results = json.loads((project.run / f"results-{name}.json").read_text())
    assert len(table) == results["total"] == project.results["metrics"]["temperature"]["val_images"]
    assert (project.run / "predictions.csv").read_bytes() == before


def test_a_test_elsewhere_has_the_shots_of_the_training(project, tmp_path):
    """All images are tested: its own config trains on none."""
    given = ["--eval-only", "--model-dir", str(project.run), "--output-dir", str(tmp_path / "run")]
    given += ["DATASET.ALL_TEST", "True", "DATASET.NUM_SHOTS", "2"]
    for log in ("log", "again"):  # the same test is not taken for another
        done = train(tmp_path / log, [*project.flags, *given])
        assert done.code == 0, done.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["shots"] == project.results["shots"] == -1


def test_without_predictions_nothing_is_written(project, tmp_path):
    out = tmp_path / "run"
    flags = ["--output-dir", str(out), "OPTIM.MAX_EPOCH", "1", "TEST.PREDICTIONS", "False"]
    done = train(tmp_path / "log", [*project.flags, *flags])
    assert done.code == 0, done.err
    assert not (out / "predictions.csv").exists()
    assert json.loads((out / "results.json").read_text())["metrics"] is None
    assert "balanced accuracy" not in done.out


def test_overwrite_clears_the_predictions(project, tmp_path):
    out = tmp_path / "run"
    flags = ["--output-dir", str(out), "OPTIM.MAX_EPOCH", "1"]
    assert train(tmp_path / "log", [*project.flags, *flags]).code == 0
    (out / "predictions-OwnImages-all-val.csv").write_text("of an earlier test")
    (out / "mine.csv").write_text("kept")
    again = ["--overwrite", *flags[:-1], "2", "TEST.NO_TEST", "True"]
    done = train(tmp_path / "log", [*project.flags, *again])
    assert done.code == 0, done.err
    assert sorted(path.name for path in out.glob("*.csv")) == ["metrics.csv", "mine.csv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["DATASET.ALL_TEST", "True"], "OwnImages has no val images here"),
        (["TEST.SPLIT", "val"], "val images are tested, too"),
        (["TEST.PREDICTIONS", "False"], "TEST.TEMPERATURE val needs TEST.PREDICTIONS True"),
        (["TEST.TEMPERATURE", "test"], "TEST.TEMPERATURE is 'test'; it must be none or val."),
    ],
)
def test_a_temperature_without_val_images_is_refused(project, tmp_path, options, message):
    given = ["--eval-only", "--model-dir", str(project.run), "--output-dir", str(tmp_path / "run")]
    done = train(tmp_path / "log", [*project.flags, *given, "TEST.TEMPERATURE", "val", *options])
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("case", ["none", "tested"])
def test_an_epoch_is_not_chosen_on_test_images(case, project, tmp_path):
    """Dassl takes the test images where there is no val; a file may list them as both."""
    root = Path(project.flags[project.flags.index("--root") + 1])
    images = sorted(str(p.relative_to(root)) for p in root.rglob("*.*") if p.suffix == ".png")
    names = sorted({Path(path).parent.name for path in images})
    items = [[path, names.index(Path(path).parent.name), Path(path).parent.name] for path in images]
    parts = {"train": items[::2], "test": items[1::2]}
    parts["val"] = parts["test"] if case == "tested" else []
    (tmp_path / "split.json").write_text(json.dumps(parts))
    given = ["--output-dir", str(tmp_path / "run"), "TEST.FINAL_MODEL", "best_val"]
    split = ["DATASET.SPLIT_FILE", str(tmp_path / "split.json")]
    done = train(tmp_path / "log", [*project.flags, *given, *split])
    assert done.code == 2
    expected = {
        "none": "TEST.FINAL_MODEL best_val: OwnImages has no val images here. Set TEST.FINAL_MODEL",
        "tested": "val images are tested, too: an epoch that is chosen on them looks too good.",
    }
    assert expected[case] in " ".join(done.err.split())
    assert "Traceback" not in done.err


class Evaluator:
    """Dassl's, as far as the record needs it."""

    def reset(self):
        pass

    def process(self, output, label):
        pass


def test_the_record_keeps_logits_and_paths_in_the_order_of_the_test():
    record = EvaluationRecord(Evaluator())
    first = torch.tensor([[1.0, 2.0], [3.0, 1.0]], dtype=torch.float16)
    record.announce(["a", "b"])
    record.process(first, torch.tensor([1, 1]))
    record.process(torch.tensor([[0.0, 5.0]]), torch.tensor([0]))  # of a host that names no file
    assert record.paths == ["a", "b", ""]
    assert record.logits().dtype == np.float32
    assert record.logits().tolist() == [[1, 2], [3, 1], [0, 5]]
    assert (record.labels, record.predictions) == ([1, 1, 0], [1, 0, 1])
    record.reset()
    record.process(first, torch.tensor([1, 1]))
    assert (record.paths, len(record.logits())) == (["", ""], 2)
    without = EvaluationRecord(Evaluator(), keep_logits=False)
    without.process(first, torch.tensor([1, 1]))
    assert (without.predictions, without.paths) == ([1, 0], [])


def test_val_images_that_are_all_right_leave_the_temperature_at_one(caplog):
    import dplq.plugin  # noqa: F401
    from dplq.trainers._engine.probabilities import _temperature

    assert _temperature(np.eye(3, dtype=np.float32), np.arange(3)) == 1.0
    assert "all 3 val images are classified right" in caplog.text


def test_too_many_probabilities_are_not_written_but_said(tmp_path, monkeypatch, caplog):
    import dplq.plugin  # noqa: F401
    from dplq.trainers._engine import probabilities

    numbers = np.full((4, 2), 0.5)
    paths = [f"{index}.png" for index in range(4)]
    table = PredictionTable(["a", "b"], paths, [0] * 4, [0] * 4, [""] * 4, numbers)
    probabilities.write_predictions(table, tmp_path / "results-A-all-test.json")
    assert len(PredictionTable.read(tmp_path / "predictions-A-all-test.csv")) == 4
    probabilities.write_predictions(None, tmp_path / "results-A-all-test.json")
    assert not list(tmp_path.iterdir())  # of a test without TEST.PREDICTIONS
    probabilities.write_predictions(table, tmp_path / "results-A-all-test.json")
    monkeypatch.setattr(probabilities, "MOST_NUMBERS", 7)
    probabilities.write_predictions(table, tmp_path / "results-A-all-test.json")
    assert not list(tmp_path.iterdir())
    assert "4 images of 2 classes are more than 7 probabilities" in caplog.text


def test_paths_outside_the_root_stay_absolute(tmp_path):
    import dplq.plugin  # noqa: F401
    from dplq.trainers._engine.probabilities import _names

    trainer = SimpleNamespace(cfg=SimpleNamespace(DATASET=SimpleNamespace(ROOT=str(tmp_path))))
    given = [str(tmp_path / "a" / "b.png"), f"{tmp_path}2/b.png", "/c.png", ""]
    assert _names(trainer, given) == ["a/b.png", f"{tmp_path}2/b.png", "/c.png", "image 3"]
