"""`dplq.load`: any method's file, run folder or public checkpoint, without Dassl."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import dplq
from dplq import METHODS, UserError, create_model
from dplq.methods.heads.base import HeadModel
from tests.interpreter import python
from tests.tiny import tiny_backbone
from tests.trainers import test_public_checkpoints as public

NAMES = ["forest", "river", "parking_lot"]
OTHERS = ["lake", "storage tank"]
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CSC = {"csc": True, "n_ctx": 3}
# What is not the default, so that a header that is not read would be noticed.
SETTINGS = {
    "QuaternionPrompt": {"n_ctx": 1, "prompt_depth": 3, "fusion": "axes", "residual": True},
    "DCPL": {"prompt_depth": 2, "noise": False},
    "MaPLe": {"n_ctx": 1, "ctx_init": "an image of", "prompt_depth": 2},
    "IVLP": {"n_ctx_text": 3, "prompt_depth_text": 2, "prompt_depth_vision": 3},
    "PromptSRC": {"n_ctx_vision": 1, "prompt_depth_text": 2, "prompt_depth_vision": 1},
    "VPT": {"n_ctx_vision": 3, "prompt_depth_vision": 2, "ctx_init": "a picture of"},
    "CoOp": {"ctx_init": "a photo of the", "class_token_position": "middle"},
    "CoCoOp": {"n_ctx": 2},
    "KgCoOp": {"ctx_init": "a photo of the", "template": "{} from above", "w": 2.0},
    "ProGrad": {"n_ctx": 6, "temperature": 2.0, "projection": 0.8},
    "TCP": {"class_layer": 2, "n_ctx": 2, "template": "{} from above"},
    "BiomedCoOp": {"n_ctx": 2, "tau": 2.0, "n_prompts": 7},
    "ZeroshotCLIP": {"templates": ["a photo of a {}.", "{} from above"]},
    "LinearProbe": {"features": "both", "C": 0.1},
    "GDA": {"templates": ["a map of {}."], "alpha": 10.0},
    "TipAdapter": {"features": "both", "templates": ["a map of {}."]},
    "TipAdapterF": {"templates": ["a map of {}."], "beta": 2.0},
    "LPPlusPlus": {"features": "both", "templates": ["a map of {}."]},
    "CLAP": {"templates": ["a map of {}."], "constraint": False},
    "TaskRes": {"templates": ["a map of {}."], "alpha": 0.7},
    "CLIPAdapter": {"features": "both", "templates": ["a map of {}."], "ratio": 0.4},
    "SSText": {"templates": ["a map of {}."], "repel": True},
    "TextMap": {"features": "both", "templates": ["a map of {}."], "scale": 3.0},
    "CLIPLoRA": {"params": "vo", "rank": 3, "template": "a picture of {}."},
    "CLIPSVD": {"encoder": "image"},
    "TwoStage": {"template": "{} from above"},
    "GDPL": {"n_ctx": 1, "prompt_depth": 3, "rank": 2, "delta_depth": 2},
}


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone()


def model_of(method, clip, names=NAMES, **settings):
    domain = dplq.load_domain_encoder("clip", backbone=clip)
    settings = settings or SETTINGS[method]
    given = {"domain": domain} if METHODS[method].reads_domain(settings) else {}
    model = create_model(method, clip, names, seed=3, **given, **settings).eval()
    if isinstance(model, HeadModel):
        fill(model)
    return model


def fill(model):
    """Give a head's tensors random values, and a cache five images."""
    random = torch.Generator().manual_seed(0)
    for name, own in model.prompt_learner.named_parameters():
        shape = (5, *own.shape[1:]) if own.dim() and not len(own) else own.shape
        drawn = torch.rand(shape, generator=random)
        model.prompt_learner.put(**{name: drawn if own.is_floating_point() else 3 * drawn})


def logits(model):
    with torch.no_grad():
        return model.eval()(IMAGES)


def test_every_method_is_covered():
    assert set(SETTINGS) == set(METHODS)


