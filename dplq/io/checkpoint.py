"""Checkpoints: learnable state only, as safetensors with a JSON header.

Writes are atomic, so that a full disk or a killed process never replaces a good file by a broken
one. Loading is strict: names and shapes must be the model's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dplq.errors import UserError, few
from dplq.io.atomic import write_bytes_atomically

HEADER_KEY = "dplq"
FORMAT = 1
MODEL_FOLDER = "prompt_learner"  # of the checkpoints, below a run's folder
NUMBERED, BEST = "model-*.safetensors", "model-best.safetensors"


def save(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> None:
    """Write tensors and a JSON-able header to `path` atomically.

    Raises:
        UserError: as for `write_bytes_atomically`.
    """
    import safetensors.torch

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {HEADER_KEY: json.dumps({"format": FORMAT, **header}, sort_keys=True)}
    write_bytes_atomically(path, safetensors.torch.save(contiguous, metadata))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and header of a file written by `save`.

    Raises:
        UserError: no such file, or not a checkpoint of this project.
    """
    import safetensors

    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # safetensors' handle is no mapping: it has keys() and no iterator
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise UserError(
            f"{path} is not a readable safetensors file ({error}). Checkpoints of this project "
            "end in .safetensors; other trees' model.pth.tar files go to train.py --model-dir."
        ) from error
    if HEADER_KEY not in metadata:
        raise UserError(f"{path} is a safetensors file, but has no dplq header: not a checkpoint.")
    header = json.loads(metadata[HEADER_KEY])
    if header.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {header.get('format')}, this version of dplq reads {FORMAT}: "
            "install the version that wrote it."
        )
    return tensors, header


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is in the safetensors format, whatever its name ends in."""
    with open(path, "rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and 8 + length <= os.path.getsize(path)


def load_strictly(
    module: nn.Module, tensors: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> None:
    """Copy `tensors` into `module`; names and shapes must agree exactly.

    Raises:
        UserError: naming the first few missing, left-over or misshapen tensors.
    """
    own = module.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is not part of this model" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, the model has {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        raise UserError(
            f"{path} does not fit this model: {few(problems, 4, '; ')}. "
            "Use the settings it was trained with, or another checkpoint."
        )
    module.load_state_dict(dict(tensors))


def check_header(
    header: Mapping[str, Any],
    expected: Mapping[str, Any],
    path: str | os.PathLike[str],
    cure: str = "Use the settings it was trained with, or another checkpoint.",
) -> None:
    """Refuse a checkpoint whose header differs from what is expected.

    Args:
        header: what the checkpoint was trained with.
        expected: what it is to be used with. Nested mappings are compared key by key; keys that
            `expected` lacks are ignored.
        path: the checkpoint.
        cure: end of the message.

    Raises:
        UserError: naming every setting that differs, with both values.
    """
    differences = [
        f"{key}: there {theirs!r}, now {ours!r}"
        for key, (theirs, ours) in _pairs(header, expected).items()
        if theirs != ours
    ]
    if differences:
        raise UserError(f"{path} was made with other settings. {'; '.join(differences)}. {cure}")


def _pairs(
    header: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Return (theirs, ours) by dotted key, for the keys of `expected`."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for key, ours in expected.items():
        theirs = header.get(key)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            pairs |= _pairs(theirs, ours, f"{prefix}{key}.")
        else:
            pairs[prefix + key] = (theirs, ours)
    return pairs


def find_checkpoint(
    folder: Path,
    epoch: int | None,
    numbered_as: str = NUMBERED,
    best_as: str = BEST,
) -> Path:
    """The checkpoint of an epoch; None: the best one, else the last.

    Raises:
        UserError: it is not there; the message names what is.
    """
    before, after = map(len, numbered_as.split("*"))
    found = {path.name[before : len(path.name) - after]: path for path in folder.glob(numbered_as)}
    numbered = {int(number): path for number, path in found.items() if number.isdigit()}
    best = folder / best_as
    if epoch in numbered:
        return numbered[epoch]
    if epoch is None and best.is_file():
        return best
    if epoch is None and numbered:
        return numbered[max(numbered)]
    there = f"epochs {', '.join(map(str, sorted(numbered)))}" if numbered else "no checkpoint"
    wanted = "a checkpoint" if epoch is None else f"epoch {epoch}"
    raise UserError(
        f"{folder} does not hold {wanted}; there is {there}. "
        "Check the folder and the epoch (--model-dir and --load-epoch of train.py; without an "
        "epoch the last one is used)."
    )


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[Any]]:
    """Split an optimiser's state into tensors and plain values.

    Returns:
        The tensors, named ``<parameter index>.<key>``, and a list of [parameter index, dict of its
        non-tensor entries] (JSON-able).
    """
    state = optimizer.state_dict()["state"]
    tensors = {
        f"{index}.{key}": value
        for index, entries in state.items()
        for key, value in entries.items()
        if isinstance(value, Tensor)
    }
    rest = [
        [index, {key: value for key, value in entries.items() if not isinstance(value, Tensor)}]
        for index, entries in state.items()
    ]
    return tensors, rest


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: list[Any]
) -> None:
    """Restore the result of `flatten_optimizer` to an optimiser with the same parameters."""
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in rest}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state[int(index)][key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
