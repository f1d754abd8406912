"""Every trainer with gradient steps, from the command line: on both Dassls, in all precisions."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from dplq.host.dassl import which_dassl
from dplq.io import checkpoint
from tests.host.test_plugin import run
from tests.peers import peer
from tests.runner import PROJECT, make_project, train

DEPTHS = {
    "CoOp": (),
    "CoCoOp": (),
    "KgCoOp": (),
    "ProGrad": (),
    "TCP": (),
    "BiomedCoOp": (),
    "VPT": ("PROMPT_DEPTH_VISION",),
    "IVLP": ("PROMPT_DEPTH_VISION", "PROMPT_DEPTH_TEXT"),
    "MaPLe": ("PROMPT_DEPTH",),
    "PromptSRC": ("PROMPT_DEPTH_VISION", "PROMPT_DEPTH_TEXT"),
    "DCPL": ("PROMPT_DEPTH",),
    "QuaternionPrompt": ("PROMPT_DEPTH",),
}
MORE = {"TCP": {"CLASS_LAYER": "1"}, "BiomedCoOp": {"TEXTS": "templates", "N_PROMPTS": "5"}}
JOBS = """
import json, sys, train
for job in json.loads(sys.argv[1]):
    sys.argv = ["train.py", *job]
    assert train.main() == 0, job
"""
# The tiny CLIP's gradients overflow at the usual first scale, and the scaler skips such steps.
SCALE = """
import functools, torch
torch.amp.GradScaler = functools.partial(torch.amp.GradScaler, init_scale=1024)
"""
# What amp is on a GPU, half-precision autocast and a loss scaler, in place of this CPU's fp32.
AMP = """
import dplq.plugin, dplq.trainers._engine.frozen
from dplq.training.precision import Precision
amp = Precision("amp", "cpu", compute=torch.float16)
dplq.trainers._engine.frozen.resolve_precision = lambda name, device: amp
"""


STILL = "1e-30"  # a learning rate that leaves all weights where they start


def jobs(flags, folder, precision, rate="0.0035", name_of_runs=""):
    """One short run of each trainer, without warm-up."""
    short = ["OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1"]
    short += ["OPTIM.WARMUP_EPOCH", "-1", "OPTIM.LR", rate]
    for name, depths in DEPTHS.items():
        node, out = f"TRAINER.{name.upper()}", folder / (name_of_runs or precision) / name
        keys = [f"{node}.PREC", precision]
        for key in depths:
            keys += [f"{node}.{key}", "2"]
        for key, value in MORE.get(name, {}).items():
            keys += [f"{node}.{key}", value]
        yield [*flags, "--trainer", name, "--output-dir", str(out), *short, *keys]


def make_runs(log, todo, code="", dassl=None):
    """Make the runs one after another in one process; return what it printed.

    Args:
        log: a file name, as of `tests.runner.train`.
        todo: command lines of train.py.
        code: is executed first.
        dassl: folder of a real Dassl; None: ours.
    """
    if dassl or which_dassl() != "fallback":
        return run([sys.executable, "-c", code + JOBS, json.dumps(todo)], cwd=PROJECT, dassl=dassl)
    *first, last = todo
    done = train(log, last, make_first, code, first)
    assert done.code == 0, done.out[-3000:] + done.err[-3000:]
    return done.out


def make_first(code, todo):
    sys.argv = ["-c", json.dumps(todo)]
    exec(code + JOBS, {})


@pytest.fixture(scope="module")
def fallback(tmp_path_factory):
    """Flags, and the folder of the runs on our own Dassl."""
    folder = tmp_path_factory.mktemp("fallback")
    flags = make_project(folder)
    todo = [*jobs(flags, folder, "fp32", STILL, "start")]
    todo += [*jobs(flags, folder, "fp32"), *jobs(flags, folder, "bf16")]
    out = make_runs(folder / "log", todo)
    assert out.count("Dassl in use: fallback") == len(todo)
    return flags, folder


def learned(folder, precision, name):
    path = folder / precision / name / "prompt_learner/model-1.safetensors"
    return checkpoint.read(path)[0]


def error_of_move(start, plain, half):
    """How far half precision ends from float32, over how far float32 moved from the start."""
    flat = [torch.cat([state[key].flatten() for key in plain]) for state in (start, plain, half)]
    assert all(tensor.dtype == torch.float32 for tensor in half.values())
    return ((flat[2] - flat[1]).norm() / (flat[1] - flat[0]).norm()).item()


def precision_of(folder, precision, name):
    result = json.loads((folder / precision / name / "results.json").read_text())
    assert result["trainer"] == name
    return result["precision"]


@pytest.mark.parametrize("name", DEPTHS)
def test_bfloat16_is_near_float32(fallback, name):
    _, folder = fallback
    start, plain, half = (learned(folder, kind, name) for kind in ("start", "fp32", "bf16"))
    assert 0 < error_of_move(start, plain, half) <= 0.2
    assert [precision_of(folder, kind, name) for kind in ("fp32", "bf16")] == ["fp32", "bf16"]


@pytest.mark.parametrize("dassl", [None, "Dassl.pytorch"])
def test_amp_is_near_float32(fallback, dassl, tmp_path):
    """A step that the loss scaler skipped would leave the weights where they start."""
    flags, folder = fallback
    todo = list(jobs(flags, tmp_path, "amp"))
    out = make_runs(tmp_path / "log", todo, SCALE + AMP, peer(dassl) if dassl else None)
    assert out.count(f"Dassl in use: {'real' if dassl else 'fallback'}") == len(todo)
    for name in DEPTHS:
        start, plain = (learned(folder, kind, name) for kind in ("start", "fp32"))
        assert precision_of(tmp_path, "amp", name) == "amp"
        assert 0 < error_of_move(start, plain, learned(tmp_path, "amp", name)) <= 0.1, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_precisions_on_a_gpu(tmp_path):
    flags, kinds = make_project(tmp_path), ("fp16", "amp", "bf16")
    todo = list(jobs(flags, tmp_path, "fp32", STILL, "start"))
    todo += [job for kind in ("fp32", *kinds) for job in jobs(flags, tmp_path, kind)]
    run([sys.executable, "-c", SCALE + JOBS, json.dumps(todo)], cwd=PROJECT)
    for name in DEPTHS:
        start, plain = (learned(tmp_path, kind, name) for kind in ("start", "fp32"))
        for kind in kinds:
            assert precision_of(tmp_path, kind, name) == kind
            assert 0 < error_of_move(start, plain, learned(tmp_path, kind, name)) <= 0.2, name


def test_the_real_dassl_gives_the_same_weights(fallback, tmp_path):
    flags, folder = fallback
    todo = list(jobs(flags, tmp_path, "fp32"))
    out = make_runs(tmp_path / "log", todo, dassl=peer("Dassl.pytorch"))
    assert out.count("Dassl in use: real") == len(todo)
    for name in DEPTHS:
        expected, found = (learned(place, "fp32", name) for place in (folder, tmp_path))
        assert expected.keys() == found.keys()
        assert all(found[key].equal(expected[key]) for key in expected), name