@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("where", ["file", "run folder"])
def test_round_trip(method, where, clip, tmp_path, monkeypatch):
    """The same logits, header and class from the path and CLIP's folder; `~` is the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    model = model_of(method, clip)
    inside = "" if where == "file" else "prompt_learner/"
    model.save(f"~/run/{inside}model-3.safetensors")
    assert (tmp_path / f"run/{inside}model-3.safetensors").is_file()
    path = f"~/run/{inside}model-3.safetensors" if where == "file" else "~/run"
    folder = Path(clip.spec.name.removeprefix("local-dir:"))
    again = dplq.load(path, weights=str(folder))
    assert type(again) is type(model)
    assert again.header() == model.header()
    assert not again.training
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("method", SETTINGS)
def test_other_classes(method, clip, tmp_path):
    """They are used where the method can name them, else refused by name."""
    model = model_of(method, clip)
    model.save(tmp_path / "m.safetensors")
    if METHODS[method].any_classes:
        again = dplq.load(tmp_path / "m.safetensors", OTHERS, clip=clip)
        model.set_classnames(OTHERS)
        assert again.classnames == OTHERS
        assert torch.equal(logits(again), logits(model))
    else:
        message = (
            f"This model is a {method} model for the classes forest, river, parking_lot. "
            "It cannot tell others apart (now: lake, storage tank)"
        )
        with pytest.raises(UserError, match=re.escape(message)):
            dplq.load(tmp_path / "m.safetensors", OTHERS, clip=clip)


def test_a_class_specific_context_is_refused_for_other_classes(clip, tmp_path):
    model_of("CoOp", clip, **CSC).save(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="class-specific context of 3 classes"):
        dplq.load(tmp_path / "m.safetensors", OTHERS, clip=clip)
    assert dplq.load(tmp_path / "m.safetensors", clip=clip).settings["csc"] is True


def test_a_run_folder_gives_its_best_or_last_or_a_named_epoch(clip, tmp_path):
    for name, n_ctx in (("model-1", 1), ("model-20", 2), ("model-3", 3)):
        model_of("CoOp", clip, n_ctx=n_ctx).save(tmp_path / f"prompt_learner/{name}.safetensors")
    assert dplq.load(tmp_path, clip=clip).n_ctx == 2
    assert dplq.load(tmp_path, clip=clip, epoch=3).n_ctx == 3
    model_of("CoOp", clip, n_ctx=4).save(tmp_path / "prompt_learner/model-best.safetensors")
    assert dplq.load(tmp_path, clip=clip).n_ctx == 4
    with pytest.raises(UserError, match=r"of epoch 7; epochs that are there: 1, 3, 20"):
        dplq.load(tmp_path, clip=clip, epoch=7)


def test_an_empty_folder_and_an_unknown_method(clip, tmp_path):
    with pytest.raises(UserError, match=r"holds no checkpoint\. Check the folder"):
        dplq.load(tmp_path)
    model = model_of("CoOp", clip)
    model.header = lambda: {"method": "CoOpp"}
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=r"of a known method .'CoOpp'.*Did you mean 'CoOp'"):
        dplq.load(tmp_path / "m.safetensors")


def public_checkpoint(kind, clip, folder, **more):
    model, state = public.make(kind, clip, seed=5, **more)
    public.write(kind, folder, {k: v.clone() for k, v in state.items()}, clip, epoch=7)
    half = {k: v.half().float() for k, v in model.prompt_learner.state_dict().items()}
    model.prompt_learner.load_state_dict(half)
    return model


@pytest.mark.parametrize("where", ["file", "run folder"])
@pytest.mark.parametrize("kind", public.LAYOUTS, ids=lambda kind: kind.__name__)
def test_public_checkpoints(kind, where, clip, tmp_path):
    """Method, context length and depths are told from the file; CLIP and classes are given."""
    model = public_checkpoint(kind, clip, tmp_path)
    (file,) = tmp_path.glob("*/model.pth.tar-7")
    path = file if where == "file" else tmp_path
    again = dplq.load(path, public.CLASSNAMES, clip=clip)
    assert type(again) is type(model)
    assert again.settings == model.settings
    assert torch.equal(logits(again), logits(model))


def test_a_public_promptsrc_is_told_from_ivlp(clip, tmp_path):
    """PromptSRC's own checkpoints hold the frozen image tower as well."""
    from dplq.trainers.ivlp import IVLP

    model, state = public.make(IVLP, clip)
    frozen = {"prompt_learner.ZS_image_encoder.ln_post.bias": torch.zeros(64)}
    public.write(IVLP, tmp_path, {**state, **frozen}, clip)
    again = dplq.load(tmp_path, public.CLASSNAMES, clip=clip)
    assert again.method == "PromptSRC"
    ours, theirs = (m.prompt_learner.state_dict() for m in (again, model))
    assert all(torch.equal(ours[name], theirs[name].half().float()) for name in theirs)


