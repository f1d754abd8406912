"""Architecture of a CLIP from the config.json of the transformers library."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from torch import nn

from dplq.errors import UserError, few, printable, shown
from dplq.images.model_input import SHORTEST, SQUASH
from dplq.io.validation.paths import is_file
from dplq.io.validation.schema import convert, read_json

logger = logging.getLogger(__name__)

INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # by Pillow's number
BICUBIC = 3
CONFIG_FILE, PREPROCESSOR_FILE = "config.json", "preprocessor_config.json"
TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
REMEDY = (
    "A config.json of transformers' CLIPModel or SiglipModel has text_config and vision_config: "
    "get it again."
)

Size = Annotated[int, Meta(ge=1, le=1 << 24)]
Colour = tuple[float, float, float]
FindTokenizer = Callable[[str], dict[str, Any]]
CLIP_EOS = 49407  # the last word of CLIP's vocabulary
SIGLIP_TOKENIZER = "timm/ViT-B-16-SigLIP"
# `hidden_act` -> open_clip's quick_gelu, and what its GELU is called with.
ACTIVATIONS: dict[str, tuple[bool, dict[str, str]]] = {
    "quick_gelu": (True, {}),
    "gelu": (False, {}),
    "gelu_new": (False, {"approximate": "tanh"}),
    "gelu_pytorch_tanh": (False, {"approximate": "tanh"}),
}


class Text(msgspec.Struct):
    """`text_config` of a CLIPModel; transformers leaves out what equals its defaults.

    `eos_token_id` is where a CLIPModel pools; 2, which older versions wrote, stands for the largest
    id of a text.
    """

    vocab_size: Size = 49408
    hidden_size: Size = 512
    intermediate_size: Size = 2048
    num_hidden_layers: Size = 12
    num_attention_heads: Size = 8
    max_position_embeddings: Size = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int | None = CLIP_EOS


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
    do_normalize: bool | None = None
    do_rescale: bool | None = None
    rescale_factor: Annotated[float, Meta(gt=0)] | None = None
    do_center_crop: bool | None = None
    resample: int | None = None
    size: int | list[Any] | dict[str, Any] | None = None
    crop_size: int | list[Any] | dict[str, Any] | None = None

    @property
    def colours(self) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        """Mean and standard deviation of images in 0..1; None: not said."""
        if self.do_normalize is False:
            given: tuple[Colour | None, ...] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        else:
            given = (self.image_mean, self.image_std)
        most = most_value(self.do_rescale, self.rescale_factor)
        mean, std = (None if value is None else in_unit_range(value, most) for value in given)
        return mean, std

    def other_sizes(self, image_size: int) -> dict[str, Any]:
        """Return which sizes, as they are given, are not those of square images of the model."""
        crop = None if self.do_center_crop is False else self.crop_size
        given = {"size": self.size, "crop_size": crop}
        return {
            name: size
            for name, size in given.items()
            if size is not None and not _is_square(size, image_size)
        }

    def resize_mode(self, kind: str) -> str:
        """Return open_clip's name of the way to resize; the kind of model's where none is said."""
        if isinstance(self.size, dict) and "shortest_edge" in self.size:
            return SHORTEST
        if isinstance(self.size, dict) and not self.do_center_crop:
            return SQUASH
        return usual_resize_mode(kind)


def _is_square(size: int | list[Any] | dict[str, Any], side: int) -> bool:
    """Return whether a size of a preprocessor_config.json makes square images of that side."""
    if isinstance(size, dict):
        known = ("shortest_edge", "height", "width")
        return set(size) <= set(known) and set(size.values()) == {side}
    return set(size if isinstance(size, list) else [size]) == {side}


def most_value(do_rescale: bool | None, rescale_factor: float | None) -> float:
    """Return what a preprocessor_config.json makes of a value of 255 before it is normalised."""
    if do_rescale is False:
        return 255.0
    most = 1.0 if rescale_factor is None else 255 * rescale_factor
    return 1.0 if math.isclose(most, 1, rel_tol=1e-3) else most  # 1/255 is rounded in some files


def in_unit_range(statistic: Sequence[float], most: float) -> tuple[float, ...]:
    """Return the mean, or standard deviation, for images in 0..1 of one for images in 0..most."""
    return tuple(value / most for value in statistic)


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


def describe(config: Path, preprocessor: Path | None, repository: str = "") -> Described:
    """Return what a `config.json` says, and a `preprocessor_config.json` where there is one.

    Args:
        config: the file.
        preprocessor: the other file, if there is one.
        repository: of the model on the Hugging Face hub, which has its tokenizer; "" for a folder.

    Raises:
        UserError: damaged, or of a model that open_clip has no architecture for.
    """
    where = printable(str(config))
    content: dict[str, Any] = read_json(config, dict[str, Any], remedy=REMEDY, max_bytes=1 << 20)
    described = describe_content(content, where, config.parent, repository)
    kind: str = content["model_type"]
    size: int = described.config["vision_cfg"]["image_size"]
    preprocess = _preprocess(preprocessor, kind, where, size)
    return Described(described.config, preprocess, described.finish)


def usual_resize_mode(kind: str) -> str:
    """Return open_clip's name of the way to resize images, by `model_type`."""
    return SQUASH if kind == "siglip" else SHORTEST


