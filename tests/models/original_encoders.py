"""Small originals of the published encoders; see `tests.models.originals`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from torch import Tensor

from dplq.models.catalogue import PublishedModel
from tests.models.originals import saved, shaken, write

SIDE = 28  # two patches of 14; of 16 pixels the ViTs get 32
WIDTH = {"embed_dim": 32, "depth": 2, "num_heads": 2}
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass
class OriginalEncoder:
    """A small encoder in its own library.

    Attributes:
        content: what its public file holds.
        features: (B, d), pooled as published, of normalised images (B, 3, h, w).
        image_size: of those.
        args: timm's keyword arguments that make ours as small.
        files: further files of its folder, by name.
    """

    content: Mapping[str, Any]
    features: Callable[[Tensor], Tensor]
    image_size: int
    args: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the file and what goes beside it."""
        write(self.content, path)
        for name, text in self.files.items():
            (path.parent / name).write_text(text, encoding="utf-8")


def transformers_vit(side: int = 32, patch: int = 16) -> Any:
    """A ViT of transformers with MAE's and timm's epsilon."""
    config = transformers.ViTConfig(
        **{**TOWER, "intermediate_size": 128, "image_size": side, "patch_size": patch},
        layer_norm_eps=1e-6,
    )
    return shaken(transformers.ViTModel(config, add_pooling_layer=False))


def patch_mean(model: Any) -> Callable[[Tensor], Tensor]:
    """Features of a model of transformers: mean of its patch tokens."""
    return lambda images: model(images).last_hidden_state[:, 1:].mean(1)


def class_token(model: Any) -> Callable[[Tensor], Tensor]:
    """Features of a model of transformers: its class token."""
    return lambda images: model(images).last_hidden_state[:, 0]


def own_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a ViT or Dinov2Model of transformers by MAE's and DINOv2's keys."""
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    names = (
        ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.", ""),
        ("encoder.layer.", "blocks."),
        ("attention.output.dense", "attn.proj"),
        ("intermediate.dense", "mlp.fc1"),
        (".output.dense", ".mlp.fc2"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("layernorm.", "norm."),
        ("layer_scale1.lambda1", "ls1.gamma"),
        ("layer_scale2.lambda1", "ls2.gamma"),
    )
    for key, value in state.items():
        new = key
        for theirs, ours in names:
            new = new.replace(theirs, ours)
        found = re.fullmatch(r"(.*)attention[.]attention[.](query|key|value)[.](.*)", new)
        if found:
            start, part, leaf = found.groups()
            parts.setdefault(f"{start}attn.qkv.{leaf}", {})[part] = value
        else:
            renamed[new] = value
    joined = {k: torch.cat([v[p] for p in ("query", "key", "value")]) for k, v in parts.items()}
    return {**renamed, **joined}


def mae(model: PublishedModel, folder: Path) -> OriginalEncoder:
    """MAE's pretraining checkpoint: the encoder, a decoder, optimizer and command line."""
    vit = transformers_vit()
    decoder = {"mask_token": torch.zeros(1, 1, 20), "decoder_pred.bias": torch.zeros(768)}
    decoder |= {"decoder_embed.weight": torch.zeros(20, 32), "decoder_embed.bias": torch.zeros(20)}
    content = {"model": own_keys(saved(vit, folder)) | decoder, "epoch": 799}
    return OriginalEncoder(content, patch_mean(vit), 32, WIDTH)


def fine_tuned_mae(model: PublishedModel, folder: Path) -> OriginalEncoder:
    """MAE's fine-tuned classifier: `fc_norm` after the average, and a head."""
    vit = shaken(
        timm.create_model(
            "vit_base_patch16_224", img_size=32, global_pool="avg", num_classes=62, **WIDTH
        )
    )

    def features(images: Tensor) -> Tensor:
        return vit.forward_head(vit.forward_features(images), pre_logits=True)

    return OriginalEncoder({"model": vit.state_dict(), "epoch": 29}, features, 32, WIDTH)