def test_what_a_public_checkpoint_does_not_say_must_be_given(clip, tmp_path):
    from dplq.trainers.coop import CoOp

    public_checkpoint(CoOp, clip, tmp_path)
    with pytest.raises(UserError, match=r"public checkpoint of CoOp.*give clip=.* and classnames="):
        dplq.load(tmp_path)
    torch.save({"state_dict": {"other": torch.ones(1)}}, tmp_path / "model.pth.tar-1")
    with pytest.raises(
        UserError, match=r"no method with a known public format.*Choices: BiomedCoOp, CoCoOp"
    ):
        dplq.load(tmp_path / "model.pth.tar-1", NAMES, clip=clip)


def test_a_coop_model_is_used_end_to_end_without_dassl(tmp_path):
    code = f"""
import sys, torch
sys.modules["dassl"] = sys.modules["yacs"] = None  # importing either is an error
import dplq
from tests.tiny import tiny_backbone
clip = tiny_backbone()
model = dplq.create_model("CoOp", clip, ["river", "lake"], n_ctx=4, seed=1)
images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])
optimizer = torch.optim.SGD(model.prompt_learner.parameters(), lr=0.1)
loss = torch.nn.functional.cross_entropy(model(images), labels)
loss.backward()
optimizer.step()
model.save({str(tmp_path / "coop.safetensors")!r})
again = dplq.load({str(tmp_path / "coop.safetensors")!r}, clip=clip)
print(torch.equal(again(images), model.eval()(images)), again.method)
"""
    done = python(["-c", code])
    assert done.stdout.split() == ["True", "CoOp"], done.stderr


def test_arguments_that_would_be_ignored_are_refused(clip, tmp_path):
    from dplq.trainers.coop import CoOp

    model_of("CoOp", clip).save(tmp_path / "m.safetensors")
    public_checkpoint(CoOp, clip, tmp_path)
    (theirs,) = tmp_path.glob("*/model.pth.tar-7")
    for path, arguments, message in (
        (
            tmp_path / "m.safetensors",
            {"n_ctx": 7, "method": "MaPLe"},
            "loaded so without method, n_ctx",
        ),
        (tmp_path / "m.safetensors", {"epoch": 9}, "epoch=9 is for the folder of a run"),
        (tmp_path / "m.safetensors", {"weights": "w.pt"}, "loaded so without weights"),
        (theirs, {"epoch": 9}, "epoch=9 is for the folder of a run"),
        (theirs, {"weights": "w.pt"}, "a public checkpoint, loaded so without weights"),
    ):
        with pytest.raises(UserError, match=message):
            dplq.load(path, public.CLASSNAMES, clip=clip, **arguments)
    with pytest.raises(UserError, match="CoOp has no domain encoder: leave domain out"):
        create_model("CoOp", clip, NAMES, domain=dplq.load_domain_encoder("clip", backbone=clip))


