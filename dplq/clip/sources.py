"""Resolve a backbone's name to its architecture and weights file.

Names, pretrained tags, the Hugging Face hub, local folders and files, packaged models.
`dplq.clip.load` builds and loads the result.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from torch import Tensor, nn

from dplq.clip.installed import architecture, architectures, pretrained_tables
from dplq.clip.layouts import conch, transformers_config
from dplq.clip.published import describe_published
from dplq.errors import UserError, few, printable, suggest
from dplq.images.model_input import SHORTEST
from dplq.io.hub import Unavailable, first_file, hub_access, hub_problem
from dplq.io.packaged import packaged_model
from dplq.io.shared import is_hub_name, split_hub_name
from dplq.io.spec import HUB, LOCAL_DIR, Spec
from dplq.io.validation.paths import is_file, user_path
from dplq.io.validation.schema import convert, read_json
from dplq.models.catalogue import PublishedModel, published, published_names
from dplq.models.weights import SUFFIXES, require_weights

# CoOp's names for OpenAI's models -> open_clip's; these weights were trained with QuickGELU.
OPENAI_VITS = {
    "ViT-B/16": "ViT-B-16",
    "ViT-B/32": "ViT-B-32",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
OPENAI_RESNETS = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")
HF_HUB = HUB[0]
logger = logging.getLogger(__name__)

CONFIG_FILE = "open_clip_config.json"
# What open_clip itself writes, in its order of preference.
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
# ... and what the transformers library writes.
TRANSFORMERS_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")

CLIP_VOCABULARY = 49408
Width = Annotated[int, Meta(ge=1, le=1 << 16)]
# no tuple: a union of a bounded number and a tuple crashes the garbage collector in msgspec 0.22
Pair = Annotated[list[Width], Meta(min_length=2, max_length=2)]
Layers = Annotated[int, Meta(ge=1, le=1 << 10)]
Stages = Annotated[list[Layers], Meta(min_length=4, max_length=4)]  # of a ResNet
Ratio = Annotated[float, Meta(gt=0)]


class Vision(msgspec.Struct):
    """What an open_clip config says of the image tower; keys that are not here open_clip checks."""

    layers: Layers | Stages = 12
    width: Width = 768
    head_width: Width = 64
    mlp_ratio: Ratio = 4.0
    patch_size: Width | None = 16
    image_size: Width | Pair = 224


class Text(msgspec.Struct):
    """The same for the text tower."""

    context_length: Width = 77
    vocab_size: Annotated[int, Meta(ge=1, le=1 << 24)] = CLIP_VOCABULARY
    width: Width = 512
    heads: Width = 8
    layers: Layers = 12
    mlp_ratio: Ratio = 4.0
    tokenizer_kwargs: dict[str, Any] | None = None


class Model(msgspec.Struct):
    """The architecture in an open_clip config."""

    embed_dim: Width
    vision_cfg: Vision
    text_cfg: Text


class Preprocess(msgspec.Struct):
    """How images are prepared for the model."""

    size: Width | Pair = 224
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[Ratio, Ratio, Ratio] = (1.0, 1.0, 1.0)
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"


class ConfigFile(msgspec.Struct):
    """Content of an `open_clip_config.json`: types and ranges, for validation only."""

    model_cfg: Model
    preprocess_cfg: Preprocess | None = None


@dataclass
class Source:
    """A model's architecture and weights file.

    Attributes:
        name: as the user wrote it, for messages.
        spec: record of the origin; its digest is added when the file is loaded.
        config: open_clip's model config.
        preprocess: open_clip's preprocessing config; may be empty.
        file: the weights; None for random ones.
        unpack: turns the file's tensors into a state dict, where a packaged file is compact.
        finish: sets on the built model what open_clip's config has no entry for.
        act_is_known: False where its publishers do not say with which activation it was trained.
    """

    name: str
    spec: Spec
    config: dict[str, Any]
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    unpack: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    finish: Callable[[nn.Module], object] = nn.Module.eval  # nothing: a CLIP is in eval mode anyway
    act_is_known: bool = True


def find_source(name: str, weights: str, pretrained: bool, seed: int) -> Source:
    """Resolve a config string; nothing is built yet and no weights are loaded.

    Args:
        name: as for `dplq.load_backbone`.
        weights: path of the user's own weights, or "".
        pretrained: False for random weights.
        seed: of random weights.

    Raises:
        UserError: as for `dplq.load_backbone`, but for the content of the weights.
    """
    if weights and not pretrained:
        raise UserError(
            f"weights='{weights}' names a checkpoint and pretrained=False requests random weights; "
            "use one of the two"
        )
    spec = Spec(name, pretrained=pretrained, seed=seed)
    packaged, known = packaged_model(name), published(name, "clip")
    find_file = pretrained and not weights
    if packaged is not None:
        source = _from_package(spec, packaged, find_file)
    elif known is not None:
        source = _from_catalogue(replace(spec, name=name.lower()), known, weights)
    elif spec.folder is not None:
        source = _from_local_dir(spec, user_path(spec.folder, LOCAL_DIR), find_file)
    elif is_hub_name(name):
        source = _from_hf_hub(spec, find_file)
    else:
        source = _from_name(spec, weights)
    if weights:
        _use_file(source, weights)
    return source


def _from_package(spec: Spec, package: ModuleType, find_file: bool) -> Source:
    """Resolve a model whose weights are part of this package."""
    file = package.ASSETS / package.CLIP_FILE if find_file else None
    return Source(spec.name, spec, package.CLIP_CONFIG, file=file, unpack=package.expand_tokens)


def _from_catalogue(spec: Spec, model: PublishedModel, weights: str) -> Source:
    """Resolve a published model: `dplq models list`."""
    file = Path(weights) if weights else require_weights(spec.name) if spec.pretrained else None
    about = describe_published(spec.name, model, None if file is None else file.parent)
    source = Source(spec.name, spec, about.config, about.preprocess, file, finish=about.finish)
    source.act_is_known = model.activation is not None
    return source


def _use_file(source: Source, path: str) -> None:
    """Set the user's own file as the weights."""
    source.file = _existing_file(path)
    source.spec = replace(source.spec, weights=source.file.name)


