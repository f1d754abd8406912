"""Architecture and preprocessing of a published CLIP, from the catalogue of models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from dplq.clip.hub_tokenizer import tokenizer_files
from dplq.clip.installed import architecture
from dplq.clip.layouts import conch
from dplq.clip.layouts.transformers_config import Described, describe_content, usual_resize_mode
from dplq.errors import UserError
from dplq.models.catalogue import PublishedModel


def describe_published(name: str, model: PublishedModel, folder: Path | None) -> Described:
    """Return the open_clip config of a published CLIP, with its activation and preprocessing.

    Args:
        name: the model's, for messages.
        model: of the catalogue; a CLIP.
        folder: of its weights, where its tokenizer may be; None for random weights.

    Raises:
        UserError: it is known not to load.
    """
    if model.refused:
        raise UserError(f"'{name}' cannot be loaded: {model.refused}")
    known = {"size": model.image_size, "mean": model.mean, "std": model.std}
    preprocess = {key: value for key, value in known.items() if value is not None}
    if "model_type" in model.config:  # of the transformers library
        described = describe_content(model.config, name, folder)
        mode = usual_resize_mode(model.config["model_type"])
        return replace(described, preprocess={**preprocess, "resize_mode": mode})
    if model.architecture == conch.NAME:
        return replace(conch.describe(), preprocess=preprocess)
    base = architecture(model.architecture) if model.architecture else {}
    config = _merged(base, model.config)
    if folder is not None and tokenizer_files(folder):
        own = {"hf_tokenizer_name": str(folder)} if "hf_model_name" in config["text_cfg"] else {}
        config["text_cfg"] = {**config["text_cfg"], **own}
    if model.activation == "quickgelu":
        config["quick_gelu"] = True
    return Described(config, preprocess, nn.Module.eval)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes`; nested dicts are merged, or replaced where kinds differ."""
    result = dict(base)
    for key, value in changes.items():
        if key == "text_cfg" and "hf_model_name" in value:
            result[key] = dict(value)  # another kind of tower: nothing of CLIP's is left
        elif isinstance(value, Mapping):
            result[key] = _merged(result.get(key, {}), value)
        else:
            result[key] = value
    return result
