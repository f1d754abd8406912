"""Zero-shot trainers against open_clip, against CoOp's own, and from the command line."""

from __future__ import annotations

import importlib
import json
import sys
import types
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from dplq.io import checkpoint
from dplq.methods.zeroshot import ZeroshotModel
from tests.peers import peer
from tests.runner import make_project, train
from tests.tiny import tiny_backbone

NAMES = ["forest", "parking_lot", "storage tank"]


@pytest.fixture(scope="module")
def zeroshot():
    """The module under test; importing it needs a Dassl."""
    import dplq.plugin  # noqa: F401

    return importlib.import_module("dplq.trainers.zeroshot")


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone()


@pytest.fixture(scope="module")
def images():
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A small project's flags for a trainer."""
    folder = tmp_path_factory.mktemp("zeroshot")
    flags = make_project(folder, images=8)
    at = flags.index("--trainer") + 1
    return lambda name: [*flags[:at], name, *flags[at + 1 :], "--output-dir"]


def test_logits_are_those_of_open_clip(zeroshot, clip, images):
    import open_clip

    model = ZeroshotModel(clip, NAMES, templates=["a satellite photo of a {}."])
    texts = [f"a satellite photo of a {name.replace('_', ' ')}." for name in NAMES]
    with torch.no_grad():
        image = clip.clip.encode_image(images, normalize=True)
        text = clip.clip.encode_text(open_clip.tokenize(texts), normalize=True)
        expected = clip.clip.logit_scale.exp() * image @ text.T
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-5)
    assert not list(model.prompt_learner.parameters())


def test_ensemble_is_the_mean_of_normalised_features(zeroshot, clip):
    import open_clip

    templates = ["a {}.", "a photo of the {}.", "{} texture."]
    model = ZeroshotModel(clip, NAMES, templates=templates)
    names = [name.replace("_", " ") for name in NAMES]
    with torch.no_grad():
        features = torch.stack(
            [
                clip.clip.encode_text(
                    open_clip.tokenize([t.format(name) for name in names]), normalize=True
                )
                for t in templates
            ]
        )
    expected = F.normalize(features.mean(dim=0), dim=-1)
    torch.testing.assert_close(model.classes[0], expected, rtol=0, atol=1e-6)


@pytest.fixture
def original(monkeypatch):
    """CoOp's zero-shot trainers, unchanged, with stand-ins for what they import."""
    import open_clip

    def module(name, **content):
        made = types.ModuleType(name)
        made.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, made)

    registry = SimpleNamespace(register=lambda: lambda cls: cls)
    tokenizer = SimpleNamespace(tokenize=lambda text: open_clip.tokenize([text]))
    module("dassl.engine", TRAINER_REGISTRY=registry, TrainerX=object)
    module("dassl.optim", build_optimizer=None, build_lr_scheduler=None)
    module("clip", clip=tokenizer)
    module("clip.model", convert_weights=None)
    module("coop_trainers", __path__=[str(peer("CoOp") / "trainers")])
    module("coop_trainers.coop", load_clip_to_cpu=lambda cfg: cfg.clip)
    yield importlib.import_module("coop_trainers.zsclip")
    for name in ("zsclip", "imagenet_templates"):
        sys.modules.pop(f"coop_trainers.{name}", None)


@pytest.mark.parametrize("name", ["ZeroshotCLIP", "ZeroshotCLIP2"])
@pytest.mark.parametrize("dataset", ["EuroSAT", "ImageNet"])
def test_the_same_as_coops_trainers(zeroshot, clip, images, original, name, dataset):
    theirs, ours = (module.__dict__[name]() for module in (original, Bare(zeroshot)))
    both = SimpleNamespace(
        DATASET=SimpleNamespace(NAME=dataset),
        MODEL=SimpleNamespace(BACKBONE=SimpleNamespace(NAME="")),
        TRAINER=node(),
        clip=clip.clip,
    )
    for trainer in (theirs, ours):
        trainer.cfg, trainer.device = both, torch.device("cpu")
        trainer.dm = SimpleNamespace(dataset=SimpleNamespace(classnames=NAMES))
    theirs.build_model()
    model = ours.build_prompt_model(clip, NAMES, seed=1)
    with torch.no_grad():
        expected = theirs.model_inference(images)
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-5)


