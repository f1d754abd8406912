"""How steps are run: nothing is read back, losses are watched, models can be compiled."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dplq import QuaternionPromptCLIP
from dplq.errors import UserError
from dplq.trainers._engine.frozen import configure_model
from dplq.training.loss_guard import NonFiniteLossGuard
from dplq.training.precision import resolve_precision
from tests.runner import make_project, train
from tests.tiny import tiny_backbone

KEYS = {"TEXT_CHUNK": 0, "GRAD_CHECKPOINTING": False, "COMPILE": ""}
GOOD, BAD = torch.tensor(1.5), torch.tensor(float("nan"))


class ReadBacks(TorchDispatchMode):
    """Counts the numbers that `item`, `bool`, ... take from a tensor; on a GPU they wait for it."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ == "_local_scalar_dense"
        return func(*args, **(kwargs or {}))


def test_the_counter_counts():
    with ReadBacks() as mode:
        GOOD.item()
        bool(GOOD)
    assert mode.count == 2


def count_read_backs():
    from dplq.trainers._engine.base import PromptTrainer

    step = PromptTrainer.forward_backward

    def counted(self, batch):
        self.loss_guard.every = 2  # as on a GPU, where it is PRINT_FREQ
        with ReadBacks() as mode:
            summary = step(self, batch)
        print(f"read back {mode.count}")
        return summary

    PromptTrainer.forward_backward = counted


@pytest.mark.parametrize("name", ["QuaternionPrompt", "CoCoOp", "MaPLe", "PromptSRC"])
def test_a_step_reads_nothing_back(tmp_path, name):
    flags = [*make_project(tmp_path), "--trainer", name, "--output-dir", str(tmp_path / "run")]
    depths = {"MaPLe": ["PROMPT_DEPTH"]}
    depths["PromptSRC"] = ["PROMPT_DEPTH_TEXT", "PROMPT_DEPTH_VISION"]
    for key in depths.get(name, []):
        flags += [f"TRAINER.{name.upper()}.{key}", "2"]
    done = train(tmp_path / "log", [*flags, "OPTIM.MAX_EPOCH", "1"], count_read_backs)
    assert done.code == 0, done.err
    counts = [int(number) for number in re.findall(r"read back (\d+)", done.out)]
    counts = counts[2:]  # in its first step PromptSRC encodes its templates
    # Every second step the guard reads the losses back, and nothing else does.
    assert len(counts) > 3
    assert counts == [index % 2 for index in range(len(counts))]


def test_losses_are_checked_when_they_should_be():
    now = NonFiniteLossGuard("COOP", 1, "fp16")
    now.add(GOOD, 0, 0)
    with pytest.raises(
        UserError, match=r"nan or infinite in epoch 3, batch 8. Lower OPTIM.LR.*COOP"
    ):
        now.add(BAD, 2, 7)
    later = NonFiniteLossGuard("COOP", 3, "fp32")
    later.add(BAD, 0, 0)
    later.add(GOOD, 0, 1)
    words = "in or before epoch 1, batch 3. Lower OPTIM.LR: that is another run"
    with pytest.raises(UserError, match=words):
        later.add(GOOD, 0, 2)
    later.add(BAD, 1, 0)  # counts with the batches of its epoch, as the log lines do
    with pytest.raises(UserError):
        later.check()
    later.check()
    later.add(torch.tensor(float("inf")), 1, 1)
    with pytest.raises(UserError, match="in or before epoch 2, batch 2"):
        later.check()


@pytest.fixture(scope="module")
def model():
    clip = tiny_backbone()
    names = ["river", "dense residential area", "storage tank"]
    settings = {"n_ctx": 2, "prompt_depth": 2, "domain_dim": 8, "seed": 0}
    return QuaternionPromptCLIP(clip, None, names, **settings)


def outcome(model, call):
    """Logits and gradients of one step with `call` in the model's place."""
    draw = torch.Generator().manual_seed(0)
    size, width = model.clip.image_size, model.clip.text_width
    images = torch.randn(2, 3, size, size, generator=draw)
    given = {"domain_features": torch.randn(2, 8, generator=draw)}
    given["noise"] = torch.randn(2, width, generator=draw)
    model.zero_grad()
    logits = call(images, **given)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    return logits.detach(), [p.grad.clone() for p in model.prompt_learner.parameters()]


def test_one_graph_that_computes_the_same(model):
    """`fullgraph`: nothing behind the domain encoder makes the compiler give up."""
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(outcome(model, compiled), outcome(model, model))


def test_the_image_tower_is_run_again_and_nothing_else_changes(model):
    calls = []
    block = model.clip.clip.visual.transformer.resblocks[0]
    hook = block.ln_1.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    plain = outcome(model, model)
    assert len(calls) == 1
    keys = SimpleNamespace(**{**KEYS, "GRAD_CHECKPOINTING": True})
    configure_model(model, resolve_precision("fp32", "cpu"), keys)
    again = outcome(model, model)
    assert len(calls) == 3  # once more forward, once for the backward pass
    torch.testing.assert_close(again, plain, rtol=0, atol=0)
    with torch.no_grad():
        model.clip.encode_image(torch.zeros(1, 3, model.clip.image_size, model.clip.image_size))
    assert len(calls) == 4
    hook.remove()
    configure_model(model, resolve_precision("fp32", "cpu"), SimpleNamespace(**KEYS))


def test_compile_modes(model, monkeypatch):
    given = []
    monkeypatch.setattr(model, "compile", lambda mode: given.append(mode))
    for mode in ("", "reduce-overhead"):
        configure_model(
            model, resolve_precision("fp32", "cpu"), SimpleNamespace(**{**KEYS, "COMPILE": mode})
        )
    assert given == ["reduce-overhead"]


def test_an_unknown_mode_is_refused_before_anything_is_loaded(tmp_path):
    flags = [*make_project(tmp_path), "--output-dir", str(tmp_path / "run")]
    done = train(tmp_path / "log", [*flags, "MODEL.COMPILE", "reduce_overhead"])
    assert done.code == 2
    assert "Loading CLIP" not in done.out
    assert "MODEL.COMPILE is 'reduce_overhead'; it must be empty or one of default, " in done.err


@pytest.mark.slow
def test_compiled_training_ends_with_the_same_weights(tmp_path):
    """All of torch.compile, from the command line, with drawn noise and a short last batch."""
    from dplq.io import checkpoint

    flags, weights = make_project(tmp_path), []
    for mode in ("", "default"):
        out = tmp_path / (mode or "plain")
        keys = ["OPTIM.MAX_EPOCH", "1", *(["MODEL.COMPILE", mode] if mode else [])]
        done = train(tmp_path / f"log{mode}", [*flags, "--output-dir", str(out), *keys])
        assert done.code == 0, done.err
        weights.append(checkpoint.read(out / "prompt_learner/model-1.safetensors")[0])
    for key, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][key], tensor, rtol=1e-4, atol=1e-6)
