"""Build a CLIP architecture and load its weights, strictly."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dplq.clip.hf_configs import HF_CONFIG, offline_text_cfg
from dplq.clip.installed import open_clip, transformers
from dplq.clip.sources import OPENAI_VITS, Source
from dplq.errors import UserError, few, one_line
from dplq.io.spec import LOCAL_DIR
from dplq.io.validation.paths import user_path
from dplq.io.weights import (
    describe_checkpoint,
    naming_prefix,
    private_rng,
    read_state_dict,
    skip_weight_init,
    without_wrapper,
)

if TYPE_CHECKING:  # importing open_clip takes seconds, so only the functions that need it do
    from open_clip import CLIP, CoCa, CustomTextCLIP

logger = logging.getLogger(__name__)

# Strict loading: a file may hold these keys beyond the model's. OpenAI's own files keep three plain
# numbers as buffers; causal masks and BERT's positions are computed; a sigmoid model's bias is one
# constant for all classes, to which softmax, argmax and cross-entropy are invariant.
OPENAI_NUMBERS = frozenset({"input_resolution", "context_length", "vocab_size"})
HF_POSITIONS = "transformer.embeddings.position_ids"  # of transformers before 4.31
KEYS_LEFT_OVER = OPENAI_NUMBERS | {
    *("attn_mask", "text.attn_mask", "logit_bias", HF_POSITIONS, f"text.{HF_POSITIONS}")
}
# ... and the model may have these beyond the file's.
KEYS_MISSING = frozenset({"logit_bias"})


def build(source: Source, device: str = "cpu") -> CLIP | CustomTextCLIP | CoCa:
    """Build the architecture, with random weights of a private generator.

    If the source has a weights file they stay uninitialised: `load_weights` must follow.

    Args:
        source: the architecture.
        device: where it is built; "meta" for one without weights.

    Raises:
        UserError: the installed open_clip cannot build it.
    """
    version = open_clip("version").__version__

    tower = source.config["text_cfg"].get("hf_model_name")
    if tower:
        transformers(f"the text tower of '{source.name}'")
    kind, config = _model_class(source.config)
    initialisation = contextlib.nullcontext() if source.file is None else skip_weight_init()
    with private_rng(source.spec.seed), torch.device(device), initialisation:
        try:
            with offline_text_cfg(config["text_cfg"], _folder(source)) as text_cfg:
                return kind(**{**config, "text_cfg": text_cfg})
        except Exception as error:  # a config can fail anywhere in open_clip and timm
            if tower and isinstance(error, OSError):  # the hub cannot be reached
                raise UserError(
                    f"cannot get the architecture of '{tower}', the text tower of '{source.name}' "
                    f"({one_line(error)}); use a machine with access to the Hugging Face hub once, "
                    f"or put its {HF_CONFIG} into the model's folder (local-dir:PATH)"
                ) from error
            raise UserError(
                f"open_clip {version} cannot build the architecture of '{source.name}' "
                f"({one_line(error)}); correct its config or install a newer open_clip_torch"
            ) from error


def _folder(source: Source) -> Path | None:
    """Return the model's own folder, if it has one."""
    folder = source.spec.folder
    return None if folder is None else user_path(folder, LOCAL_DIR)


