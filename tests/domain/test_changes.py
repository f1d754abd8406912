"""Statistics, size, pooling and timm's arguments of an encoder."""

from __future__ import annotations

import logging
import math

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from dplq.domain.arguments import arguments_text, parse_arguments, several
from dplq.domain.load import load_domain_encoder
from dplq.domain.recipes import PUBLISHED_FILES, RECIPES
from dplq.errors import UserError
from tests.domain.helpers import (
    MAE,
    WIDTH,
    clip_images,
    fixed,
    mae_state,
    normalise,
    plain_mae_tokens,
    random_pixels,
    randomise,
    save,
)


def test_nothing_is_recorded_where_nothing_is_given(small_mae):
    encoder = load_domain_encoder(MAE, pretrained=False)
    assert encoder.spec.options == {"feature": "encoder", "normalize": "native"}


def test_given_statistics_are_used_recorded_and_said(small_mae, tmp_path, caplog):
    state, mean, std = mae_state(), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    weights = save(tmp_path / "mae.pth", state)
    with caplog.at_level(logging.INFO, "dplq"):
        encoder = load_domain_encoder(MAE, weights=weights, mean=mean, std=std)
    assert "taken: mean (0.1, 0.2, 0.3), std (0.4, 0.5, 0.6), as given" in caplog.text
    pixels = random_pixels()
    expected = plain_mae_tokens(state, normalise(pixels, mean, std)).mean(1)
    torch.testing.assert_close(encoder(clip_images(pixels)), expected, rtol=1e-4, atol=1e-4)
    assert encoder.spec.options["mean"] == [0.1, 0.2, 0.3]
    assert encoder.spec.options["std"] == [0.4, 0.5, 0.6]


def test_another_image_size_resamples_the_positions(small_mae, tmp_path, caplog):
    state = mae_state()
    weights = save(tmp_path / "mae.pth", state)
    with caplog.at_level(logging.WARNING, "dplq"):
        encoder = load_domain_encoder(MAE, weights=weights, image_size=48)
    assert "The file is for 32x32-pixel images; mae_vit_base_patch16 runs at 48x48" in caplog.text
    expected = timm.layers.resample_abs_pos_embed(state["pos_embed"], [6, 6], num_prefix_tokens=1)
    assert torch.equal(encoder.encoder.pos_embed, expected)
    assert encoder.image_size == 48
    assert encoder(clip_images(random_pixels())).shape == (2, WIDTH)
    assert encoder.spec.options["image_size"] == 48


def test_a_network_without_positions_runs_at_another_size():
    encoder = load_domain_encoder("test_resnet", pretrained=False, image_size=96)
    own = load_domain_encoder("test_resnet", pretrained=False)
    assert (encoder.image_size, own.image_size) == (96, 160)
    images = clip_images(random_pixels(96))
    assert torch.equal(
        encoder.prepare(images)[..., 0, 0], own.prepare(images[..., :1, :1])[..., 0, 0]
    )


def test_arguments_change_the_architecture(tmp_path):
    args = {"reg_tokens": 2, "depth": 3, "global_pool": "avg"}
    encoder = load_domain_encoder("test_vit", pretrained=False, args=args)
    assert len(encoder.encoder.blocks) == 3
    assert encoder.encoder.reg_token.shape[1] == 2
    assert encoder.spec.options["args"] == "depth=3, global_pool=avg, reg_tokens=2"
    text = encoder.spec.options["args"]
    again = load_domain_encoder("test_vit", pretrained=False, args=text)
    images = clip_images(random_pixels(160))
    assert torch.equal(again(images), encoder(images))


