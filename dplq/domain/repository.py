"""Encoders in a local folder or a hub repository: a config, and the weights beside it.

Both timm's layout (`config.json` with `architecture`, `model_args`, `pretrained_cfg`, and
`model.safetensors`) and that of transformers' Dinov2, ViT and ViTMAE models.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dplq.clip.layouts.transformers_config import in_unit_range, most_value
from dplq.domain.encoder import IMAGENET_MEAN, IMAGENET_STD
from dplq.errors import UserError, few, one_line, shown
from dplq.io.files import file_digest, json_digest
from dplq.io.hub import Unavailable, first_file
from dplq.io.spec import HUB, LOCAL_DIR
from dplq.io.validation.paths import user_path

logger = logging.getLogger(__name__)
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
MOST_BYTES = 1 << 20  # of a config
# transformers' model types, by the timm model that all their sizes are made from.
ARCHITECTURES = {
    "dinov2": "vit_base_patch14_dinov2",
    "dinov2_with_registers": "vit_base_patch14_reg4_dinov2",
    "dinov3_vit": "vit_large_patch16_dinov3_qkvb",
    "vit": "vit_base_patch16_224",
    "vit_mae": "vit_base_patch16_224",
}
# `hidden_act` of transformers, as timm names it.
ACTIVATIONS = {
    "gelu": "gelu",
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), "gelu_tanh"),
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    **dict.fromkeys(("silu", "swish"), "silu"),
}
USUAL_ACTIVATION = "gelu"
# What timm builds of DINOv3 without its gated layers.
DINOV3_AS_BUILT = {
    "hidden_act": USUAL_ACTIVATION,
    "query_bias": True,
    "key_bias": False,
    "value_bias": True,
    "proj_bias": True,
    "mlp_bias": True,
}
# Statistics in a preprocessor_config.json: the word for them, and those that are taken without.
STATISTICS = {"image_mean": ("mean", IMAGENET_MEAN), "image_std": ("std", IMAGENET_STD)}
DOWNLOAD = (
    "Download the repository by other means and name its folder local-dir:FOLDER, or name the "
    "architecture and set weights (DOMAIN.WEIGHTS) to the local file"
)


@dataclass
class Repository:
    """An encoder as its folder describes it.

    Attributes:
        architecture: timm's name.
        model_args: timm's keyword arguments.
        pretrained_cfg: timm's record of statistics and input size; None: the architecture's.
        config: what of the config decides the features, JSON-able.
        file: its weights; None where they were not asked for.
    """

    architecture: str
    model_args: dict[str, Any]
    pretrained_cfg: dict[str, Any] | None
    config: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None


def is_repository(name: str) -> bool:
    """Return whether a name is that of a folder or of a repository of the hub."""
    return name.startswith((LOCAL_DIR, *HUB))


def find_repository(name: str, *, with_weights: bool) -> Repository:
    """Return the encoder in a folder or hub repository.

    Args:
        name: ``local-dir:FOLDER`` or ``hf-hub:org/name``.
        with_weights: whether to find (or download) its weights, too.

    Raises:
        UserError: there is no such folder or repository, or it holds no encoder that timm builds.
    """
    if name.startswith(LOCAL_DIR):
        return _from_folder(name, with_weights)
    return _from_hub(name, with_weights)


def content_digest(file: Path, config: Mapping[str, Any] | None = None) -> str:
    """Return the SHA-256 of a file; with a config, of the two together, in hex."""
    digest = file_digest(file)
    if config is None:
        return digest
    return json_digest({"config": config, "weights": digest})


def _from_folder(name: str, with_weights: bool) -> Repository:
    """Return the encoder of ``local-dir:FOLDER``."""
    folder = user_path(name.removeprefix(LOCAL_DIR), LOCAL_DIR)
    if not folder.is_dir():
        raise UserError(f"domain encoder '{name}': there is no folder '{folder.absolute()}'")
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"domain encoder '{name}': no {CONFIG} in '{folder.absolute()}'; a local encoder is a "
            f"folder with that file and {WEIGHTS[0]}, as timm and transformers write it"
        )
    preprocessor = folder / PREPROCESSOR
    found = _described(
        name,
        _read_json(folder / CONFIG),
        _read_json(preprocessor) if preprocessor.is_file() else None,
    )
    if with_weights:
        found.file = _weights_in(name, folder)
    return found


def _weights_in(name: str, folder: Path) -> Path:
    """Return a folder's weights: a usual file name, or the only such file."""
    for known in WEIGHTS:
        if (folder / known).is_file():
            return folder / known
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(files) != 1:
        raise UserError(
            f"domain encoder '{name}': expected {WEIGHTS[0]} or one single weights file in "
            f"'{folder.absolute()}', found {few(path.name for path in files) or 'none'}; name one "
            "with weights (DOMAIN.WEIGHTS), or use pretrained=False (DOMAIN.PRETRAINED False) for "
            "random weights"
        )
    return files[0]


