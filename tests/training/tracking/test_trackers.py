"""Trackers of a run: one that fails warns once and stops nothing."""

from __future__ import annotations

import logging

import pytest

from dplq.training.tracking import trackers as module
from dplq.training.tracking.base import NotSetUp, TrackedRun
from dplq.training.tracking.trackers import Trackers, check_services, services

NO_ROUTE = ConnectionError("no route to host")


class Memory:
    """Tracker that keeps what it is told, and fails where it is told to."""

    name, is_local = "memory", False

    def __init__(self, fails=(), error=NO_ROUTE):
        self.fails, self.error, self.calls = set(fails), error, []

    def __getattr__(self, method):
        def call(*args, **kwargs):
            if method in self.fails or (method == "log" and args[0] in self.fails):
                raise self.error
            self.calls.append((method, *args, *kwargs.values()))

        return call


def tracked(tracker, tmp_path):
    trackers = Trackers([tracker])
    trackers.start(TrackedRun(tmp_path, "run", "runs"))
    return trackers


def train(trackers):
    for epoch in (1, 2, 3):
        trackers.log(epoch, {"loss": 1.0 / epoch})
    trackers.results({"accuracy": 50.0})
    trackers.close()


def epochs_of(tracker):
    return [call[1] for call in tracker.calls if call[0] == "log"]


def test_everything_is_kept_in_order(tmp_path):
    memory = Memory()
    train(tracked(memory, tmp_path))
    assert [call[0] for call in memory.calls] == ["start", *["log"] * 3, "results", "close"]
    assert memory.calls[1:] == [
        *[("log", epoch, {"loss": 1.0 / epoch}) for epoch in (1, 2, 3)],
        ("results", {"accuracy": 50.0}),
        ("close", False),
    ]


def test_a_failure_in_the_middle_warns_once_and_is_made_good_at_the_end(tmp_path, caplog):
    memory = Memory(fails=[2])
    trackers = tracked(memory, tmp_path)
    trackers.log(1, {})
    trackers.log(2, {})
    trackers.log(3, {})
    assert epochs_of(memory) == [1]
    memory.fails.clear()  # the network is back
    trackers.results({"accuracy": 50.0})
    trackers.close()
    assert epochs_of(memory) == [1, 2, 3]
    assert [call[0] for call in memory.calls[-2:]] == ["results", "close"]
    assert [record.getMessage() for record in caplog.records] == [
        "Tracking by memory failed (ConnectionError: no route to host). The training goes on; it "
        "is tried again when the results are there."
    ]


def test_a_lasting_failure_warns_once_and_gets_no_results_before_its_epochs(tmp_path, caplog):
    memory = Memory(fails=["log"])
    train(tracked(memory, tmp_path))
    assert [call[0] for call in memory.calls] == ["start"]
    assert len(caplog.records) == 1


def test_a_local_tracker_is_tried_again_at_every_epoch(tmp_path, caplog):
    memory = Memory(fails=[1], error=OSError("disk full"))
    memory.is_local = True
    trackers = tracked(memory, tmp_path)
    trackers.log(1, {})
    memory.fails.clear()
    trackers.log(2, {})
    assert epochs_of(memory) == [1, 2]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("method", ["results", "close"])
def test_a_failure_at_the_end_says_where_the_values_are(tmp_path, caplog, method):
    memory = Memory(fails=[method])
    train(tracked(memory, tmp_path))
    assert epochs_of(memory) == [1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "Tracking by memory failed (ConnectionError: no route to host). metrics.csv has "
        "the values of all epochs."
    ]


def test_a_tracker_that_cannot_begin_is_left_out(tmp_path, caplog):
    memory, other = Memory(fails=["start"]), Memory()
    trackers = Trackers([memory, other])
    trackers.start(TrackedRun(tmp_path, "run", "runs"))
    train(trackers)
    assert memory.calls == []
    assert epochs_of(other) == [1, 2, 3]
    assert "This training is not tracked there." in caplog.text


def test_what_the_user_has_to_set_up_stops_before_the_training(tmp_path):
    with pytest.raises(NotSetUp, match="log in"):
        tracked(Memory(fails=["start"], error=NotSetUp("log in")), tmp_path)


def test_then_the_services_that_have_begun_are_closed(tmp_path):
    begun = Memory()
    trackers = Trackers([begun, Memory(fails=["start"], error=NotSetUp("log in"))])
    with pytest.raises(NotSetUp, match="log in"):
        trackers.start(TrackedRun(tmp_path, "run", "runs"))
    assert begun.calls[1:] == [("close", True)]


def test_a_stopped_training_is_closed_as_such_and_once(tmp_path):
    memory = Memory()
    trackers = tracked(memory, tmp_path)
    trackers.close(failed=True)
    trackers.close()
    assert memory.calls[1:] == [("close", True)]


def test_services_are_named_with_commas():
    assert services("wandb, mlflow,wandb,") == ["wandb", "mlflow"]
    assert services("") == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", ""),
        ("wandbb", " 'wandbb' is unknown. Did you mean 'wandb'? Choices: mlflow, wandb."),
        (["wandb"], " is ['wandb']; it must be names of services, such as 'wandb,mlflow'."),
    ],
)
def test_check_of_the_key(value, problem):
    assert check_services(value) == problem


def test_a_missing_package_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert check_services("wandb,mlflow") == (" needs wandb, mlflow: pip install wandb mlflow.")


def test_a_folder_named_like_a_package_is_none(tmp_path, monkeypatch):
    (tmp_path / "wandb_of_nobody").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(module.SERVICES, "wandb_of_nobody", ("", ""))
    assert "pip install" in check_services("wandb_of_nobody")


def test_every_service_has_its_own_tracker(monkeypatch):
    assert {name: module._service(name).name for name in module.SERVICES} == {
        name: name for name in module.SERVICES
    }
    monkeypatch.setattr(module, "THIRD", Memory, raising=False)
    monkeypatch.setitem(module.SERVICES, "third", ("trackers", "THIRD"))
    assert isinstance(module._service("third"), Memory)


def test_no_package_of_a_service_is_imported_without_it(tmp_path):
    import sys

    before = {"wandb", "mlflow"} & set(sys.modules)
    with_none = module.open_trackers("")
    with_none.start(TrackedRun(tmp_path, "run", "runs"))
    assert [type(one).__name__ for one in with_none.trackers] == ["EpochTable"]
    assert {"wandb", "mlflow"} & set(sys.modules) == before


@pytest.fixture(autouse=True)
def all_levels(caplog):
    caplog.set_level(logging.INFO)
