"""Loading: random weights, specs, strict checkpoints, and errors."""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
import types
import zipfile
from collections.abc import Mapping

import huggingface_hub
import pytest
import timm
import torch

import dplq
from dplq.domain.encoder import CLIP_MEAN, CLIP_STD
from dplq.domain.load import load_domain_encoder
from dplq.errors import UserError
from tests.domain.helpers import (
    MAE,
    SMALL_SAM,
    SMALL_VIT,
    WIDTH,
    FakeBackbone,
    clip_images,
    mae_state,
    random_pixels,
    sam_state,
    save,
    small,
    training_checkpoint,
)


def safe_globals() -> set[object]:
    """Return what weights_only loading may build in this process."""
    return set(torch.serialization.get_safe_globals())


def test_random_weights_come_from_a_private_seed_with_a_framed_warning(small_mae, caplog):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    with caplog.at_level(logging.WARNING, "dplq"):
        first, again, other = (
            load_domain_encoder(MAE, pretrained=False, seed=seed) for seed in (1, 1, 2)
        )
    assert torch.equal(torch.get_rng_state(), before)
    images = clip_images(random_pixels())
    assert torch.equal(first(images), again(images))
    assert not torch.equal(first(images), other(images))
    text = caplog.records[0].getMessage()
    assert f"Domain encoder '{MAE}' has RANDOM WEIGHTS (pretrained=False, seed 1)." in text
    frame = text.strip().splitlines()
    assert len({len(line) for line in frame}) == 1
    assert set(frame[0]) == {"*"}


def test_full_size_mae_base():
    with torch.device("meta"):  # 86 million parameters, none of them drawn
        encoder = load_domain_encoder(MAE, pretrained=False, feature="decoder_embed")
    assert encoder.feature_dim == 512
    assert encoder.image_size == 224
    assert sum(p.numel() for p in encoder.encoder.parameters()) == 85_798_656
    assert encoder.encoder.num_features == 768


def test_weights_below_the_home_folder(small_mae, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save(tmp_path / "mae.pth", mae_state())
    assert load_domain_encoder(MAE, weights="~/mae.pth").spec.weights == "mae.pth"


def test_spec_rebuilds_the_encoder(small_mae, tmp_path):
    weights = save(tmp_path / "mae.pth", mae_state())
    encoder = load_domain_encoder(MAE, weights=weights, feature="decoder_embed", normalize="clip")
    spec = json.loads(json.dumps(encoder.spec.header()))
    assert spec["weights"] == "mae.pth"
    assert re.fullmatch("[0-9a-f]{64}", spec.pop("weights_sha256"))
    again = load_domain_encoder(**{**spec, "weights": weights})
    images = clip_images(random_pixels())
    assert torch.equal(again(images), encoder(images))
    assert again.spec == encoder.spec
    assert again.name == MAE


def test_importing_does_not_import_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # from here on importing it is an error
    domain = ("encoder", "recipes", "load")
    for package, name in ((dplq.io, "weights"), *((dplq.domain, name) for name in domain)):
        monkeypatch.setattr(package, name, getattr(package, name))
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}")
    assert (
        importlib.import_module("dplq.domain.load").load_domain_encoder is not load_domain_encoder
    )


@pytest.mark.parametrize(
    "wrap",
    [
        "full",
        "plain",
        "encoder only",
        "parallel",
        "half",
        "legacy",
    ],
)
def test_mae_checkpoint_layouts(small_mae, tmp_path, wrap):
    state = mae_state(decoder=wrap != "encoder only")
    data: object = state
    if wrap == "full":
        data = training_checkpoint(state)
    if wrap == "parallel":
        data = {"model": {f"module.{k}": v for k, v in state.items()}}
    if wrap == "half":
        data = state = {k: v.half() for k, v in state.items()}
    path = tmp_path / "mae.pth"
    torch.save(data, path, _use_new_zipfile_serialization=wrap != "legacy")
    before = safe_globals()
    encoder = load_domain_encoder(MAE, weights=str(path))
    assert safe_globals() == before
    assert torch.equal(encoder.encoder.norm.weight, state["norm.weight"].float())
    assert encoder.encoder.norm.weight.dtype == torch.float32


