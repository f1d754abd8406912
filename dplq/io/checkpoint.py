"""Checkpoints: learnable state only, as safetensors with a JSON header.

A file is written aside and renamed, so that a full disk or a kill never leaves a broken one in
the place of a good one. Loading is strict: names and shapes must be the model's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dplq.errors import UserError
from dplq.io.atomic import written_aside

HEADER_KEY = "dplq"
FORMAT = 1
MODEL_FOLDER = "prompt_learner"  # of the checkpoints, below a run's folder


def save(path: str | os.PathLike, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able header to `path`, replacing it in one step.

    Raises:
        UserError: the file cannot be written (disk full, no permission); an older file of that
            name is left as it was.
    """
    import safetensors.torch

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {HEADER_KEY: json.dumps({"format": FORMAT, **header}, sort_keys=True)}
    write_atomically(path, safetensors.torch.save(contiguous, metadata))


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write `data` beside `path`, flush it to disk, then rename it into place.

    Raises:
        UserError: as in `save`.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as aside, open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        kept = "The file that was there is unchanged. " if path.exists() else ""
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. {kept}"
            "Free some space or choose another --output-dir, then run the same command again."
        ) from error


def read(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and header of a file written by `save`.

    Raises:
        UserError: no such file, or not one of ours.
    """
    import safetensors

    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
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


def load_strictly(
    module: nn.Module, tensors: Mapping[str, Tensor], path: str | os.PathLike
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
        shown = "; ".join(problems[:4]) + ("; ..." if len(problems) > 4 else "")
        raise UserError(f"{path} does not fit this model: {shown}.")
    module.load_state_dict(dict(tensors))


def check_header(
    header: Mapping[str, Any],
    expected: Mapping[str, Any],
    path: str | os.PathLike,
    cure: str = "Use the settings it was trained with, or another checkpoint.",
) -> None:
    """Compare what a checkpoint was trained with to what it shall be used with.

    Nested mappings are compared key by key; keys that `expected` lacks are ignored. `cure` ends
    the message.

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
    numbered_as: str = "model-*.safetensors",
    best_as: str = "model-best.safetensors",
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
        "Check --model-dir and --load-epoch (without --load-epoch the last one is used)."
    )


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[Any]]:
    """Split an optimiser's state into tensors, named ``<parameter index>.<key>``, and plain rest.

    Returns:
        The tensors, and for each parameter the dict of its non-tensor entries (JSON-able).
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
    """Undo `flatten_optimizer` on an optimiser with the same parameters."""
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in rest}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state[int(index)][key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
