"""Building of an encoder's network with timm: architecture, size, statistics."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dplq.domain.arguments import Changes, arguments_text, with_layers
from dplq.domain.recipes import NAMES, CheckpointFormat, Recipe
from dplq.domain.repository import Repository, find_file
from dplq.errors import UserError, nearest, one_line, shown, suggest
from dplq.io.hub import hub_access, hub_problem
from dplq.models.catalogue import published, published_names

logger = logging.getLogger(__name__)
_DOWNLOAD_BY_HAND = (
    "Download the weights by other means and set weights (DOMAIN.WEIGHTS) to the local file"
)
TIMM_FILES = ("model.safetensors", "pytorch_model.bin")  # as timm looks for them on the hub
# What timm raises for weights that it has, but that do not fit.
_MISFITS = ("state_dict", "size mismatch", "shape", "inconsistent")
# timm's arguments that count blocks: in all, by stage.
COUNTS = ("depth", "depths", "layers", "serial_depths", "stages")
# What users write for no encoder at all, where "none" is meant.
NO_NAMES = ("none", "null", "~", "")
_MISUSES = (TypeError, ValueError, KeyError, AttributeError, AssertionError, NotImplementedError)


def build_recipe(
    name: str, recipe: Recipe, changes: Changes, state: Mapping[str, Tensor] | None
) -> tuple[Any, Recipe]:
    """Build a published encoder, without its weights.

    Args:
        name: of the encoder, for messages.
        recipe: how it is published.
        changes: what differs from that.
        state: the tensors of its file; fine-tuned MAE is recognised by its norm.

    Returns:
        The timm model, and the recipe with the changes.
    """
    args = {**recipe.model_args, **_of_fine_tuning(recipe.timm_name, state), **changes.args}
    side = changes.image_size or changes.args.get("img_size") or recipe.image_size
    if changes.image_size:
        args["img_size"] = side
    resolution = recipe.resolution
    if resolution:
        resolution = _resolution(args.pop("resolution", resolution))
    model = create(name, recipe.timm_name, **args)
    return model, replace(recipe, image_size=side, resolution=resolution)


def _resolution(given: Any) -> float:
    """Return Scale-MAE's metres per pixel, an argument of its own."""
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < 1e6:
        raise UserError(
            f"args (DOMAIN.ARGS): resolution is {shown(given)}; it must be metres per pixel, such "
            "as 0.3"
        )
    return float(given)


def build_timm(
    name: str, changes: Changes, state: Mapping[str, Tensor] | None, *, download: bool
) -> tuple[Any, Recipe]:
    """Build any timm model; timm fetches the weights if `download`.

    Returns:
        The model, and a recipe with timm's statistics and size.
    """
    _check_timm_name(name, download)
    args = {**_of_fine_tuning(name, state), **changes.args}
    model = create(name, name, pretrained=download, **_sized(args, changes))
    return model, _recipe_of(name, model, changes)


def download_timm_weights(name: str) -> Path | None:
    """Return timm's own weights of a model, downloaded where need be; nothing is built.

    None where they are not on the hub: timm gets them when the model is built.

    Raises:
        UserError: unknown name, no such weights, or no access to them.
    """
    import timm

    _check_timm_name(name, download=True)
    known = timm.get_pretrained_cfg(name)
    if known is None or not known.hf_hub_id or known.file:
        return None
    files = (known.hf_hub_filename,) if known.hf_hub_filename else TIMM_FILES
    return find_file(name, known.hf_hub_id, files)


def _check_timm_name(name: str, download: bool) -> None:
    """Refuse (UserError) what timm does not know, or has no weights of where they are wanted."""
    import timm

    if name.strip().lower() in NO_NAMES:
        raise UserError(
            f"unknown domain encoder '{name}'. For no domain feature set DOMAIN.ENCODER to none; "
            "in Python give the model domain=None"
        )
    if not timm.is_model(name) and published(name, "clip"):
        raise UserError(
            f"domain encoder '{name}' is a CLIP: name it MODEL.BACKBONE.NAME; the encoder clip "
            "(DOMAIN.ENCODER clip) is the backbone's own image feature"
        )
    if not timm.is_model(name):
        near = nearest(name, [*timm.list_models(), *published_names("encoder")], limit=5)
        choices = [*NAMES, *near]
        raise UserError(
            f"unknown domain encoder '{name}': not one of ours or of `dplq models list`, not a "
            f"timm name and not 'hf-hub:org/name'.{suggest(name, choices)}"
        )
    # timm only warns when there is nothing to download, and the weights stay random.
    if download and not timm.models.is_model_pretrained(name):
        raise UserError(f"timm has no pretrained weights for '{name}'. {_DOWNLOAD_BY_HAND}")


def build_repository(
    name: str, found: Repository, changes: Changes, state: Mapping[str, Tensor] | None
) -> tuple[Any, Recipe]:
    """Build the encoder of a folder or hub repository, without its weights; see `build_timm`."""
    args = {**found.model_args, **_of_fine_tuning(found.architecture, state), **changes.args}
    model = create(
        name, found.architecture, pretrained_cfg=found.pretrained_cfg, **_sized(args, changes)
    )
    return model, _recipe_of(name, model, changes)


