"""Tracking of trainings by train.py: metrics.csv, a service, failures."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal

import pytest

import dplq.plugin  # noqa: F401  (registers the trainers, whose keys are added)
from dplq.trainers._engine import frozen
from dplq.trainers._engine.tracking import tracked_settings
from dplq.training.tracking.trackers import Trackers
from tests.host.test_checks import config, put
from tests.runner import make_project, train

LAST = "prompt_learner/model-3.safetensors"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A small project, and a training that validates each epoch and was never interrupted."""
    folder = tmp_path_factory.mktemp("tracking")
    given = [*make_project(folder), "--output-dir"]
    options = ["TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", "3"]
    done = train(folder / "whole", [*given, str(folder / "whole"), *options])
    assert done.code == 0, done.err
    return folder, given, options


def rows(folder):
    """Return the lines of metrics.csv without their times."""
    found = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert all(float(row.pop("seconds")) > 0 for row in found)
    return found


def kill_in_second_epoch():
    from dplq.trainers._engine import resume

    original, seen = resume.write_state, []

    def write_state(trainer):  # the line is there, the resume file is not
        seen.append(1)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        original(trainer)

    resume.write_state = write_state


def no_space_for_the_table():
    from dplq.training.tracking.epochs import EpochTable

    def write(self):
        raise OSError(28, "No space left on device")

    EpochTable._write = write


def offline():
    os.environ["WANDB_MODE"] = "offline"


def test_a_line_per_epoch_with_loss_rate_and_accuracies(project):
    folder = project[0] / "whole"
    found = rows(folder)
    assert [row["epoch"] for row in found] == ["1", "2", "3"]
    assert [float(row["lr"]) for row in found] == pytest.approx([1e-5, 0.0035, 0.002625])
    assert all(0 < float(row["loss"]) < 10 for row in found)
    log = (folder / "log.txt").read_text()
    last = [line for line in log.splitlines() if line.startswith("epoch [3/3]")][-1]
    mean = float(last.split(" loss ")[1].split("(")[1].split(")")[0])  # Dassl's own
    assert float(found[-1]["loss"]) == pytest.approx(mean, abs=1e-3)
    best = max(float(row["val_accuracy"]) for row in found)
    assert f"* accuracy: {best:.1f}%" in log


@pytest.fixture(scope="module")
def killed(project):
    """A run that was killed after the line of its second epoch, before the resume file."""
    folder, given, options = project
    out = folder / "killed"
    done = train(out, [*given, str(out), *options], kill_in_second_epoch)
    assert done.code == -signal.SIGKILL
    assert len(rows(out)) == 2
    return out


@pytest.mark.parametrize("same_folder", [True, False])
def test_a_killed_run_goes_on_without_doubled_lines(project, killed, same_folder):
    folder, given, options = project
    out = folder / f"resumed-{same_folder}"
    if same_folder:
        shutil.copytree(killed, out)
        command = [*given, str(out), *options]
    else:
        command = ["--resume", str(killed), *given, str(out), *options]
    done = train(out, command)
    assert done.code == 0, done.err
    assert "will resume after epoch 1" in done.out
    assert rows(out) == rows(folder / "whole")


def test_a_line_that_was_lost_is_said(project, killed):
    """As where the disk was full, and the run was killed before the next line."""
    folder, given, options = project
    out = folder / "lost"
    shutil.copytree(killed, out)
    header, _, second = (out / "metrics.csv").read_text().splitlines()
    (out / "metrics.csv").write_text(f"{header}\n{second}\n")
    done = train(out, [*given, str(out), *options])
    assert done.code == 0, done.err
    assert "metrics.csv lacks the lines of finished epochs (1)" in done.out
    assert [row["epoch"] for row in rows(out)] == ["2", "3"]


def test_a_failing_tracker_stops_no_training(project):
    folder, given, options = project
    out = folder / "full"
    done = train(out, [*given, str(out), *options], no_space_for_the_table)
    assert done.code == 0, done.err
    assert (done.out + done.err).count("Tracking by csv failed (OSError: [Errno 28] No space") == 1
    assert (out / LAST).read_bytes() == (folder / "whole" / LAST).read_bytes()