def sam(model: PublishedModel, folder: Path) -> OriginalEncoder:
    """SAM's checkpoint: image encoder, prompt encoder and mask decoder."""
    size = {"image_size": 64, "patch_size": 16, "window_size": 3, "output_channels": 256}
    config = transformers.SamVisionConfig(
        **{**TOWER, **size, "mlp_dim": 128, "global_attn_indexes": [1]}
    )
    encoder = shaken(transformers.SamVisionModel(config))
    names = {
        "vision_encoder.": "",
        "layers.": "blocks.",
        "layer_norm": "norm",
        "patch_embed.projection": "patch_embed.proj",
        "neck.conv1": "neck.0",
        "neck.norm1": "neck.1",
        "neck.conv2": "neck.2",
        "neck.norm2": "neck.3",
    }
    state = {}
    for key, value in encoder.state_dict().items():
        for theirs, ours in names.items():
            key = key.replace(theirs, ours)
        state[f"image_encoder.{key}"] = value
    others = {
        "prompt_encoder.not_a_point_embed.weight": torch.zeros(1, 256),
        "mask_decoder.iou_token.weight": torch.zeros(1, 256),
    }
    return OriginalEncoder(
        state | others,
        lambda images: encoder(images).last_hidden_state.mean((2, 3)),
        64,
        {**WIDTH, "window_size": 3, "global_attn_indexes": [1]},
    )


def dinov2_model(side: int, patch: int = 14, registers: int = 0) -> Any:
    """A Dinov2 of transformers."""
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    more = {"num_register_tokens": registers} if registers else {}
    config = getattr(transformers, f"{kind}Config")(
        **{**TOWER, "image_size": side, "patch_size": patch, **more}
    )
    return shaken(getattr(transformers, f"{kind}Model")(config))


def transformers_dinov2(model: PublishedModel, folder: Path) -> OriginalEncoder:
    """RAD-DINO, Phikon-v2: the file that transformers writes."""
    patch = model.args.get("patch_size", 14)
    dino = dinov2_model(2 * patch, patch)
    return OriginalEncoder(saved(dino, folder), class_token(dino), 2 * patch, WIDTH)


def transformers_vit_file(model: PublishedModel, folder: Path) -> OriginalEncoder:
    """Phikon: the file that transformers writes."""
    vit = transformers_vit()
    return OriginalEncoder(saved(vit, folder), class_token(vit), 32, WIDTH)


def dinov2(model: PublishedModel, folder: Path) -> OriginalEncoder:
    """DINOv2's own file: its keys, with the mask token."""
    registers = 4 if model.architecture.endswith("_reg") else 0
    dino = dinov2_model(SIDE, registers=registers)
    return OriginalEncoder(own_keys(saved(dino, folder)), class_token(dino), SIDE, WIDTH)


def dinov2_teacher(model: PublishedModel, folder: Path) -> OriginalEncoder:
    """A teacher of DINOv2's training, as RETFound publishes it: with its DINO head."""
    vit = shaken(
        timm.create_model("vit_base_patch14_dinov2", img_size=SIDE, num_classes=0, **WIDTH)
    )
    state = {f"backbone.{key}": value for key, value in vit.state_dict().items()}
    state["backbone.mask_token"] = torch.zeros(1, 32)
    head = {f"dino_head.mlp.{i}.weight": torch.zeros(8, 8) for i in (0, 2)}
    return OriginalEncoder({"teacher": state | head}, vit, SIDE, WIDTH)


def dino(model: PublishedModel, folder: Path) -> OriginalEncoder:
    """DINO's own file: the backbone of its teacher."""
    vit = shaken(timm.create_model("vit_base_patch16_224", img_size=32, num_classes=0, **WIDTH))
    return OriginalEncoder(vit.state_dict(), vit, 32, WIDTH)


def timm_model(model: PublishedModel, folder: Path) -> OriginalEncoder:
    """A state dict that timm writes, of a model that its authors build with timm."""
    name = TIMM.get(model.architecture, model.architecture)
    if "resnet" in name:
        depth = "resnet50" if "resnet50" in name else "resnet18"
        resnet = shaken(timm.create_model(depth, num_classes=0))
        head = {"fc.weight": torch.zeros(10, resnet.num_features), "fc.bias": torch.zeros(10)}
        return OriginalEncoder({**resnet.state_dict(), **head}, resnet, 64)
    side = 32 if "patch16" in name else SIDE
    more = {"mlp_layer": timm.layers.SwiGLUPacked} if model.architecture.startswith("uni2") else {}
    vit = shaken(
        timm.create_model(
            name, **{"num_classes": 0, "img_size": side, **WIDTH, **UNI.get(name, {}), **more}
        )
    )
    if model.pool is None:  # no pooling is published: patch tokens, averaged
        return OriginalEncoder(
            vit.state_dict(),
            lambda images: vit.forward_features(images)[:, vit.num_prefix_tokens :].mean(1),
            side,
            WIDTH,
        )
    vit.global_pool = {"avg": "avg", "cls": "token"}.get(model.pool, vit.global_pool)
    return OriginalEncoder(vit.state_dict(), vit, side, WIDTH)


