"""Where a backbone's architecture and weights come from: names, tags, the hub, folders, files.

`find_source` resolves a config string, `build` makes the architecture, `load_weights` fills it. It
knows open_clip's model list and the layouts of CLIP's files, and nothing of prompts but which
architectures have no place for them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dplq.errors import UserError, suggest
from dplq.io.weights import Undrawn, brief, few, looks_like, private_rng, read_state_dict

logger = logging.getLogger(__name__)

# CoOp's names for OpenAI's models -> open_clip's; these weights were trained with QuickGELU.
OPENAI_VITS = {
    "ViT-B/16": "ViT-B-16",
    "ViT-B/32": "ViT-B-32",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
OPENAI_RESNETS = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")
HF_HUB = "hf-hub:"
LOCAL_DIR = "local-dir:"
DEMO = "demo"
CONFIG_FILE = "open_clip_config.json"
# What open_clip itself writes, in its order of preference.
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")

# Strict loading: a file may hold these keys beyond the model's. OpenAI's own files keep three plain
# numbers as buffers; causal masks are computed; a sigmoid model's bias is one constant for all
# classes, which softmax, argmax and cross-entropy do not see.
OPENAI_NUMBERS = frozenset({"input_resolution", "context_length", "vocab_size"})
KEYS_LEFT_OVER = OPENAI_NUMBERS | {"attn_mask", "text.attn_mask", "logit_bias"}
# ... and the model may have these beyond the file's.
KEYS_MISSING = frozenset({"logit_bias"})
CLIP_VOCABULARY = 49408

WHAT_CAN = (
    "Prompts need a plain ViT and CLIP's causal text transformer: "
    + ", ".join(OPENAI_VITS)
    + ", or open_clip models such as ViT-B-32:laion2b_s34b_b79k or ViT-L-14:datacomp_xl_s13b_b90k."
)


@dataclass
class Source:
    """Where a model's architecture and weights come from."""

    name: str
    config: dict[str, Any]
    preprocess: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None
    # Turns the file's tensors into a state dict, where it holds something more compact.
    unpack: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    # What stands in the spec: the name without a path, the user's file, whether a file was local.
    spec_name: str = ""
    spec_weights: str = ""
    local: bool = False


def find_source(name: str, weights: str, pretrained: bool) -> Source:
    """Resolve a config string; nothing is built yet and no model file read."""
    if weights and not pretrained:
        raise UserError(
            f"weights='{weights}' names a checkpoint and pretrained=False asks for random weights; "
            "give one of the two"
        )
    if name == DEMO:
        source = _from_package(find_file=pretrained and not weights)
    elif name.startswith(LOCAL_DIR):
        source = _from_local_dir(name, find_file=pretrained and not weights)
    elif name.startswith(HF_HUB):
        source = _from_hf_hub(name, find_file=pretrained and not weights)
    else:
        source = _from_name(name, weights, pretrained)
    if weights:
        _use_file(source, weights)
    return source


def _from_package(find_file: bool) -> Source:
    """The demo's tiny CLIP, whose weights come with this project."""
    from dplq.demo import models

    file = models.ASSETS / models.CLIP_FILE if find_file else None
    return Source(DEMO, models.CLIP_CONFIG, file=file, unpack=models.expand_tokens)


def _use_file(source: Source, path: str) -> None:
    """Take the weights of the user's own file."""
    source.file, source.local = _existing_file(path), True
    source.spec_weights = source.file.name


def _existing_file(path: str) -> Path:
    """Return the path of a file that is there."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"no weights at '{file.absolute()}'; give the path of a checkpoint file")
    return file


def _from_local_dir(name: str, find_file: bool) -> Source:
    """Resolve local-dir:PATH."""
    folder = Path(name[len(LOCAL_DIR) :]).expanduser()
    config = folder / CONFIG_FILE
    if not config.is_file():
        raise UserError(
            f"'{name}': no {CONFIG_FILE} in '{folder.absolute()}'; a local model is a folder with "
            f"that file and its weights, as open_clip publishes it"
        )
    source = _from_config_file(name, config)
    if find_file:
        source.file, source.local = _weights_in(folder), True
    return source


def _from_config_file(name: str, path: Path) -> Source:
    """Read an `open_clip_config.json`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = content["model_cfg"]
        config = {key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")} | config
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{path}' is not an open_clip config: expected JSON with 'model_cfg' holding "
            f"embed_dim, vision_cfg and text_cfg ({type(error).__name__}: {error})"
        ) from error
    _refuse_unpromptable(name, config)
    return Source(name, config, content.get("preprocess_cfg") or {})


def _weights_in(folder: Path) -> Path:
    """Return the folder's weights: open_clip's own file names, or the only such file."""
    for known in WEIGHT_FILES:
        if (folder / known).is_file():
            return folder / known
    found = sorted(p for p in folder.iterdir() if p.suffix in WEIGHT_SUFFIXES)
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise UserError(
            f"expected {WEIGHT_FILES[0]} or one single weights file in '{folder.absolute()}', "
            f"found {names}; name one with weights=PATH, or ask for random weights with "
            "pretrained=False"
        )
    return found[0]