def _sized(args: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    return {**args, **({"img_size": changes.image_size} if changes.image_size else {})}


def _of_fine_tuning(timm_name: str, state: Mapping[str, Tensor] | None) -> dict[str, Any]:
    """Return the argument of a ViT whose file has its norm after the average, as MAE's finetuning.

    Of such a file the last norm is called `fc_norm`, and there is no `norm`.
    """
    import timm

    if not state or not timm.is_model(timm_name.partition(".")[0]):
        return {}
    leaves = {".".join(key.split(".")[-2:]) for key in state}
    module = timm.models.model_entrypoint(timm_name.partition(".")[0]).__module__
    is_vit = module.endswith(".vision_transformer")
    fits = is_vit and "fc_norm.weight" in leaves and "norm.weight" not in leaves
    return {"global_pool": "avg"} if fits else {}


def create(name: str, timm_name: str, *, pretrained: bool = False, **model_args: Any) -> Any:
    """Build a timm model without classifier; raise UserError where timm cannot.

    A model of any image size, such as a ResNet, has no argument `img_size`: it is left out.
    """
    import timm

    _check_counts(name, model_args)
    args, access = with_layers(model_args), hub_access() if pretrained else nullcontext()
    try:
        with access:
            return timm.create_model(timm_name, pretrained=pretrained, num_classes=0, **args)
    except Exception as error:  # the hub raises its HTTP client's own exceptions
        text = str(error)
        if isinstance(error, TypeError) and "'img_size'" in text and "img_size" in args:
            del model_args["img_size"]
            return create(name, timm_name, pretrained=pretrained, **model_args)
        what, cure = _explained(error, pretrained, model_args)
        why = hub_problem(error) if pretrained else one_line(error)
        raise UserError(f"domain encoder '{name}': {what} ({why}). {cure}") from error


def _check_counts(name: str, model_args: Mapping[str, Any]) -> None:
    """Refuse (UserError) an encoder without blocks, which timm builds."""
    for key in COUNTS:
        given = model_args.get(key)
        counts = given if isinstance(given, (list, tuple)) else [given]
        if any(isinstance(count, (int, float)) and count < 1 for count in counts):
            raise UserError(
                f"domain encoder '{name}': {key} is {shown(given)}, an encoder without blocks: it "
                "must be 1 or more (args, DOMAIN.ARGS; or the config.json of a folder)"
            )


def _explained(
    error: Exception, pretrained: bool, model_args: Mapping[str, Any]
) -> tuple[str, str]:
    """Return what went wrong in building, and what to do."""
    plain = {
        key: value for key, value in model_args.items() if isinstance(value, (int, float, str))
    }
    given = f" args (DOMAIN.ARGS) are {arguments_text(plain)}" if plain else ""
    is_misfit = isinstance(error, RuntimeError) and any(word in str(error) for word in _MISFITS)
    if pretrained and is_misfit:
        return "its pretrained weights do not fit", (
            f"Check what changes the architecture:{given or ' its name'}"
        )
    # The hub's client mixes OSError and ValueError.
    if pretrained and (isinstance(error, OSError) or not isinstance(error, _MISUSES)):
        return "its weights cannot be downloaded", _DOWNLOAD_BY_HAND
    cure = "Check the name; beside a local file give the architecture's timm name"
    return "timm cannot build it", f"Check{given}" if given else cure


def _recipe_of(name: str, model: Any, changes: Changes) -> Recipe:
    """Return size, statistics and format of a timm model; only square images are supported."""
    import timm

    data = timm.data.resolve_model_data_config(model)
    _, height, width = data["input_size"]
    if changes.image_size:
        height = width = changes.image_size
    elif "img_size" in changes.args:
        height = width = changes.args["img_size"]
    if height != width:
        raise UserError(
            f"domain encoder '{name}' requires {height}x{width} images; only square ones are "
            "supported: choose another encoder, or set image_size (DOMAIN.IMAGE_SIZE)"
        )
    mean, std = tuple(data["mean"]), tuple(data["std"])
    return Recipe(name, _timm_format(name, model), height, mean=mean, std=std)


def _timm_format(name: str, model: Any) -> CheckpointFormat:
    """Return timm's own format: the model's keys, and a classifier that is ignored.

    The classifier of LeViT, `head.linear`, is a part of a head with a norm: where the model, which
    is without it, has nothing of that head, all of it is ignored.
    """
    classifier = model.pretrained_cfg.get("classifier") or ()
    layers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    wholes = {layer: layer.rpartition(".")[0] or layer for layer in layers}
    own = model.state_dict().keys()
    heads = [
        layer if any(key.startswith(f"{whole}.") for key in own) else whole
        for layer, whole in wholes.items()
    ]
    # SigLIP's files hold an attention pooling that timm drops where a model pools otherwise.
    unused = ("attn_pool.", *(f"{head}." for head in heads))
    return CheckpointFormat(expected=f"timm's own state dict of {name}", unused=unused)
