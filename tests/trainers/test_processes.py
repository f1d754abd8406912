"""One run on several processes, as torchrun starts them: the numbers of one process.

`python -m pytest -m slow tests/trainers/test_processes.py` also tries four processes, and all
trainers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from functools import cache

import pytest
import torch

from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.training.distributed import Part, own_part, refuse_unconnected
from tests.host.test_plugin import path_with
from tests.interpreter import printed
from tests.peers import peer
from tests.runner import make_project, train, train_together

MODEL = "prompt_learner/model-2.safetensors"
DEPTHS = {
    "VPT": ("PROMPT_DEPTH_VISION",),
    "IVLP": ("PROMPT_DEPTH_VISION", "PROMPT_DEPTH_TEXT"),
    "MaPLe": ("PROMPT_DEPTH",),
    "PromptSRC": ("PROMPT_DEPTH_VISION", "PROMPT_DEPTH_TEXT"),
    "DCPL": ("PROMPT_DEPTH",),
    "GDPL": ("PROMPT_DEPTH", "DELTA_DEPTH"),
}
OTHERS = ("CoCoOp", "KgCoOp", "TCP", "VPT", "IVLP", "DCPL", "GDPL", "CLIPLoRA", "CLIPSVD")
MORE = {
    "TCP": ("CLASS_LAYER", "1"),
    "BiomedCoOp": ("TEXTS", "templates", "N_PROMPTS", "5"),
    "DCPL": ("PRESET", "reference"),  # whose noise follows from the mean of the batch
}
LOST = "error: another process of this run has ended: "


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("processes"))


def arguments(flags, name, out, *more, options=()):
    node = f"TRAINER.{name.upper()}"
    keys = {f"{node}.PREC": "fp32", "OPTIM.MAX_EPOCH": "2", "DATASET.NUM_SHOTS": "4"}
    keys |= {"DATALOADER.TRAIN_X.BATCH_SIZE": "5", "DATALOADER.TEST.BATCH_SIZE": "3"}
    keys |= {f"{node}.{key}": "2" for key in DEPTHS.get(name, ())}
    own = iter(MORE.get(name, ()))
    keys |= {f"{node}.{key}": next(own) for key in own}
    words = [name if word == "QuaternionPrompt" else word for word in flags]
    settings = [word for pair in keys.items() for word in pair]
    return [*words, *options, "--output-dir", str(out), *settings, *more]


def record_losses(rank=0):
    """Have the log say the loss of every step to its last digit."""
    from dplq.trainers._engine.base import PromptTrainer

    step = PromptTrainer.forward_backward

    def recorded(self, batch):
        numbers = step(self, batch)
        print(f"loss is {float(numbers['loss'])!r}, acc is {float(numbers['acc'])!r}")
        return numbers

    PromptTrainer.forward_backward = recorded


def numbers_of(out, name="loss is"):
    return torch.tensor([float(found) for found in re.findall(rf"{name} ([\d.e-]+)", out)])


def weights(folder, name=MODEL):
    tensors = checkpoint.read(folder / name)[0]
    return torch.cat([tensors[key].double().flatten() for key in sorted(tensors)])


def distance(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def result(folder):
    """Return all that a test says, apart from times and the like."""
    result = json.loads((folder / "results.json").read_text())
    keys = ("accuracy", "macro_f1", "per_class_accuracy", "hits", "total", "metrics", "epochs")
    return [result[key] for key in keys], (folder / "predictions.csv").read_text()


def all_well(ended):
    """Check that all processes ended well, and that only the first printed anything."""
    assert [one.code for one in ended] == [0] * len(ended), ended[0].err[-2000:]
    assert {one.out + one.err for one in ended[1:]} <= {""}


def once_per_trainer(flags, folder, start):
    """Return a function that gives folder and output of a trainer's run, which `start` makes."""

    @cache
    def run_of(name):
        done = start(folder / f"log{name}", arguments(flags, name, folder / name))
        return folder / name, done

    return run_of


@pytest.fixture(scope="module")
def alone(flags, tmp_path_factory):
    """Return the folder and the output of a trainer's run on one process; one for all tests."""

    def start(log, given):
        done = train(log, given, record_losses)
        assert done.code == 0, done.err
        return done

    return once_per_trainer(flags, tmp_path_factory.mktemp("alone"), start)