def _from_hf_hub(name: str, find_file: bool) -> Source:
    """Resolve hf-hub:ORG/NAME through open_clip's own download."""
    from open_clip.pretrained import download_pretrained_from_hf

    model_id = name[len(HF_HUB) :]
    cure = "use a machine with access to the hub, or download the folder and name it local-dir:PATH"
    try:
        config = download_pretrained_from_hf(model_id, filename=CONFIG_FILE)
    except Exception as error:  # the hub client has a dozen kinds, all meaning "not to be had"
        raise UserError(
            f"cannot get {CONFIG_FILE} of '{name}' ({brief(error)}); check the name, {cure}"
        ) from error
    source = _from_config_file(name, Path(config))
    if find_file:
        try:
            source.file = Path(download_pretrained_from_hf(model_id))
        except Exception as error:
            raise UserError(f"cannot get weights of '{name}' ({brief(error)}); {cure}") from error
    return source


def _from_name(name: str, weights: str, pretrained: bool) -> Source:
    """Resolve NAME, NAME:TAG or NAME:PATH, NAME being CoOp's or open_clip's."""
    import open_clip

    model, _, tag = name.partition(":")
    if model in OPENAI_RESNETS:
        raise UserError(f"'{model}' is a ResNet: it has no tokens to prompt. {WHAT_CAN}")
    from_openai = model in OPENAI_VITS and (not tag or not _is_tag(model, tag))
    arch = OPENAI_VITS.get(model, model.replace("/", "-"))
    if arch not in open_clip.list_models():
        raise UserError(
            f"unknown CLIP model '{model}'; write a CoOp name, NAME:TAG, NAME:PATH, "
            f"{HF_HUB}ORG/NAME or {LOCAL_DIR}PATH."
            + suggest(model, [*OPENAI_VITS, *_promptable_names()])
        )
    source = Source(name, open_clip.get_model_config(arch))
    _refuse_unpromptable(name, source.config)
    if from_openai:
        source.config["quick_gelu"] = True
    if tag and weights:
        raise UserError(
            f"'{name}' names weights already and weights='{weights}' names others; give one"
        )
    if tag and not _is_tag(model, tag):
        if not pretrained:
            raise UserError(f"'{name}' names weights and pretrained=False asks for random ones")
        _use_file(source, _tag_as_file(arch, tag))
        source.spec_name = model
    elif not weights:
        tag = tag or ("openai" if from_openai else "")
        _use_tag(source, arch, tag, pretrained)
    return source


def _is_tag(model: str, tag: str) -> bool:
    """Return whether open_clip knows `tag` for the model, CoOp's name or its own."""
    from open_clip.pretrained import is_pretrained_cfg

    return is_pretrained_cfg(OPENAI_VITS.get(model, model.replace("/", "-")), tag)


def _tag_as_file(arch: str, tag: str) -> str:
    """Return `tag`, which is no tag of `arch`, if it can be meant as a path."""
    from open_clip.pretrained import list_pretrained_tags_by_model

    if Path(tag).suffix in WEIGHT_SUFFIXES or "/" in tag or os.sep in tag or Path(tag).is_file():
        return tag
    raise UserError(
        f"'{tag}' is neither a pretrained tag of {arch} nor a checkpoint file."
        + suggest(tag, list_pretrained_tags_by_model(arch))
    )


def _use_tag(source: Source, arch: str, tag: str, pretrained: bool) -> None:
    """Set activation, normalisation and, if wanted, the downloaded weights of a pretrained tag."""
    from open_clip.pretrained import (
        download_pretrained,
        get_pretrained_cfg,
        list_pretrained_tags_by_model,
    )

    if not tag:
        if pretrained:
            raise UserError(
                f"'{source.name}' does not say which weights: write {arch}:TAG, {arch}:PATH, or "
                f"pretrained=False for random ones. Tags: "
                f"{', '.join(list_pretrained_tags_by_model(arch)) or 'none'}."
            )
        return
    published = get_pretrained_cfg(arch, tag)
    source.preprocess = published
    if published.get("quick_gelu") or tag == "openai":
        source.config["quick_gelu"] = True
    if not pretrained:
        return
    try:
        source.file = Path(download_pretrained(published))
    except Exception as error:
        raise UserError(
            f"cannot get the weights of '{source.name}' (open_clip tag {arch}:{tag}; "
            f"{brief(error)}); use a machine with access to them once, copy the file and name it "
            f"with weights=PATH (MODEL.INIT_WEIGHTS), or ask for random weights with "
            f"pretrained=False"
        ) from error


