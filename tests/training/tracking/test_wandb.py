"""Weights & Biases, offline: what a run leaves for `wandb sync`."""

from __future__ import annotations

import json
import socket

import pytest

from dplq.training.tracking.base import NotSetUp, TrackedRun
from dplq.training.tracking.trackers import open_trackers
from tests.training.tracking.training import track_training

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    yield
    wandb.teardown()


def trained(folder, epochs, *, earlier=None, failed=False):
    trackers = open_trackers("wandb")
    settings = {"OPTIM.LR": 0.0035, "TRAINER.NAME": "CoOp"}
    trackers.start(TrackedRun(folder, "a run", "runs", settings=settings, earlier=earlier or {}))
    assert [one.name for one in trackers.trackers] == ["csv", "wandb"]
    track_training(trackers, epochs, failed=failed)


def records(folder):
    wandb.teardown()  # what was logged is written by another process
    return [path.read_bytes() for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def test_a_run_and_its_continuation_have_one_id(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    trained(run, [1, 2], failed=True)
    ids = json.loads((run / "tracking.json").read_text())
    trained(run, [3], earlier={1: {"loss": 1.0}, 2: {"loss": 0.5}})
    assert json.loads((run / "tracking.json").read_text()) == ids
    assert len(list(run.glob(f"wandb/offline-run-*-{ids['wandb']}*"))) == 2
    first, second = records(run)
    assert b"OPTIM.LR" in first
    assert b"0.0035" in first
    assert b"loss" in first
    assert b"results/accuracy" in second


def test_nothing_of_the_machine_is_in_it(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    trained(run, [1])
    (content,) = records(run)
    for word in (str(tmp_path), socket.gethostname(), "pytest"):
        assert len(word) < 4 or word.encode() not in content
    assert list(run.glob("wandb/offline-run-*/files/*")) == []


def test_nobody_is_asked_to_log_in(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(NotSetUp, match="Run `wandb login` once, or set WANDB_MODE=offline"):
        trained(tmp_path, [1])