def test_arguments_as_text():
    args = {"img_size": 518, "mlp_layer": "SwiGLUPacked", "a": "two words", "b": 1e-5, "c": None}
    args |= {"d": True, "e": [1, 2], "f": "True"}
    assert parse_arguments(arguments_text(args)) == args
    assert (
        parse_arguments("{'img_size': 518}")
        == parse_arguments(" img_size=518")
        == {"img_size": 518}
    )
    assert parse_arguments("") == {}


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ("518", "must be timm's keyword arguments"),
        ("a=1, a=2", "names a twice"),
        ("a=open('x')", "must be timm's keyword arguments"),
        ("**{}", "must be timm's keyword arguments"),
        ("depth=1)(img_size=32", "must be timm's keyword arguments"),
        ({1: 2}, "must be timm's keyword arguments"),
        ({"num_classes": 3}, "cannot set num_classes: an encoder has no classifier"),
        ({"a": {}}, r"a is \{\}; it must be a number"),
        ({"mlp_layer": "SwiGLUPaked"}, "Did you mean 'SwiGLUPacked'"),
        ({"img_size": [1, 2]}, "it must be the side of a square"),
        ({"no_such": 1}, "timm cannot build it"),
    ],
)
def test_wrong_arguments(args, text):
    with pytest.raises(UserError, match=text):
        load_domain_encoder("test_vit", pretrained=False, args=args)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"pool": "max"}, "unknown domain pool 'max'"),
        ({"image_size": -1}, r"image_size \(DOMAIN.IMAGE_SIZE\) is -1"),
        ({"image_size": 64, "args": "img_size=32"}, "give one of them"),
        ({"mean": (0.5, 0.5, 0.5)}, "has 3 numbers and std"),
        ({"mean": "abc", "std": "abc"}, r"mean \(DOMAIN.MEAN\) is 'abc'"),
        ({"mean": (0, 0, 0), "std": (1, 0, 1)}, "above 0"),
        ({"mean": (0, 0), "std": (1, 1)}, "has 2 numbers, but the encoder takes 3 channels"),
        ({"mean": (0, 0, 0), "std": (1, 1, 1), "normalize": "clip"}, "have no effect with"),
        (
            {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)},
            r"mean \(DOMAIN.MEAN\) is \[123.675, .*0-1 scale. Divide mean and std by 255 if they "
            r"are on a 0-255 scale: \[0.485, 0.456, 0.406\]",
        ),
        ({"mean": (127.5,), "std": (127.5,)}, r"Divide mean and std by 255 .*: \[0.5\]"),
        (
            {"mean": (0, 0, 0), "std": (255, 255, 255)},
            r"std \(DOMAIN.STD\) is .*: \[1.0, 1.0, 1.0\]",
        ),
        ({"args": "depth=0"}, "'test_vit': depth is 0, an encoder without blocks: it must be 1 or"),
        ({"args": "depth=-1"}, "'test_vit': depth is -1, an encoder without blocks"),
        ({"args": "depths=[2, 0]"}, r"depths is \[2, 0\], an encoder without blocks"),
        ({"args": "in_chans=5"}, "takes 5 channels, whose statistics are not known"),
    ],
)
def test_wrong_changes(arguments, text):
    with pytest.raises(UserError, match=text):
        load_domain_encoder("test_vit", pretrained=False, **arguments)


def test_clip_takes_no_changes(small_mae):
    with pytest.raises(UserError, match=r"'clip' is CLIP itself.*pool \(DOMAIN.POOL\)"):
        load_domain_encoder("clip", pool="cls")
    with pytest.raises(UserError, match="'both' has no feature 'decoder_embed'"):
        load_domain_encoder(MAE, pretrained=False, feature="decoder_embed", pool="both")


TOKENS = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))


def pooled(pool: str, features: torch.Tensor = TOKENS, **attributes: object) -> torch.Tensor:
    encoder = fixed(features, features.shape[-1], **attributes)
    encoder.pool = pool
    return encoder(torch.zeros(2, 3, 8, 8))


def test_pools():
    model = {"cls_token": 0, "num_prefix_tokens": 3}
    first, mean = TOKENS[:, 0], TOKENS[:, 3:].mean(1)
    assert torch.equal(pooled("cls", **model), first)
    torch.testing.assert_close(pooled("avg", **model), mean)
    torch.testing.assert_close(pooled("both", **model), torch.cat([first, mean], 1))


def test_a_norm_after_pooling_is_applied():
    norm = randomise(nn.LayerNorm(4))
    model = {"cls_token": 0, "num_prefix_tokens": 1, "fc_norm": norm}
    with torch.no_grad():
        first, mean = norm(TOKENS[:, 0]), norm(TOKENS[:, 1:].mean(1))
    torch.testing.assert_close(pooled("avg", **model), mean)
    torch.testing.assert_close(pooled("cls", **model), first)
    torch.testing.assert_close(pooled("both", **model), torch.cat([first, mean], 1))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("beit_base_patch16_224", {}),
        ("eva02_tiny_patch14_224", {"img_size": 28}),
        ("vit_base_patch16_224", {"global_pool": "avg"}),
    ],
)
def test_average_pooled_models_equal_timm_s_own_feature(name, args):
    args = {"embed_dim": 32, "depth": 1, "num_heads": 2, **args}
    encoder = load_domain_encoder(name, pretrained=False, args=args)
    model = randomise(encoder.encoder)
    assert not isinstance(model.fc_norm, nn.Identity)
    pixels = torch.rand(1, 3, encoder.image_size, encoder.image_size)
    with torch.no_grad():
        prepared = encoder.prepare(clip_images(pixels))
        torch.testing.assert_close(encoder(clip_images(pixels)), model(prepared))


