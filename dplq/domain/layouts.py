"""Public layouts of encoders' checkpoints, as keys of timm's models.

DINO's training files hold a teacher and a student with their heads; transformers splits the
attention into query, key and value. Whatever is left out is logged.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from dplq.errors import UserError, few

logger = logging.getLogger(__name__)

TEACHER, STUDENT = "teacher.", "student."
_HEAD = re.compile(r"^teacher\.(module\.)?(dino_head|ibot_head|head|dino_loss|ibot_patch_loss)\.")
_CHUNK = re.compile(r"(^|\.)blocks\.\d+\.(\d+)\.")
_BLOCK = re.compile(r"(^|\.)blocks\.\d+\.")
_PARTS = re.compile(r"^(.*\.attention\.)attention\.(query|key|value)\.(weight|bias)$")
_UNUSED = (".bias_mask", ".periods", ".relative_position_index")  # buffers that timm computes
_COMPUTED = (".relative_position_index", ".relative_coords_table")
_SWIN_STAGE = re.compile(r"^features\.(\d+)\.(\d+\.|norm\.|reduction\.)")
_EMBEDDINGS = "embeddings.patch_embeddings.projection.weight"
# Keys of transformers' Dinov2Model, ViTModel and ViTMAEModel, and those of the models' own code.
_TRANSFORMERS = (
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.", ""),
    ("encoder.layer.", "blocks."),
    (".attention.attention.qkv.", ".attn.qkv."),
    (".attention.output.dense.", ".attn.proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".layer_scale1.lambda1", ".ls1.gamma"),
    (".layer_scale2.lambda1", ".ls2.gamma"),
    (".mlp.weights_in.", ".mlp.fc1."),
    (".mlp.weights_out.", ".mlp.fc2."),
    ("layernorm.", "norm."),
)
# Keys of transformers' DINOv3ViTModel, and those of facebookresearch/dinov3.
_DINOV3 = (
    ("embeddings.patch_embeddings.", "patch_embed.proj."),
    ("embeddings.register_tokens", "storage_tokens"),
    ("embeddings.", ""),
    ("layer.", "blocks."),
    (".attention.o_proj.", ".attn.proj."),
    (".mlp.gate_proj.", ".mlp.w1."),
    (".layer_scale1.lambda1", ".ls1.gamma"),
    (".layer_scale2.lambda1", ".ls2.gamma"),
)


def as_published(state: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Return a checkpoint's encoder by the keys of the model's own code.

    Args:
        state: tensors by the file's keys.
        path: the file, for messages.

    Returns:
        The encoder of a DINO teacher or of a transformers model, by DINO's and MAE's keys; any
        other state dict unchanged.
    """
    state = _joined_chunks(_teacher(state, path))
    return _from_torchvision_swin(_from_dinov3(_from_transformers(state, path)), path)


