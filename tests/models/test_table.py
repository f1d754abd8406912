"""Every published model: loaded by its name from a file in its public layout, against its own code.

`dplq/models/published.yaml` says of each model what was compared, or why it is refused; that is
what docs/models.md shows, and it is held here.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

import dplq
from dplq.clip.known_files import find_known
from dplq.clip.layouts.transformers_config import SIGLIP_TRUNKS
from dplq.clip.load import build
from dplq.clip.published import describe_published
from dplq.clip.sources import Source
from dplq.clip.towers import _make_tokenizer as make_tokenizer
from dplq.domain.encoder import CLIP_MEAN, CLIP_STD
from dplq.domain.recipes import RECIPES
from dplq.errors import UserError
from dplq.io.spec import Spec
from dplq.models import catalogue as module
from dplq.models.catalogue import catalogue
from dplq.models.weights import models_folder
from tests.models.original_encoders import LAYOUTS
from tests.models.originals import make_original, small, write
from tools.make_models_table import PATH, models_page

TEXTS = ("a photo of a river", "a photo of a beach", "an X-ray of a chest")
CLIPS = [name for name, model in catalogue().items() if model.kind == "clip"]
ENCODERS = [name for name, model in catalogue().items() if model.kind == "encoder"]
LOADED = [name for name in ENCODERS if not catalogue()[name].refused]


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path / "dplq"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def small_trunk(monkeypatch):
    """A small ViT of timm with SigLIP's pooling, known to the SigLIP layout by its sizes."""
    import timm

    sizes = {"img_size": 48, "embed_dim": 32, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0}

    def small_test_siglip(num_classes, global_pool, **options):
        return timm.create_model(
            "vit_base_patch16_siglip_224", num_classes=num_classes, global_pool=global_pool, **sizes
        )

    entrypoints = timm.models._registry._model_entrypoints
    monkeypatch.setitem(entrypoints, "small_test_siglip", small_test_siglip)
    monkeypatch.setitem(SIGLIP_TRUNKS, (32, 3, 2, 64, 16), "small_test_siglip")


def put(name, original, monkeypatch):
    """Write a model's file where `dplq models get` does; reduce its entry."""
    model = catalogue()[name]
    path = models_folder(name) / Path(model.file or "epoch_20.pt").name
    write(original.content, path)
    if "tokenizer.json" in model.also:
        write_tokenizer(path.parent)
    for old, new in original.patches:
        for key, value in new.items():
            monkeypatch.setitem(old, key, value)
    entries = {**catalogue(), name: small(model, original)}
    monkeypatch.setattr(module, "catalogue", lambda: entries)


def write_tokenizer(folder):
    """Write the files of a tokenizer of transformers, as `dplq models get` does."""
    words = ["<pad>", "</s>", "[UNK]", "a"]
    inner = Tokenizer(WordLevel({word: id for id, word in enumerate(words)}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="[UNK]"
    ).save_pretrained(folder)


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_has_the_features_of_its_own_library(
    name, caches, tmp_path, small_trunk, monkeypatch
):
    model = catalogue()[name]
    original = make_original(name, model, tmp_path)
    put(name, original, monkeypatch)
    backbone = dplq.load_backbone(name)
    images = torch.randn(2, 3, backbone.image_size, backbone.image_size)
    tokens = original.tokens if original.tokens is not None else backbone.tokenize(TEXTS)
    with torch.no_grad():
        expected = original.image(images), original.text(tokens)
        found = backbone.encode_image(images), backbone.encode_text(tokens)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    if model.mean:
        assert tuple(backbone.image_mean) == model.mean
        assert tuple(backbone.image_std) == model.std


@pytest.mark.parametrize("name", CLIPS)
def test_the_activation_is_that_of_the_known_files(name):
    model = catalogue()[name]
    places = [model.hub, model.file, Path(model.url or "").stem]
    known = find_known(Path("/", *filter(None, places)))
    if known is not None:
        assert known.act == model.activation


def normalised(images, model, statistics):
    """Return images of 0 to 1 as the original's own preprocessing prepares them."""
    if model.layout == "SAM" and not model.mean:  # MedSAM: each image to 0..1
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        return (images - low) / (high - low)
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in statistics)
    return (images - mean) / std


