"""MLflow, in a folder: its runs, their parameters and values."""

from __future__ import annotations

import json
import logging

import pytest

from dplq.training.tracking.base import TrackedRun
from dplq.training.tracking.trackers import open_trackers
from tests.training.tracking.training import track_training

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    mlflow.set_tracking_uri(f"file://{tmp_path / 'store'}")
    yield
    mlflow.set_tracking_uri(None)


SETTINGS = {f"KEY.{number}": number for number in range(230)} | {"LONG": "x" * 1000}


def trained(folder, epochs, *, earlier=None, failed=False, project=""):
    folder.mkdir(exist_ok=True)
    trackers = open_trackers("mlflow")
    trackers.start(
        TrackedRun(folder, "a run", "runs", project, settings=SETTINGS, earlier=earlier or {})
    )
    track_training(trackers, epochs, failed=failed)
    return json.loads((folder / "tracking.json").read_text())["mlflow"]


def steps(run, name="loss"):
    history = mlflow.MlflowClient().get_metric_history(run, name)
    return {metric.step: metric.value for metric in history}, len(history)


def test_a_run_and_its_continuation_are_one_run(tmp_path):
    first = trained(tmp_path / "run", [1, 2], failed=True)
    client = mlflow.MlflowClient()
    assert client.get_run(first).info.status == "KILLED"
    earlier = {1: {"loss": 1.0}, 2: {"loss": 0.5}}
    assert trained(tmp_path / "run", [3], earlier=earlier) == first
    assert steps(first) == ({1: 1.0, 2: 0.5, 3: 1 / 3}, 3)
    run = client.get_run(first)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["results/accuracy"] == 50.0
    assert run.data.params == {key: str(value)[:500] for key, value in SETTINGS.items()}
    assert run.data.tags == {"mlflow.runName": "a run", "group": "runs"}  # no user, no source


def test_a_run_that_was_deleted_is_begun_again_with_all_its_epochs(tmp_path, caplog):
    first = trained(tmp_path / "run", [1, 2])
    mlflow.set_tracking_uri(f"file://{tmp_path / 'another'}")
    with caplog.at_level(logging.WARNING):
        second = trained(tmp_path / "run", [3], earlier={1: {"loss": 1.0}, 2: {"loss": 0.5}})
    assert second != first
    assert f"MLflow has no run {first} any more: a new one is begun." in caplog.text
    assert steps(second)[0] == {1: 1.0, 2: 0.5, 3: 1 / 3}


def test_the_project_is_the_experiment(tmp_path, monkeypatch):
    client = mlflow.MlflowClient()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the environment")
    names = {"mine": "mine", "": "of the environment"}
    for project, name in names.items():
        run = client.get_run(trained(tmp_path / f"run{project}", [1], project=project))
        assert client.get_experiment(run.info.experiment_id).name == name
