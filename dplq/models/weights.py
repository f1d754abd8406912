"""Weights files of published models on this machine: the hub's cache, and the folder of `get`."""

from __future__ import annotations

from pathlib import Path

from dplq.errors import UserError, one_line
from dplq.io.files import cache_root
from dplq.models.catalogue import PublishedModel, catalogue

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
KEYS = {
    "clip": ("MODEL.BACKBONE.NAME", "MODEL.INIT_WEIGHTS"),
    "encoder": ("DOMAIN.ENCODER", "DOMAIN.WEIGHTS"),
}


def models_folder(name: str) -> Path:
    """Return the folder of a model's weights outside the hub's cache; it may not exist yet."""
    return cache_root() / "models" / name


def weights_on_disk(name: str) -> Path | None:
    """Return the weights file of a model of the catalogue, if it is on this machine.

    Its folder of `models_folder` goes before the hub's cache. Nothing is downloaded.

    Raises:
        UserError: the folder holds several weights files, none with the published name.
    """
    model, folder = catalogue()[name], models_folder(name)
    if folder.is_dir():
        return _in_folder(model, folder) or _in_hub_cache(model)
    return _in_hub_cache(model)


def _in_folder(model: PublishedModel, folder: Path) -> Path | None:
    """Return the published file in a folder, or the only weights file there."""
    if model.file and (named := folder / Path(model.file).name).is_file():
        return named
    found = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    if len(found) > 1:
        raise UserError(
            f"'{folder}' holds {len(found)} weights files ({', '.join(p.name for p in found)}): "
            "leave one, or name it with weights=PATH"
        )
    return found[0] if found else None


def _in_hub_cache(model: PublishedModel) -> Path | None:
    """Return the published file in the cache of huggingface_hub."""
    if not (model.hub and model.file):
        return None
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(model.hub, model.file)
    except ValueError as error:  # its cache folder is damaged
        raise UserError(
            f"The cache of huggingface_hub cannot be read ({one_line(error)})"
        ) from error
    return Path(found) if isinstance(found, str) else None


def require_weights(name: str) -> Path:
    """Return the weights file of a model of the catalogue.

    Raises:
        UserError: it is not on this machine; says which file, where from, and how to get it.
    """
    found = weights_on_disk(name)
    if found is None:
        raise UserError(f"The weights of '{name}' are not on this machine. {how_to_get(name)}")
    return found


def how_to_get(name: str) -> str:
    """Return how to get a model's weights, as sentences for messages."""
    model = catalogue()[name]
    file = f"the file {Path(model.file).name}" if model.file else "its weights file"
    folder = models_folder(name)
    by_hand = (
        f"put {file} from {model.source} into {folder}, or name it with weights=PATH "
        f"({KEYS[model.kind][1]})"
    )
    if not model.can_be_downloaded:
        return f"{name} has no automatic download: {by_hand}."
    return f"Run `dplq models get {name}` where there is a network, or {by_hand}."
