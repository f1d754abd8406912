"""PRESET residual_head through train.py: fitted once, kept through resume and tests."""

from __future__ import annotations

import json
import signal

import pytest
import torch

from dplq.io import checkpoint
from tests.runner import make_project, train
from tests.trainers.test_resume import signal_at_step

LAST = "prompt_learner/model-2.safetensors"
OPTIONS = [
    *("TRAINER.QUATERNIONPROMPT.PRESET", "residual_head", "OPTIM.NAME", "adamw"),
    *("OPTIM.LR", "0.001", "OPTIM.MAX_EPOCH", "2"),
]
BASE = ["DATASET.SUBSAMPLE_CLASSES", "base"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Flags of the project, and the folder of a finished run on the base classes."""
    flags = [*make_project(tmp_path_factory.mktemp("project")), *OPTIONS]
    folder = tmp_path_factory.mktemp("run")
    done = train(folder / "log", ["--output-dir", str(folder / "out"), *flags, *BASE])
    assert done.code == 0, done.err
    return flags, folder / "out"


def accuracy(folder) -> float:
    return json.loads((folder / "results.json").read_text())["accuracy"]


def test_head_and_statistics_are_in_the_checkpoint(run):
    tensors, header = checkpoint.read(run[1] / LAST)
    assert header["classnames"] == ["forest", "parking lot"]
    assert header["settings"]["head_weight"] == 0.7
    assert header["settings"]["map_weight"] == 0.6
    assert tensors["text_map.weight"].shape[1] == 48 + 48
    assert tensors["text_map.weight"].abs().sum() > 0
    assert tensors["head.weight"].shape == (2, 48 + 48)
    assert tensors["head.weight"].abs().sum() > 0
    assert tensors["std"].shape == (48,)
    assert not torch.equal(tensors["std"], torch.ones(48))


def test_a_killed_run_ends_the_same(run, tmp_path):
    flags, whole = run
    arguments = ["--output-dir", str(tmp_path / "out"), *flags, *BASE]
    killed = train(tmp_path / "killed", arguments, signal_at_step, 12)
    assert killed.code == -signal.SIGKILL
    again = train(tmp_path / "again", arguments)
    assert again.code == 0, again.err
    found, expected = (checkpoint.read(folder / LAST)[0] for folder in (tmp_path / "out", whole))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("classes", ["base", "new", "all"])
def test_other_classes_are_tested_with_the_head_of_the_trained(run, tmp_path, classes):
    flags, trained = run
    first = ["--output-dir", str(tmp_path / "out"), "--model-dir", str(trained), "--eval-only"]
    done = train(tmp_path / "log", [*first, *flags, "DATASET.SUBSAMPLE_CLASSES", classes])
    assert done.code == 0, done.err
    if classes == "base":
        assert accuracy(tmp_path / "out") == accuracy(trained)


def test_training_accuracy_is_that_of_the_prompts(run, tmp_path):
    """Steps of almost 0 leave the prompts as they are; the head, fitted to 100 %, would hide it."""
    flags, _ = run
    options = ["OPTIM.NAME", "sgd", "OPTIM.LR", "1e-12"]
    arguments = ["--output-dir", str(tmp_path / "out"), *flags, *BASE, *options]
    done = train(tmp_path / "log", arguments)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "out/results.json").read_text())["train_accuracy"]
    assert found["start"] == found["end"] < 100
    whole = json.loads((run[1] / "results.json").read_text())
    assert whole["learnable_parameters"] > 2 * 96 + 2
