"""Activation of CLIP's towers: which one runs, and whether the weights were trained with it.

The same tensors fit both of CLIP's activations. Run with the wrong one a model still works, a few
points worse, so nothing else tells that it is wrong.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from dplq.clip.known_files import GELU, QUICK_GELU, KnownFile, find_known
from dplq.clip.layouts.transformers_config import CONFIG_FILE, published_activation
from dplq.clip.sources import Source
from dplq.errors import UserError, few, shown, suggest

logger = logging.getLogger(__name__)

AUTO = "auto"
ACTS = (AUTO, GELU, QUICK_GELU)


def choose_activation(source: Source, act: str) -> None:
    """Set the activation of a source that is not built yet.

    Args:
        source: its config and spec are replaced, unless it has that activation anyway.
        act: "auto", the one that the model's name stands for; "gelu" or "quickgelu".

    Raises:
        UserError: another value.
    """
    if act not in ACTS:
        raise UserError(
            f"act={shown(act)} (MODEL.BACKBONE.ACT) is none of {few(ACTS)}.{suggest(act, ACTS)}"
        )
    usual = QUICK_GELU if source.config.get("quick_gelu") else GELU
    if not source.act_is_known:
        logger.warning(
            "%s: its publishers do not say whether it was trained with GELU or QuickGELU: %s is "
            "used; act (MODEL.BACKBONE.ACT) sets the other",
            *(source.name, usual if act == AUTO else act),
        )
    if act in (AUTO, usual):
        return
    if source.act_is_known and source.file is not None and not source.spec.weights:
        logger.warning(
            "act=%s replaces %s, with which '%s' is published", *(act, usual, source.name)
        )
    source.config = {**source.config, "quick_gelu": act == QUICK_GELU}
    if act == QUICK_GELU:
        for tower in ("vision_cfg", "text_cfg"):
            # What a GELU is called with (tanh) is no argument of QuickGELU.
            own = source.config[tower]
            source.config[tower] = {k: v for k, v in own.items() if k != "act_kwargs"}
    source.spec = replace(source.spec, options={**source.spec.options, "act": act})


def running_activations(model: Any) -> dict[str, str]:
    """Return the activation of the "image" and the "text" tower of open_clip's model.

    "gelu", "quickgelu", "gelu_tanh", or torch's name of another; several are joined by "+".
    """
    found: dict[str, set[str]] = {"image": set(), "text": set()}
    for name, module in model.named_modules():
        label = _label(module)
        if label:
            found["image" if name.startswith("visual.") else "text"].add(label)
    return {tower: "+".join(sorted(labels)) or "none" for tower, labels in found.items()}


def describe_activations(model: Any) -> str:
    """Return "quickgelu", or "image gelu, text quickgelu" where the towers differ."""
    towers = running_activations(model)
    if len(set(towers.values())) == 1:
        return towers["text"]
    return ", ".join(f"{tower} {label}" for tower, label in towers.items())


def check_activation(model: nn.Module, source: Source, act: str, digest: str) -> None:
    """Log which activation runs; warn where the weights are known to be of the other.

    Args:
        model: built from `source`.
        source: what was loaded.
        act: as for `choose_activation`.
        digest: sha256 of the file in hex; "" where it was not computed.

    Raises:
        UserError: the activation that was asked for runs in neither tower.
    """
    described, towers = describe_activations(model), running_activations(model)
    logger.info("%s: activation %s", source.name, described)
    labels = {label for joined in towers.values() for label in joined.split("+")}
    kinds = {label.partition("_")[0] for label in labels}  # gelu_tanh is a GELU
    if act != AUTO and act not in kinds:
        raise UserError(
            f"act='{act}' (MODEL.BACKBONE.ACT): the towers of '{source.name}' have an activation "
            f"of their own ({described}); use act='{AUTO}'"
        )
    if source.file is None or not (source.spec.weights or source.spec.is_repository):
        return
    known = find_known(source.file, digest) or _known_beside(source.file)
    if known is None:
        logger.info("%s: with which activation it was trained is not known", source.file.name)
    elif (known.act == QUICK_GELU) != (QUICK_GELU in labels):
        logger.warning(
            "%s was trained with %s (%s), but '%s' runs %s: set act='%s' (MODEL.BACKBONE.ACT)",
            *(source.file.name, known.act, known.reason, source.name, described, known.act),
        )


def warn_of_encoder_activation(name: str, model: nn.Module, file: Path, digest: str) -> None:
    """Warn where a CLIP's file, loaded as an image encoder, was trained with the other activation.

    Args:
        name: of the encoder.
        model: timm's.
        file: its weights.
        digest: sha256 of the file in hex.
    """
    labels = {label for module in model.modules() if "gelu" in (label := _label(module))}
    known = find_known(file, digest)
    if known is not None and labels and (known.act == QUICK_GELU) != (QUICK_GELU in labels):
        logger.warning(
            "%s was trained with %s (%s), but '%s' runs %s: choose timm's model of that activation "
            "(vit_..._clip_quickgelu_224, or without quickgelu).",
            *(file.name, known.act, known.reason, name, "+".join(sorted(labels))),
        )


def _known_beside(file: Path) -> KnownFile | None:
    """Return what a config.json of the transformers library in the file's folder says."""
    act = published_activation(file.parent / CONFIG_FILE)
    if act is None:
        return None
    return KnownFile((file.name,), QUICK_GELU if act else GELU, f"the {CONFIG_FILE} beside it")


def _label(module: Any) -> str:
    """Return the activation that a module is; "" for a module that is none."""
    name = type(module).__name__.lower().removesuffix("activation")
    if isinstance(module, nn.GELU) and module.approximate != "none":
        return f"gelu_{module.approximate}"
    return name if name.endswith(("gelu", "relu", "silu")) else ""