TINY_STAGES = {"depths": [1, 1, 1, 1], "embed_dims": [32] * 4, "num_heads": [1] * 4}
TINY_CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("convnext_atto", TINY_CONVNEXT),
        ("convnextv2_atto", TINY_CONVNEXT),
        ("edgenext_xx_small", {}),
        ("caformer_s18", {}),
        ("poolformer_s12", {}),
        ("hiera_tiny_224", {"embed_dim": 16, "stages": [1, 1, 1, 1]}),
        ("davit_tiny", TINY_STAGES),
        ("tiny_vit_5m_224", TINY_STAGES),
        ("rdnet_tiny", {}),
        ("csatv2", {}),
    ],
)
def test_a_norm_in_the_head_is_applied_as_by_timm(name, args):
    if not timm.is_model(name):
        pytest.skip(f"the installed timm has no {name}")
    encoder = load_domain_encoder(name, pretrained=False, args=args)
    randomise(encoder.encoder.head.norm)
    images = clip_images(random_pixels(encoder.image_size, 1))
    with torch.no_grad():
        expected = encoder.encoder(encoder.prepare(images))
    torch.testing.assert_close(encoder(images), expected)
    assert encoder.spec.options["pool"] == "avg"


def test_the_own_norm_of_a_classifier_around_an_encoder_is_applied():
    """As in timm's Qwen3VitClassifier, whose norm follows the pooling; a ViT's precedes it."""
    norm = randomise(nn.LayerNorm(4))
    with torch.no_grad():
        expected = norm(TOKENS.mean(1))
    torch.testing.assert_close(pooled("avg", norm=norm, encoder=nn.Identity()), expected)
    torch.testing.assert_close(pooled("avg", norm=norm), TOKENS.mean(1))


def test_a_norm_of_a_hidden_layer_in_the_head_is_not_applied():
    """InceptionNeXt's head has it, of another width than the features."""
    head = nn.Module()
    head.norm = nn.LayerNorm(12)
    torch.testing.assert_close(pooled("avg", head=head), TOKENS.mean(1))


def test_coat_s_class_token_is_not_averaged():
    """Its class tokens are named by stage; timm's own average leaves them out, too."""
    args = {"embed_dims": [16] * 4, "serial_depths": [1] * 4, "global_pool": "avg"}
    encoder = load_domain_encoder("coat_lite_tiny", pretrained=False, args=args)
    randomise(encoder.encoder)
    images = clip_images(random_pixels(224, 1))
    with torch.no_grad():
        prepared = encoder.prepare(images)
        tokens = encoder.encoder.forward_features(prepared)
        torch.testing.assert_close(encoder(images), encoder.encoder(prepared))
    assert (encoder(images) - tokens.mean(1)).abs().max() > 1e-3
    encoder.pool = "cls"
    assert torch.equal(encoder(images), tokens[:, 0])


@pytest.mark.parametrize(("name", "count"), [("pit_ti_224", 1), ("pit_ti_distilled_224", 2)])
def test_the_average_of_no_patches_is_refused(name, count):
    """PiT returns class tokens alone."""
    encoder = load_domain_encoder(name, pretrained=False)
    images = clip_images(random_pixels(224, 1))
    text = rf"returns class tokens alone \({count}\), no patches to average: use pool .* 'cls'$"
    with pytest.raises(UserError, match=text):
        encoder(images)
    encoder = load_domain_encoder(name, pretrained=False, pool="cls")
    with torch.no_grad():
        tokens = encoder.encoder.forward_features(encoder.prepare(images))
    assert torch.equal(encoder(images), tokens[:, 0])


