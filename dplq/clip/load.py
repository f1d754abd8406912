"""Build a CLIP architecture and load its weights, strictly."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dplq.clip.activation import describe_activations
from dplq.clip.hf_configs import HF_CONFIG, offline_text_cfg
from dplq.clip.installed import open_clip, transformers
from dplq.clip.layouts import LAYOUTS, OPEN_CLIP, find_layout
from dplq.clip.sources import OPENAI_VITS, Source
from dplq.errors import UserError, few, one_line
from dplq.io.spec import LOCAL_DIR
from dplq.io.validation.paths import user_path
from dplq.io.weights import (
    describe_checkpoint,
    loaded_by,
    naming_prefix,
    private_rng,
    read_state_dict,
    skip_weight_init,
    without_wrapper,
)
from dplq.models.strict import check_finite, is_counter

if TYPE_CHECKING:  # importing open_clip takes seconds, so only the functions that need it do
    from open_clip import CLIP, CoCa, CustomTextCLIP

logger = logging.getLogger(__name__)

# Strict loading: a file may hold these keys beyond the model's. OpenAI's own files keep three plain
# numbers as buffers; causal masks are computed; a sigmoid model's bias is one constant for all
# classes, to which softmax, argmax and cross-entropy are invariant.
OPENAI_NUMBERS = frozenset({"input_resolution", "context_length", "vocab_size"})
KEYS_LEFT_OVER = OPENAI_NUMBERS | {"attn_mask", "text.attn_mask", "logit_bias"}
# Buffers of transformers' embeddings, which newer versions compute.
POSITION_IDS = "embeddings.position_ids"
# One number, with or without a dimension.
LOGITS = frozenset({"logit_scale", "logit_bias"})
# ... and the model may have these beyond the file's.
KEYS_MISSING = frozenset({"logit_bias"})
MOST_LOG_SCALE = 10.0  # a scale of 22,000; CLIP's training keeps it below 100


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

    The file may be in any layout of `dplq.clip.layouts`; which one is logged.

    Raises:
        UserError: the file is unreadable, not of this architecture, or holds nan or infinite
            values.
    """
    assert source.file is not None
    ours = model.state_dict()
    state = raw = source.unpack(read_state_dict(source.file))
    layout = find_layout(state)
    state, removed = without_wrapper(
        state,
        {_without_text(key) for key in ours},
        source.file,
        rename=lambda key: _without_text(layout.model_key(key)),
        ignored=_may_be_left_over,
    )
    if layout is not OPEN_CLIP:
        logger.info("%s: converted from the layout of %s", source.file, layout.title)
        if unused := sum(key.startswith(layout.unused) for key in state):
            logger.info(
                "%s: %d tensors (%s) are not used: they encode neither images nor texts",
                *(source.file, unused, ", ".join(layout.unused)),
            )
        running = describe_activations(model)
        if layout.act not in ("", running):
            logger.warning(
                "%s: %s runs %s, '%s' %s: its features differ a little; load the folder with the "
                "file's config.json (local-dir:FOLDER) to have the same",
                *(source.file.name, layout.title, layout.act, source.name, running),
            )
        state = layout.convert(state)
    theirs = _rename_text_keys(state, ours)
    with naming_prefix(removed):
        _check_fit(source, ours, theirs, raw)
    check_finite({key: theirs[key] for key in ours if key in theirs}, source.file)
    _check_scale(source, theirs.get("logit_scale"))
    with torch.no_grad():
        for key, value in ours.items():
            if key in theirs:
                value.copy_(theirs[key].reshape(value.shape))


def _check_scale(source: Source, stored: Tensor | None) -> None:
    """Refuse a logit scale that was stored as such: files hold its logarithm."""
    if stored is not None and not stored.item() <= MOST_LOG_SCALE:
        raise UserError(
            f"'{source.file}': logit_scale is {stored.item():g}, but it must be a logarithm (4.605 "
            "for a scale of 100): the file holds the scale itself. Store its logarithm"
        )


def _check_fit(
    source: Source,
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    raw: Mapping[str, Tensor],
) -> None:
    """Raise UserError unless the file's tensors are those of the model.

    Args:
        source: what is loaded.
        ours: the model's tensors.
        theirs: the file's, by the model's keys.
        raw: the file's, by its own keys, to say what it looks like.
    """
    assert source.file is not None
    if theirs.keys() & OPENAI_NUMBERS and not source.config.get("quick_gelu"):
        logger.warning(
            "%s is in OpenAI's own layout, whose models were trained with QuickGELU, but %s uses "
            "GELU: set act='quickgelu' (MODEL.BACKBONE.ACT), or name the model as CoOp does (%s)",
            *(source.file.name, source.name, ", ".join(OPENAI_VITS)),
        )
    found, wanted = _architecture(theirs), _architecture(ours)
    if found and wanted:
        _compare_architectures(source, wanted, found)
    elif absent := _absent_towers(ours, theirs):
        raise UserError(
            f"'{source.file}' holds no {' and no '.join(absent)} tower of '{source.name}' in a "
            f"known layout (OpenAI's, open_clip's, {', '.join(each.title for each in LAYOUTS)}): "
            f"it looks like {describe_checkpoint(raw)}; {loaded_by(raw)}"
        )
    missing = [key for key in ours if key not in theirs and not _may_be_missing(key)]
    extra = [key for key in theirs if key not in ours and not _may_be_left_over(key)]
    shapes = [
        f"{key} {tuple(theirs[key].shape)} instead of {tuple(value.shape)}"
        for key, value in ours.items()
        if key in theirs
        and theirs[key].shape != value.shape
        and not (key in LOGITS and theirs[key].numel() == value.numel() == 1)
    ]
    if missing or extra or shapes:
        raise UserError(
            f"'{source.file}' does not fit '{source.name}': {_count('missing', missing)}, "
            f"{_count('left over', extra)}, {_count('of other shape', shapes)}"
        )


def _absent_towers(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """Return the towers, "image" or "text", that the file has less than half of."""
    image = {key for key in ours if key.startswith("visual.")}
    text = ours.keys() - image - LOGITS
    towers = {"image": image, "text": text}
    return [name for name, keys in towers.items() if 2 * len(keys & theirs.keys()) < len(keys)]


def _may_be_left_over(key: str) -> bool:
    """Return whether a file may hold a key beyond the model's."""
    return key in KEYS_LEFT_OVER or key.endswith(POSITION_IDS)


def _may_be_missing(key: str) -> bool:
    """Return whether the model may have a key beyond the file's."""
    return key in KEYS_MISSING or key.endswith(POSITION_IDS) or is_counter(key)


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
