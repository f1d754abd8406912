"""Architecture of a CLIP from the config.json of the transformers library."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from torch import nn

from dplq.errors import UserError, few, printable, shown
from dplq.io.validation.paths import is_file
from dplq.io.validation.schema import convert, read_json

logger = logging.getLogger(__name__)

CONFIG_FILE, PREPROCESSOR_FILE = "config.json", "preprocessor_config.json"
TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
REMEDY = (
    "A config.json of transformers' CLIPModel or SiglipModel has text_config and vision_config: "
    "get it again."
)

Size = Annotated[int, Meta(ge=1, le=1 << 24)]
Colour = tuple[float, float, float]
# `hidden_act` -> open_clip's quick_gelu, and what its GELU is called with.
ACTIVATIONS: dict[str, tuple[bool, dict[str, str]]] = {
    "quick_gelu": (True, {}),
    "gelu": (False, {}),
    "gelu_new": (False, {"approximate": "tanh"}),
    "gelu_pytorch_tanh": (False, {"approximate": "tanh"}),
}


class Text(msgspec.Struct):
    """`text_config` of a CLIPModel; transformers leaves out what equals its defaults."""

    vocab_size: Size = 49408
    hidden_size: Size = 512
    intermediate_size: Size = 2048
    num_hidden_layers: Size = 12
    num_attention_heads: Size = 8
    max_position_embeddings: Size = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


class Vision(msgspec.Struct):
    """`vision_config` of a CLIPModel."""

    hidden_size: Size = 768
    intermediate_size: Size = 3072
    num_hidden_layers: Size = 12
    num_attention_heads: Size = 12
    num_channels: Size = 3
    image_size: Size = 224
    patch_size: Size = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


class SiglipText(Text):
    """The same of a SiglipModel; `projection_size` is None for the width."""

    vocab_size: Size = 32000
    hidden_size: Size = 768
    intermediate_size: Size = 3072
    num_attention_heads: Size = 12
    max_position_embeddings: Size = 64
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    projection_size: Size | None = None


class SiglipVision(Vision):
    """The same of a SiglipModel."""

    patch_size: Size = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    vision_use_head: bool = True


class Preprocessor(msgspec.Struct):
    """Content of a `preprocessor_config.json`."""

    image_mean: Colour | None = None
    image_std: Colour | None = None


# timm's ViTs with SigLIP's pooling: (width, layers, heads, MLP width, patch). The size of their
# images is set afterwards.
SIGLIP_TRUNKS = {
    (768, 12, 12, 3072, 16): "vit_base_patch16_siglip_224",
    (768, 12, 12, 3072, 32): "vit_base_patch32_siglip_256",
    (1024, 24, 16, 4096, 16): "vit_large_patch16_siglip_256",
    (1152, 27, 16, 4304, 14): "vit_so400m_patch14_siglip_224",
    (1152, 27, 16, 4304, 16): "vit_so400m_patch16_siglip_256",
    (1536, 40, 16, 6144, 16): "vit_giantopt_patch16_siglip_256",
}
SIGLIP_COLOUR: Colour = (0.5, 0.5, 0.5)  # of both mean and std, as SiglipImageProcessor has it


@dataclass(frozen=True)
class Described:
    """What a folder of the transformers library says of its model.

    Attributes:
        config: open_clip's model config.
        preprocess: open_clip's preprocessing config; may be empty.
        finish: sets what open_clip's config has no entry for, on the built model.
    """

    config: dict[str, Any]
    preprocess: dict[str, Any]
    finish: Callable[[nn.Module], object]


def describe(config: Path, preprocessor: Path | None) -> Described:
    """Return what a `config.json` says, and a `preprocessor_config.json` where there is one.

    Raises:
        UserError: damaged, or of a model that open_clip has no architecture for.
    """
    where = printable(str(config))
    content: dict[str, Any] = read_json(config, dict[str, Any], remedy=REMEDY, max_bytes=1 << 20)
    described = describe_content(content, where, config.parent)
    kind: str = content["model_type"]
    return Described(described.config, _preprocess(preprocessor, kind, where), described.finish)


def describe_content(content: dict[str, Any], where: str, folder: Path | None = None) -> Described:
    """Return what the content of a `config.json` says; without preprocessing.

    Args:
        content: of the file.
        where: what it was read from, for messages.
        folder: of the model, where its tokenizer may be.

    Raises:
        UserError: damaged, or of a model that open_clip has no architecture for.
    """
    kinds = {"clip": _clip, "siglip": _siglip}
    kind = content.get("model_type")
    if kind not in kinds:
        raise UserError(
            f"{where} describes a model of type {shown(kind)}; of the transformers library "
            f"{few(kinds)} can be loaded. An image encoder alone is for "
            "load_domain_encoder (DOMAIN.ENCODER)"
        )
    return kinds[kind](content, where, folder)


def _clip(content: dict[str, Any], where: str, folder: Path | None) -> Described:
    text: Text = convert(_tower(content, "text"), Text, where=where, remedy=REMEDY)
    vision: Vision = convert(_tower(content, "vision"), Vision, where=where, remedy=REMEDY)
    _check_channels(vision, where)
    if text.hidden_act != vision.hidden_act:
        raise UserError(
            f"{where}: hidden_act is {text.hidden_act} of the text and {vision.hidden_act} of the "
            "image tower; open_clip has one for both, so this model cannot be loaded"
        )
    quick, act = _activation(text.hidden_act, where)
    own = _tokenizer(folder) if text.vocab_size != Text().vocab_size else {}
    width: int = convert(content.get("projection_dim") or 512, Size, where=where, remedy=REMEDY)
    config = {
        "embed_dim": width,
        "quick_gelu": quick,
        "vision_cfg": {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": _ratio(vision),
            **_extra(vision, act, default_eps=1e-5),
        },
        "text_cfg": _text(text) | _extra(text, act, default_eps=1e-5) | own,
    }
    return Described(config, {}, _nothing)


def _siglip(content: dict[str, Any], where: str, folder: Path | None) -> Described:
    text: SiglipText = convert(_tower(content, "text"), SiglipText, where=where, remedy=REMEDY)
    vision: SiglipVision = convert(
        _tower(content, "vision"), SiglipVision, where=where, remedy=REMEDY
    )
    _check_channels(vision, where)
    sizes = (
        *(vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads),
        *(vision.intermediate_size, vision.patch_size),
    )
    if sizes not in SIGLIP_TRUNKS or not vision.vision_use_head:
        raise UserError(
            f"{where}: timm has no SigLIP tower of width, layers, heads, MLP width and patch "
            f"{', '.join(map(str, sizes))}; it has {few(set(SIGLIP_TRUNKS.values()), limit=6)}"
        )
    quick, act = _activation(text.hidden_act, where)
    width = text.projection_size or text.hidden_size
    config = {
        "embed_dim": width,
        "quick_gelu": quick,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {
            "image_size": vision.image_size,
            "timm_model_name": SIGLIP_TRUNKS[sizes],
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": _text(text)
        | _extra(text, act, default_eps=1e-5)
        | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
        | {"tokenizer_kwargs": {"clean": "canonicalize"}}
        | _tokenizer(folder),
    }
    _, act = _activation(vision.hidden_act, where)

    def finish(model: nn.Module) -> None:
        visual: Any = model.get_submodule("visual")
        set_timm_size(visual, vision.image_size)
        _set_timm_activation(visual.trunk, act)

    return Described(config, {}, finish)


def _tower(content: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the config of a tower: the older `..._config_dict` wins, as in transformers."""
    older = content.get(f"{name}_config_dict")
    return (content.get(f"{name}_config") or {}) if older is None else older


