"""Public layouts of encoders: DINO's teachers, transformers, fine-tuned MAE, timm's own filters."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from dplq.domain.encoder import IMAGENET_MEAN, IMAGENET_STD
from dplq.domain.load import load_domain_encoder
from dplq.domain.recipes import RECIPES
from dplq.errors import UserError
from tests.domain.helpers import (
    MAE,
    SMALL_VIT,
    WIDTH,
    clip_images,
    mae_state,
    normalise,
    plain_mae_tokens,
    public_module,
    random_pixels,
    randomise,
    save,
    small,
)
from tests.peers import peer

SIDE = 28
DINO_ARGS = {"img_size": SIDE, "embed_dim": 32, "depth": 2, "num_heads": 2}
TRANSFORMERS_ARGS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 14,
}


def imagenet(pixels: Tensor) -> Tensor:
    """Return pixels (B, 3, H, W) as most encoders take them."""
    return normalise(pixels, IMAGENET_MEAN, IMAGENET_STD)


def close(got: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5 of the largest expected number."""
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1)


def shrink(name: str, monkeypatch: pytest.MonkeyPatch, **args: object) -> None:
    """Make a DINOv2 recipe small."""
    small(name, monkeypatch, **{**DINO_ARGS, **args})


def dino_model(registers: int = 0, **args: object) -> nn.Module:
    """Return a small random timm DINOv2."""
    suffix = "_reg4" if registers else ""
    size = "giant" if "mlp_ratio" in args else "base"
    name = f"vit_{size}_patch14{suffix}_dinov2"
    return randomise(timm.create_model(name, num_classes=0, **{**DINO_ARGS, **args}))


def raw_dino(model: nn.Module) -> dict[str, Tensor]:
    """Return a timm DINOv2 under the keys of facebookresearch/dinov2, registers included."""
    state = {k.replace(".mlp.fc", ".mlp.fc"): v for k, v in model.state_dict().items()}
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        # The published class token has its own position; timm adds the two.
        first = torch.full((1, 1, 32), 0.125)
        state["cls_token"] = state["cls_token"] - first
        state["pos_embed"] = torch.cat([first, state["pos_embed"]], 1)
    if any(".mlp.fc1.weight" in k and v.shape[0] != 128 for k, v in state.items()):
        state = {
            k.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3."): v
            for k, v in state.items()
        }
    return {**state, "mask_token": torch.ones(1, 32)}


@pytest.mark.parametrize(
    ("name", "registers", "args"),
    [
        ("dinov2_vitb14", 0, {}),
        ("dinov2_vitb14_reg", 4, {}),
        ("dinov2_vitg14", 0, {"mlp_ratio": 2.66667 * 2}),
    ],
)
def test_raw_dinov2_files(name, registers, args, tmp_path, monkeypatch, caplog):
    shrink(name, monkeypatch, **args)
    model = dino_model(registers, **args)
    state = raw_dino(model)
    assert ("blocks.0.mlp.w12.weight" in state) == bool(args)
    weights = save(tmp_path / "dinov2.pth", state)
    with caplog.at_level(logging.INFO, "dplq"):
        encoder = load_domain_encoder(name, weights=weights)
    assert "timm's conversion for this architecture leaves out mask_token" in caplog.text
    pixels = random_pixels(SIDE)
    with torch.no_grad():
        tokens = model.forward_features(imagenet(pixels))
    close(encoder(clip_images(pixels)), tokens[:, 0])
    average = load_domain_encoder(name, weights=weights, pool="avg")
    close(average(clip_images(pixels)), tokens[:, 1 + registers :].mean(1))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_training_file_of_dino_gives_the_teacher(tmp_path, monkeypatch, caplog, chunked):
    shrink("dinov2_vitb14", monkeypatch)
    model = dino_model()
    state = raw_dino(model)
    if chunked:
        state = {k.replace("blocks.", "blocks.0."): v for k, v in state.items()}
    teacher = {f"backbone.{k}": v for k, v in state.items()}
    heads = {"dino_head.mlp.0.weight": torch.ones(2), "ibot_head.last_layer.weight": torch.ones(1)}
    student = {f"module.backbone.{k}": v + 1 for k, v in state.items()}
    weights = save(
        tmp_path / "teacher.pth",
        {"teacher": {**teacher, **heads}, "student": student, "epoch": 3},
    )
    with caplog.at_level(logging.INFO, "dplq"):
        encoder = load_domain_encoder("dinov2_vitb14", weights=weights)
    assert "the teacher's backbone is taken, as DINO's own evaluation does; " in caplog.text
    assert "teacher.dino_head, teacher.ibot_head, student.module" in caplog.text
    pixels = random_pixels(SIDE)
    with torch.no_grad():
        close(encoder(clip_images(pixels)), model.forward_features(imagenet(pixels))[:, 0])