def _from_hub(name: str, with_weights: bool) -> Repository:
    """Return the encoder of ``hf-hub:org/name``, downloaded once by huggingface_hub."""
    prefix = next(prefix for prefix in HUB if name.startswith(prefix))
    repository, _, revision = name.removeprefix(prefix).partition("@")
    get = partial(_first_of, name, repository, revision)
    config = get((CONFIG,))
    if config is None:
        raise UserError(f"domain encoder '{name}': the repository has no {CONFIG}. {DOWNLOAD}")
    content = _read_json(config)
    preprocessor = get((PREPROCESSOR,)) if "model_type" in content else None
    found = _described(name, content, _read_json(preprocessor) if preprocessor else None)
    if with_weights:
        found.file = get(WEIGHTS)
        if found.file is None:
            raise UserError(
                f"domain encoder '{name}': the repository has none of the files {few(WEIGHTS)}. "
                "Download its weights and name them with weights (DOMAIN.WEIGHTS)"
            )
    return found


def find_file(name: str, repository: str, files: Sequence[str]) -> Path | None:
    """Return the first of some files that a hub repository has, downloaded; None: it has none.

    Args:
        name: of the encoder, for messages.
        repository: ``org/name``, perhaps with ``@revision``.
        files: in order of preference.

    Raises:
        UserError: they cannot be downloaded.
    """
    repository, _, revision = repository.partition("@")
    try:
        return _first_of(name, repository, revision, files)
    except UserError as error:
        raise UserError(f"{error}. The address: https://huggingface.co/{repository}") from error