# What the READMEs of UNI pass to timm.create_model.
TIMM = {
    "uni_vit_large_patch16": "vit_large_patch16_224",
    "uni2_vit_huge_patch14": "vit_giant_patch14_224",
}
UNI: dict[str, dict[str, Any]] = {
    "vit_large_patch16_224": {"init_values": 1e-5, "dynamic_img_size": True},
    "vit_giant_patch14_224": {
        **{"patch_size": 14, "init_values": 1e-5, "mlp_ratio": 2.66667 * 2},
        **{"no_embed_class": True, "act_layer": torch.nn.SiLU, "reg_tokens": 8},
        "dynamic_img_size": True,
    },
}


def timm_folder(model: PublishedModel, folder: Path) -> OriginalEncoder:
    """GigaPath: timm's config.json with `model_args`, and a state dict."""
    args = {"img_size": SIDE, "patch_size": 14, "init_values": 1e-5, **WIDTH}
    vit = shaken(timm.create_model("vit_giant_patch14_dinov2", num_classes=0, **args))
    assert model.mean
    config = {
        **{"architecture": "vit_giant_patch14_dinov2", "num_classes": 0, "global_pool": "token"},
        "model_args": args,
        "pretrained_cfg": {
            **{"input_size": [3, SIDE, SIDE], "mean": model.mean, "std": model.std},
        },
    }
    return OriginalEncoder(vit.state_dict(), vit, SIDE, files={"config.json": json.dumps(config)})


def scale_mae(model: PublishedModel, folder: Path) -> OriginalEncoder:
    """torchgeo's Scale-MAE; skipped without torchgeo."""
    import importlib.util

    import pytest

    found = importlib.util.find_spec("torchgeo")
    if found is None or not found.origin:
        pytest.skip("torchgeo is not installed")
    # The package as a whole imports half a dozen others.
    path = Path(found.origin).parent / "models/scale_mae.py"
    spec = importlib.util.spec_from_file_location("torchgeo_scale_mae", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vit = shaken(module.ScaleMAE(img_size=32, num_classes=0, **WIDTH))
    return OriginalEncoder(vit.state_dict(), vit, 32, WIDTH)


def torchvision_swin(model: PublishedModel, folder: Path) -> OriginalEncoder:
    """Torchvision's Swin V2; its classifier is left out, as torchgeo publishes it."""
    import torchvision.models.swin_transformer as swin

    original = swin.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        block=swin.SwinTransformerBlockV2,
        downsample_layer=swin.PatchMergingV2,
    )
    original.head = torch.nn.Identity()
    sizes = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
    computed = {name: buffer.clone() for name, buffer in original.named_buffers()}
    shaken(original).load_state_dict(computed, strict=False)
    for name, bias in original.named_parameters():
        if name.endswith("attn.qkv.bias"):  # torchvision leaves the keys without a bias
            bias.data.view(3, -1)[1] = 0
    return OriginalEncoder(original.state_dict(), original, 64, sizes)


LAYOUTS: dict[str, Callable[[PublishedModel, Path], OriginalEncoder]] = {
    "MAE": mae,
    "fine-tuned MAE": fine_tuned_mae,
    "SAM": sam,
    "transformers Dinov2Model": transformers_dinov2,
    "transformers ViTModel": transformers_vit_file,
    "DINOv2": dinov2,
    "DINOv2 teacher": dinov2_teacher,
    "DINO": dino,
    "timm": timm_model,
    "timm's folder": timm_folder,
    "Scale-MAE": scale_mae,
    "torchvision": torchvision_swin,
}