@pytest.mark.parametrize("name", ["prompts.ckpt", "prompts.bin", "prompts"])
def test_our_files_are_known_by_their_content(name, clip, tmp_path):
    model = model_of("CoOp", clip)
    model.save(tmp_path / name)
    assert dplq.load(tmp_path / name, clip=clip).settings == model.settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"future": 1}}, r"settings of CoOp that this version .* \(future\): install"),
        ({"backbone": None}, "its header lacks backbone"),
    ],
)
def test_headers_of_another_version_are_one_line(change, message, clip, tmp_path):
    model = model_of("CoOp", clip)
    header = {**model.header(), **change}
    header = {key: value for key, value in header.items() if value is not None or key == "domain"}
    model.header = lambda: header
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=message):
        dplq.load(tmp_path / "m.safetensors", clip=clip)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("settings", None, "settings: expected `object`, got `null`"),
        ("classnames", 3, "classnames: expected `array`, got `int`"),
        ("classnames", [], "classnames: expected `array` of length >= 1"),
        ("classnames", ["a", None], r"classnames\[1\]: expected `str`, got `null`"),
        ("backbone", {}, "backbone: object missing required field `name`"),
        ("backbone", {"name": 1}, "backbone.name: expected `str`, got `int`"),
        ("backbone", {"name": "x", "seed": 10**400}, "backbone.seed: "),
        (
            "backbone",
            {"name": "x", "new": [1]},
            "backbone.new: expected `bool | float | str | null`, got `array`",
        ),
        ("domain", [], "domain: expected `object | null`, got `array`"),
        ("epoch", -1, "epoch: expected `int` >= 0"),
        ("val_result", "a", "val_result: expected `float | null`, got `str`"),
        ("reading", 0, "reading: expected `object | null`, got `int`"),
    ],
)
def test_headers_are_checked_whole(key, value, message, clip, tmp_path):
    model = model_of("CoOp", clip)
    header = {**model.header(), key: value}
    model.header = lambda: header
    path = tmp_path / "m.safetensors"
    model.save(path)
    model = model_of("CoOp", clip)
    for read in (lambda: dplq.load(path, clip=clip), lambda: model.load(path)):
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value).startswith(f"{path} is damaged: in its header, ")
        assert re.search(message.replace("|", r"\|"), str(caught.value)), str(caught.value)


def test_options_of_a_later_version_are_refused(clip, tmp_path):
    model = model_of("CoOp", clip)
    folder = Path(clip.spec.name.removeprefix("local-dir:"))
    header = {**model.header(), "backbone": {**clip.spec.header(), "future": 1}}
    model.header = lambda: header
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=r"options of backbone that this version .*\(future\)"):
        dplq.load(tmp_path / "m.safetensors", weights=str(folder))


def test_weights_that_are_not_finite_are_not_saved(clip, tmp_path):
    model = model_of("CoOp", clip)
    with torch.no_grad():
        model.prompt_learner.ctx[0, 0] = float("inf")
    with pytest.raises(
        UserError, match=r"m.safetensors is not written.*\(ctx \(1 of \d+ values\)\)"
    ):
        model.save(tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_a_wrong_method_of_a_public_checkpoint_is_refused(clip, tmp_path):
    from dplq.trainers.vpt import VPT

    public_checkpoint(VPT, clip, tmp_path)
    (file,) = tmp_path.glob("*/model.pth.tar-7")
    with pytest.raises(UserError, match="is not a checkpoint of CoOp: its names fit VPT"):
        dplq.load(file, public.CLASSNAMES, clip=clip, method="CoOp")
    torch.save({"state_dict": {"logit_scale": torch.ones(())}}, file)
    with pytest.raises(UserError, match="no method with a known public format"):
        dplq.load(file, public.CLASSNAMES, clip=clip)


def test_public_names_are_listed():
    assert set(dplq.__all__) <= set(dir(dplq))
    for name in dplq.__all__:
        assert getattr(dplq, name) is not None
    with pytest.raises(AttributeError, match="module 'dplq' has no attribute 'lod'"):
        dplq.lod  # noqa: B018


def test_entries_of_the_header_are_not_replaced(tmp_path):
    model = dplq.create_model("CoOp", tiny_backbone(), ["river", "lake"], n_ctx=2, seed=0)
    with pytest.raises(UserError, match="The header has classnames, method of its own"):
        model.save(tmp_path / "m.safetensors", method="Foo", classnames=["x"], note=1)
    assert not list(tmp_path.iterdir())


def test_a_folded_model_takes_no_other_classes():
    model = dplq.create_model("CoOp", tiny_backbone(), ["river", "lake"], n_ctx=2, seed=0).eval()
    with pytest.raises(UserError, match=r"folded for its classes: call set_classnames"):
        model.folded().set_classnames(["z", "q"])
    model.set_classnames(["z", "q"])
    assert model.folded().classnames == ["z", "q"]