def of_transformers(kind: str, **changes: object) -> nn.Module:
    """Return a small random model of transformers."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(2)
    config = getattr(transformers, f"{kind.removesuffix('ForPreTraining')}Config")
    name = kind if kind.endswith("ForPreTraining") else f"{kind}Model"
    return randomise(getattr(transformers, name)(config(**TRANSFORMERS_ARGS, **changes)))


@pytest.mark.parametrize(
    ("kind", "recipe", "changes", "args"),
    [
        ("Dinov2", "rad_dino", {}, {}),
        ("Dinov2WithRegisters", "dinov2_vitb14_reg", {}, {}),
        ("Dinov2", "dinov2_vitg14", {"use_swiglu_ffn": True}, {"mlp_ratio": 5.5}),
    ],
)
def test_transformers_dinov2(kind, recipe, changes, args, tmp_path, monkeypatch):
    """By the recipe and the file, and by the folder: both equal transformers' own model."""
    model = of_transformers(kind, **changes)
    model.save_pretrained(tmp_path / "there")
    shrink(recipe, monkeypatch, **args)
    weights = str(tmp_path / "there" / "model.safetensors")
    file, folder = (
        load_domain_encoder(recipe, weights=weights),
        load_domain_encoder(f"local-dir:{tmp_path / 'there'}", pool="cls"),
    )
    pixels = random_pixels(SIDE)
    mean, std = RECIPES[recipe].mean, RECIPES[recipe].std
    with torch.no_grad():
        expected = model(normalise(pixels, mean, std)).last_hidden_state[:, 0]
        close(file(clip_images(pixels)), expected)
        if mean == IMAGENET_MEAN:
            close(folder(clip_images(pixels)), expected)


