"""Dassl's checkpoints of the originals, made by hand: names, live objects, what is refused.

That the originals' own checkpoints give their logits is in test_peers.py.
"""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import dplq.trainers  # noqa: F401 (makes `import dassl` work)
from dplq.clip.backbone import load_backbone
from dplq.errors import UserError
from dplq.methods.cocoop import CoCoOpModel
from dplq.methods.coop import CoOpModel
from dplq.methods.ivlp import IVLPModel
from dplq.methods.maple import MaPLeModel
from dplq.methods.vpt import VPTModel
from dplq.trainers._engine.checkpoints import CheckpointTrainer
from dplq.trainers.cocoop import CoCoOp
from dplq.trainers.coop import CoOp
from dplq.trainers.ivlp import IVLP
from dplq.trainers.maple import MaPLe
from dplq.trainers.vpt import VPT
from tests.runner import make_project, train
from tests.tiny import tiny_backbone

CLASSNAMES = ["river", "parking_lot"]
TOWER = "image_encoder.transformer.resblocks"
TEXT = "text_encoder.transformer.resblocks"
META_NET = ("weight", "bias")
# trainer -> its model, settings, and (the original's name, ours) of all that is learned
LAYOUTS = {
    CoOp: (CoOpModel, {"n_ctx": 3}, [("ctx", "ctx")]),
    CoCoOp: (
        CoCoOpModel,
        {"n_ctx": 3},
        [("ctx", "ctx")]
        + [(f"meta_net.linear1.{part}", f"meta_net.0.{part}") for part in META_NET]
        + [(f"meta_net.linear2.{part}", f"meta_net.2.{part}") for part in META_NET],
    ),
    MaPLe: (
        MaPLeModel,
        {"prompt_depth": 2},
        [
            ("prompt_learner.ctx", "ctx"),
            ("prompt_learner.compound_prompts_text.0", "deep_text.0"),
            ("prompt_learner.proj.weight", "vision_proj.weight"),
            ("prompt_learner.proj.bias", "vision_proj.bias"),
            ("prompt_learner.compound_prompt_projections.0.weight", "vision.0.weight"),
            ("prompt_learner.compound_prompt_projections.0.bias", "vision.0.bias"),
        ],
    ),
    IVLP: (
        IVLPModel,
        {"prompt_depth_text": 3, "prompt_depth_vision": 2},
        [
            ("prompt_learner.ctx", "ctx"),
            (f"{TEXT}.1.VPT_shallow", "deep_text.0"),
            (f"{TEXT}.2.VPT_shallow", "deep_text.1"),
            ("image_encoder.VPT", "vision"),
            (f"{TOWER}.1.VPT_shallow", "deep_vision.0"),
        ],
    ),
    VPT: (
        VPTModel,
        {"prompt_depth_vision": 2},
        [("image_encoder.VPT", "vision"), (f"{TOWER}.1.VPT_shallow", "deep_vision.0")],
    ),
}
FOLDERS = {MaPLe: "MultiModalPromptLearner", IVLP: "VLPromptLearner"}


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone()


class WarmUp(lr_scheduler.LRScheduler):
    """As Dassl's: its state holds the scheduler it hands over to, a live object."""

    def __init__(self, optimizer, successor):
        self.successor = successor
        super().__init__(optimizer)

    def get_lr(self):
        return [1e-5]


def make(kind, clip, seed=0, **more):
    """A trainer's model and its checkpoint as the original would have named it."""
    model_class, settings, names = LAYOUTS[kind]
    model = model_class(clip, CLASSNAMES, seed=seed, **{**settings, **more})
    state = model.prompt_learner.state_dict()
    return model, {theirs: state[ours] for theirs, ours in names}


def write(kind, folder, state, clip, epoch=1, name="", **more):
    """Save as Dassl does: frozen weights and class tokens too, optimiser, scheduler."""
    whole = kind in FOLDERS or kind is VPT
    prefix = "prompt_learner." if whole else ""
    fixed = {"logit_scale": torch.zeros(()), "text_encoder.ln_final.bias": torch.zeros(64)}
    fixed |= {f"{TOWER}.0.ln_1.weight": torch.ones(64)}
    state = {**state, **(fixed if whole else {})}
    if kind is not VPT:
        embedded = clip.embed_tokens(clip.tokenize(CLASSNAMES))
        state[f"{prefix}token_prefix"], state[f"{prefix}token_suffix"] = embedded.split([1, 76], 1)
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    scheduler = WarmUp(optimizer, lr_scheduler.CosineAnnealingLR(optimizer, 5.0))
    content = {
        "state_dict": {k: v.half() for k, v in state.items()},
        "epoch": epoch,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "val_result": None,
        **more,
    }
    place = folder / FOLDERS.get(kind, "prompt_learner")
    place.mkdir(exist_ok=True)
    torch.save(content, place / (name or f"model.pth.tar-{epoch}"))


def load(kind, model, folder, epoch=None):
    """What ``--model-dir folder --load-epoch epoch`` does; returns the epoch that is tested."""
    trainer = kind.__new__(kind)
    trainer.__dict__["model"] = model  # Dassl's own attributes are not needed
    CheckpointTrainer.load_model(trainer, str(folder), epoch)
    return trainer.tested_epoch


