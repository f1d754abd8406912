"""metrics.csv: its lines, and what becomes of them on a resume."""

from __future__ import annotations

import pytest

from dplq.training.tracking.base import TrackedRun
from dplq.training.tracking.epochs import EpochTable, read_epochs

FIRST = {"loss": 1.25, "lr": 0.002, "seconds": 3.5, "train_accuracy": 50.0}


def begun(folder, earlier=None):
    table = EpochTable()
    table.start(TrackedRun(folder, "run", "runs", earlier=earlier or {}))
    return table


def test_a_line_for_every_epoch_and_nothing_for_what_is_not_known(tmp_path):
    table = begun(tmp_path)
    assert not (tmp_path / "metrics.csv").exists()  # a test of a model has no epochs
    table.log(1, FIRST)
    table.log(2, {**FIRST, "loss": 1 / 3, "val_accuracy": 62.5})
    assert (tmp_path / "metrics.csv").read_text() == (
        "epoch,loss,lr,seconds,val_accuracy,train_accuracy\n"
        "1,1.25,0.002,3.5,,50\n"
        "2,0.33333333,0.002,3.5,62.5,50\n"
    )
    assert read_epochs(tmp_path)[1] == FIRST


def test_a_resumed_run_repeats_no_line(tmp_path):
    table = begun(tmp_path)
    for epoch in (1, 2, 3):  # killed after the line of epoch 3, before its resume file
        table.log(epoch, FIRST)
    resumed = begun(tmp_path, {1: FIRST, 2: FIRST})
    assert sorted(read_epochs(tmp_path)) == [1, 2]
    resumed.log(3, {**FIRST, "loss": 2.0})
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["epoch", "1", "2", "3"]
    assert read_epochs(tmp_path)[3]["loss"] == 2.0


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"nothing,here\n1,2\n", b"epoch\nx\n"])
def test_a_damaged_table_has_no_epochs(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    assert read_epochs(tmp_path) == {}


@pytest.mark.parametrize(
    "line", ["2,abc", "-5,0.5", "0,0.5", "2", "2,0.5,1", "2,nan", '2,"0.5', "2," + "1" * 200_000]
)
def test_a_damaged_line_is_left_out(tmp_path, caplog, line):
    (tmp_path / "metrics.csv").write_text(f"epoch,loss\n1,0.5\n{line}\n3,0.25")
    assert read_epochs(tmp_path) == {1: {"loss": 0.5}, 3: {"loss": 0.25}}
    assert caplog.messages == [f"{tmp_path / 'metrics.csv'}: damaged lines are left out: 3."]


def test_a_table_that_cannot_be_read_is_named_and_a_missing_one_is_not(tmp_path, caplog):
    assert read_epochs(tmp_path) == {}
    assert caplog.messages == []
    (tmp_path / "metrics.csv").write_bytes(b"\xff\xfe")
    assert read_epochs(tmp_path) == {}
    assert caplog.messages[0].startswith(f"{tmp_path / 'metrics.csv'} cannot be read (Unicode")


def test_a_failed_write_loses_no_line(tmp_path, monkeypatch):
    from dplq.errors import UserError
    from dplq.training.tracking import epochs

    table = begun(tmp_path)
    table.log(1, FIRST)
    with monkeypatch.context() as patch:
        patch.setattr(epochs, "write_bytes_atomically", full_disk)
        with pytest.raises(UserError):
            table.log(2, FIRST)
    assert sorted(read_epochs(tmp_path)) == [1]
    table.log(3, FIRST)
    assert sorted(read_epochs(tmp_path)) == [1, 2, 3]


def full_disk(path, data):
    from dplq.errors import UserError

    raise UserError("Cannot write: no space left on device")