def _teacher(state: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Return the teacher's backbone of DINO's training files, which hold more than that."""
    kept = {k: v for k, v in state.items() if k.startswith(TEACHER) and not _HEAD.match(k)}
    left = [key for key in state if key not in kept]
    of_dino = [key for key in left if key.startswith(STUDENT) or _HEAD.match(key)]
    if not kept or not of_dino or len(of_dino) < len(left):
        return dict(state)
    logger.info(
        "%s: the teacher's backbone is taken, as DINO's own evaluation does; %d other tensors are "
        "left out (%s)",
        *(path, len(left), few(_groups(left))),
    )
    return kept


def _groups(keys: Iterable[str]) -> list[str]:
    """Return the first two parts of keys, each once."""
    return list(dict.fromkeys(".".join(key.split(".")[:2]) for key in keys))


def _joined_chunks(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return DINOv2's blocks, trained in chunks (`blocks.<chunk>.<block>.`), by their number.

    In EfficientNet and others that is `blocks.<stage>.<block>.`, and each stage begins anew.
    """
    blocks = [key for key in state if _BLOCK.search(key)]
    is_vit = any(key.endswith("pos_embed") for key in state)
    if not blocks or not is_vit or not all(_CHUNK.search(key) for key in blocks):
        return dict(state)
    joined = {_CHUNK.sub(r"\1blocks.\2.", key): value for key, value in state.items()}
    return joined if len(joined) == len(state) else dict(state)


def _from_transformers(state: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Return transformers' Dinov2, ViT and ViTMAE encoders by the keys of the models' own code."""
    anchor = next((key for key in state if key.endswith(_EMBEDDINGS)), None)
    if anchor is None or not any(".attention.attention.query." in key for key in state):
        return dict(state)
    prefix = anchor.removesuffix(_EMBEDDINGS)
    own = (f"{prefix}embeddings.", f"{prefix}encoder.layer.", f"{prefix}layernorm.")
    kept = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(own)}
    left = [key for key in state if not key.startswith(own)]
    if left:
        logger.info("%s: what is not the encoder is left out (%s)", path, few(_groups(left)))
    return {_renamed(key): value for key, value in _with_joined_attention(kept).items()}


def _from_dinov3(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return transformers' DINOv3 by the keys of facebookresearch/dinov3."""
    anchor = "embeddings.register_tokens"
    prefix = next((k.removesuffix(anchor) for k in state if k.endswith(anchor)), None)
    if prefix is None or f"{prefix}layer.0.attention.q_proj.weight" not in state:
        return dict(state)
    bare = {key.removeprefix(prefix): value for key, value in state.items()}
    is_gated = any(".mlp.gate_proj." in key for key in bare)
    layers = (".mlp.w2.", ".mlp.w3.") if is_gated else (".mlp.fc1.", ".mlp.fc2.")
    names_of = (*_DINOV3, (".mlp.up_proj.", layers[0]), (".mlp.down_proj.", layers[1]))
    found: dict[str, Tensor] = {}
    for key, value in bare.items():
        start, projection, leaf = key.partition(".attention.q_proj.")
        if projection:
            names = [f"{start}.attention.{part}_proj.{leaf}" for part in "qkv"]
            parts = [bare.get(name, torch.zeros_like(value)) for name in names]  # no bias of keys
            found[_renamed(f"{start}.attn.qkv.{leaf}", names_of)] = torch.cat(parts)
        elif ".attention.k_proj." not in key and ".attention.v_proj." not in key:
            found[_renamed(key, names_of)] = value
    return found


def _from_torchvision_swin(state: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Return torchvision's Swin V2, as torchgeo publishes it, by timm's keys.

    Even `features` are the patch embedding and the mergings, odd ones the stages. The bias of the
    keys, which torchvision sets to zero, is left out, and so are buffers that timm computes.
    """
    if "features.0.0.weight" not in state or "features.1.0.attn.logit_scale" not in state:
        return dict(state)
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(_COMPUTED):
            continue
        new = _SWIN_STAGE.sub(_swin_place, key)
        new = new.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
        if new.endswith(".attn.qkv.bias"):
            start = new.removesuffix("qkv.bias")
            found[f"{start}q_bias"], _, found[f"{start}v_bias"] = value.chunk(3)
        else:
            found[new] = value
    if not any(key.startswith("norm.") for key in found):
        last = max((k for k in found if k.endswith(".norm2.weight")), key=_stage)
        width = len(found[last])
        found |= {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
        logger.info("%s: it has no last norm, whose weight is 1 and bias 0, as in torchgeo", path)
    return found


def _stage(key: str) -> int:
    """Return the stage of a key `layers.<stage>. ...`."""
    return int(key.split(".")[1])


def _swin_place(match: re.Match[str]) -> str:
    """Return timm's name of an entry of torchvision's `features`."""
    stage, rest = int(match[1]), match[2]
    if stage == 0:
        return "patch_embed." + {"0.": "proj.", "2.": "norm."}.get(rest, rest)
    if stage % 2:
        return f"layers.{stage // 2}.blocks.{rest}"
    return f"layers.{stage // 2}.downsample.{rest}"


def _renamed(key: str, names: Iterable[tuple[str, str]] = _TRANSFORMERS) -> str:
    for theirs, ours in names:
        is_start = not theirs.startswith(".")
        if is_start and key.startswith(theirs):
            key = ours + key.removeprefix(theirs)
        elif not is_start:
            key = key.replace(theirs, ours)
    return key


def _with_joined_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with query, key and value as one matrix, in this order."""
    joined: dict[str, Tensor] = {}
    for key, value in state.items():
        found = _PARTS.match(key)
        if found is None:
            joined[key] = value
            continue
        start, _, leaf = found.groups()
        names = [f"{start}attention.{part}.{leaf}" for part in ("query", "key", "value")]
        if any(name not in state for name in names):
            joined[key] = value  # the strict check names what is missing
        else:
            joined[f"{start}attention.qkv.{leaf}"] = torch.cat([state[name] for name in names])
    return joined


def timm_filtered(model: Any, state: Mapping[str, Tensor], path: str) -> dict[str, Tensor] | None:
    """Return a state dict after timm's own conversion for this architecture; log what it drops.

    Args:
        model: a timm model.
        state: tensors by the file's keys.
        path: the file, for messages.

    Returns:
        The converted tensors; None where timm has no conversion or it does not know the layout.

    Raises:
        UserError: biases of the attention would be lost.
    """
    import timm

    convert = _filter_of(model)
    if convert is None:
        return None
    try:
        found = convert(dict(state), model)
    except Exception:  # of a foreign layout; the strict check reports what is in the file
        return None
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        return None
    kept = {tensor.data_ptr() for tensor in found.values()}
    gone = [k for k, v in state.items() if k not in found and v.data_ptr() not in kept]
    changed = [k for k in found if k in state and found[k].shape != state[k].shape]
    lost = [
        k for k in gone if k.startswith("blocks.") and not k.endswith(_UNUSED) and state[k].any()
    ]
    biases = [key for key in lost if key.endswith(".attn.qkv.bias")]
    if biases:
        architecture = model.pretrained_cfg["architecture"]
        variant = f"{architecture}_qkvb"
        known = timm.is_model(variant)
        raise UserError(
            f"'{path}': {len(biases)} biases of the attention are not zero, but the architecture "
            f"{architecture} has none ({few(biases, limit=3)}). Use "
            f"{variant if known else 'an architecture that has them'}"
        )
    if lost:
        logger.warning(
            "%s: %d tensors of the blocks are not zero, but the architecture %s has none (%s). Is "
            "there a variant that has them?",
            *(path, len(lost), model.pretrained_cfg["architecture"], few(lost, limit=3)),
        )
    if gone or changed:
        parts = [f"leaves out {few(gone)}"] if gone else []
        parts += [
            f"resamples {name} from {tuple(state[name].shape)} to {tuple(found[name].shape)}"
            for name in changed
        ]
        logger.info("%s: timm's conversion for this architecture %s", path, "; ".join(parts))
    return dict(found)


def _filter_of(model: Any) -> Callable[..., Any] | None:
    """Return the filter of checkpoints in the module of a model's entry point, if it has one."""
    import timm

    architecture = (getattr(model, "pretrained_cfg", None) or {}).get("architecture", "")
    if not timm.is_model(architecture):
        return None
    module = sys.modules[timm.models.model_entrypoint(architecture).__module__]
    names = ("checkpoint_filter_fn", "_filter_fn", "pretrained_filter_fn")
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)