def _model_class(config: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return open_clip's class of an architecture, and its arguments.

    Towers of other libraries are built without their own pretrained weights.
    """
    package = open_clip()
    custom_text = config.get("custom_text") or config["text_cfg"].get("hf_model_name")
    config = {key: value for key, value in config.items() if key != "custom_text"} | {
        "vision_cfg": {**config["vision_cfg"], "timm_model_pretrained": False},
        "text_cfg": {**config["text_cfg"], "hf_model_pretrained": False},
    }
    if "multimodal_cfg" in config:
        return package.CoCa, config
    return (package.CustomTextCLIP if custom_text else package.CLIP), config


def load_weights(model: nn.Module, source: Source) -> None:
    """Copy the weights of `source.file` into `model`; loading is strict.

    Raises:
        UserError: the file is unreadable, or not of this architecture.
    """
    assert source.file is not None
    ours = model.state_dict()
    state, removed = without_wrapper(
        source.unpack(read_state_dict(source.file)),
        {_without_text(key) for key in ours},
        source.file,
        rename=_without_text,
        ignored=KEYS_LEFT_OVER.__contains__,
    )
    theirs = _rename_text_keys(state, ours)
    with naming_prefix(removed):
        _check_fit(source, ours, theirs)
    with torch.no_grad():
        for key, value in ours.items():
            if key in theirs:
                value.copy_(theirs[key].reshape(value.shape))


def _check_fit(source: Source, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Raise UserError unless the file's tensors are those of the model."""
    assert source.file is not None
    if theirs.keys() & OPENAI_NUMBERS and not source.config.get("quick_gelu"):
        logger.warning(
            "%s is in OpenAI's own layout, whose models were trained with QuickGELU, but %s uses "
            "GELU: name the model as CoOp does (%s) or by its -quickgelu name",
            *(source.file.name, source.name, ", ".join(OPENAI_VITS)),
        )
    if _architecture(ours) and not _architecture(theirs):
        raise UserError(
            f"'{source.file}' holds no ViT CLIP in OpenAI's or open_clip's layout (such as "
            "visual.conv1.weight, token_embedding.weight): it looks like "
            f"{describe_checkpoint(theirs)} and cannot be loaded into '{source.name}'. A ResNet "
            "has no tokens to prompt; files of the transformers library (vision_model.*, "
            "text_model.*) have to be converted to open_clip's layout first"
        )
    if _architecture(ours):
        _compare_architectures(source, _architecture(ours), _architecture(theirs))
    missing = [key for key in ours if key not in theirs and key not in KEYS_MISSING]
    extra = [key for key in theirs if key not in ours and key not in KEYS_LEFT_OVER]
    shapes = [
        f"{key} {tuple(theirs[key].shape)} instead of {tuple(value.shape)}"
        for key, value in ours.items()
        if key in theirs and key != "logit_scale" and theirs[key].shape != value.shape
    ]
    if missing or extra or shapes:
        raise UserError(
            f"'{source.file}' does not fit '{source.name}': {_count('missing', missing)}, "
            f"{_count('left over', extra)}, {_count('of other shape', shapes)}"
        )


def _count(what: str, keys: Sequence[str]) -> str:
    """Return how many keys have a problem, with the first few of them."""
    return f"{len(keys)} keys {what}{f' ({few(keys, limit=3)})' if keys else ''}"


def _rename_text_keys(theirs: dict[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `theirs` with the text tower's keys as in `ours`.

    CLIP has them at the top level, CustomTextCLIP under `text.`.
    """
    tower = (
        "text_projection",
        "positional_embedding",
        "token_embedding.",
        "transformer.",
        "ln_final.",
    )
    if any(key.startswith("text.") for key in ours):
        return {f"text.{k}" if k.startswith(tower) else k: v for k, v in theirs.items()}
    return {_without_text(k): v for k, v in theirs.items()}


def _without_text(key: str) -> str:
    return key.removeprefix("text.")


def _architecture(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the architecture that a state dict's shapes imply; empty if it is no ViT CLIP."""
    text = "text." if "text.token_embedding.weight" in state else ""
    try:
        patches, width = state["visual.positional_embedding"].shape
        patch = state["visual.conv1.weight"].shape[-1]
        tokens, text_width = state[f"{text}positional_embedding"].shape
        return {
            "image width": width,
            "image layers": _count_blocks(state, "visual.transformer."),
            "patch": patch,
            "image size": patch * round((patches - 1) ** 0.5),
            "text width": text_width,
            "text layers": _count_blocks(state, f"{text}transformer."),
            "context": tokens,
            "vocabulary": state[f"{text}token_embedding.weight"].shape[0],
            "joint width": state["visual.proj"].shape[-1],
        }
    except KeyError:
        return {}


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """Return the number of residual blocks of the tower whose keys start with `prefix`."""
    start = f"{prefix}resblocks."
    return len({key[len(start) :].split(".")[0] for key in state if key.startswith(start)})


def _compare_architectures(source: Source, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raise UserError if two results of `_architecture` differ; `theirs` is the file's."""
    differing = [key for key in ours if ours[key] != theirs[key]]
    if differing:
        raise UserError(
            f"'{source.file}' is of another architecture than '{source.name}': the file has "
            + ", ".join(f"{key} {theirs[key]}" for key in differing)
            + "; the model has "
            + ", ".join(f"{key} {ours[key]}" for key in differing)
            + ". Name the model that the file was made with"
        )