def _existing_file(path: str) -> Path:
    """Return `path` if it is an existing file."""
    file = user_path(path, "weights (MODEL.INIT_WEIGHTS)")
    if not file.is_file():
        raise UserError(f"no weights at '{file.absolute()}'; use the path of a checkpoint file")
    return file


def _from_local_dir(spec: Spec, folder: Path, find_file: bool) -> Source:
    """Resolve local-dir:PATH."""
    config, other = folder / CONFIG_FILE, folder / transformers_config.CONFIG_FILE
    names: Sequence[str] = WEIGHT_FILES
    if is_file(config):
        source = _from_config_file(spec, config)
    elif is_file(other):
        source = _from_transformers(spec, other, folder / transformers_config.PREPROCESSOR_FILE)
        names = TRANSFORMERS_WEIGHT_FILES
    else:
        raise UserError(
            f"'{spec.name}': no {CONFIG_FILE} in '{folder.absolute()}'; a local model is a folder "
            "with that file and its weights, as open_clip publishes it, or with the config.json "
            "and model.safetensors of the transformers library"
        )
    if find_file:
        source.file = _weights_in(folder, names)
    return source


def _from_transformers(
    spec: Spec, config: Path, preprocessor: Path | None, repository: str = ""
) -> Source:
    """Return the source described by a config.json of the transformers library, no weights."""
    described = transformers_config.describe(config, preprocessor, repository)
    return Source(spec.name, spec, described.config, described.preprocess, finish=described.finish)


def _from_config_file(spec: Spec, path: Path) -> Source:
    """Return the source described by an `open_clip_config.json`, without weights."""
    remedy = (
        "An open_clip config is JSON with 'model_cfg' holding embed_dim, vision_cfg and text_cfg: "
        "correct it, or get it again."
    )
    content: dict[str, Any] = read_json(path, dict[str, Any], remedy=remedy, max_bytes=1 << 20)
    convert(content, ConfigFile, where=printable(str(path)), remedy=remedy)
    config = content["model_cfg"]
    return Source(spec.name, spec, config, content.get("preprocess_cfg") or {})


