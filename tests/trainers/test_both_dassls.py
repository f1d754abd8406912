"""Every trainer with gradient steps, from the command line: on both Dassls, in all precisions."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from dplq import checkpoint
from tests.peers import peer
from tests.runner import PROJECT, make_project
from tests.test_plugin import run

DEPTHS = {
    "CoOp": (),
    "CoCoOp": (),
    "VPT": ("PROMPT_DEPTH_VISION",),
    "IVLP": ("PROMPT_DEPTH_VISION", "PROMPT_DEPTH_TEXT"),
    "MaPLe": ("PROMPT_DEPTH",),
    "PromptSRC": ("PROMPT_DEPTH_VISION", "PROMPT_DEPTH_TEXT"),
    "DCPL": ("PROMPT_DEPTH",),
    "QuaternionPrompt": ("PROMPT_DEPTH",),
}
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
import dplq.plugin, trainers.frozen
from dplq.precision import Precision
amp = Precision("amp", "cpu", compute=torch.float16)
trainers.frozen.resolve_precision = lambda name, device: amp
"""


def jobs(flags, folder, precision):
    """One short run of each trainer."""
    short = ["OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "1"]
    for name, depths in DEPTHS.items():
        node, out = f"TRAINER.{name.upper()}", folder / precision / name
        keys = [f"{node}.PREC", precision]
        for key in depths:
            keys += [f"{node}.{key}", "2"]
        yield [*flags, "--trainer", name, "--output-dir", str(out), *short, *keys]


@pytest.fixture(scope="module")
def fallback(tmp_path_factory):
    """Flags, and the folder of the runs on our own Dassl."""
    folder = tmp_path_factory.mktemp("fallback")
    flags = make_project(folder)
    todo = [*jobs(flags, folder, "fp32"), *jobs(flags, folder, "bf16")]
    out = run([sys.executable, "-c", JOBS, json.dumps(todo)], cwd=PROJECT)
    assert out.count("Dassl in use: fallback") == len(todo)
    return flags, folder


def learned(folder, precision, name):
    path = folder / precision / name / "prompt_learner/model-1.safetensors"
    return checkpoint.read(path)[0]


def precision_of(folder, precision, name):
    result = json.loads((folder / precision / name / "results.json").read_text())
    assert result["trainer"] == name
    return result["precision"]


@pytest.mark.parametrize("name", DEPTHS)
def test_bfloat16_is_near_float32(fallback, name):
    _, folder = fallback
    plain, half = (learned(folder, kind, name) for kind in ("fp32", "bf16"))
    for key, tensor in plain.items():
        assert half[key].dtype == torch.float32
        assert (half[key] - tensor).norm() <= 0.1 * tensor.norm(), key
    assert any(not half[key].equal(tensor) for key, tensor in plain.items())
    assert [precision_of(folder, kind, name) for kind in ("fp32", "bf16")] == ["fp32", "bf16"]


@pytest.mark.parametrize("dassl", [None, "Dassl.pytorch"])
def test_amp_is_near_float32(fallback, dassl, tmp_path):
    flags, folder = fallback
    todo = list(jobs(flags, tmp_path, "amp"))
    command = [sys.executable, "-c", SCALE + AMP + JOBS, json.dumps(todo)]
    out = run(command, cwd=PROJECT, dassl=peer(dassl) if dassl else None)
    assert out.count(f"Dassl in use: {'real' if dassl else 'fallback'}") == len(todo)
    for name in DEPTHS:
        plain, half = learned(folder, "fp32", name), learned(tmp_path, "amp", name)
        assert precision_of(tmp_path, "amp", name) == "amp"
        for key, tensor in plain.items():
            assert half[key].dtype == torch.float32
            assert (half[key] - tensor).norm() <= 0.1 * tensor.norm(), (name, key)
        assert any(not half[key].equal(tensor) for key, tensor in plain.items()), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_precisions_on_a_gpu(tmp_path):
    flags, kinds = make_project(tmp_path), ("fp32", "fp16", "amp", "bf16")
    todo = [job for kind in kinds for job in jobs(flags, tmp_path, kind)]
    run([sys.executable, "-c", SCALE + JOBS, json.dumps(todo)], cwd=PROJECT)
    for name in DEPTHS:
        plain = learned(tmp_path, "fp32", name)
        for kind in kinds:
            assert precision_of(tmp_path, kind, name) == kind
            for key, tensor in learned(tmp_path, kind, name).items():
                assert tensor.dtype == torch.float32
                assert (tensor - plain[key]).norm() <= 0.1 * plain[key].norm(), (kind, name, key)


def test_the_real_dassl_gives_the_same_weights(fallback, tmp_path):
    flags, folder = fallback
    todo = list(jobs(flags, tmp_path, "fp32"))
    command = [sys.executable, "-c", JOBS, json.dumps(todo)]
    out = run(command, cwd=PROJECT, dassl=peer("Dassl.pytorch"))
    assert out.count("Dassl in use: real") == len(todo)
    for name in DEPTHS:
        expected, found = (learned(place, "fp32", name) for place in (folder, tmp_path))
        assert expected.keys() == found.keys()
        assert all(found[key].equal(expected[key]) for key in expected), name
