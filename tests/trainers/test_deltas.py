"""Trainers of weight deltas: number of steps, both stages, interruption, other classes."""

from __future__ import annotations

import json

import pytest
import torch

from dplq.io import checkpoint
from dplq.trainers._engine.base import PromptTrainer
from dplq.trainers.two_stage import TwoStage
from tests.runner import make_project, train
from tests.trainers.test_resume import signal_at_step

BASE, NEW = (["DATASET.SUBSAMPLE_CLASSES", name] for name in ("base", "new"))
GIVEN = ["OPTIM.NAME", "adamw", "OPTIM.WARMUP_EPOCH", "-1", "DATASET.NUM_SHOTS", "4", *BASE]
TRAINERS = {
    "CLIPLoRA": ["TRAINER.CLIPLORA.ITERATIONS", "3"],
    "CLIPSVD": [],
    "TwoStage": [],
    "GDPL": ["TRAINER.GDPL.PROMPT_DEPTH", "2", "TRAINER.GDPL.DELTA_DEPTH", "2"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deltas")
    return folder, make_project(folder)


@pytest.fixture(scope="module")
def runs(project):
    """The runs of this module: trainer -> folder, run once."""
    folder, flags = project
    done = {}

    def run(trainer):
        if trainer not in done:
            out = folder / trainer
            given = ["--trainer", trainer, "--output-dir", str(out), *GIVEN, *TRAINERS[trainer]]
            done[trainer] = out, train(folder / f"{trainer}-log", [*flags, *given])
        assert done[trainer][1].code == 0, done[trainer][1].err
        return done[trainer]

    return run


@pytest.mark.parametrize("trainer", TRAINERS)
def test_base_to_new(trainer, runs, project):
    """A run on base classes is tested on new ones; the learned weights have moved."""
    folder, flags = project
    out, _ = runs(trainer)
    assert json.loads((out / "results.json").read_text())["trainer"] == trainer
    tested = folder / f"{trainer}-new"
    given = ["--trainer", trainer, "--eval-only", "--model-dir", str(out)]
    given += ["--output-dir", str(tested), *GIVEN[:-2], *NEW, *TRAINERS[trainer]]
    done = train(folder / f"{trainer}-new-log", [*flags, *given])
    assert done.code == 0, done.err
    result = json.loads((tested / "results.json").read_text())
    assert result["trainer"] == trainer


def test_iterations_give_the_number_of_epochs(runs):
    """3 steps for each of 4 images of a class, at 8 images and batches of 2: 3 epochs."""
    out, done = runs("CLIPLoRA")
    line = "Epochs: 3 of 4 steps, for 3 steps for each of 4 images of a class"
    assert f"{line} (TRAINER.CLIPLORA.ITERATIONS); OPTIM.MAX_EPOCH 3 is not used" in done.out
    assert (out / "prompt_learner/model-3.safetensors").is_file()


def test_each_stage_has_its_own_schedule():
    """Epochs 0, 1, 2 of three, then 0 and 1 of two."""
    trainer = TwoStage.__new__(TwoStage)
    trainer.cfg = type("cfg", (), {"TRAINER": {"TWOSTAGE": type("keys", (), {"FIRST_STAGE": 0.6})}})
    trainer.max_epoch, found = 5, []
    for trainer.epoch in range(5):
        found.append(trainer.schedule_position())
    assert found == [(0, 3), (1, 3), (2, 3), (0, 2), (1, 2)]


def test_the_warm_up_is_compared_with_the_epochs_that_the_steps_make(project, tmp_path):
    """Of three: 4 are refused, 3 leave OPTIM.LR out, whatever MAX_EPOCH is."""
    _folder, flags = project
    given = [*flags, "--trainer", "CLIPLoRA", "--output-dir", str(tmp_path / "out"), *GIVEN]
    given += [*TRAINERS["CLIPLoRA"], "OPTIM.MAX_EPOCH"]
    done = train(tmp_path / "log", [*given, "9", "OPTIM.WARMUP_EPOCH", "4"])
    assert done.code == 2
    assert (
        "OPTIM.WARMUP_EPOCH is 4, but the run has 3 epochs: the warm-up cannot be longer; set "
        "OPTIM.WARMUP_EPOCH to at most 3, -1 for none." in done.err
    )
    done = train(tmp_path / "log2", [*given, "1", "OPTIM.WARMUP_EPOCH", "3"])
    assert done.code == 0, done.err
    said = "The whole run is warm-up (OPTIM.WARMUP_EPOCH 3 of 3 epochs): its learning rate is at "
    assert said in done.out + done.err


def test_each_stage_is_compared_with_the_warm_up(project, tmp_path):
    """Of three epochs the second stage has one."""
    _folder, flags = project
    given = [*flags, "--trainer", "TwoStage", "--output-dir", str(tmp_path / "out"), *GIVEN]
    done = train(tmp_path / "log", [*given, "OPTIM.WARMUP_EPOCH", "2"])
    assert done.code == 2
    assert "OPTIM.WARMUP_EPOCH is 2, but the second stage has 1 epoch: the" in done.err


@pytest.mark.parametrize(
    ("share", "epochs", "first"),
    [(0.6, 5, 3), (0.1, 2, 1), (0.9, 2, 1), (0.6, 2, 1), (0.99, 5, 4), (0.01, 5, 1),
     (0.6, 1, 1), (0.4, 1, 0), (0.0, 5, 0), (1.0, 5, 5), (1.0, 1, 1)],
)  # fmt: skip
def test_no_stage_is_left_out_where_there_are_two_epochs(share, epochs, first):
    trainer = TwoStage.__new__(TwoStage)
    keys = type("keys", (), {"FIRST_STAGE": share})
    trainer.cfg, trainer.max_epoch = type("cfg", (), {"TRAINER": {"TWOSTAGE": keys}}), epochs
    assert trainer.first_stage == first


@pytest.mark.parametrize(
    ("share", "epochs", "line"),
    [
        (0.6, 1, "the classifier is not trained (TRAINER.TWOSTAGE.FIRST_STAGE 0.6)"),
        (0.4, 1, "the LayerNorms are not trained (TRAINER.TWOSTAGE.FIRST_STAGE 0.4)"),
        (1.0, 1, ""),
        (0.6, 2, ""),
    ],
)
def test_one_epoch_says_which_stage_it_leaves_out(share, epochs, line, monkeypatch, capsys):
    monkeypatch.setattr(PromptTrainer, "before_train", lambda self: None)
    trainer = TwoStage.__new__(TwoStage)
    keys = type("keys", (), {"FIRST_STAGE": share})
    trainer.cfg, trainer.max_epoch = type("cfg", (), {"TRAINER": {"TWOSTAGE": keys}}), epochs
    trainer.before_train()
    assert capsys.readouterr().out == (f"One epoch has one stage: {line}\n" if line else "")


def test_two_stages(runs):
    """60 % of three epochs: two, in which the LayerNorms learn; then the classifier alone."""
    out, _ = runs("TwoStage")
    first, last = (
        checkpoint.read(out / f"prompt_learner/{name}.safetensors")[0]
        for name in ("resume-previous", "resume")
    )
    moved = {
        name
        for name in first
        if name.startswith("learner.") and not torch.equal(first[name], last[name])
    }
    assert moved == {"learner.classifier", "learner.stage"}
    assert int(last["learner.stage"]) == 2
    assert not first["learner.classifier"].any()


@pytest.mark.parametrize("step", [9, 11])
def test_a_killed_second_stage_ends_the_same(step, runs, project):
    """Steps 9 to 12 are the second stage; the run repeats its epoch, bit for bit."""
    folder, flags = project
    whole, _ = runs("TwoStage")
    out = folder / f"killed-{step}"
    given = [*flags, "--trainer", "TwoStage", "--output-dir", str(out), *GIVEN]
    assert train(folder / f"kill-{step}", given, signal_at_step, step).code == -9
    done = train(folder / f"again-{step}", given)
    assert done.code == 0, done.err
    name = "prompt_learner/model-3.safetensors"
    tensors = [checkpoint.read(path / name)[0] for path in (whole, out)]
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])