def _refuse_unpromptable(name: str, config: Mapping[str, Any]) -> None:
    """Raise for the architectures that have no place for prompts, before anything is downloaded."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    image_pool = "avg" if vision.get("global_average_pool") else vision.get("pool_type", "tok")
    text_pool = text.get("pool_type", "argmax")
    timm, hf = vision.get("timm_model_name"), text.get("hf_model_name")
    tokenizer, words = text.get("hf_tokenizer_name"), text.get("vocab_size", CLIP_VOCABULARY)
    checks = (
        ("multimodal_cfg" in config, "it is a CoCa model, its towers pool by attention"),
        (isinstance(vision.get("layers"), list | tuple), "its image tower is a ResNet"),
        (timm, f"its image tower is timm's {timm}, not open_clip's ViT"),
        (vision.get("attentional_pool"), "its image tower pools by attention"),
        (image_pool != "tok", f"its image tower pools by '{image_pool}', not at the class token"),
        (hf, f"its text tower is Hugging Face's {hf}, not CLIP's causal transformer"),
        (text.get("no_causal_mask"), "its text tower is not causal"),
        (text.get("embed_cls"), "its text tower appends a class token"),
        (
            text_pool != "argmax",
            f"its text tower pools by '{text_pool}', not CLIP's 'argmax' (EOT)",
        ),
        (tokenizer, f"its tokenizer is {tokenizer}, not CLIP's"),
        (words != CLIP_VOCABULARY, f"it has {words} words, CLIP's tokenizer {CLIP_VOCABULARY}"),
    )
    reasons = "; ".join(reason for holds, reason in checks if holds)
    if reasons:
        raise UserError(f"'{name}' cannot take prompts: {reasons}. {WHAT_CAN}")


def _promptable_names() -> list[str]:
    """Return open_clip's model names that `_refuse_unpromptable` lets pass."""
    import open_clip

    names = []
    for name in open_clip.list_models():
        with contextlib.suppress(UserError):
            _refuse_unpromptable(name, open_clip.get_model_config(name))
            names.append(name)
    return names


def build(source: Source, seed: int) -> nn.Module:
    """Build the architecture on the CPU, with random weights of a private generator.

    Where a file has the weights they are left as the memory was: `load_weights` must follow.
    """
    import open_clip
    from open_clip.version import __version__ as version

    config = {key: value for key, value in source.config.items() if key != "custom_text"}
    kind = open_clip.CustomTextCLIP if source.config.get("custom_text") else open_clip.CLIP
    undrawn = contextlib.nullcontext() if source.file is None else Undrawn()
    with private_rng(seed), torch.device("cpu"), undrawn:
        try:
            return kind(**config)
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(
                f"open_clip {version} cannot build the architecture of '{source.name}' "
                f"({brief(error)}); correct its config or install a newer open_clip_torch"
            ) from error


# --- weights ------------------------------------------------------------------------------------


def load_weights(model: nn.Module, source: Source) -> None:
    """Copy the file's weights into `model`, strictly."""
    assert source.file is not None
    ours = model.state_dict()
    theirs = _in_layout_of(ours, source.unpack(read_state_dict(source.file)))
    if theirs.keys() & OPENAI_NUMBERS and not source.config.get("quick_gelu"):
        logger.warning(
            "%s is in OpenAI's own layout, whose models were trained with QuickGELU, but %s uses "
            "GELU: name the model as CoOp does (%s) or by its -quickgelu name",
            *(source.file.name, source.name, ", ".join(OPENAI_VITS)),
        )
    if not _architecture(theirs):
        raise UserError(
            f"'{source.file}' holds no ViT CLIP in OpenAI's or open_clip's layout (such as "
            f"visual.conv1.weight, token_embedding.weight): it looks like {looks_like(theirs)} and "
            f"cannot be loaded into '{source.name}'. A ResNet has no tokens to prompt; files of "
            "the transformers library (vision_model.*, text_model.*) have to be converted to "
            "open_clip's layout first"
        )
    _compare(source, _architecture(ours), _architecture(theirs))
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
    with torch.no_grad():
        for key, value in ours.items():
            if key in theirs:
                value.copy_(theirs[key].reshape(value.shape))


def _count(what: str, keys: Sequence[str]) -> str:
    """Return how many keys have the problem, and the first few of them."""
    return f"{len(keys)} keys {what}{f' ({few(keys)})' if keys else ''}"


def _in_layout_of(ours: Mapping[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the text tower's keys to or from `text.`: CLIP keeps them flat, CustomTextCLIP not."""
    tower = (
        "text_projection",
        "positional_embedding",
        "token_embedding.",
        "transformer.",
        "ln_final.",
    )
    if any(key.startswith("text.") for key in ours):
        return {f"text.{k}" if k.startswith(tower) else k: v for k, v in theirs.items()}
    return {k.removeprefix("text."): v for k, v in theirs.items()}


def _architecture(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what the shapes of a CLIP's state dict say about it; empty if it is no ViT CLIP."""
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


def _compare(source: Source, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raise if two `_architecture` differ; `theirs` is the file's."""
    differing = [key for key in ours if ours[key] != theirs[key]]
    if differing:
        raise UserError(
            f"'{source.file}' is of another architecture than '{source.name}': the file has "
            + ", ".join(f"{key} {theirs[key]}" for key in differing)
            + "; the model has "
            + ", ".join(f"{key} {ours[key]}" for key in differing)
            + ". Name the model that the file was made with"
        )