def _text(text: Text) -> dict[str, Any]:
    return {
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "width": text.hidden_size,
        "heads": text.num_attention_heads,
        "layers": text.num_hidden_layers,
        "mlp_ratio": _ratio(text),
    }


def _extra(tower: Text | Vision, act: dict[str, str], default_eps: float) -> dict[str, Any]:
    """Return what only newer versions of open_clip know, where it is not the default."""
    eps = tower.layer_norm_eps
    return ({"act_kwargs": act} if act else {}) | (
        {"norm_kwargs": {"eps": eps}} if eps != default_eps else {}
    )


def _tokenizer(folder: Path | None) -> dict[str, Any]:
    """Return the tokenizer of a model that does not have CLIP's: that of its folder."""
    own = folder is not None and any((folder / name).is_file() for name in TOKENIZER_FILES)
    return {"hf_tokenizer_name": str(folder) if own else "timm/ViT-B-16-SigLIP"}


def _ratio(tower: Text | Vision) -> float:
    """Return the MLP's width as a multiple of the tower's, so that open_clip truncates to it."""
    width, hidden = tower.hidden_size, tower.intermediate_size
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _activation(name: str, where: str) -> tuple[bool, dict[str, str]]:
    if name not in ACTIVATIONS:
        raise UserError(
            f"{where}: hidden_act {shown(name)} is not supported; open_clip's towers run one of "
            f"{few(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def _check_channels(vision: Vision, where: str) -> None:
    if vision.num_channels != 3:
        raise UserError(
            f"{where}: its images have {vision.num_channels} channels; a CLIP for RGB images is "
            "needed"
        )


def _preprocess(path: Path | None, kind: str, where: str) -> dict[str, Any]:
    """Return mean and std of the images; those of the kind of model where they are not said."""
    given = Preprocessor()
    if path is not None and is_file(path):
        content: dict[str, Any] = read_json(path, dict[str, Any], max_bytes=1 << 20)
        given = convert(content, Preprocessor, where=printable(str(path)))
    usual: Colour | None = SIGLIP_COLOUR if kind == "siglip" else None
    if given.image_mean is None or given.image_std is None:
        logger.info(
            "%s: no %s with image_mean and image_std beside it; taken are those of %s",
            *(where, PREPROCESSOR_FILE, "SigLIP (0.5)" if usual else "OpenAI's CLIP"),
        )
    found = {"mean": given.image_mean or usual, "std": given.image_std or usual}
    return {key: value for key, value in found.items() if value}


def set_timm_size(visual: Any, size: int) -> None:
    """Set the size of the images of a timm tower, which open_clip leaves at timm's."""
    trunk = visual.trunk
    if tuple(trunk.patch_embed.img_size) != (size, size):
        trunk.set_input_size(img_size=(size, size))
    visual.image_size = (size, size)


def _set_timm_activation(trunk: nn.Module, act: dict[str, str]) -> None:
    """Replace the GELUs of a timm tower, which are exact, by those that transformers runs."""
    for module in list(trunk.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GELU):
                setattr(module, name, nn.GELU(approximate=act.get("approximate", "none")))


def _nothing(model: nn.Module) -> None:
    """Open_clip's config says everything."""


def published_activation(config: Path) -> bool | None:
    """Return whether a CLIPModel's config.json says QuickGELU; None where it says nothing."""
    try:
        content: dict[str, Any] = read_json(config, dict[str, Any], max_bytes=1 << 20)
        if content.get("model_type") != "clip":
            return None
        text: Text = convert(_tower(content, "text"), Text, where=str(config), remedy=REMEDY)
    except UserError:  # no such file, or another program's
        return None
    return ACTIVATIONS.get(text.hidden_act, (None, {}))[0]