@pytest.mark.parametrize("kind", LAYOUTS, ids=lambda kind: kind.__name__)
def test_all_that_is_learned_is_read(kind, clip, tmp_path, capsys):
    """Half precision, as the authors trained; the numbers arrive under our names."""
    model, state = make(kind, clip)
    write(kind, tmp_path, state, clip, epoch=5)
    other, before = make(kind, clip, seed=1)
    assert any(not torch.equal(before[name], state[name]) for name in state)
    assert load(kind, other, tmp_path) == 5
    for name, tensor in model.prompt_learner.state_dict().items():
        loaded = other.prompt_learner.state_dict()[name]
        assert loaded.dtype == torch.float32
        assert torch.equal(loaded, tensor.half().float())
    assert f"{FOLDERS.get(kind, 'prompt_learner')}/model.pth.tar-5" in capsys.readouterr().out


def test_which_file_is_read(clip, tmp_path):
    model, state = make(CoOp, clip)
    for epoch in (2, 10):
        write(CoOp, tmp_path, state, clip, epoch=epoch)
    assert load(CoOp, model, tmp_path) == 10
    assert load(CoOp, model, tmp_path, 2) == 2
    write(CoOp, tmp_path, state, clip, epoch=7, name="model-best.pth.tar")
    assert load(CoOp, model, tmp_path) == 7
    with pytest.raises(UserError, match="of epoch 3; epochs that are there: 2, 10"):
        load(CoOp, model, tmp_path, 3)
    model.save(tmp_path / "prompt_learner/model-4.safetensors", epoch=4)
    assert load(CoOp, model, tmp_path) == 4  # ours come first
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no checkpoint\. Check the folder"):
        load(CoOp, model, tmp_path / "empty")


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        (MaPLe, {"prompt_depth": 3}, "model.pth.tar-1 does not fit .*: deep_text.1 is missing"),
        (MaPLe, {"n_ctx": 3}, r"ctx is \(2, 64\), the model has \(3, 64\)"),
        (CoOp, {"csc": True}, r"ctx is \(3, 64\), the model has \(2, 3, 64\)"),
    ],
)
def test_other_settings(kind, more, message, clip, tmp_path):
    _, state = make(kind, clip)
    write(kind, tmp_path, state, clip)
    with pytest.raises(UserError, match=message):
        load(kind, make(kind, clip, **more)[0], tmp_path)


def test_class_specific_context_of_other_classes(clip, tmp_path):
    _, state = make(CoOp, clip, csc=True)
    write(CoOp, tmp_path, state, clip)
    other = CoOpModel(clip, ["a", "b", "c"], n_ctx=3, csc=True)
    with pytest.raises(UserError, match="context of 2 classes, and now there are 3: it cannot be"):
        load(CoOp, other, tmp_path)


def test_names_that_the_original_does_not_have(clip, tmp_path):
    """DPLQ's trainer is called MaPLe too."""
    model, state = make(MaPLe, clip)
    state["prompt_learner.meta_net.linear1.weight"] = torch.zeros(2, 2)
    write(MaPLe, tmp_path, state, clip)
    with pytest.raises(UserError, match=r"prompt_learner.meta_net.linear1.weight is not part of"):
        load(MaPLe, model, tmp_path)


def test_another_clip(clip, tmp_path):
    model, state = make(CoOp, clip)
    write(CoOp, tmp_path, state, tiny_backbone(seed=1))
    with pytest.raises(UserError, match=r"trained with another CLIP than .*MODEL.BACKBONE.NAME"):
        load(CoOp, model, tmp_path)


class Harmful:
    """Would make a folder if it were unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_file_is_run(clip, tmp_path):
    model, state = make(CoOp, clip)
    write(CoOp, tmp_path, state, clip, extra=Harmful(tmp_path / "harm"))
    with pytest.raises(UserError, match=r"cannot be read as a checkpoint .*mkdir"):
        load(CoOp, model, tmp_path)
    assert not (tmp_path / "harm").exists()
    path = tmp_path / "prompt_learner/model.pth.tar-1"
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match=f"{path} is not a checkpoint of Dassl's"):
        load(CoOp, model, tmp_path)
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        load(CoOp, model, tmp_path)


def test_command_line(tmp_path):
    """``--model-dir`` with an original's folder gives what our own checkpoint gives."""
    flags = make_project(tmp_path / "project", images=6)
    clip = load_backbone(f"local-dir:{tmp_path}/project/clip", pretrained=False)
    model, state = make(MaPLe, clip)
    (tmp_path / "theirs").mkdir()
    write(MaPLe, tmp_path / "theirs", state, clip, epoch=5)
    with torch.no_grad():
        for parameter in model.prompt_learner.parameters():
            parameter.copy_(parameter.half())
    model.save(tmp_path / "ours/prompt_learner/model-5.safetensors", epoch=5)
    found = {}
    for place in ("ours", "theirs"):
        out = tmp_path / f"{place}_out"
        more = ["--trainer", "MaPLe", "--model-dir", str(tmp_path / place), "--load-epoch", "5"]
        options = ["--output-dir", str(out), "--eval-only", "TRAINER.MAPLE.PROMPT_DEPTH", "2"]
        done = train(tmp_path / place, [*flags, *more, *options])
        assert done.code == 0, done.err
        result = json.loads((out / "results.json").read_text())
        found[place] = {k: result[k] for k in ("per_class_accuracy", "macro_f1", "epochs")}
    assert found["ours"] == found["theirs"]
    assert found["ours"]["epochs"] == 5
    assert "MultiModalPromptLearner/model.pth.tar-5" in done.out
