"""The catalogue of published models: what its data file must hold, and where weights are found."""

from __future__ import annotations

import pytest

import dplq
from dplq.domain.recipes import RECIPES
from dplq.errors import UserError
from dplq.io.validation.schema import InvalidContent
from dplq.models import catalogue as module
from dplq.models.catalogue import catalogue, find, published
from dplq.models.weights import models_folder, require_weights, weights_on_disk

CLIPS = ("remoteclip", "georsclip", "skyclip", "biomedclip", "unimed-clip", "pubmedclip")
CLIPS += ("plip", "quiltnet", "medsiglip", "conch")
ENCODERS = ("rvsa-mae", "satmae", "scalemae", "retfound", "dinov2", "dinov3-sat", "rad-dino")
ENCODERS += ("medsam", "uni", "torchgeo")


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of dplq and of the hub."""
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path / "dplq"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.mark.parametrize(("kind", "names"), [("clip", CLIPS), ("encoder", ENCODERS)])
def test_the_models_of_both_domains_are_there(kind, names):
    there = [name for name, model in catalogue().items() if model.kind == kind]
    assert [name for name in names if not any(other.startswith(name) for other in there)] == []
    assert {catalogue()[name].domain for name in there} >= {"medical", "remote_sensing"}


def test_about_forty_models_of_each_domain_a_dozen():
    models = list(catalogue().values())
    assert len(models) >= 40
    for domain in ("medical", "remote_sensing"):
        assert sum(model.domain == domain for model in models) >= 12


@pytest.mark.parametrize("name", catalogue())
def test_an_entry_says_where_its_weights_are_and_what_it_is(name):
    model = catalogue()[name]
    assert name == name.lower()
    assert module.NAME.fullmatch(name)
    assert model.page.startswith("https://")
    assert bool(model.hub) != bool(model.url) or not model.can_be_downloaded
    assert model.architecture or model.config
    assert model.kind == "clip" or not model.config
    assert model.kind == "encoder" or not model.args
    assert model.kind == "clip" or model.activation is None
    assert bool(model.original) == model.tested or model.refused


def test_names_are_not_those_of_open_clip_or_timm():
    """A published name, whose case does not count, hides no other model."""
    import open_clip
    import timm

    taken = {name.lower() for name in (*open_clip.list_models(), *timm.list_models())}
    assert taken & set(catalogue()) == set()


def test_an_unknown_name_is_refused_with_the_nearest(caches):
    with pytest.raises(UserError, match=r"There is no model 'BiomedCLIPP'. Did you mean 'biomedcl"):
        find("BiomedCLIPP")
    assert find("BiomedCLIP") == "biomedclip"
    assert published("biomedclip", "encoder") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: {title: A, kind: clip, domain: medical, page: p, layout: l, x: 1}", "unknown field"),
        ("a: {title: A, kind: net, domain: medical, page: p, layout: l}", "kind"),
        ("a: {title: A, kind: clip, domain: medical, page: p, layout: l, sha256: 12}", "sha256"),
        (
            "a: {title: A, kind: clip, domain: medical, page: p, layout: l, mean: [0, 0, 0]}",
            "mean and std",
        ),
    ],
)
def test_a_damaged_data_file_is_refused(tmp_path, monkeypatch, text, problem):
    file = tmp_path / "published.yaml"
    file.write_text(text)
    monkeypatch.setattr(module, "FILE", file)
    with pytest.raises(InvalidContent, match=problem):
        catalogue.__wrapped__()


def test_weights_are_found_in_the_folder_and_in_the_hub_cache(caches):
    assert weights_on_disk("plip") is None
    hub = caches / "hub/models--vinid--plip"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs/main").write_text("abc")
    (hub / "snapshots/abc").mkdir(parents=True)
    cached = hub / "snapshots/abc/pytorch_model.bin"
    cached.write_bytes(b"1")
    assert weights_on_disk("plip") == cached
    folder = models_folder("plip")
    folder.mkdir(parents=True)
    assert weights_on_disk("plip") == cached
    other = folder / "renamed.safetensors"
    other.write_bytes(b"2")
    assert require_weights("plip") == other
    named = folder / "pytorch_model.bin"
    named.write_bytes(b"3")
    assert weights_on_disk("plip") == named
    (folder / "more.pt").write_bytes(b"4")
    assert weights_on_disk("plip") == named
    named.unlink()
    with pytest.raises(UserError, match=r"holds 2 weights files \(more.pt, renamed.safetensors\)"):
        weights_on_disk("plip")


def test_absent_weights_name_file_source_and_command(caches):
    with pytest.raises(UserError) as caught:
        dplq.load_backbone("remoteclip-vit-b-32")
    folder = caches / "dplq/models/remoteclip-vit-b-32"
    assert str(caught.value) == (
        "The weights of 'remoteclip-vit-b-32' are not on this machine. Run `dplq models get "
        "remoteclip-vit-b-32` where there is a network, or put the file RemoteCLIP-ViT-B-32.pt "
        f"from https://huggingface.co/chendelong/RemoteCLIP into {folder}, or name it with "
        "weights=PATH (MODEL.INIT_WEIGHTS)."
    )


def test_what_cannot_be_downloaded_says_where_to_put_it(caches):
    with pytest.raises(
        UserError, match=r"are not on this machine\. chexzero has no automatic download: put"
    ):
        require_weights("chexzero")


@pytest.mark.parametrize(
    "name", [n for n, model in catalogue().items() if model.architecture in RECIPES]
)
def test_an_encoder_of_a_recipe_repeats_nothing_else(name):
    """Statistics, size and pooling have their home in the recipe."""
    model, recipe = catalogue()[name], RECIPES[catalogue()[name].architecture]
    assert not model.args
    assert model.image_size == recipe.image_size
    assert model.pool in (None, recipe.pool)
    if not recipe.min_max:
        assert (model.mean, model.std) == (tuple(recipe.mean), tuple(recipe.std))


def test_dinov3_pools_as_its_recipe_does():
    """Its file is timm's, which the recipe of the published layout does not load."""
    model, recipe = catalogue()["dinov3-sat-vit-l"], RECIPES["dinov3_vitl16_sat493m"]
    assert model.pool == recipe.pool == "cls"
    assert (model.mean, model.std) == (recipe.mean, recipe.std)