def _first_of(name: str, repository: str, revision: str, files: Sequence[str]) -> Path | None:
    """Download the first of some files that a repository has; None where it has none of them."""
    try:
        return first_file(repository, files, revision or None)
    except Unavailable as error:
        raise UserError(
            f"domain encoder '{name}': its {error.file} cannot be downloaded ({error}). {DOWNLOAD}"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    """Return a small JSON file that holds an object."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"'{path}' cannot be read as JSON ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' must hold an object, not {shown(content)}")
    return content


def _described(
    name: str, content: dict[str, Any], preprocessor: Mapping[str, Any] | None
) -> Repository:
    """Return what a config describes, timm's or transformers'; None: without a second file."""
    kind = content.get("model_type")
    if "architecture" not in content and kind in ARCHITECTURES:
        return _of_transformers(name, content, preprocessor)
    return _of_timm(name, content)


def _of_timm(name: str, content: dict[str, Any]) -> Repository:
    """Return what timm's config describes."""
    import timm

    architecture = content.get("architecture")
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        others = content.get("model_type") or content.get("architectures") or architecture
        raise UserError(
            f"domain encoder '{name}': its {CONFIG} describes {shown(others)}, not a model of timm "
            f"(key 'architecture') and none of transformers' {few(ARCHITECTURES)}"
        )
    args, record = content.get("model_args") or {}, content.get("pretrained_cfg")
    record = content if record is None else record  # timm's early files have no such section
    if not isinstance(args, dict) or not isinstance(record, dict):
        raise UserError(
            f"domain encoder '{name}': in its {CONFIG} model_args or pretrained_cfg is no object"
        )
    args = {key: value for key, value in args.items() if key not in ("num_classes", "pretrained")}
    known = timm.models.PretrainedCfg.__dataclass_fields__
    record = {key: value for key, value in record.items() if key in known}
    record |= {"architecture": architecture.partition(".")[0]}
    for key in ("mean", "std"):
        if key in record:
            record[key] = _numbers(name, CONFIG, key, record[key])
    size = record.get("input_size", (3, 224, 224))
    if not isinstance(size, (list, tuple)) or len(size) != 3 or not all(map(_is_count, size)):
        raise UserError(
            f"domain encoder '{name}': in its {CONFIG} input_size is {shown(size)}; it must be "
            "channels, height and width"
        )
    if "img_size" in args:  # which timm's earlier versions did not write into input_size
        record["input_size"] = (size[0], *_sides(name, args["img_size"]))
    keys = ("input_size", "mean", "std", "test_input_size", "fixed_input_size", "pool_size")
    config = {
        "architecture": architecture,
        "model_args": args,
        **{key: record[key] for key in keys if key in record},
    }
    if content.get("global_pool") and "global_pool" not in args:
        args = {**args, "global_pool": content["global_pool"]}
        config["model_args"] = args
    return Repository(architecture, args, record, config)


def _sides(name: str, given: Any) -> tuple[int, int]:
    """Return height and width of the images that a config's `img_size` is for."""
    sides = list(given) if isinstance(given, (list, tuple)) else [given, given]
    if len(sides) != 2 or not all(map(_is_count, sides)):
        raise UserError(
            f"domain encoder '{name}': in its {CONFIG} img_size is {shown(given)}; it must be the "
            "side of a square image, or height and width"
        )
    return sides[0], sides[1]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1 << 13


def _numbers(name: str, file: str, key: str, value: Any) -> tuple[float, ...]:
    """Return the statistics of a file: three numbers, standard deviations above 0."""
    low = 0.0 if key.endswith("std") else -1e6
    kinds = isinstance(value, (list, tuple)) and all(type(v) in (int, float) for v in value)
    if not kinds or not value or not all(low < number < 1e6 for number in value):
        raise UserError(
            f"domain encoder '{name}': in its {file} {key} is {shown(value)}; it must be a list of "
            "numbers, one per channel"
        )
    return tuple(map(float, value))


def _refuse_other_dinov3(name: str, content: Mapping[str, Any]) -> None:
    """Refuse DINOv3s that timm builds under names of their own, or not at all."""
    if content.get("use_gated_mlp"):
        raise UserError(
            f"domain encoder '{name}': its {CONFIG} describes a DINOv3 with gated layers: name "
            "timm's architecture, such as vit_huge_plus_patch16_dinov3_qkvb, and its weights with "
            "weights (DOMAIN.WEIGHTS)"
        )
    for key, built in DINOV3_AS_BUILT.items():
        if (value := content.get(key, built)) != built:
            raise UserError(
                f"domain encoder '{name}': in its {CONFIG} {key} is {shown(value)}; timm builds "
                f"DINOv3 with {key} {shown(built)} alone, so this model cannot be loaded"
            )


def _mlp(name: str, content: Mapping[str, Any], width: int, hidden: float) -> dict[str, Any]:
    """Return timm's arguments of the MLPs of a config of transformers."""
    if content.get("use_swiglu_ffn"):
        inner = (int(int(hidden) * 2 / 3) + 7) // 8 * 8
        return {"mlp_layer": "SwiGLUPacked", "act_layer": "silu", "mlp_ratio": 2 * inner / width}
    return {"mlp_ratio": hidden / width, **_activation(name, content)}


def _activation(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return timm's argument of the activation that a config of transformers names."""
    act = content.get("hidden_act", USUAL_ACTIVATION)
    if not isinstance(act, str) or act not in ACTIVATIONS:
        raise UserError(
            f"domain encoder '{name}': in its {CONFIG} hidden_act is {shown(act)}, which is not "
            f"supported; it must be one of {few(ACTIVATIONS, limit=len(ACTIVATIONS))}"
        )
    return {} if act == USUAL_ACTIVATION else {"act_layer": ACTIVATIONS[act]}


def _statistics(name: str, preprocessor: Mapping[str, Any] | None) -> list[tuple[float, ...]]:
    """Return mean and standard deviation of a preprocessor_config.json; ImageNet's without them."""
    content = preprocessor or {}
    normalises, most = _said(name, content, "do_normalize"), _most(name, content)
    if normalises is False:
        return [(0.0,) * 3, (1 / most,) * 3]
    missing = {key: word for key, (word, _) in STATISTICS.items() if not content.get(key)}
    if missing:
        lacks = f"its {PREPROCESSOR} has no {' and no '.join(missing)}"
        logger.warning(
            "domain encoder '%s': %s, so ImageNet's %s %s taken. Others are given with mean and "
            "std (DOMAIN.MEAN, DOMAIN.STD)",
            name,
            f"there is no {PREPROCESSOR}" if preprocessor is None else lacks,
            " and ".join(missing.values()),
            "is" if len(missing) == 1 else "are",
        )
    return [
        in_unit_range(_numbers(name, PREPROCESSOR, key, given), most)
        if (given := content.get(key))
        else usual
        for key, (_, usual) in STATISTICS.items()
    ]


def _said(name: str, content: Mapping[str, Any], key: str) -> bool | None:
    """Return an entry of a preprocessor_config.json that is true or false; None: it has none."""
    value = content.get(key)
    if value not in (True, False, None):
        raise UserError(
            f"domain encoder '{name}': in its {PREPROCESSOR} {key} is {shown(value)}; it must be "
            "true or false"
        )
    return value


def _most(name: str, content: Mapping[str, Any]) -> float:
    """Return what a preprocessor_config.json makes of 255; statistics are for images in 0..1."""
    factor = content.get("rescale_factor")
    is_number = isinstance(factor, (int, float)) and not isinstance(factor, bool)
    if factor is not None and not (is_number and 0 < factor < math.inf):
        raise UserError(
            f"domain encoder '{name}': in its {PREPROCESSOR} rescale_factor is {shown(factor)}; it "
            "must be a number above 0"
        )
    return most_value(_said(name, content, "do_rescale"), factor)


def _of_transformers(
    name: str, content: dict[str, Any], preprocessor: Mapping[str, Any] | None
) -> Repository:
    """Return what a config of transformers' Dinov2, ViT or ViTMAE describes, for timm."""
    try:
        size, patch = int(content.get("image_size", 224)), int(content.get("patch_size", 16))
        width, depth = int(content["hidden_size"]), int(content["num_hidden_layers"])
        heads = int(content["num_attention_heads"])
        hidden = content.get("intermediate_size") or width * content.get("mlp_ratio", 4)
        eps = float(content.get("layer_norm_eps", 1e-6))
        registers = int(content.get("num_register_tokens", 4))
        channels = int(content.get("num_channels", 3))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"domain encoder '{name}': its {CONFIG} lacks a size of the model ({one_line(error)})"
        ) from error
    args: dict[str, Any] = {
        "img_size": size,
        "patch_size": patch,
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "qkv_bias": bool(content.get("qkv_bias", True)),
        **_mlp(name, content, width, hidden),
    }
    kind = content["model_type"]
    if channels != 3:
        args["in_chans"] = channels
    if kind == "dinov3_vit":
        _refuse_other_dinov3(name, content)
        del args["qkv_bias"]
        args |= {"num_reg_tokens": registers, "rope_temperature": content.get("rope_theta", 100.0)}
    if kind.startswith("dinov"):
        args["init_values"] = float(content.get("layerscale_value", 1.0))
    if kind == "dinov2_with_registers":
        args["reg_tokens"] = registers
    mean, std = _statistics(name, preprocessor)
    record = {
        "architecture": ARCHITECTURES[kind],
        "input_size": (channels, size, size),
        "mean": mean,
        "std": std,
    }
    config = {"model_type": kind, "model_args": dict(args), "eps": eps, "statistics": [mean, std]}
    args["norm_layer"] = partial(nn.LayerNorm, eps=eps)
    return Repository(ARCHITECTURES[kind], args, record, config)