def test_parts_of_a_batch(monkeypatch):
    from dplq.training import distributed
    from dplq.training.distributed import processes

    monkeypatch.setattr(processes.Process, "size", 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(processes.Process, "rank", rank)
        parts.append(own_part(8))
        batch = {
            "img": [torch.arange(8), torch.arange(8) + 8],
            "label": torch.arange(8),
            "impath": list("abcdefgh"),
        }
        own = distributed.own_rows(batch)
        assert own["impath"] == list("abcdefgh")[parts[-1].rows]
        assert own["img"][1].tolist() == [8 + label for label in own["label"].tolist()]
        assert own["part"] == parts[-1]
    assert parts == [Part(0, 3, 8), Part(3, 6, 8), Part(6, 8, 8)]


@pytest.fixture(scope="module")
def together(flags, tmp_path_factory):
    """Return the folder and the output of a trainer's run on two processes, as `alone` does."""

    def start(log, given):
        ended = train_together(log, given, 2, record_losses)
        all_well(ended)
        return ended[0]

    return once_per_trainer(flags, tmp_path_factory.mktemp("together"), start)


@pytest.mark.parametrize("name", ["QuaternionPrompt", "CoOp", "MaPLe", "PromptSRC", "ProGrad"])
def test_losses_and_weights_are_those_of_one_process(alone, together, name):
    """Batches of five images, of which the first process has three."""
    (folder, one), (shared, two) = alone(name), together(name)
    for number in ("loss is", "acc is"):
        expected = numbers_of(one.out, number)
        assert len(expected) == 6
        torch.testing.assert_close(numbers_of(two.out, number), expected, rtol=1e-5, atol=0)
    assert distance(weights(shared), weights(folder)) < 1e-5
    expected, found = (
        [path.name.partition(".tfevents")[0] for path in sorted(place.rglob("*"))]
        for place in (folder, shared)
    )
    assert found == expected  # one log, one file of curves


def test_a_finished_run_is_not_made_again(flags, together, tmp_path):
    folder, _ = together("CoOp")
    ended = train_together(tmp_path / "log", arguments(flags, "CoOp", folder))
    all_well(ended)
    assert ended[0].out.count(f"Already finished: {folder / 'results.json'}") == 1


@pytest.mark.parametrize("name", ["DCPL", "BiomedCoOp"])
def test_what_couples_the_images_of_a_batch(flags, alone, tmp_path, name):
    folder, _ = alone(name)
    all_well(train_together(tmp_path / "log", arguments(flags, name, tmp_path / "run")))
    assert distance(weights(tmp_path / "run"), weights(folder)) < 1e-5


def test_a_shared_test_is_that_of_one_process(flags, alone, tmp_path):
    """Six batches for two processes: the same numbers, and the same file."""
    folder, _ = alone("CoOp")
    one, two = (
        arguments(
            *(flags, "CoOp", tmp_path / place, "TEST.TEMPERATURE", "val"),
            options=["--eval-only", "--model-dir", str(folder)],
        )
        for place in ("one", "two")
    )
    assert train(tmp_path / "log", one).code == 0
    all_well(train_together(tmp_path / "log", two))
    assert result(tmp_path / "two") == result(tmp_path / "one")


@pytest.mark.parametrize("name", ["TipAdapter", "TipAdapterF", "ZeroshotCLIP"])
def test_heads_are_fitted_by_every_process_to_all_images(flags, alone, tmp_path, name):
    folder, _ = alone(name)
    all_well(train_together(tmp_path / "log", arguments(flags, name, tmp_path / "run")))
    assert result(tmp_path / "run") == result(folder)


def kill_one(rank, which, steps):
    """Kill a process of the run in the middle of a step; others must not wait for it."""
    from dplq.trainers._engine.base import PromptTrainer

    step = PromptTrainer.forward_backward

    def killed(self, batch):
        killed.left -= 1
        if rank == which and not killed.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch)

    killed.left = steps
    PromptTrainer.forward_backward = killed


@pytest.mark.parametrize("which", [0, 1])
def test_a_process_is_killed_and_the_run_goes_on(flags, alone, together, tmp_path, which):
    """In the second epoch; the same command goes on, and so does one process."""
    (whole, _), (shared, _) = alone("QuaternionPrompt"), together("QuaternionPrompt")
    run = tmp_path / "run"
    given = arguments(flags, "QuaternionPrompt", run)
    ended = train_together(tmp_path / "log", given, 2, kill_one, which, 5)
    assert ended[which].code == -signal.SIGKILL
    assert ended[1 - which].code == 2
    assert ended[1 - which].err.splitlines()[-1].startswith(LOST)
    assert "run the same command again to go on from there." in ended[1 - which].err
    shutil.copytree(run, tmp_path / "again")
    (tmp_path / "again/.owner.json").unlink(missing_ok=True)
    assert train(tmp_path / "log", arguments(flags, "QuaternionPrompt", run)).code == 0
    again = arguments(flags, "QuaternionPrompt", tmp_path / "again")
    ended = train_together(tmp_path / "log", again)
    all_well(ended)
    assert "will resume after epoch 1" in ended[0].out
    assert weights(tmp_path / "again").equal(weights(shared))
    assert distance(weights(run), weights(whole)) < 1e-5


def break_on_one(rank, which, what):
    """Have one process alone fail: its loss is nan, or it cannot read an image to test."""
    from dplq.trainers._engine.frozen import FrozenTrainer
    from dplq.trainers.coop import CoOp

    if rank != which:
        return
    if what == "loss":
        compute = CoOp.compute_loss

        def nan(self, images, labels):
            loss, logits = compute(self, images, labels)
            return loss * (float("nan") if self.epoch else 1), logits

        CoOp.compute_loss = nan
    else:

        def refuse(self, images):
            raise UserError("This image is none.")

        FrozenTrainer.model_inference = refuse