def test_namespace_on_torch_2_4_without_the_context(small_mae, tmp_path, monkeypatch):
    weights = save(tmp_path / "mae.pth", training_checkpoint(mae_state()))
    monkeypatch.delattr(torch.serialization, "safe_globals", raising=False)
    before = safe_globals()
    load_domain_encoder(MAE, weights=weights)
    assert safe_globals() == before


def error_of(*args, **kwargs) -> str:
    """Return the text of the UserError that `load_domain_encoder` raises."""
    with pytest.raises(UserError) as caught:
        load_domain_encoder(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments", "parts"),
    [
        (MAE, {"feature": "encodr"}, ["domain feature 'encodr'", "Did you mean 'encoder'?"]),
        (MAE, {"normalize": "imagenet"}, ["domain normalize 'imagenet'", "clip, native"]),
        ("clip", {"feature": "decoder_embed"}, ["'clip' has no feature 'decoder_embed'", MAE]),
        ("test_vit", {"feature": "decoder_embed"}, ["'test_vit' has no feature", "MAE's alone"]),
        (MAE, {"weights": "a.pth", "pretrained": False}, ["'a.pth' and pretrained=False contra"]),
        (MAE, {}, ["no weights to download", "an MAE checkpoint", "pretrained=False"]),
        ("sam_vit_base", {}, ["no weights to download", "a SAM or MedSAM checkpoint"]),
        ("medsam_vit_base", {}, ["no weights to download", "a SAM or MedSAM checkpoint"]),
        ("clip", {}, ["'clip' needs backbone="]),
        ("mae_vit_bas_patch16", {}, [f"Did you mean '{MAE}'", "'hf-hub:org/name'"]),
        ("vit_base_patch16_225", {}, ["Did you mean 'vit_base_patch16_224'"]),
        ("vit_base_patch16_18x2_224", {}, ["timm has no pretrained weights", "local file"]),
        ("test_vit.nonsense", {"pretrained": False}, ["timm cannot build it", "nonsense"]),
        (MAE, {"weights": "none/such.pth"}, ["such.pth': no such file", "local checkpoint"]),
    ],
)
def test_wrong_arguments(name, arguments, parts):
    text = error_of(name, **arguments)
    assert all(part in text for part in parts), text


def test_clip_has_no_weights_of_its_own():
    text = error_of("clip", weights="a.pth", backbone=FakeBackbone())
    assert "has no weights of its own, got 'a.pth'" in text


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def fail(*args, **kwargs):
        assert kwargs["pretrained"]
        raise ConnectionError("no route\n" + "and many more lines\n" * 100)

    monkeypatch.setattr(timm, "create_model", fail)
    text = error_of("test_resnet")
    assert "'test_resnet': its weights cannot be downloaded (ConnectionError: no route and" in text
    assert "set weights (DOMAIN.WEIGHTS) to the local file" in text
    assert len(text) < 400


def test_a_repository_that_cannot_be_downloaded(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no route\n" + "and many more lines\n" * 100)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    text = error_of("hf-hub:org/name")
    assert "'hf-hub:org/name': its config.json cannot be downloaded (ConnectionError: no" in text
    assert "set weights (DOMAIN.WEIGHTS) to the local file" in text
    assert len(text) < 450


def test_models_of_oblong_images_are_refused(monkeypatch):
    data = {"input_size": (3, 32, 64), "mean": CLIP_MEAN, "std": CLIP_STD}
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda model: data)
    assert "requires 32x64 images; only square" in error_of("test_resnet", pretrained=False)


def test_other_classes_than_namespace_are_refused(tmp_path):
    state = mae_state()
    weights = save(tmp_path / "x.pth", {"model": state, "args": types.SimpleNamespace(a=1)})
    text = error_of(MAE, weights=weights)
    assert "hold more than weights" in text
    assert "types.SimpleNamespace" in text
    assert "save {'model': state_dict} alone" in text
    assert "\n" not in text