def _weights_in(folder: Path, names: Sequence[str]) -> Path:
    """Return the folder's weights: the first of the usual names, or the only such file."""
    for known in names:
        if (folder / known).is_file():
            return folder / known
    found = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)
    if len(found) != 1:
        there = few(p.name for p in found) or "none"
        raise UserError(
            f"expected {names[0]} or one single weights file in '{folder.absolute()}', "
            f"found {there}; name one with weights=PATH, or request random weights with "
            "pretrained=False (MODEL.BACKBONE.PRETRAINED False)"
        )
    return found[0]


def _from_hf_hub(spec: Spec, find_file: bool) -> Source:
    """Resolve hf-hub:ORG/NAME, or hf-hub:ORG/NAME@REVISION: open_clip's files, or transformers'."""
    own, other = CONFIG_FILE, transformers_config.CONFIG_FILE
    get = partial(_hub_file, spec.name)
    names: Sequence[str] = WEIGHT_FILES
    config = get((own, other))
    if config is None:
        raise UserError(f"'{spec.name}' holds neither {own} nor {other}: it is no CLIP")
    if config.name == own:
        source = _from_config_file(spec, config)
    else:
        preprocessor = get((transformers_config.PREPROCESSOR_FILE,))
        model = spec.name.partition(":")[2]
        source = _from_transformers(spec, config, preprocessor, model)
        names = TRANSFORMERS_WEIGHT_FILES
    if find_file:
        source.file = get(names)
        if source.file is None:
            raise UserError(
                f"'{spec.name}' holds none of the weights {few(names)}: download its weights and "
                "name them with weights (MODEL.INIT_WEIGHTS)"
            )
    return source


def _hub_file(name: str, files: Sequence[str]) -> Path | None:
    """Return the first of some files that a repository of the hub has; None: it has none of them.

    Raises:
        UserError: whether it has them is not known, or they cannot be downloaded.
    """
    repository, revision = split_hub_name(name)
    try:
        return first_file(repository, files, revision)
    except Unavailable as error:
        version = f"/tree/{revision}" if revision else ""
        raise UserError(
            f"cannot get {error.file} of '{name}' ({error}); check the name, use a machine with "
            f"access to the hub, or download the folder https://huggingface.co/{repository}"
            f"{version} and name it local-dir:PATH"
        ) from error


def _from_name(spec: Spec, weights: str) -> Source:
    """Resolve NAME, NAME:TAG or NAME:PATH, NAME being CoOp's or open_clip's."""
    name, pretrained = spec.name, spec.pretrained
    model, _, tag = name.partition(":")
    from_openai = _is_openai(model) and (not tag or not _is_tag(model, tag))
    arch = _architecture_name(model)
    known = (*architectures(), conch.NAME)
    if arch not in known:
        raise UserError(
            f"unknown CLIP model '{model}'; write a CoOp name, NAME:TAG, NAME:PATH, "
            f"{HF_HUB}ORG/NAME, {LOCAL_DIR}PATH or a name of `dplq models list`."
            + suggest(model, [*OPENAI_VITS, *architectures(), *published_names("clip"), conch.NAME])
        )
    if arch == conch.NAME:
        source = Source(name, spec, (own := conch.describe()).config, finish=own.finish)
    else:
        source = Source(name, spec, architecture(arch))
    if from_openai:
        source.config["quick_gelu"] = True
    is_tag = bool(tag) and _is_tag(model, tag)
    if tag and weights and not is_tag:
        raise UserError(
            f"'{name}' names weights already and weights='{weights}' names others; use one"
        )
    if tag and not is_tag:
        if not pretrained:
            raise UserError(
                f"'{name}' names weights and pretrained=False requests random ones: leave out one"
            )
        source.spec = replace(spec, name=model)
        _use_file(source, _tag_as_file(arch, tag))
    elif is_tag or not weights:
        tag = tag or ("openai" if from_openai else "")
        _use_tag(source, arch, tag, download=not weights)
    elif not from_openai:
        _warn_of_preprocessing(name, arch)
    return source


