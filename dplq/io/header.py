"""Header of a model's checkpoint: what is in it, checked before it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dplq.errors import few, printable
from dplq.io.checkpoint import damaged
from dplq.io.spec import Spec, SpecEntry
from dplq.io.validation.paths import name_problem
from dplq.io.validation.schema import Count, InvalidContent, Name, convert

NEEDED = ("method", "backbone", "domain", "settings", "classnames")


Channel = Annotated[float, Meta(ge=-1000, le=1000)]
Spread = Annotated[float, Meta(ge=1e-6, le=1000)]


class InputEntry(msgspec.Struct, forbid_unknown_fields=True):
    """Preprocessing of images; None: not recorded, so the backbone's own, or "shortest"."""

    interpolation: Literal["bicubic", "bilinear", "nearest"] | None = None
    mean: tuple[Channel, Channel, Channel] | None = None
    std: tuple[Spread, Spread, Spread] | None = None
    instance_norm: bool = False
    resize_mode: Literal["shortest", "squash"] | None = None


class ModelHeader(msgspec.Struct):
    """What `CLIPModel.save` and a training run write beside the tensors.

    Attributes:
        method: name of the method.
        backbone: of the CLIP.
        domain: of the domain encoder, None where there is none.
        settings: of the method.
        classnames: those that were learned.
        trainer: that trained it, "" without one.
        epoch: number of finished epochs.
        val_result: validation accuracy in percent.
        split: hash of the split.
        reading: settings of the image reader that are not the defaults.
        input: preprocessing of images.
        backbone_config: digest of the config of the CLIP's folder or repository; "" where there is
            none, or it was not recorded.
        tokenizer: digest of the tokenizer's files there (`HubTokenizer.digest`); likewise.
        activation: that the CLIP runs with; "" where it was not recorded.
    """

    method: Name
    backbone: SpecEntry
    domain: SpecEntry | None
    settings: dict[str, Any]
    classnames: Annotated[list[Name], Meta(min_length=1)]
    trainer: str = ""
    epoch: Count | None = None
    val_result: float | None = None
    split: str | None = None
    reading: dict[str, Any] | None = None
    input: InputEntry | None = None
    activation: str = ""
    backbone_config: str = ""
    tokenizer: str = ""


def check_model_header(header: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Check the header of a model's checkpoint whole.

    Raises:
        DamagedFile: it lacks a key or has a value of a wrong type; the key is named.
    """
    if lacking := [key for key in NEEDED if key not in header]:
        raise damaged(path, f"is damaged: its header lacks {few(lacking)}")
    try:
        convert(dict(header), ModelHeader, where="the header")
        for key in ("backbone", "domain"):
            if header[key] is not None:
                _check_spec(header[key], key)
        for index, name in enumerate(header["classnames"]):
            if problem := name_problem(name):
                where = f"classnames[{index}]: the name {printable(name)!r}"
                raise damaged(path, f"is damaged: in its header, {where} {problem}")
    except InvalidContent as error:
        raise damaged(path, f"is damaged: in its header, {error.problem}") from error


def _check_spec(entry: Mapping[str, Any], key: str) -> None:
    try:
        Spec.from_header(entry)
    except InvalidContent as error:
        raise error.at(key) from error