@pytest.mark.parametrize("what", ["loss", "image"])
def test_one_message_where_one_process_fails(flags, tmp_path, what):
    given = arguments(flags, "CoOp", tmp_path / "run", "TRAIN.CHECKPOINT_FREQ", "1")
    ended = train_together(tmp_path / "log", given, 2, break_on_one, 1, what)
    assert [one.code for one in ended] == [2, 2]
    errors = "".join(one.err for one in ended)
    assert errors.count("error: ") == 1
    assert "Traceback" not in errors
    if what == "loss":
        assert "error: The loss became nan or infinite in epoch 2, batch 1." in ended[0].err
        assert "What was saved up to epoch 1 is kept." in ended[0].err
    else:
        assert "error: This image is none." in ended[0].err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            ["DATALOADER.TRAIN_X.BATCH_SIZE", "1"],
            "2 processes cannot share a batch of 1: start at most 1 (torchrun --nproc-per-node)",
        ),
        (["OPTIM.LR", "fast"], "OPTIM.LR is 'fast'"),
    ],
)
def test_a_mistake_is_one_line(flags, tmp_path, more, words):
    given = arguments(flags, "CoOp", tmp_path / "run", *more)
    ended = train_together(tmp_path / "log", given)
    assert [one.code for one in ended] == [2, 2]
    assert ended[0].err.splitlines()[-1].startswith(f"error: {words}")
    assert ended[1].err == ""


def test_a_folder_in_use_is_one_line(flags, alone, tmp_path):
    folder, _ = alone("CoOp")
    given = arguments(flags, "MaPLe", folder)
    ended = train_together(tmp_path / "log", given)
    assert [one.code for one in ended] == [2, 2]
    assert ended[0].err.startswith(f"error: {folder} holds another run: trainer: there 'CoOp'")
    assert ended[1].err == ""


def others_trainer(rank):
    """Register a trainer that is none of this project's."""
    from dassl.engine import TRAINER_REGISTRY, TrainerX

    import dplq.plugin  # noqa: F401

    @TRAINER_REGISTRY.register()
    class Theirs(TrainerX):
        pass


def test_a_train_py_of_others_is_refused(monkeypatch):
    refuse_unconnected()
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = "WORLD_SIZE is 2, but this train.py does not divide its work: "
    with pytest.raises(UserError, match=words):
        refuse_unconnected()


def test_a_trainer_of_others_is_refused(flags, tmp_path):
    given = [*flags, "--trainer", "Theirs", "--output-dir", str(tmp_path / "run")]
    ended = train_together(tmp_path / "log", given, 2, others_trainer)
    assert [one.code for one in ended] == [2, 2]
    words = "error: WORLD_SIZE is 2, but Theirs, no trainer of dplq, is one process. Start it "
    assert ended[0].err.splitlines()[-1].startswith(words)
    assert ended[1].err == ""
    assert not (tmp_path / "run").exists()


# Dassl wraps its models in DataParallel where it counts two GPUs.
TWO_GPUS = """
import os, sys
sys.path.insert(0, os.getcwd())
import torch, dplq.plugin, train
from dplq.trainers import PromptTrainer
torch.cuda.device_count, torch.cuda.get_device_name = lambda: 2, lambda index: "GPU"
build = PromptTrainer.build_model
def built(self):
    build(self)
    print("built", type(self.model).__name__)
PromptTrainer.build_model = built
sys.exit(train.main())
"""


@pytest.mark.parametrize("dassl", [None, "Dassl.pytorch"])
def test_torchrun(flags, alone, tmp_path, dassl):
    """The command itself, on both Dassls: its agent, its environment, the end of the processes."""
    (tmp_path / "two_gpus.py").write_text(TWO_GPUS)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    given = arguments(flags, "CoOp", tmp_path / "run")
    # The agent imports torch alone; its processes import all that a run needs.
    variables = path_with(peer(dassl)) if dassl else {"DPLQ_DASSL": "fallback"}
    out = printed(["-m", *torchrun, tmp_path / "two_gpus.py", *given], **variables)
    assert out.count(f"Dassl in use: {'real' if dassl else 'fallback'}") == 1
    assert out.count("built CoOpModel") == 1
    assert out.count("* total: 16") == 1
    assert len(list((tmp_path / "run").glob("log.txt*"))) == 1
    assert distance(weights(tmp_path / "run"), weights(alone("CoOp")[0])) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_trainers(flags, alone, tmp_path, name):
    folder, _ = alone(name)
    all_well(train_together(tmp_path / "log", arguments(flags, name, tmp_path / "run")))
    assert distance(weights(tmp_path / "run"), weights(folder)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["QuaternionPrompt", "CoOp", "MaPLe", "PromptSRC"])
def test_four_processes(flags, alone, tmp_path, name):
    folder, one = alone(name)
    given = arguments(flags, name, tmp_path / "run")
    ended = train_together(tmp_path / "log", given, 4, record_losses)
    all_well(ended)
    found, expected = numbers_of(ended[0].out), numbers_of(one.out)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert distance(weights(tmp_path / "run"), weights(folder)) < 1e-5
