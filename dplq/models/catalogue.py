"""Catalogue of published models: ``published.yaml``, validated, and found by name.

What is not known of a model is None there; nothing is guessed. `dplq.clip.sources` and
`dplq.domain.load` resolve names with it, `dplq models` prints it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dplq.errors import UserError, printable, suggest
from dplq.io.validation.schema import InvalidContent
from dplq.io.validation.yaml_file import read_yaml

FILE = Path(__file__).with_name("published.yaml")
KINDS = ("clip", "encoder")
DOMAINS = ("medical", "remote_sensing", "general")
UNKNOWN = "not known"
MIN_MAX = "each image scaled to 0..1"  # in place of mean and std

NAME = re.compile(r"[A-Za-z0-9.-]+")
Text = Annotated[str, Meta(min_length=1, max_length=1000)]
Scale = Annotated[float, Meta(gt=0, le=10)]
Mean = tuple[float, float, float]
Std = tuple[Scale, Scale, Scale]
# The whole digest, or the beginning of it that a published file name carries.
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{8,64}\Z")]
Side = Annotated[int, Meta(ge=1, le=1 << 14)]


class PublishedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one published model.

    Attributes:
        title: its name in publications, with the architecture.
        kind: "clip" or "encoder".
        domain: what it was trained on: one of `DOMAINS`.
        page: where it is described, and had where no file address is known.
        layout: format of the weights file: which library or repository wrote its keys.
        architecture: a CLIP by open_clip's name, an encoder as for `load_domain_encoder`.
        hub: Hugging Face repository of the weights; None: it is not there.
        file: name of the weights file, with its folder in the repository.
        also: further files that the model needs, such as its tokenizer's, where they exist; of
            another repository as REPOSITORY:FILE.
        also_named: patterns of other names of the file, its folder or its repository.
        url: address of the file, where it is not on the hub; a zip is unpacked.
        licence: of the weights, or of the repository where only that is stated.
        gated: whether terms have to be accepted before the download.
        sha256: digest of the file where one is published.
        megabytes: size of the file as its page shows it, rounded there.
        config: a CLIP's open_clip config: all of it, or what differs from `architecture`.
        args: an encoder's keyword arguments for timm that differ from `architecture`.
        activation: of a CLIP's transformers: "gelu" or "quickgelu".
        mean: channel means of the input, on a 0-1 scale.
        std: the standard deviations that go with `mean`.
        image_size: side in pixels of the square input.
        pool: how the authors pool it: "cls", "avg", "map", ...
        original: the code that its features are compared with in the tests.
        tested: whether tests compare them.
        refused: why it does not load; None: it does.
        note: one line.
    """

    title: Text
    kind: Literal["clip", "encoder"]
    domain: Literal["medical", "remote_sensing", "general"]
    page: Text
    layout: Text
    architecture: str = ""
    hub: Text | None = None
    file: Text | None = None
    also: list[Text] = []
    also_named: list[Text] = []
    url: Text | None = None
    licence: Text | None = None
    gated: bool | None = None
    sha256: Digest | None = None
    megabytes: Annotated[int, Meta(ge=1, le=1 << 20)] | None = None
    config: dict[str, Any] = {}
    args: dict[str, Any] = {}
    activation: Literal["gelu", "quickgelu"] | None = None
    mean: Mean | None = None
    std: Std | None = None
    image_size: Side | None = None
    pool: Text | None = None
    original: Text | None = None
    tested: bool = True
    refused: Text | None = None
    note: str = ""

    @property
    def test(self) -> str:
        """What the tests show of it, in words."""
        if self.refused:
            return f"refused: {self.refused}"
        if not self.tested:
            return "not tested"
        return f"features equal to those of {self.original} to 1e-5, reduced in size"

    @property
    def source(self) -> str:
        """Where the weights are, as one address."""
        if self.hub:
            return f"https://huggingface.co/{self.hub}"
        return self.url or self.page

    @property
    def can_be_downloaded(self) -> bool:
        """Whether the address of the weights file is known."""
        return bool((self.hub and self.file) or self.url)


@cache
def catalogue() -> Mapping[str, PublishedModel]:
    """Return all published models by name.

    Raises:
        InvalidContent: the data file is damaged.
    """
    models: dict[str, PublishedModel] = read_yaml(
        FILE, dict[str, PublishedModel], remedy="Install dplq again."
    )
    for name, model in models.items():
        if (model.mean is None) != (model.std is None):
            raise InvalidContent(
                str(FILE), f"{name} has one of mean and std alone", "Install dplq again."
            )
    return models


def published(name: str, kind: str) -> PublishedModel | None:
    """Return the model of that name and kind; None for other names; case does not count."""
    if not NAME.fullmatch(name):  # saves reading the file for ViT-B/16, mae_vit_base_patch16, ...
        return None
    model = catalogue().get(name.lower())
    return model if model is not None and model.kind == kind else None


def published_names(kind: str) -> list[str]:
    """Return the names of all models of a kind."""
    return [name for name, model in catalogue().items() if model.kind == kind]


def find(name: str) -> str:
    """Return the catalogue's name that equals `name`; case does not count.

    Raises:
        UserError: there is none; with the nearest names.
    """
    if name.lower() in catalogue():
        return name.lower()
    raise UserError(f"There is no model '{printable(name)}'.{suggest(name, catalogue())}")
