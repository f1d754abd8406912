"""Checkpoints and resume files: with a mutated header, or with damaged bytes."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

import dplq
from dplq import METHODS
from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.trainers._engine import resume
from tests.fuzz.campaign import Held, Refusal, fuzzed, outcome, untouched
from tests.fuzz.mutations import as_json, damaged, trees
from tests.fuzz.tiny_runs import build, logits_of_test, quiet, step
from tests.io.test_checkpoint import write_format_1
from tests.methods.test_load import IMAGES, model_of
from tests.tiny import tiny_backbone


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """By method: tensors, header and bytes of a checkpoint; and a folder to write to."""
    folder = tmp_path_factory.mktemp("checkpoints")
    clip = Path(tiny_backbone().spec.name.removeprefix("local-dir:"))
    shutil.copytree(clip, folder / clip.name)
    found = {}
    for method in sorted(METHODS):
        path = folder / f"{method}.safetensors"
        model_of(method, tiny_backbone()).save(
            path, epoch=3, val_result=75.5, split="0123", reading={}
        )
        found[method] = (*checkpoint.read(path), path.read_bytes())
    return Held(files=found, path=folder / "model-3.safetensors")


def write(path, tensors, header, number):
    """Write a checkpoint of format 1 or 2, with the checksum of what it holds.

    A header that cannot be part of format 2, such as one with NaN, is put in as text.
    """
    if number == checkpoint.FORMAT and isinstance(header, dict):
        try:
            checkpoint.save(path, tensors, header)
            return
        except (UserError, TypeError, UnicodeError):
            pass
    write_format_1(path, tensors, as_json(header).decode())


def load(path, clip):
    model = dplq.load(path, clip=clip)
    with torch.no_grad():
        return model, model(IMAGES)


def require_model(got, method):
    if isinstance(got, Refusal):
        return
    model, logits = got
    assert logits.shape == (len(IMAGES), len(model.classnames))
    assert torch.isfinite(logits).all()
    assert all(name.strip() for name in model.classnames)
    assert all(
        torch.isfinite(tensor).all() for tensor in model.prompt_learner.state_dict().values()
    )


METHOD_NAMES = st.sampled_from(sorted(METHODS))


@fuzzed(0.06, data=st.data(), method=METHOD_NAMES, number=st.sampled_from([1, 2]))
def test_headers(data, method, number, saved):
    path, clip = saved.path, data.draw(st.sampled_from([None, tiny_backbone()]))
    tensors, header, _ = saved.files[method]
    header = data.draw(trees(header))
    if isinstance(header, dict) and number == 1 and header.get("format") == 2:
        header["format"] = 1
    write(path, tensors, header, number)
    with untouched(path.parent):
        got = outcome("checkpoint headers", load, path, clip)
    require_model(got, method)


@fuzzed(0.06, data=st.data(), method=METHOD_NAMES, number=st.sampled_from([1, 2]))
def test_bytes(data, method, number, saved):
    """Every changed byte is found; in files of format 1, those that make no model."""
    tensors, header, whole = saved.files[method]
    path = saved.path
    if number == 1:
        write_format_1(path, tensors, json.dumps({**header, "format": 1}))
        whole = path.read_bytes()
    content = data.draw(damaged(whole, head=2000))
    path.write_bytes(content)
    with untouched(path.parent):
        got = outcome(f"checkpoint bytes, format {number}", load, path, tiny_backbone())
    assert number == 1 or isinstance(got, Refusal) or content == whole
    require_model(got, method)


@pytest.fixture(scope="module")
def training(project):
    """A trainer whose run wrote a resume file after its first epoch, and that file."""
    cfg = project.cfg.clone()
    cfg.OUTPUT_DIR, cfg.OPTIM.NAME = str(project.folder / "resumed"), "adam"
    trainer = build(cfg)
    step(trainer)
    with quiet():
        resume.write_state(trainer)
    path = trainer.model_dir(cfg.OUTPUT_DIR) / resume.RESUME_FILE
    tensors, header = checkpoint.read(path)
    yield Held(trainer=trainer, path=path, tensors=tensors, header=header, whole=path.read_bytes())
    shutil.rmtree(cfg.OUTPUT_DIR)


def parts_of(training):
    return training.trainer, training.path, training.tensors, training.header


def resumed(trainer):
    with quiet():
        done = resume.read_state(trainer, trainer.output_dir)
    return done, step(trainer), logits_of_test(trainer)


def require_resumed(got, trainer):
    if isinstance(got, Refusal):
        return
    done, loss, logits = got
    assert 1 <= done <= trainer.max_epoch
    assert torch.isfinite(loss)
    assert torch.isfinite(logits).all()
    assert trainer.train_seconds >= 0
    assert trainer.train_steps >= 0


@fuzzed(0.06, data=st.data(), number=st.sampled_from([1, 2]))
def test_resume_headers(data, number, training):
    trainer, path, tensors, header = parts_of(training)
    header = data.draw(trees(header))
    if isinstance(header, dict) and number == 1 and header.get("format") == 2:
        header["format"] = 1
    write(path, tensors, header, number)
    with untouched(path.parent):
        got = outcome("resume headers", resumed, trainer)
    require_resumed(got, trainer)


@fuzzed(0.02, data=st.data())
def test_resume_tensors(data, training):
    """Tensors are dropped, renamed, of other shapes and types, or not finite."""
    trainer, path, tensors, header = parts_of(training)
    tensors = dict(tensors)
    name = data.draw(st.sampled_from(sorted(tensors)))
    tensor = tensors.pop(name).clone()
    how = data.draw(
        st.sampled_from(["drop", "name", "shape", "half", "int", "nan", "inf", "empty"])
    )
    if how in ("nan", "inf") and tensor.is_floating_point():
        tensor.view(-1)[0] = float(how)
    changed = {
        "shape": tensor[None],
        "half": tensor.half(),
        "int": tensor.int(),
        "empty": tensor[:0] if tensor.dim() else tensor.reshape(1)[:0],
    }.get(how, tensor)
    if how != "drop":
        new = (
            data.draw(st.sampled_from(["", "x", f"x.{name}", "optimizer.9.x"]))
            if how == "name"
            else name
        )
        tensors[new] = changed
    write(path, tensors, header, 2)
    with untouched(path.parent):
        got = outcome("resume tensors", resumed, trainer)
    require_resumed(got, trainer)
    if not (how == "half" and name.startswith("learner.")):  # the same weights, as they were stored
        assert isinstance(got, Refusal)


@fuzzed(0.03, data=st.data())
def test_resume_bytes(data, training):
    trainer, path, whole = training.trainer, training.path, training.whole
    content = data.draw(damaged(whole, head=2000))
    path.write_bytes(content)
    with untouched(path.parent):
        got = outcome("resume bytes", resumed, trainer)
    assert isinstance(got, Refusal) or content == whole


def test_the_valid_files_are_accepted(saved, training):
    """The mutations are of files that are used; those of format 1, too."""
    path = saved.path
    for method, (tensors, header, whole) in saved.files.items():
        path.write_bytes(whole)
        require_model(load(path, tiny_backbone()), method)
        write_format_1(path, tensors, json.dumps({**header, "format": 1}))
        require_model(load(path, None), method)
    trainer, path, tensors, header = parts_of(training)
    path.write_bytes(training.whole)
    assert resumed(trainer)[0] == 1
    write(path, tensors, {**copy.deepcopy(header), "format": 1}, 1)
    assert resumed(trainer)[0] == 1