def _warn_of_preprocessing(name: str, arch: str) -> None:
    """Warn where all published weights of an architecture want other images than OpenAI's CLIPs."""
    tables = pretrained_tables()
    tags = tables.list_pretrained_tags_by_model(arch)
    if tags and not any(_has_usual_images(tables.get_pretrained_cfg(arch, tag)) for tag in tags):
        logger.warning(
            "%s: images are prepared as for OpenAI's CLIPs, but all published weights of %s want "
            "others: name the model with its tag, such as '%s:%s', beside your file.",
            *(name, arch, name, tags[0]),
        )


def _has_usual_images(published: Mapping[str, Any]) -> bool:
    """Return whether the images of a tag of open_clip are prepared as those of OpenAI's CLIPs."""
    tables = pretrained_tables()
    usual = {
        "mean": tables.OPENAI_DATASET_MEAN,
        "std": tables.OPENAI_DATASET_STD,
        "resize_mode": SHORTEST,
    }
    return all((published.get(key) or value) == value for key, value in usual.items())


def _is_openai(model: str) -> bool:
    """Return whether a name is CoOp's, of one of OpenAI's models."""
    return model in OPENAI_VITS or model in OPENAI_RESNETS


def _architecture_name(model: str) -> str:
    """Return open_clip's name of a model, by CoOp's name or its own."""
    return OPENAI_VITS.get(model, model.replace("/", "-"))


def _is_tag(model: str, tag: str) -> bool:
    """Return whether open_clip has `tag` for the model, by CoOp's name or its own."""
    is_pretrained_cfg = pretrained_tables().is_pretrained_cfg

    return is_pretrained_cfg(_architecture_name(model), tag)


def _tag_as_file(arch: str, tag: str) -> str:
    """Return `tag`, which is no tag of `arch`, if it can be a path."""
    list_pretrained_tags_by_model = pretrained_tables().list_pretrained_tags_by_model

    if Path(tag).suffix in SUFFIXES or "/" in tag or os.sep in tag or os.path.isfile(tag):
        return tag
    raise UserError(
        f"'{tag}' is neither a pretrained tag of {arch} nor a checkpoint file."
        + suggest(tag, list_pretrained_tags_by_model(arch))
    )


def _use_tag(source: Source, arch: str, tag: str, *, download: bool) -> None:
    """Set activation, preprocessing and, if pretrained, the downloaded weights of a tag.

    Args:
        source: that is changed.
        arch: open_clip's name of the architecture.
        tag: of it.
        download: False where its file is the user's own.
    """
    pretrained_models = pretrained_tables()

    if not tag:
        if source.spec.pretrained:
            raise UserError(
                f"'{source.name}' does not say which weights: write {arch}:TAG, {arch}:PATH, or "
                f"pretrained=False (MODEL.BACKBONE.PRETRAINED False) for random ones. Tags: "
                f"{', '.join(pretrained_models.list_pretrained_tags_by_model(arch)) or 'none'}."
            )
        return
    published = pretrained_models.get_pretrained_cfg(arch, tag)
    source.preprocess = published
    if published.get("quick_gelu") or tag == "openai":
        source.config["quick_gelu"] = True
    if not (source.spec.pretrained and download):
        return
    try:
        with hub_access():
            source.file = Path(pretrained_models.download_pretrained(published))
    except Exception as error:
        raise UserError(
            f"cannot get the weights of '{source.name}' (open_clip tag {arch}:{tag}; "
            f"{hub_problem(error)}); run this once where there is a network, or get the file "
            f"{_published_file(published)}, put it anywhere and name it with weights=PATH "
            f"(MODEL.INIT_WEIGHTS) beside '{source.name}', or request random weights with "
            "pretrained=False (MODEL.BACKBONE.PRETRAINED False)"
        ) from error


def _published_file(published: Mapping[str, Any]) -> str:
    """Return which file open_clip would download, and from where."""
    hub, url = published.get("hf_hub") or "", published.get("url") or ""
    places = []
    if hub:
        repository, _, name = hub.rpartition("/")
        places.append(f"{name or WEIGHT_FILES[0]} of https://huggingface.co/{repository}")
    if url:
        places.append(url)
    return " or ".join(places)
