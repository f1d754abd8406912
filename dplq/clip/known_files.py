"""Published CLIP checkpoints: which activation they were trained with, and how that is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from dplq.clip.installed import pretrained_tables
from dplq.clip.sources import TRANSFORMERS_WEIGHT_FILES, WEIGHT_FILES
from dplq.models.catalogue import PublishedModel, catalogue

SHA256_DIGITS = 64
GELU, QUICK_GELU = "gelu", "quickgelu"  # as the argument `act` has them


@dataclass(frozen=True)
class KnownFile:
    """Published files that were trained with one activation.

    Attributes:
        names: patterns of the names they are published under: of the file, of its folder, or of
            the repository on the Hugging Face hub.
        act: "gelu" or "quickgelu".
        reason: how that is known, for messages.
    """

    names: tuple[str, ...]
    act: str
    reason: str


# Names that any model's weights have: its folder or repository tells which.
USUAL_NAMES = {*WEIGHT_FILES, *TRANSFORMERS_WEIGHT_FILES}


@cache
def catalogue_files() -> tuple[KnownFile, ...]:
    """Return the catalogue's CLIPs whose activation is known; its file is read on first use."""
    return tuple(
        KnownFile(_names(name, model), model.activation, f"{model.title}: {model.note}")
        for name, model in catalogue().items()
        if model.kind == "clip" and model.activation
    )


def _names(name: str, model: PublishedModel) -> tuple[str, ...]:
    """Return patterns of the names that a published model's file, folder or repository has."""
    names = [name, *model.also_named]
    file = PurePosixPath(model.file or "")
    if file.name and file.name not in USUAL_NAMES:
        names.append(file.name)
    elif model.hub:
        names.append(model.hub.rpartition("/")[2])
    if model.url:
        address = PurePosixPath(model.url)
        names.append(address.stem if address.suffix == ".zip" else address.name)
    return tuple(names)


def find_known(file: Path, digest: str = "") -> KnownFile | None:
    """Return what is known of a file, by its digest, its name, its folder's or its repository's.

    Args:
        file: a checkpoint.
        digest: its sha256 in hex; "" where it was not computed.
    """
    file = file.absolute()
    # The hub's cache has a file in models--ORG--NAME/snapshots/REVISION.
    hub = [folder.name for folder in file.parents if folder.name.startswith("models--")]
    places = [file.name, file.parent.name, *(name.rpartition("--")[2] for name in hub)]
    published = _open_clip_files()
    for key in (digest, *places):
        if key in published:
            return published[key]
    for known in catalogue_files():
        if any(fnmatch(place, pattern) for place in places for pattern in known.names):
            return known
    return None


@cache
def _open_clip_files() -> dict[str, KnownFile]:
    """Return the files that open_clip's pretrained tags download, by digest, name or repository.

    OpenAI's addresses hold the sha256 of the file, whose name (ViT-B-32.pt) others use too. On the
    hub a file has a name that all have, unless the tag says which, and its repository tells.
    """
    package = pretrained_tables()
    found: dict[str, KnownFile] = {}
    for model, tag in package.list_pretrained():
        published = package.get_pretrained_cfg(model, tag)
        act = QUICK_GELU if published.get("quick_gelu") else GELU
        for key in _keys(published):
            # A tag of both ViT-B-32 and ViT-B-32-quickgelu is of the latter.
            if key not in found or act == QUICK_GELU:
                found[key] = KnownFile((key,), act, f"open_clip's {model}:{tag}")
    return found


def _keys(published: Mapping[str, Any]) -> Iterator[str]:
    """Yield what tells a file that a tag of open_clip downloads."""
    if address := published.get("url"):
        folder, name = address.split("/")[-2:]
        yield folder if len(folder) == SHA256_DIGITS else name
    if hub := published.get("hf_hub"):
        repository, _, name = hub.rpartition("/")
        yield repository.rpartition("/")[2] if name in {"", *USUAL_NAMES} else name
