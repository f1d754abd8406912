"""The folder of a shared model, written aside and renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dplq import __version__
from dplq.errors import UserError, few
from dplq.io import checkpoint
from dplq.io.atomic import temporary_folder
from dplq.io.shared import CARD, CLASSES, CONFIG, FILES, METRICS, PROMPTS
from dplq.share.card import model_card
from dplq.share.origins import Origin, data_origin, origins
from dplq.share.source import Source

FORMAT = 1
ATTRIBUTES = ".gitattributes"  # in every repository of the Hub, from its beginning
OF_HUB = (ATTRIBUTES, ".git", ".cache", ".huggingface")  # of a clone or a download


def check_target(folder: Path) -> None:
    """Refuse (UserError) a folder that holds something else than a shared model."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"--to {folder} is a file: give a folder.")
    if foreign := foreign_files(path.name for path in folder.iterdir()):
        raise UserError(
            f"--to {folder} holds {few(foreign, 4)}, which `dplq share` did not write: "
            "give a new folder, or an empty one."
        )


def foreign_files(names: Iterable[str]) -> list[str]:
    """Return what forbids to write a shared model to a folder or a repository of the Hub.

    A new repository is free, also with the README.md that the Hub's page makes on request.

    Args:
        names: of all files there, relative.
    """
    there = sorted({name.partition("/")[0] for name in names})
    others = [name for name in there if name not in OF_HUB]
    foreign = [name for name in others if name not in FILES]
    if foreign or PROMPTS in others:
        return foreign
    is_new = others == [CARD] and ATTRIBUTES in there
    return [] if is_new else others


def write_folder(source: Source, folder: Path, *, place: str = "", licence: str = "") -> None:
    """Write a shared model, complete before it is put in place; see `_put_in_place`.

    Args:
        source: what is shared.
        folder: where to.
        place: ``hf-hub:org/name`` that the card names; "": the folder.
        licence: as for `model_card`.

    Raises:
        UserError: the folder holds something else or the source itself, or cannot be written.
    """
    check_target(folder)
    if folder.resolve() in source.path.resolve().parents:
        raise UserError(
            f"--to {folder} holds {source.path.name}, which is to be shared: give another folder."
        )
    parts = origins(source.header)
    names = dict.fromkeys(test["dataset"] for test in source.tests)
    data = [data_origin(name) for name in names]
    card = model_card(source, parts, data, place=place, licence=licence)
    try:
        with temporary_folder(folder) as aside:
            _fill(aside, source, parts, data, str(card))
            _put_in_place(aside, folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror or error}. Give another --to."
        ) from error


def _fill(folder: Path, source: Source, parts: list[Origin], data: list[Origin], card: str) -> None:
    if source.is_changed:
        header = {key: value for key, value in source.header.items() if key != "format"}
        checkpoint.save(folder / PROMPTS, source.tensors, header)
    else:
        shutil.copyfile(source.path, folder / PROMPTS)
    header = source.header
    kept = ("method", "backbone", "domain", "settings", "trainer", "epoch", "reading", "input")
    config = {
        "format": FORMAT,
        "dplq": __version__,
        **{key: header[key] for key in kept if key in header},
        "licences": [
            {"role": one.role, "name": one.name, "licence": one.licence} for one in (*parts, *data)
        ],
        "dataset": source.dataset,
        "shots": source.shots,
        "run": source.config,
    }
    contents: dict[str, Any] = {
        CONFIG: config,
        CLASSES: header["classnames"],
        METRICS: source.tests,
    }
    for name, content in contents.items():
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / name).write_text(f"{text}\n", encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")


def _put_in_place(aside: Path, folder: Path) -> None:
    """Rename a complete folder, or where one is there its files, one after the other.

    The folder that is there stays: it may be a clone of a repository, or a link.
    """
    if not folder.exists():
        os.replace(aside, folder)
        return
    for name in FILES:
        os.replace(aside / name, folder / name)
