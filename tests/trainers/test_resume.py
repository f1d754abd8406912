"""A killed run that is started again ends with the same weights, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from dplq.io import checkpoint
from tests.runner import PROJECT, make_project, train

LAST = "prompt_learner/model-3.safetensors"


def kill_self(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def signal_at_step(count, number=signal.SIGKILL):
    """Send this process a signal in the middle of its training step number `count`."""
    from dplq.trainers._engine.base import PromptTrainer

    original = PromptTrainer._step
    seen = []
    if number == signal.SIGINT:  # ignored where the tests run in the background of a shell
        signal.signal(number, signal.default_int_handler)

    def step(self, loss):
        seen.append(1)
        if len(seen) == count:
            os.kill(os.getpid(), number)
        original(self, loss)

    PromptTrainer._step = step


def kill_while_writing(name, moment):
    """Die just before or after the file `name` is renamed into place for the second time."""
    original = os.replace
    seen = []

    def replace(source, target):
        if os.path.basename(target) == name:
            seen.append(1)
        if len(seen) == 2 and moment == "before":
            kill_self()
        original(source, target)
        if len(seen) == 2 and moment == "after":
            kill_self()

    os.replace = replace


def kill_in_test():
    from dplq.trainers._engine.domain import DomainTrainer

    DomainTrainer.model_inference = kill_self


def kill_before_results():
    import dplq.trainers._engine.frozen

    dplq.trainers._engine.frozen.write_results = kill_self


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A small project, and the outcome of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("resume")
    flags = make_project(folder)
    done = train(folder / "whole", [*flags, "--output-dir", str(folder / "whole")])
    assert done.code == 0, done.err
    return folder, flags


def outcome(folder):
    tensors, _ = checkpoint.read(folder / LAST)
    result = json.loads((folder / "results.json").read_text())
    return tensors, (result["accuracy"], result["macro_f1"], result["per_class_accuracy"])


@pytest.mark.parametrize(
    ("name", "kill"),
    [
        ("first_step", (signal_at_step, 1)),
        ("middle_of_first_epoch", (signal_at_step, 5)),
        ("first_step_of_second_epoch", (signal_at_step, 13)),
        ("middle_of_last_epoch", (signal_at_step, 30)),
        ("before_rename", (kill_while_writing, "resume.safetensors", "before")),
        ("after_rename", (kill_while_writing, "resume.safetensors", "after")),
        ("in_the_test", (kill_in_test,)),
        ("before_results", (kill_before_results,)),
    ],
)
def test_sigkill_and_again(project, tmp_path, name, kill):
    folder, flags = project
    flags = [*flags, "--output-dir", str(tmp_path / "run")]
    killed = train(tmp_path / "killed", flags, *kill)
    assert killed.code == -signal.SIGKILL
    assert not (tmp_path / "run" / "results.json").exists()
    again = train(tmp_path / "again", flags)
    assert again.code == 0, again.err
    tensors, scores = outcome(tmp_path / "run")
    expected, expected_scores = outcome(folder / "whole")
    assert tensors.keys() == expected.keys()
    for key in expected:
        assert tensors[key].equal(expected[key]), key
    assert scores == expected_scores


def test_repeated_kills(project, tmp_path):
    """Killed in every epoch, several times."""
    folder, flags = project
    flags = [*flags, "--output-dir", str(tmp_path / "run")]
    for steps in (7, 14, 3, 20):
        assert train(tmp_path / "killed", flags, signal_at_step, steps).code == -signal.SIGKILL
    assert train(tmp_path / "again", flags).code == 0
    tensors, _ = outcome(tmp_path / "run")
    expected, _ = outcome(folder / "whole")
    assert all(tensors[key].equal(expected[key]) for key in expected)


def test_ctrl_c_says_how_to_go_on(project, tmp_path):
    folder, flags = project
    flags = [*flags, "--output-dir", str(tmp_path / "run")]
    stopped = train(tmp_path / "stopped", flags, signal_at_step, 15, signal.SIGINT)
    assert stopped.code == 130
    assert "Traceback" not in stopped.err
    assert "Interrupted. Every finished epoch is saved" in stopped.err
    assert "run the same command again to go on" in stopped.err
    again = train(tmp_path / "again", flags)
    assert "will resume after epoch 1" in again.out
    tensors, _ = outcome(tmp_path / "run")
    expected, _ = outcome(folder / "whole")
    assert all(tensors[key].equal(expected[key]) for key in expected)


def test_other_settings_are_not_continued(project, tmp_path):
    _folder, flags = project
    out = ["--output-dir", str(tmp_path / "run")]
    assert train(tmp_path / "a", [*flags, *out], signal_at_step, 15).code == -signal.SIGKILL
    other = train(tmp_path / "b", [*flags, *out, "OPTIM.LR", "0.1"])
    assert other.code == 2
    assert "OPTIM.LR: there 0.0035, now 0.1" in other.err


def test_unseeded_run_resumes_exactly_too(project, tmp_path):
    _folder, flags = project
    at = flags.index("--seed")
    flags = [*flags[:at], *flags[at + 2 :], "--output-dir", str(tmp_path / "run")]
    assert train(tmp_path / "a", flags, signal_at_step, 15).code == -signal.SIGKILL
    seed = (tmp_path / "run" / "seed.txt").read_text()
    assert train(tmp_path / "b", flags).code == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["seed"] == int(seed)


DRIVER = """
import sys
import tests.trainers.test_resume, train
before = {before}
if before:
    tests.trainers.test_resume.signal_at_step(before)
sys.argv = ["train.py", *sys.argv[1:]]
sys.exit(train.main())
"""


def test_sigkill_with_loader_workers(project, tmp_path):
    """The same with images loaded by two worker processes, whose augmentations are random too."""
    _, flags = project

    def run(folder, before=0):
        options = ["--output-dir", str(tmp_path / folder), "DATALOADER.NUM_WORKERS", "2"]
        command = [sys.executable, "-c", DRIVER.format(before=before), *flags, *options]
        variables = dict(os.environ, OMP_NUM_THREADS="1")
        return subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True)

    assert run("whole").returncode == 0
    assert run("killed", before=16).returncode == -signal.SIGKILL
    assert run("killed").returncode == 0
    (expected, expected_scores), (tensors, scores) = (
        outcome(tmp_path / folder) for folder in ("whole", "killed")
    )
    assert all(tensors[key].equal(expected[key]) for key in expected)
    assert scores == expected_scores