def describe_content(
    content: dict[str, Any], where: str, folder: Path | None = None, repository: str = ""
) -> Described:
    """Return what the content of a `config.json` says; without preprocessing.

    Args:
        content: of the file.
        where: what it was read from, for messages.
        folder: of the model, where its tokenizer may be.
        repository: of the model on the hub; "" for a folder.

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
    return kinds[kind](content, where, partial(_tokenizer, folder, repository, where))


def _clip(content: dict[str, Any], where: str, find_tokenizer: FindTokenizer) -> Described:
    text: Text = convert(_tower(content, "text"), Text, where=where, remedy=REMEDY)
    vision: Vision = convert(_tower(content, "vision"), Vision, where=where, remedy=REMEDY)
    _check_channels(vision, where)
    if text.hidden_act != vision.hidden_act:
        raise UserError(
            f"{where}: hidden_act is {text.hidden_act} of the text and {vision.hidden_act} of the "
            "image tower; open_clip has one for both, so this model cannot be loaded"
        )
    quick, act = _activation(text.hidden_act, where)
    own = {} if text.vocab_size == Text().vocab_size else find_tokenizer("")
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
        "text_cfg": _text(text) | _extra(text, act, default_eps=1e-5) | _pool(text, where) | own,
    }
    return Described(config, {}, _nothing)


def _siglip(content: dict[str, Any], where: str, find_tokenizer: FindTokenizer) -> Described:
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
    quick, vision_act = _activation(vision.hidden_act, where)
    if quick or vision.layer_norm_eps != SiglipVision().layer_norm_eps:
        raise UserError(
            f"{where}: the image tower has hidden_act {vision.hidden_act} and layer_norm_eps "
            f"{vision.layer_norm_eps}; timm's SigLIP towers run GELU and "
            f"{SiglipVision().layer_norm_eps}, so this model cannot be loaded"
        )
    quick, act = _activation(text.hidden_act, where)
    usual = SIGLIP_TOKENIZER if text.vocab_size == SiglipText().vocab_size else ""
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
        | find_tokenizer(usual),
    }

    def finish(model: nn.Module) -> None:
        visual: Any = model.get_submodule("visual")
        set_timm_size(visual, vision.image_size)
        _set_timm_activation(visual.trunk, vision_act)

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


def _pool(text: Text, where: str) -> dict[str, Any]:
    """Return where a CLIPModel's text tower pools, if it is not at the largest id of a text."""
    eos = text.eos_token_id
    if eos == 2 or (eos == CLIP_EOS and text.vocab_size == Text().vocab_size):
        return {}
    if eos is None or not 0 <= eos < text.vocab_size or text.vocab_size == Text().vocab_size:
        raise UserError(
            f"{where}: eos_token_id of text_config is {eos} ({CLIP_EOS} where it is left out), "
            f"which ends no text of its vocabulary of {text.vocab_size}: write the id of its "
            "tokenizer's end token there"
        )
    return {"pool_type": "eos", "eos_id": eos}


def _tokenizer(folder: Path | None, repository: str, where: str, usual: str) -> dict[str, Any]:
    """Return the tokenizer of a model that does not have CLIP's.

    Args:
        folder: of the model.
        repository: of the model on the hub, or "".
        where: the config, for messages.
        usual: tokenizer on the hub of the model's vocabulary, or "" where none is known.

    Raises:
        UserError: none is known.
    """
    own = folder is not None and any((folder / name).is_file() for name in TOKENIZER_FILES)
    name = repository or (str(folder) if own else usual)
    if not name:
        raise UserError(
            f"{where}: the model has a vocabulary of its own and no tokenizer beside it: put its "
            f"{TOKENIZER_FILES[0]} (or {TOKENIZER_FILES[1]}) and tokenizer_config.json into the "
            "folder"
        )
    return {"hf_tokenizer_name": name}


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


def _preprocess(path: Path | None, kind: str, where: str, image_size: int) -> dict[str, Any]:
    """Return open_clip's preprocessing config; the kind of model's own where nothing is said."""
    given = Preprocessor()
    if path is not None and is_file(path):
        content: dict[str, Any] = read_json(path, dict[str, Any], max_bytes=1 << 20)
        given = convert(content, Preprocessor, where=printable(str(path)))
    usual: Colour | None = SIGLIP_COLOUR if kind == "siglip" else None
    mean, std = given.colours
    if mean is None or std is None:
        logger.info(
            "%s: no %s with image_mean and image_std beside it; taken are those of %s",
            *(where, PREPROCESSOR_FILE, "SigLIP (0.5)" if usual else "OpenAI's CLIP"),
        )
    if given.resample not in (None, *INTERPOLATIONS):
        logger.warning(
            "%s: images are resized bicubically, not with resample %s of its %s.",
            *(where, given.resample, PREPROCESSOR_FILE),
        )
    for name, size in given.other_sizes(image_size).items():
        logger.warning(
            "%s: images are resized to the model's %d pixels at once, not by %s %s of its %s.",
            *(where, image_size, name, shown(size), PREPROCESSOR_FILE),
        )
    found = {
        "mean": mean or usual,
        "std": std or usual,
        "interpolation": INTERPOLATIONS.get(given.resample or BICUBIC),
        "resize_mode": given.resize_mode(kind),
    }
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