def test_a_tracked_run_has_the_weights_of_an_untracked_one(project):
    pytest.importorskip("wandb")
    folder, given, options = project
    out = folder / "tracked"
    command = [*given, str(out), *options, "TRAIN.TRACK", "wandb"]
    done = train(out, command, offline)
    assert done.code == 0, done.err
    assert "Tracking by" not in done.out + done.err
    assert (out / LAST).read_bytes() == (folder / "whole" / LAST).read_bytes()
    ids = json.loads((out / "tracking.json").read_text())
    (record,) = out.glob(f"wandb/offline-run-*-{ids['wandb']}/*.wandb")
    content = record.read_bytes()
    for word in (b"val_accuracy", b"results/accuracy", b"results/metrics.macro_auroc"):
        assert word in content
    assert str(folder).encode() not in content
    # a test in the folder of the training joins its run, and leaves its table alone
    options = [*options, "TRAIN.TRACK", "wandb", "TEST.SPLIT", "val"]
    tested = train(
        folder / "tested",
        ["--eval-only", "--model-dir", str(out), *given, str(out), *options],
        offline,
    )
    assert tested.code == 0, tested.err
    assert rows(out) == rows(folder / "whole")
    records = sorted(out.glob(f"wandb/offline-run-*-{ids['wandb']}*/*.wandb"))
    assert len(records) == 2
    assert any(b"results-OwnImages-all-val/accuracy" in path.read_bytes() for path in records)
    # another service is no other run
    again = train(out, [*given, str(out), *project[2]])
    assert again.code == 0
    assert "Already finished" in again.out


@pytest.mark.parametrize(
    ("key", "path", "name"),
    [
        ("DOMAIN.WEIGHTS", "/home/alice/secret/mae.ckpt", "mae.ckpt"),
        ("DOMAIN.WEIGHTS", ["/home/alice/secret/a.npz", ""], ["a.npz", ""]),
        ("DOMAIN.ENCODER", "local-dir:/home/alice/secret/encoder", "local-dir:encoder"),
        ("MODEL.INIT_WEIGHTS", "/home/alice/secret/clip.safetensors", "clip.safetensors"),
        ("MODEL.BACKBONE.NAME", "ViT-B/16:/home/alice/secret/b", "ViT-B/16:b"),
        ("DATASET.SPLIT_FILE", "/home/alice/secret/split.json", "split.json"),
        ("INPUT.SIZE", "/home/alice/secret/any", "any"),  # of no key it is known to be a path
        ("MODEL.BACKBONE.NAME", "hf-hub:lab/clip", "hf-hub:lab/clip"),
    ],
)
def test_of_a_path_a_service_gets_the_name_of_the_file(key, path, name):
    cfg = config()
    put(cfg, key, path)
    assert tracked_settings(cfg)[key] == name


class Calls:
    """Tracker that keeps which of its methods were called."""

    name, is_local = "calls", False

    def __init__(self):
        self.made = []

    def __getattr__(self, method):
        return lambda *args, **kwargs: self.made.append((method, *kwargs.values()))


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_the_run_of_a_failed_test_is_closed_as_such(error, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    calls = Calls()
    monkeypatch.setattr(frozen, "begin_tracking", lambda trainer, trains: Trackers([calls]))
    monkeypatch.setattr(frozen, "shared_test", fail)
    trainer = object.__new__(frozen.FrozenTrainer)
    trainer.output_dir, trainer.cfg = str(tmp_path), config()
    trainer.cfg.TRAIN.TRACK = "calls"
    trainer._claim_results, trainer._seed = lambda: tmp_path / "results.json", lambda *args: None
    with pytest.raises(type(error)):
        trainer.test()
    assert calls.made == [("close", True)]
    assert trainer.trackers is None


def test_overwrite_begins_anew_at_the_services(project):
    pytest.importorskip("wandb")
    folder, given, options = project
    out = folder / "overwritten"
    command = [*given, str(out), *options, "TRAIN.TRACK", "wandb", "OPTIM.MAX_EPOCH", "1"]
    assert train(out, command, offline).code == 0
    before = json.loads((out / "tracking.json").read_text())
    assert train(out, ["--overwrite", *command], offline).code == 0
    assert json.loads((out / "tracking.json").read_text()) != before
    assert len(list(out.glob("wandb/offline-run-*"))) == 1


def test_a_service_that_is_not_known_stops_before_anything_is_written(project):
    folder, given, options = project
    out = folder / "refused"
    done = train(out, [*given, str(out), *options, "TRAIN.TRACK", "wandbb"])
    assert done.code == 2
    assert "TRAIN.TRACK 'wandbb' is unknown. Did you mean 'wandb'?" in done.err
    assert not out.exists()