def test_files_that_are_no_checkpoints(tmp_path):
    text_file = tmp_path / "page.pth"
    text_file.write_text("<html>quota exceeded</html>")
    assert "page.pth' is a web page, not a file" in error_of(MAE, weights=str(text_file))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\xff\x00abc")
    assert "cannot be read as a checkpoint (SafetensorError" in error_of(MAE, weights=str(broken))
    assert "holds a list, expected a state dict" in error_of(
        MAE, weights=save(tmp_path / "list.pth", [1])
    )
    script = tmp_path / "ViT-B-16.pt"
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("ViT-B-16/constants.pkl", b"")
    assert "are a TorchScript archive; OpenAI CLIP's" in error_of(MAE, weights=str(script))


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["image_encoder.pos_embed", "mask_decoder.x"], "a checkpoint of SAM / MedSAM"),
        (["visual.conv1.weight", "input_resolution"], "a checkpoint of OpenAI CLIP"),
        (["visual.norm.weight", "logit_scale"], "a checkpoint of open_clip"),
        (["visual.trunk.norm.weight"], "a checkpoint of open_clip, with an image tower of timm"),
        (["vision_model.embeddings.class_embedding"], "a checkpoint of Hugging Face CLIP"),
        (["student.head.last_layer.weight_v"], "a checkpoint of DINO"),
        (["mask_token", "blocks.0.ls1.gamma"], "a checkpoint of DINOv2"),
        (["blocks.0.attn.qkv.weight", "head.weight"], "a checkpoint of timm ViT or MAE encoder"),
        (["layer1.0.conv1.weight"], "a checkpoint of ResNet"),
        (["a", "b", "c", "d"], "nothing known (keys: a, b, c and 1 more)"),
        ([], "a file without weights"),
    ],
)
def test_a_checkpoint_of_the_wrong_kind_is_named(small_mae, tmp_path, keys, kind):
    weights = save(tmp_path / "x.pth", {k: torch.zeros(1) for k in keys})
    text = error_of(MAE, weights=weights)
    assert f"x.pth' does not fit domain encoder '{MAE}'. It looks like {kind}; expected an" in text


def test_a_mae_checkpoint_is_no_medsam_and_dinos_groups_are_recognised(tmp_path, monkeypatch):
    small("medsam_vit_base", monkeypatch, **SMALL_SAM)
    weights = save(tmp_path / "mae.pth", mae_state())
    text = error_of("medsam_vit_base", weights=weights)
    assert "It looks like a checkpoint of MAE; expected a SAM or MedSAM checkpoint" in text
    groups = {"student": {"module.x": torch.zeros(1)}, "teacher": {"x": torch.zeros(1)}, "epoch": 1}
    text = error_of("medsam_vit_base", weights=save(tmp_path / "dino.pth", groups))
    assert "It looks like a checkpoint of DINO;" in text


def test_a_larger_vit_is_reported_with_both_sizes(small_mae, tmp_path):
    weights = save(tmp_path / "large.pth", mae_state(width=48, depth=3))
    text = error_of(MAE, weights=weights)
    assert "The file is a ViT of width 48, 3 blocks, patch 8" in text
    assert f"{MAE} is a ViT of width 32, 2 blocks, patch 8" in text


def test_missing_unknown_and_misshapen_keys_are_named(small_mae, tmp_path):
    state = mae_state()
    del state["norm.bias"]
    state["fc_norm.weight"] = torch.zeros(WIDTH)
    state["pos_embed"] = torch.zeros(1, 5, WIDTH)
    text = error_of(MAE, weights=save(tmp_path / "x.pth", state))
    assert "pos_embed is (1, 5, 32) in the file and (1, 17, 32) in the model" in text
    assert "Missing: norm.bias" in text
    assert "Unknown: fc_norm.weight" in text