@pytest.mark.parametrize("name", LOADED)
def test_an_encoder_has_the_features_of_its_own_library(name, caches, tmp_path):
    model = catalogue()[name]
    original = LAYOUTS[model.layout](model, tmp_path)
    original.write(models_folder(name) / Path(model.file).name)
    known = bool(model.mean) or model.layout == "SAM"
    given = {} if known else {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    size = {"image_size": original.image_size} if original.args or "resnet" in name else {}
    encoder = dplq.load_domain_encoder(name, args=original.args, **size, **given)
    images = torch.rand(2, 3, original.image_size, original.image_size)
    statistics = (model.mean, model.std) if known else (given["mean"], given["std"])
    clip = [torch.tensor(numbers).view(3, 1, 1) for numbers in (CLIP_MEAN, CLIP_STD)]
    prepared = encoder.prepare((images - clip[0]) / clip[1])
    torch.testing.assert_close(
        prepared, normalised(images, model, statistics), rtol=0, atol=2e-5 if model.mean else 1e-4
    )
    with torch.no_grad():
        expected = original.features(prepared)
    found = encoder((images - clip[0]) / clip[1])
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)
    assert encoder.name == encoder.spec.name == name
    assert len(encoder.spec.sha256) == 64


@pytest.mark.parametrize("name", [n for n in ENCODERS if catalogue()[n].refused])
def test_a_refusal_gives_its_reason(name, caches):
    with pytest.raises(UserError, match=re.escape(catalogue()[name].refused)):
        dplq.load_domain_encoder(name)


def test_an_unknown_activation_is_said(caches, tmp_path, monkeypatch, caplog):
    name = "quiltnet-b-32"
    assert catalogue()[name].activation is None
    put(name, make_original(name, catalogue()[name], tmp_path), monkeypatch)
    assert dplq.load_backbone(name).activation == "gelu"
    assert "gelu is used; act (MODEL.BACKBONE.ACT) sets the other" in caplog.text
    assert dplq.load_backbone(name, act="quickgelu").activation == "quickgelu"


def full_size(name):
    """Return the tensors of a model in its full size, without memory."""
    model = catalogue()[name]
    if model.kind == "encoder":
        known = model.mean or model.architecture in RECIPES
        normalize = "native" if known else "clip"
        with torch.device("meta"):
            encoder = dplq.load_domain_encoder(name, pretrained=False, normalize=normalize)
        return encoder.encoder.state_dict()
    about = describe_published(name, model, None)
    clip = build(Source(name, Spec(name, pretrained=False), about.config), "meta")
    with torch.device("meta"):
        about.finish(clip)
    return clip.state_dict()


@pytest.mark.parametrize("files", [("vocab.txt",), ("tokenizer.json", "tokenizer_config.json")])
def test_a_tokenizer_beside_the_weights_is_used(tmp_path, files):
    config = describe_published("biomedclip", catalogue()["biomedclip"], tmp_path).config
    assert config["text_cfg"]["hf_tokenizer_name"].startswith("microsoft/")
    for name in files:
        (tmp_path / name).touch()
    config = describe_published("biomedclip", catalogue()["biomedclip"], tmp_path).config
    tokenizer = make_tokenizer(None, config["text_cfg"], "biomedclip", None)
    assert [path.name for path in tokenizer.own_files] == list(files)


FOLDERS = [name for name in LOADED if catalogue()[name].architecture == "config.json"]


@pytest.mark.parametrize("name", [n for n in (*CLIPS, *LOADED) if n not in FOLDERS])
def test_the_full_size_is_that_of_the_published_file(name):
    """To 1 %: files may hold a pooler or counters beside, and their sizes are rounded."""
    tensors = full_size(name).values()
    found = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6
    assert found > 40
    if catalogue()[name].megabytes:
        assert found == pytest.approx(catalogue()[name].megabytes, rel=0.01)


def test_only_gigapath_has_its_architecture_beside_its_weights():
    assert FOLDERS == ["gigapath"]


def test_as_many_load_as_were_wanted():
    """Twelve of the named CLIPs and eighteen encoders; what does not load says why."""
    clips = [name for name in CLIPS if not catalogue()[name].refused]
    assert (len(clips), len(CLIPS)) == (23, 23)
    assert (len(LOADED), len(ENCODERS)) == (33, 33)


def test_the_page_of_the_models_is_up_to_date():
    assert PATH.read_text(encoding="utf-8") == models_page(), (
        "docs/models.md is not what the catalogue says: run python -m tools.make_models_table"
    )