def test_attention_pooling_equals_timm_s_own_feature(tmp_path):
    name = "vit_base_patch16_siglip_224"
    args = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2}
    encoder = load_domain_encoder(name, pretrained=False, args=args, pool="map")
    model = randomise(encoder.encoder)
    pixels = random_pixels(32)
    with torch.no_grad():
        expected = model(encoder.prepare(clip_images(pixels)))
    torch.testing.assert_close(encoder(clip_images(pixels)), expected)


@pytest.mark.parametrize(
    ("pool", "features", "attributes", "text"),
    [
        ("cls", TOKENS, {}, "has no class token"),
        ("both", TOKENS, {"cls_token": None}, "has no class token"),
        ("map", TOKENS, {"cls_token": 0}, "has no attention pooling"),
        ("cls", torch.zeros(2, 4, 3, 3), {}, "no tokens: pool"),
    ],
)
def test_pools_that_a_network_lacks(pool, features, attributes, text):
    with pytest.raises(UserError, match=text):
        pooled(pool, features, **attributes)


def test_more_than_three_bands(tmp_path):
    """The first convolution as published; in Python, as the image reader gives three bands."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", in_chans=5, num_classes=0).eval()
    path = tmp_path / "five.safetensors"
    save_file(model.state_dict(), path)
    mean, std = (1.0, 2.0, 3.0, 4.0, 5.0), (2.0,) * 5
    given = {"args": "in_chans=5", "mean": mean, "std": std, "image_size": 64}
    encoder = load_domain_encoder("test_resnet", weights=str(path), **given)
    bands = 9 * torch.rand(2, 5, 64, 64)
    with torch.no_grad():
        features = model.forward_features(normalise(bands, mean, std))
    torch.testing.assert_close(encoder(bands), features.mean((2, 3)), rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=r"takes 5 bands, and the image reader gives three"):
        encoder(bands[:, :3])
    with pytest.raises(UserError, match=r"is \(\d+, 5, 3, 3\) in the file and \(\d+, 3, 3, 3\)"):
        load_domain_encoder("test_resnet", weights=str(path))


@pytest.mark.parametrize("file", PUBLISHED_FILES)
def test_torchgeo_s_statistics_by_file_name_and_by_recipe(file, tmp_path, monkeypatch, caplog):
    recipe = RECIPES[PUBLISHED_FILES[file]]
    depth = int(recipe.timm_name.removeprefix("resnet"))
    monkeypatch.setattr(timm, "create_model", _shallow(timm.create_model))
    state = timm.create_model(f"resnet{depth}", num_classes=0).state_dict()
    weights = save(tmp_path / f"{file}-0123abcd.pth", state)
    with caplog.at_level(logging.INFO, "dplq"):
        by_file = load_domain_encoder(recipe.timm_name, weights=weights)
    assert "taken: mean" in caplog.text
    by_name = load_domain_encoder(PUBLISHED_FILES[file], weights=weights)
    pixels = random_pixels(64)
    scale = recipe.image_size / by_file.image_size
    assert by_name.spec.options.get("mean") is None
    assert by_file.spec.options["mean"] == list(recipe.mean)
    if scale == 1:
        assert torch.equal(by_file(clip_images(pixels)), by_name(clip_images(pixels)))
    expected = normalise(pixels, recipe.mean, recipe.std)
    small_side = load_domain_encoder(recipe.timm_name, weights=weights, image_size=64)
    torch.testing.assert_close(small_side.prepare(clip_images(pixels)), expected)


def _shallow(create):
    """Return timm's create_model with one narrow block per stage."""

    def build(name, **args):
        return create(name, **{**args, "layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)})

    return build


def test_torchgeo_s_statistics_are_those_of_torchgeo():
    pytest.importorskip("torchgeo.models")
    from torchgeo.models import get_weight

    pixels = random_pixels(256)
    names = {
        "torchgeo_resnet50_fmow_rgb_gassl": "ResNet50_Weights.FMOW_RGB_GASSL",
        "torchgeo_resnet18_sentinel2_rgb_moco": "ResNet18_Weights.SENTINEL2_RGB_MOCO",
        "torchgeo_resnet50_sentinel2_rgb_moco": "ResNet50_Weights.SENTINEL2_RGB_MOCO",
        "torchgeo_resnet50_sentinel2_si_rgb_satlas": "ResNet50_Weights.SENTINEL2_SI_RGB_SATLAS",
        "torchgeo_resnet50_sentinel2_mi_rgb_satlas": "ResNet50_Weights.SENTINEL2_MI_RGB_SATLAS",
        "torchgeo_resnet152_sentinel2_si_rgb_satlas": "ResNet152_Weights.SENTINEL2_SI_RGB_SATLAS",
        "torchgeo_resnet152_sentinel2_mi_rgb_satlas": "ResNet152_Weights.SENTINEL2_MI_RGB_SATLAS",
    }
    names |= {
        f"torchgeo_swin_v2_{size}_{ours}_{kind}_satlas": (
            f"Swin_V2_{size.upper()}_Weights.{theirs}_{kind.upper()}{rgb}_SATLAS"
        )
        for size, ours, theirs, rgb in (
            ("b", "aerial", "NAIP_RGB", ""),
            ("b", "sentinel2_rgb", "SENTINEL2", "_RGB"),
            ("t", "sentinel2_rgb", "SENTINEL2", "_RGB"),
        )
        for kind in ("si", "mi")
    }
    assert set(names) == {name for name in RECIPES if name.startswith("torchgeo_")}
    for name, theirs in names.items():
        weight = get_weight(theirs)
        full = 10_000.0 if "moco" in name else 255.0
        steps = [step for step in weight.transforms if "Normalize" in type(step).__name__]
        expected = full * pixels
        for step in steps:
            expected = step(expected)
        recipe = RECIPES[name]
        torch.testing.assert_close(
            normalise(pixels, recipe.mean, recipe.std), expected, rtol=1e-4, atol=1e-4
        )
        if "resnet" not in name:
            continue
        assert theirs.lower().startswith(recipe.timm_name)
        assert weight.url.rpartition("/")[2].startswith(
            tuple(start for start, known in PUBLISHED_FILES.items() if known == name)
        )


def test_statistics_that_cannot_be_stated_are_asked_for(tmp_path):
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    weights = save(tmp_path / "resnet50_sentinel2_rgb_seco-018bf397.pth", state)
    with pytest.raises(UserError, match=r"scaled one by one.*give mean and std"):
        load_domain_encoder("test_resnet", weights=weights)
    load_domain_encoder("test_resnet", weights=weights, mean=(0, 0, 0), std=(1, 1, 1))


def test_unknown_files_say_whose_statistics_are_taken(tmp_path, caplog):
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    with caplog.at_level(logging.INFO, "dplq"):
        load_domain_encoder("test_resnet", weights=save(tmp_path / "mine.pth", state))
    assert (
        "mine.pth: taken: mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225) from timm's "
        in (caplog.text)
        or "taken: mean (0.5" in caplog.text
    )


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("a", ["a"]),
        ("[a, b]", ["a", "b"]),
        ("['a', \"b\"]", ["a", "b"]),
        (["a", "b"], ["a", "b"]),
        ("", [""]),
        ("a/[b].pth", ["a/[b].pth"]),
    ],
)
def test_one_or_several_names(given, names):
    assert several(given) == names