def test_weights_that_are_not_finite_are_refused(small_mae, tmp_path):
    """Those of the encoder; what is left out of the file may hold anything."""
    state = mae_state()
    state["blocks.1.mlp.fc1.bias"][3] = float("nan")
    state["norm.weight"][:2] = float("inf")
    state["decoder_pred.bias"][0] = float("nan")
    text = error_of(MAE, weights=save(tmp_path / "x.pth", state))
    assert "x.pth' holds nan or infinite values: " in text
    assert "blocks.1.mlp.fc1.bias (1 of 128 values)" in text
    assert "norm.weight (2 of 32 values)" in text
    assert "decoder_pred" not in text
    unused = mae_state()
    unused["decoder_pred.bias"][0] = float("nan")
    load_domain_encoder(MAE, weights=save(tmp_path / "y.pth", unused))


def test_decoder_embed_needs_the_decoder(small_mae, tmp_path):
    weights = save(tmp_path / "x.pth", mae_state(decoder=False))
    text = error_of(MAE, weights=weights, feature="decoder_embed")
    assert "Missing: decoder_embed.weight" in text
    assert "only feature 'encoder' is available" in text


def wrapped(prefix: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict whose keys carry a prefix."""
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        *("encoder.", "backbone.", "model.", "module.", "student.", "teacher.", "_orig_mod."),
        *("module.model.encoder.", "model._orig_mod.module.backbone.", "net.tower_2."),
    ],
)
@pytest.mark.parametrize("decoder", [True, False])
def test_the_prefix_of_a_wrapper_is_removed_and_said(small_mae, tmp_path, caplog, prefix, decoder):
    state = mae_state(decoder=decoder)
    weights = save(tmp_path / "x.pth", wrapped(prefix, state))
    with caplog.at_level(logging.INFO, "dplq"):
        encoder = load_domain_encoder(MAE, weights=weights)
    own = encoder.encoder.state_dict()
    assert len(own) == 30
    assert all(torch.equal(own[key], state[key]) for key in own)
    line = f"{weights}: its keys carry the prefix '{prefix}', which is removed"
    assert [record.getMessage() for record in caplog.records] == [line]


def test_torch_s_wrappers_inside_the_model(small_mae, tmp_path):
    state = mae_state()
    keys = {key: key.replace("blocks.1.", "blocks.1._orig_mod.") for key in state}
    weights = save(tmp_path / "x.pth", {keys[key]: value for key, value in state.items()})
    norm = load_domain_encoder(MAE, weights=weights).encoder.blocks[1].norm1.weight
    assert torch.equal(norm, state["blocks.1.norm1.weight"])


def test_sam_in_a_wrapper(tmp_path, monkeypatch):
    small("sam_vit_base", monkeypatch, **SMALL_SAM)
    state = sam_state()
    encoder = load_domain_encoder(
        "sam_vit_base", weights=save(tmp_path / "sam.pth", wrapped("model.", state))
    )
    assert torch.equal(encoder.encoder.pos_embed, state["image_encoder.pos_embed"])


def test_no_prefix_no_word(small_mae, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "dplq"):
        load_domain_encoder(MAE, weights=save(tmp_path / "x.pth", mae_state()))
    assert not caplog.records


def test_a_prefix_that_does_not_help_is_named(small_mae, tmp_path):
    state = mae_state()
    both = {"ema": wrapped("module.backbone.", state), "online": wrapped("backbone.", state)}
    text = error_of(MAE, weights=save(tmp_path / "two.pth", both))
    assert "holds the model 2 times, with the prefixes 'ema.backbone.' and" in text
    assert "'online.backbone.': save the weights of one of them alone" in text

    beside = {**wrapped("teacher.backbone.", state), "teacher.other.mlp.0.weight": torch.ones(1)}
    text = error_of(MAE, weights=save(tmp_path / "teacher.pth", beside))
    assert "carry the prefix 'teacher.backbone.', except for 1 that belong to something" in text
    assert "(teacher.other.mlp.0.weight)" in text

    del state["norm.bias"]
    text = error_of(MAE, weights=save(tmp_path / "x.pth", wrapped("model.", state)))
    assert "Missing: norm.bias (without the prefix 'model.' of its keys)" in text


def test_positions_of_another_image_size_are_timm_s(small_mae, tmp_path, caplog):
    state = mae_state()
    state["pos_embed"] = torch.randn(1, 8 * 8 + 1, WIDTH)
    weights = save(tmp_path / "x.pth", state)
    with caplog.at_level(logging.WARNING, "dplq"):
        encoder = load_domain_encoder(MAE, weights=weights)
    (line,) = (record.getMessage() for record in caplog.records)
    assert f"The file is for 64x64-pixel images; {MAE} runs at 32x32" in line
    assert "Its 65 position embeddings are resampled to 17, bicubically as timm does" in line
    got = encoder.encoder.pos_embed
    expected = timm.layers.resample_abs_pos_embed(state["pos_embed"], [4, 4], num_prefix_tokens=1)
    assert torch.equal(got, expected)
    assert torch.equal(got[:, :1], state["pos_embed"][:, :1])
    model = timm.create_model("vit_base_patch16_224", num_classes=0, **SMALL_VIT)
    own = timm.models.vision_transformer.checkpoint_filter_fn(state, model)
    assert torch.equal(got, own["pos_embed"])


@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize("registers", [3, 4, 9])
def test_the_image_sizes_of_files_with_registers(tmp_path, caplog, embedded, registers):
    """Registers and class token count as no patches, whether they have a position or not."""
    args = {**SMALL_VIT, "reg_tokens": registers, "no_embed_class": not embedded}
    sizes = {**args, "img_size": 64}
    state = timm.create_model("vit_base_patch16_224", num_classes=0, **sizes).state_dict()
    given = {"weights": save(tmp_path / "x.pth", state), "args": args}
    load_domain_encoder("vit_base_patch16_224", **given, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert (
        "The file is for 64x64-pixel images; vit_base_patch16_224 runs at 32x32. Its "
        in caplog.text
    )


def test_positions_that_are_no_grid_are_refused(small_mae, tmp_path):
    state = mae_state()
    state["pos_embed"] = torch.zeros(1, 24, WIDTH)
    text = error_of(MAE, weights=save(tmp_path / "x.pth", state))
    assert "pos_embed is (1, 24, 32) in the file and (1, 17, 32) in the model" in text


def test_sam_at_another_image_size(tmp_path, monkeypatch, caplog):
    """Positions bicubically, distances linearly as in SAM's own forward pass."""
    small("sam_vit_base", monkeypatch, **SMALL_SAM)
    state = sam_state()
    encoder = load_domain_encoder(
        "sam_vit_base", weights=save(tmp_path / "sam.pth", state), image_size=128
    )
    assert (
        "The file is for 64x64-pixel images; sam_vit_base runs at 128x128. Its 64 " in caplog.text
    )
    assert "position embeddings are resampled to 256" in caplog.text
    own = encoder.encoder.state_dict()
    positions = state["image_encoder.pos_embed"].permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(
        positions, (16, 16), mode="bicubic", antialias=True, align_corners=False
    )
    assert torch.equal(own["pos_embed"], expected.permute(0, 2, 3, 1))
    table = state["image_encoder.blocks.1.attn.rel_pos_h"]  # of the global attention
    assert (len(table), len(own["blocks.1.attn.rel_pos_h"])) == (15, 31)
    expected = torch.nn.functional.interpolate(table.T[None], size=31, mode="linear")[0].T
    assert torch.equal(own["blocks.1.attn.rel_pos_h"], expected)
    assert torch.equal(
        own["blocks.0.attn.rel_pos_h"], state["image_encoder.blocks.0.attn.rel_pos_h"]
    )
    assert encoder(clip_images(random_pixels(64))).shape == (2, 256)


def test_another_patch_size_is_refused(small_mae, tmp_path):
    state = mae_state()
    state["patch_embed.proj.weight"] = torch.zeros(WIDTH, 3, 16, 16)
    text = error_of(MAE, weights=save(tmp_path / "x.pth", state))
    assert "The file is a ViT of width 32, 2 blocks, patch 16" in text
    assert f"{MAE} is a ViT of width 32, 2 blocks, patch 8" in text