def node(template=""):
    return {"ZEROSHOTCLIP": SimpleNamespace(TEMPLATE=template)}


class Bare:
    """Our trainers, made without a config."""

    def __init__(self, module):
        for name in ("ZeroshotCLIP", "ZeroshotCLIP2"):
            cls = getattr(module, name)
            setattr(self, name, lambda cls=cls: cls.__new__(cls))


def test_templates_of_host_trees_are_coops(original):
    ours = importlib.import_module("dplq.trainers._engine.texts")
    for name, template in original.CUSTOM_TEMPLATES.items():
        assert ours.TEMPLATES.get(name, ours.DEFAULT_TEMPLATE) == template
    assert set(ours.TEMPLATES) <= set(original.CUSTOM_TEMPLATES)


def test_the_data_sets_own_template_comes_first(zeroshot):
    trainer = Bare(zeroshot).ZeroshotCLIP()
    trainer.cfg = SimpleNamespace(DATASET=SimpleNamespace(NAME="EuroSAT"), TRAINER=node())
    trainer.dm = SimpleNamespace(dataset=SimpleNamespace(template="a map of {}."))
    assert trainer.templates() == ["a map of {}."]
    trainer.dm = SimpleNamespace(dataset=SimpleNamespace())
    assert trainer.templates() == ["a centered satellite photo of {}."]


def test_template_replaces_the_data_sets_own(zeroshot, clip):
    from dplq.errors import UserError

    bare = Bare(zeroshot)
    for trainer in (bare.ZeroshotCLIP(), bare.ZeroshotCLIP2()):
        dataset = SimpleNamespace(NAME="EuroSAT")
        trainer.cfg = SimpleNamespace(DATASET=dataset, TRAINER=node("a photo of a {}."))
        trainer.dm = SimpleNamespace(dataset=SimpleNamespace(template="a map of {}."))
        assert trainer.templates()[-1] == "a photo of a {}."
        assert "a map of {}." not in trainer.templates()
        trainer.cfg.TRAINER = node("a photo")
        with pytest.raises(UserError) as caught:
            trainer.templates()
        assert str(caught.value).startswith("TRAINER.ZEROSHOTCLIP.TEMPLATE 'a photo' has no {}: ")
    with pytest.raises(UserError, match=r"TEMPLATE 'a photo' has no {}: write it where the"):
        ZeroshotModel(clip, NAMES, templates=["a {}.", "a photo"])
    model = ZeroshotModel(clip, NAMES, template="one {}.")
    assert model.settings == {"templates": ["one {}."]}
    assert model.prompt_texts()[1] == ["one parking lot."]


@pytest.mark.parametrize("name", ["ZeroshotCLIP", "ZeroshotCLIP2"])
def test_command_line(project, tmp_path, name):
    """With and without --eval-only, --model-dir: the same results.json, an empty checkpoint."""
    base = ["DATASET.SUBSAMPLE_CLASSES", "base", "TRAINER.ZEROSHOTCLIP.PREC", "bf16"]
    flags = {"trained": [], "tested": ["--eval-only"]}
    flags["loaded"] = [*flags["tested"], "--model-dir", str(tmp_path / "trained")]
    results = []
    for folder, extra in flags.items():
        out = tmp_path / folder
        done = train(tmp_path / "log", [*project(name), str(out), *extra, *base])
        assert done.code == 0, done.err
        assert "TRAINER.ZEROSHOTCLIP.PREC is set" not in done.out
        assert "Texts (" in done.out
        assert "a photo of {}." in done.out
        results.append(json.loads((out / "results.json").read_text()))
        (file,) = (out / "prompt_learner").iterdir()
        tensors, header = checkpoint.read(file)
        assert (file.name, tensors, header["trainer"]) == ("model-0.safetensors", {}, name)
    for result in results:
        assert result["trainer"] == name
        assert result["precision"] == "bf16"
        assert result["learnable_parameters"] == result["epochs"] == 0
        assert result["checkpoint_bytes"] is None
        assert result["seconds"]["train"] is result["seconds"]["step"] is None
        assert result["seconds"]["test"] > 0
        assert list(result["per_class_accuracy"]) == ["forest", "parking lot"]
        assert result["per_class_accuracy"] == results[0]["per_class_accuracy"]