def test_the_published_sizes_of_the_recipes():
    """Parameters of the architectures, without a weight drawn; from the authors' tables."""
    millions = {
        "dinov2_vits14": 22.1,
        "dinov2_vitb14": 86.6,
        "dinov2_vitg14_reg": 1136.5,
        "dinov3_vitl16_sat493m": 303.1,
        "rad_dino": 86.6,
        "uni_vit_large_patch16": 303.4,
        "uni2_vit_huge_patch14": 681.4,
        "retfound_vit_large_patch16": 303.3,
        "torchgeo_resnet50_fmow_rgb_gassl": 23.5,
    }
    for name, expected in millions.items():
        with torch.device("meta"):
            encoder = load_domain_encoder(name, pretrained=False)
        count = sum(p.numel() for p in encoder.encoder.parameters()) / 1e6
        assert math.isclose(count, expected, abs_tol=0.3), (name, count)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("resnet10t", {"pool": "both"}, "has no class token, which pool"),
        ("test_vit", {"pool": "map"}, "has no attention pooling, which pool"),
        ("test_vit", {"image_size": 7, "args": "patch_size=8"}, "has patches of 8 pixels, .* 7:"),
        ("test_vit", {"args": "img_size=32,patch_size=64"}, "has patches of 64 pixels, .* 32:"),
    ],
)
def test_what_an_encoder_lacks_is_said_when_it_is_loaded(name, given, message):
    with pytest.raises(UserError, match=message):
        load_domain_encoder(name, pretrained=False, **given)
