"""A killed run that is started again ends with the same weights, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
import torch

from dplq.errors import UserError
from dplq.io import checkpoint
from tests.runner import make_project, train

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

    def step(self):
        seen.append(1)
        if len(seen) == count:
            os.kill(os.getpid(), number)
        original(self)

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
    assert result["train_accuracy"]["start"] is not None
    names = ("accuracy", "macro_f1", "per_class_accuracy", "train_accuracy")
    return tensors, tuple(result[name] for name in names)


@pytest.mark.parametrize(
    ("name", "kill"),
    [
        ("first_step", (signal_at_step, 1)),
        ("middle_of_first_epoch", (signal_at_step, 5)),
        ("first_step_of_second_epoch", (signal_at_step, 13)),
        ("middle_of_last_epoch", (signal_at_step, 30)),
        ("before_rename", (kill_while_writing, "resume.safetensors", "before")),
        ("after_rename", (kill_while_writing, "resume.safetensors", "after")),
        ("before_the_previous", (kill_while_writing, "resume-previous.safetensors", "before")),
        ("after_the_previous", (kill_while_writing, "resume-previous.safetensors", "after")),
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


RESUME, PREVIOUS = (f"prompt_learner/resume{end}.safetensors" for end in ("", "-previous"))


@pytest.fixture(scope="module")
def killed_in_epoch_3(project, tmp_path_factory):
    folder, flags = tmp_path_factory.mktemp("killed"), project[1]
    flags = [*flags, "--output-dir", str(folder / "run"), "TRAIN.CHECKPOINT_FREQ", "1"]
    assert train(folder / "log", flags, signal_at_step, 30).code == -signal.SIGKILL
    return folder / "run"


@pytest.fixture
def two_epochs(project, killed_in_epoch_3, tmp_path):
    """A copy of a run that was killed in its third epoch, and its flags."""
    run = tmp_path / "run"
    shutil.copytree(killed_in_epoch_3, run)
    return run, [*project[1], "--output-dir", str(run), "TRAIN.CHECKPOINT_FREQ", "1"]


def ends_as_if_never_interrupted(project, run):
    expected, scores = outcome(project[0] / "whole")
    tensors, now = outcome(run)
    return now == scores and all(tensors[key].equal(expected[key]) for key in expected)


def test_a_damaged_resume_file_costs_one_epoch(project, two_epochs, tmp_path):
    run, flags = two_epochs
    assert [checkpoint.read(run / name)[1]["epoch"] for name in (RESUME, PREVIOUS)] == [2, 1]
    content = bytearray((run / RESUME).read_bytes())
    content[-1] ^= 1
    (run / RESUME).write_bytes(content)
    refused = train(tmp_path / "refused", flags)
    assert refused.code == 2
    assert refused.err.splitlines()[-1] == (
        f"error: {run / RESUME} is damaged: its checksum is not that of its content. Delete it to "
        "go on from resume-previous.safetensors, after epoch 1. Good models beside it: epoch 1, 2 "
        "(--load-epoch). To begin a new run choose another --output-dir, or add --overwrite."
    )
    (run / RESUME).unlink()
    again = train(tmp_path / "again", flags)
    assert again.code == 0, again.err
    assert "will resume after epoch 1" in again.out
    assert ends_as_if_never_interrupted(project, run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": None}, "epoch: expected `int`, got `null`"),
        ({"epoch": 0}, "epoch: expected `int` >= 1"),
        ({"run_seed": -1}, "run_seed: expected `int` >= 0"),
        ({"optimizer": {}}, "optimizer: expected `array`, got `object`"),
        ({"optimizer": [[-1, {}]]}, "optimizer[0][0]: expected `int` >= 0"),
        ({"scaler": {"scale": 0}}, "scaler.scale: expected `float` > 0"),
        ({"train_seconds": -1}, "train_seconds: expected `float` >= 0"),
        ({"train_steps": 1.5}, "train_steps: expected `int`, got `float`"),
        ({"draw": "dice"}, "draw: invalid enum value 'dice'"),
    ],
)
def test_types_and_ranges_of_a_resume_header(killed_in_epoch_3, change, message):
    from dplq.trainers._engine.resume import _checked

    path = killed_in_epoch_3 / RESUME
    header = checkpoint.read_header(path)
    assert _checked(header, path).epoch == 2
    with pytest.raises(UserError) as caught:
        _checked({**header, **change}, path)
    assert f"{path} is damaged: in its header, {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": None}, "settings: expected `object`, got `null`"),
        ({"epoch": 4}, "epoch 4 is not this run's"),
        ({"run_seed": 2}, "run_seed 2 is not this run's"),
        ({"optimizer": [[99, {}]]}, "belongs to no parameter"),
    ],
)
def test_a_resume_header_is_checked_whole(two_epochs, tmp_path, change, message):
    run, flags = two_epochs
    for name in (RESUME, PREVIOUS):
        tensors, header = checkpoint.read(run / name)
        checkpoint.save(run / name, tensors, {**header, **change})
    refused = train(tmp_path / "refused", flags)
    assert refused.code == 2, refused.err
    line = refused.err.splitlines()[-1]
    assert f"error: {run / RESUME} is damaged: in its " in line
    assert message in line
    (run / RESUME).unlink()  # and the previous one is no better
    line = train(tmp_path / "again", flags).err.splitlines()[-1]
    assert f"error: {run / PREVIOUS} is damaged: in its " in line
    assert "Delete it to train from the first epoch on" in line


def test_a_tensor_of_no_part_is_refused(two_epochs, tmp_path):
    run, flags = two_epochs
    tensors, header = checkpoint.read(run / RESUME)
    checkpoint.save(run / RESUME, {**tensors, "nodot": torch.ones(1)}, header)
    assert "it has a tensor nodot" in train(tmp_path / "refused", flags).err


def test_a_damaged_model_names_the_good_epochs(two_epochs, tmp_path):
    run, flags = two_epochs
    for name in ("2", "3"):
        model = run / f"prompt_learner/model-{name}.safetensors"
        model.write_bytes((run / "prompt_learner/model-1.safetensors").read_bytes()[:-1])
    tested = [*flags[: flags.index("--output-dir")], "--output-dir", str(tmp_path / "out")]
    tested += ["--eval-only", "--model-dir", str(run)]
    refused = train(tmp_path / "refused", tested)
    assert refused.code == 2
    assert f"{model} is damaged: its checksum" in refused.err
    assert "these are good: 1 (--load-epoch of train.py)" in refused.err
    assert not (tmp_path / "out/results.json").exists()
    assert train(tmp_path / "good", [*tested, "--load-epoch", "1"]).code == 0


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_finished_model_is_made_again_as_the_message_says(project, tmp_path, is_lost):
    run = tmp_path / "run"
    shutil.copytree(project[0] / "whole", run)
    whole = (run / LAST).read_bytes()
    (run / "results.json").unlink()
    (run / LAST).unlink() if is_lost else (run / LAST).write_bytes(whole[:-1])
    done = train(tmp_path / "log", [*project[1], "--output-dir", str(run)])
    assert done.code == 0, done.err
    assert (run / LAST).read_bytes() == whole
    assert (run / "results.json").is_file()


def test_a_lost_best_model_is_not_replaced_by_the_last(project, tmp_path):
    run = tmp_path / "run"
    flags = [*project[1], "--output-dir", str(run), "TEST.FINAL_MODEL", "best_val"]
    assert train(tmp_path / "log", flags).code == 0
    best = run / "prompt_learner/model-best.safetensors"
    best.unlink()
    (run / "results.json").unlink()
    done = train(tmp_path / "log", flags)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(f"error: {best} is not there, the model that TEST.")
    assert not (run / "results.json").exists()


def test_epochs_without_validation_have_no_best_one(project, tmp_path):
    flags = [*project[1], "--output-dir", str(tmp_path / "run"), "TEST.FINAL_MODEL", "best_val"]
    assert train(tmp_path / "log", [*flags, "TEST.NO_TEST", "True"]).code == 0
    done = train(tmp_path / "log", flags)
    assert done.code == 2
    assert "were trained with TEST.NO_TEST True, so they were not validated" in done.err
    assert not (tmp_path / "run/results.json").exists()


def test_epochs_of_which_some_were_validated_are_not_compared(project, tmp_path):
    """Some epochs without a validation, then the others with one."""
    flags = [*project[1], "--output-dir", str(tmp_path / "run"), "TEST.FINAL_MODEL", "best_val"]
    untested = [*flags, "TEST.NO_TEST", "True"]
    assert train(tmp_path / "killed", untested, signal_at_step, 15).code == -signal.SIGKILL
    done = train(tmp_path / "log", flags)
    assert done.code == 2
    assert "best_val: of the 1 epochs of " in done.err
    assert " 1 were trained with TEST.NO_TEST True, so they were not validated" in done.err


def test_validated_epochs_are_counted_over_an_interruption(project, tmp_path):
    flags = [*project[1], "--output-dir", str(tmp_path / "run"), "TEST.FINAL_MODEL", "best_val"]
    assert train(tmp_path / "killed", flags, signal_at_step, 15).code == -signal.SIGKILL
    done = train(tmp_path / "log", flags)
    assert done.code == 0, done.err
    header = checkpoint.read_header(tmp_path / "run/prompt_learner/resume.safetensors")
    assert header["validated"] == header["epoch"] > 1


def test_no_epoch_is_chosen_on_tested_val_images(project, tmp_path):
    flags = [*project[1], "--output-dir", str(tmp_path / "run"), "TEST.SPLIT", "val"]
    flags += ["TEST.FINAL_MODEL", "best_val"]
    done = train(tmp_path / "log", flags)
    assert done.code == 2
    assert "val images are tested, too: an epoch that is chosen on them" in done.err


def make_infinite_at_step(count, what="weight"):
    """Let a weight, or the momentum of one, overflow in a step whose loss is finite."""
    from dplq.trainers._engine.base import PromptTrainer

    original = PromptTrainer._step
    seen = []

    def step(self):
        original(self)
        seen.append(1)
        if len(seen) == count:
            parameter = next(self.model.prompt_learner.parameters())
            values = {"weight": parameter.data, "momentum": None}[what]
            if values is None:
                values = self.optim.state[parameter]["momentum_buffer"]
            values.view(-1)[0] = float("inf")

    PromptTrainer._step = step


@pytest.mark.parametrize("what", ["weight", "momentum"])
def test_weights_that_overflow_in_the_last_step_are_not_saved(project, tmp_path, what):
    _, flags = project
    run = tmp_path / "run"
    flags = [*flags, "--output-dir", str(run), "TRAIN.CHECKPOINT_FREQ", "1"]
    done = train(tmp_path / "log", flags, make_infinite_at_step, 36, what)
    assert done.code == 2
    line = done.err.splitlines()[-1]
    assert "error: The weights became nan or infinite in epoch 3: " in line
    assert "(1 of " in line
    assert "choose another --output-dir too, or add --overwrite" in line
    assert line.endswith("What was saved up to epoch 2 is kept.")
    assert checkpoint.good_epochs(run / "prompt_learner") == ["1", "2"]
    assert not (run / LAST).exists()
    assert not (run / "results.json").exists()
    assert checkpoint.read(run / RESUME)[1]["epoch"] == 2


def make_logits_infinite():
    from dplq.trainers._engine.domain import DomainTrainer

    original = DomainTrainer.model_inference

    def infer(self, input):
        logits = original(self, input)
        logits[0, 0] = float("nan")
        return logits

    DomainTrainer.model_inference = infer


def test_logits_that_are_not_finite_give_no_result(project, tmp_path):
    _, flags = project
    flags = [*flags, "--output-dir", str(tmp_path / "run"), "OPTIM.MAX_EPOCH", "1"]
    done = train(tmp_path / "log", flags, make_logits_infinite)
    assert done.code == 2
    line = done.err.splitlines()[-1]
    assert "tested images are nan or infinite: there is no accuracy, and no result" in line
    assert "PREC" not in line  # it is fp32
    assert "Train with a lower OPTIM.LR: that is another run, so choose another --output" in line
    assert "* accuracy" not in done.out
    assert not (tmp_path / "run/results.json").exists()
    assert train(tmp_path / "again", flags).code == 0


def test_unseeded_run_resumes_exactly_too(project, tmp_path):
    _folder, flags = project
    at = flags.index("--seed")
    flags = [*flags[:at], *flags[at + 2 :], "--output-dir", str(tmp_path / "run")]
    assert train(tmp_path / "a", flags, signal_at_step, 15).code == -signal.SIGKILL
    seed = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]["seed"]
    assert train(tmp_path / "b", flags).code == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["seed"] == seed


def test_sigkill_with_loader_workers(project, tmp_path):
    """The same with images loaded by two worker processes, whose augmentations are random too."""
    _, flags = project

    def run(folder, *before):
        options = ["--output-dir", str(tmp_path / folder), "DATALOADER.NUM_WORKERS", "2"]
        return train(tmp_path / f"{folder}.log", [*flags, *options], *before).code

    assert run("whole") == 0
    assert run("killed", signal_at_step, 16) == -signal.SIGKILL
    assert run("killed") == 0
    (expected, expected_scores), (tensors, scores) = (
        outcome(tmp_path / folder) for folder in ("whole", "killed")
    )
    assert all(tensors[key].equal(expected[key]) for key in expected)
    assert scores == expected_scores