def test_transformers_dinov3(tmp_path, monkeypatch, caplog):
    """Equal to transformers' own model; timm's variant without biases is warned of."""
    sizes = {"img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 2}
    transformers = pytest.importorskip("transformers")
    model = randomise(
        transformers.DINOv3ViTModel(
            transformers.DINOv3ViTConfig(
                hidden_size=64,
                intermediate_size=256,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_register_tokens=4,
                image_size=32,
                patch_size=16,
            )
        )
    )
    model.save_pretrained(tmp_path / "there")
    name = "dinov3_vitl16_sat493m"
    small(name, monkeypatch, **sizes)
    weights = str(tmp_path / "there" / "model.safetensors")
    pixels = random_pixels(32)
    recipe = RECIPES[name]
    with torch.no_grad():
        close(
            load_domain_encoder(name, weights=weights)(clip_images(pixels)),
            model(normalise(pixels, recipe.mean, recipe.std)).last_hidden_state[:, 0],
        )
        close(
            load_domain_encoder(f"local-dir:{tmp_path / 'there'}")(clip_images(pixels)),
            model(imagenet(pixels)).last_hidden_state[:, 5:].mean(1),
        )
    assert "tensors of the blocks are not zero" not in caplog.text
    with pytest.raises(UserError) as found:
        load_domain_encoder("vit_large_patch16_dinov3", weights=weights, args=sizes)
    assert str(found.value).endswith(
        "2 biases of the attention are not zero, but the architecture vit_large_patch16_dinov3 has "
        "none (blocks.0.attn.qkv.bias, blocks.1.attn.qkv.bias). Use vit_large_patch16_dinov3_qkvb"
    )


def test_biases_of_the_attention_are_not_dropped(tmp_path):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    model = randomise(timm.create_model("vit_large_patch16_dinov3_qkvb", num_classes=0, **sizes))
    state = model.state_dict()  # by the keys of facebookresearch/dinov3
    state["storage_tokens"] = state.pop("reg_token")
    query, value = (state.pop(f"blocks.0.attn.{part}_bias") for part in "qv")
    state["blocks.0.attn.qkv.bias"] = torch.cat([query, torch.zeros(32), value])
    file = save(tmp_path / "w.pth", state)
    load_domain_encoder("vit_large_patch16_dinov3_qkvb", weights=file, args=sizes)
    with pytest.raises(UserError, match=r"1 biases? of .*Use vit_large_patch16_dinov3_qkvb$"):
        load_domain_encoder("vit_large_patch16_dinov3", weights=file, args=sizes)


@pytest.mark.parametrize("kind", ["Dinov2", "ViT", "ViTMAE"])
@pytest.mark.parametrize(
    "act", ["relu", "quick_gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "swish"]
)
def test_the_activation_of_a_transformers_folder_is_run(kind, act, tmp_path):
    unmasked = {"mask_ratio": 0.0} if kind == "ViTMAE" else {}
    model = of_transformers(kind, hidden_act=act, **unmasked)
    model.save_pretrained(tmp_path)
    encoder = load_domain_encoder(f"local-dir:{tmp_path}")
    pixels = random_pixels(SIDE)
    with torch.no_grad():
        tokens = model(imagenet(pixels)).last_hidden_state
    close(encoder(clip_images(pixels)), tokens[:, 1:].mean(1))


def test_more_channels_of_a_transformers_folder(tmp_path):
    model = of_transformers("ViT", num_channels=5)
    model.save_pretrained(tmp_path)
    name = f"local-dir:{tmp_path}"
    with pytest.raises(UserError, match=r"takes 5 channels, whose statistics are not known: give"):
        load_domain_encoder(name)
    mean, std = (1.0, 2.0, 3.0, 4.0, 5.0), (2.0,) * 5
    encoder = load_domain_encoder(name, mean=mean, std=std)
    bands = 9 * torch.rand(2, 5, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        tokens = model(normalise(bands, mean, std)).last_hidden_state
    close(encoder(bands), tokens[:, 1:].mean(1))


def test_transformers_vit_mae(tmp_path, caplog):
    model = of_transformers(
        "ViTMAEForPreTraining",
        intermediate_size=64,
        mask_ratio=0.0,
        decoder_num_hidden_layers=1,
        decoder_hidden_size=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, "dplq"):
        encoder = load_domain_encoder(f"local-dir:{tmp_path}")
    assert "what is not the encoder is left out (decoder." in caplog.text
    assert "there is no preprocessor_config.json, so ImageNet's mean and std are" in caplog.text
    pixels = random_pixels(SIDE)
    with torch.no_grad():  # unmasked, the patches are shuffled, which the mean does not see
        tokens = model.vit(imagenet(pixels)).last_hidden_state
    close(encoder(clip_images(pixels)), tokens[:, 1:].mean(1))


def fine_tuned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what MAE's fine-tuning with global pooling writes."""
    kept = {k: v for k, v in state.items() if not k.startswith("norm.")}
    return {
        **kept,
        "fc_norm.weight": state["norm.weight"],
        "fc_norm.bias": state["norm.bias"],
        "head.weight": torch.ones(7, WIDTH),
        "head.bias": torch.ones(7),
    }


@pytest.mark.parametrize("name", [MAE, "vit_base_patch16_224"])
def test_a_fine_tuned_mae_is_normalised_after_the_average(small_mae, tmp_path, caplog, name):
    state = mae_state(decoder=False)
    weights = save(tmp_path / "finetuned.pth", {"model": fine_tuned(state)})
    of_timm = {"args": SMALL_VIT, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    args = {} if name == MAE else of_timm
    with caplog.at_level(logging.INFO, "dplq"):
        encoder = load_domain_encoder(name, weights=weights, **args)
    assert "what follows the encoder is left out (head.weight, head.bias)" in caplog.text
    pixels = random_pixels()
    unit = {**state, "norm.weight": torch.ones(WIDTH), "norm.bias": torch.zeros(WIDTH)}
    model = timm.create_model("vit_base_patch16_224", num_classes=0, **SMALL_VIT)
    model.norm = nn.Identity()
    model.load_state_dict({k: v for k, v in unit.items() if not k.startswith("norm.")})
    norm = nn.LayerNorm(WIDTH, eps=1e-6)
    norm.load_state_dict({"weight": state["norm.weight"], "bias": state["norm.bias"]})
    with torch.no_grad():
        tokens = model.eval().forward_features(imagenet(pixels))
        close(encoder(clip_images(pixels)), norm(tokens[:, 1:].mean(1)))


def test_a_classifier_after_the_class_token(small_mae, tmp_path):
    """MAE's linear probe keeps its norm: the features are those of the encoder without it."""
    state = mae_state(decoder=False)
    heads = {"head.weight": torch.ones(7, WIDTH), "head.bias": torch.ones(7)}
    encoder = load_domain_encoder(MAE, weights=save(tmp_path / "x.pth", {**state, **heads}))
    pixels = random_pixels()
    close(encoder(clip_images(pixels)), plain_mae_tokens(state, imagenet(pixels)).mean(1))


def test_what_no_conversion_makes_fit_is_refused_as_before(tmp_path, monkeypatch):
    shrink("dinov2_vitb14", monkeypatch)
    state = raw_dino(dino_model())
    del state["blocks.1.ls1.gamma"]
    with pytest.raises(UserError) as caught:
        load_domain_encoder("dinov2_vitb14", weights=save(tmp_path / "x.pth", state))
    assert "Missing: blocks.1.ls1.gamma. Unknown: mask_token" in str(caught.value)
    assert "cannot be" not in str(caught.value)


def test_scale_mae_positions_are_those_of_torchgeo(tmp_path, monkeypatch):
    torchgeo = pytest.importorskip("torchgeo.models.scale_mae")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    theirs = randomise(
        torchgeo.ScaleMAE(**sizes, num_classes=0, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    )
    name = "scalemae_vit_large_patch16"
    small(name, monkeypatch, **sizes)
    encoder = load_domain_encoder(name, weights=save(tmp_path / "x.pth", theirs.state_dict()))
    pixels = random_pixels(32)
    with torch.no_grad():
        close(encoder(clip_images(pixels)), theirs.forward_features(imagenet(pixels))[:, 0])


def test_scale_mae_scales_the_grid_by_metres_per_pixel(monkeypatch):
    name = "scalemae_vit_large_patch16"
    small(name, monkeypatch, **SMALL_VIT)
    near = load_domain_encoder(name, pretrained=False).encoder.pos_embed
    coarse = load_domain_encoder(name, pretrained=False, args="resolution=2")
    assert coarse.spec.options["args"] == "resolution=2"
    far = coarse.encoder.pos_embed
    # Patch (0, 2) at 1 m lies where (0, 1) does at 2 m.
    torch.testing.assert_close(near[0, 1 + 2], far[0, 1 + 1])
    assert near[0, 1 + 2, 0] == torch.sin(torch.tensor(2.0))
    with pytest.raises(UserError, match="it must be metres per pixel"):
        load_domain_encoder(name, pretrained=False, args="resolution=0")


def test_torchvision_s_resnet(tmp_path, caplog):
    """torchvision's own keys are timm's; its classifier is left out."""
    resnet = pytest.importorskip("torchvision.models.resnet")
    model = resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=5)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():  # running statistics, too
            tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3 * ("var" not in name))
    model.eval()
    with caplog.at_level(logging.INFO, "dplq"):
        encoder = load_domain_encoder(
            "resnet50",
            weights=save(tmp_path / "resnet.pth", model.state_dict()),
            args={"layers": [1, 1, 1, 1]},
            image_size=64,
        )
    assert "what follows the encoder is left out (fc.weight, fc.bias)" in caplog.text
    assert "taken: mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)" in caplog.text
    pixels = random_pixels(64)
    model.fc = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(clip_images(pixels)), model(imagenet(pixels)), rtol=1e-4, atol=1e-4
        )


def test_a_file_without_counters_of_training_steps(tmp_path):
    """Files of early versions of torch lack them, and no feature depends on them."""
    model = timm.create_model("test_resnet", num_classes=0).eval()
    state = model.state_dict()
    kept = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    encoder = load_domain_encoder("test_resnet", weights=save(tmp_path / "old.pth", kept))
    whole = load_domain_encoder("test_resnet", weights=save(tmp_path / "new.pth", state))
    images = clip_images(random_pixels(64))
    assert torch.equal(encoder(images), whole(images))
    del kept["layer1.0.bn1.running_var"]
    with pytest.raises(UserError, match=r"Missing: layer1\.0\.bn1\.running_var$"):
        load_domain_encoder("test_resnet", weights=save(tmp_path / "less.pth", kept))


def test_torchgeo_s_swin_v2_equals_torchvision(tmp_path, monkeypatch):
    """torchvision's layout under timm's keys, shifted windows and merging included."""
    swin = pytest.importorskip("torchvision.models.swin_transformer")
    model = swin.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        num_classes=3,
        block=swin.SwinTransformerBlockV2,
        downsample_layer=swin.PatchMergingV2,
    )
    randomise(model)
    model.head = nn.Identity()
    name = "torchgeo_swin_v2_t_sentinel2_rgb_si_satlas"
    sizes = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
    small(name, monkeypatch, img_size=64, **sizes)
    weights = save(tmp_path / "sentinel2_swint_si_rgb-0c1a96e0.pth", model.state_dict())
    encoder = load_domain_encoder(name, weights=weights)
    pixels = random_pixels(64)
    with torch.no_grad():  # not normalised: torchgeo scales to 0-1 alone
        close(encoder(clip_images(pixels)), model(pixels))
        # The published files lack the last norm.
        published = {k: v for k, v in model.state_dict().items() if not k.startswith("norm.")}
        model.norm = nn.LayerNorm(model.norm.normalized_shape)
        encoder = load_domain_encoder(name, weights=save(tmp_path / "x.pth", published))
        close(encoder(clip_images(pixels)), model(pixels))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("uni_vit_large_patch16", SMALL_VIT),
        (
            "uni2_vit_huge_patch14",
            {"img_size": 28, "embed_dim": 48, "depth": 2, "num_heads": 2},
        ),
    ],
)
def test_uni_equals_timm_as_its_authors_build_it(name, sizes, tmp_path, monkeypatch):
    """Their model cards' create_model call, with a classifier of none; the class token."""
    small(name, monkeypatch, **sizes)
    theirs: dict[str, object] = {"init_values": 1e-5, "num_classes": 0, "dynamic_img_size": True}
    base = "vit_large_patch16_224"
    if name.startswith("uni2"):
        base = "vit_giant_patch14_224"
        theirs |= {
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "mlp_layer": timm.layers.SwiGLUPacked,
            "act_layer": nn.SiLU,
            "reg_tokens": 8,
        }
    model = randomise(timm.create_model(base, **{**theirs, **sizes}))
    weights = save(tmp_path / "pytorch_model.bin", model.state_dict())
    pixels = random_pixels(sizes["img_size"])
    encoder = load_domain_encoder(name, weights=weights)
    with torch.no_grad():
        close(encoder(clip_images(pixels)), model(imagenet(pixels)))


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize(
    ("folder", "recipe"),
    [
        ("mae", MAE),
        ("SatMAE", "satmae_vit_large_patch16"),
        ("RETFound_MAE", "retfound_vit_large_patch16"),
        ("scale-mae/mae", "scalemae_vit_large_patch16"),
    ],
)
def test_fine_tuned_mae_equals_the_public_code(folder, recipe, after, tmp_path, monkeypatch):
    """The authors' own models, unchanged: pooled and normalised, or at the class token."""
    monkeypatch.setattr(np, "float", float, raising=False)  # gone since NumPy 1.24
    module = public_module("models_vit", peer(folder), monkeypatch)
    norm = partial(nn.LayerNorm, eps=1e-6)
    model = randomise(
        module.VisionTransformer(
            global_pool=after,
            num_classes=7,
            mlp_ratio=4,
            qkv_bias=True,
            norm_layer=norm,
            **SMALL_VIT,
        )
    )
    small(recipe, monkeypatch, **SMALL_VIT)
    weights = save(tmp_path / "finetuned.pth", {"model": model.state_dict()})
    encoder = load_domain_encoder(recipe, weights=weights, pool="avg" if after else "cls")
    pixels, known = random_pixels(), RECIPES[recipe]
    given = (torch.ones(2),) if known.resolution else ()
    with torch.no_grad():
        expected = model.forward_features(normalise(pixels, known.mean, known.std), *given)
    close(encoder(clip_images(pixels)), expected.reshape(2, WIDTH))


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_equals_the_public_code(registers, tmp_path, monkeypatch):
    module = public_module("dinov2.models.vision_transformer", peer("dinov2"), monkeypatch)
    sizes = {"img_size": SIDE, "embed_dim": 32, "depth": 2, "num_heads": 2}
    model = randomise(
        module.DinoVisionTransformer(
            patch_size=14,
            num_register_tokens=registers,
            init_values=1.0,
            block_chunks=0,
            **sizes,
        )
    )
    name = "dinov2_vitb14_reg" if registers else "dinov2_vitb14"
    small(name, monkeypatch, **sizes)
    weights = save(tmp_path / "dinov2.pth", model.state_dict())
    encoder = load_domain_encoder(name, weights=weights, pool="both")
    pixels = random_pixels(SIDE)
    with torch.no_grad():
        found = model.forward_features(imagenet(pixels))
    expected = [found["x_norm_clstoken"], found["x_norm_patchtokens"].mean(1)]
    close(encoder(clip_images(pixels)), torch.cat(expected, 1))
