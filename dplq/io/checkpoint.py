"""Checkpoints: learnable state only, as safetensors with a JSON header.

Writes are atomic, so that a full disk or a killed process never replaces a good file by a broken
one. A checksum covers the whole file; files of format 1, of version 0.1.0, have none. Loading is
strict: names and shapes must be the model's, and all weights finite.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dplq.errors import UserError, few, one_line, shown
from dplq.io import checksum
from dplq.io.atomic import write_bytes_atomically
from dplq.io.file_kind import is_safetensors, not_weights
from dplq.io.finite import non_finite
from dplq.io.validation.schema import InvalidContent, parse_json

HEADER_KEY = "dplq"
FORMAT = 2
WITHOUT_CHECKSUM = 1  # the format before
NUMBERED, BEST = "model-*.safetensors", "model-best.safetensors"


class DamagedFile(UserError):
    """Error for a file that cannot be used as it is; `problem` is what it is or lacks."""

    def __init__(self, path: str | os.PathLike[str], problem: str, remedy: str = "") -> None:
        super().__init__(f"{path} {problem}. {remedy}".rstrip())
        self.path, self.problem = Path(path), problem


def save(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> None:
    """Write tensors and a JSON-able header to `path` atomically, with their checksum.

    Raises:
        UserError: as for `write_bytes_atomically`, or a number of the header is not finite.
    """
    import safetensors.torch

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = {"format": FORMAT, **header}
    try:
        digits = checksum.placeholder(json.dumps(content, sort_keys=True, allow_nan=False))
    except ValueError as error:
        raise UserError(
            f"{path} is not written: its header is no JSON ({error}). Give finite numbers."
        ) from error
    text = json.dumps({**content, checksum.KEY: digits}, sort_keys=True)
    raw = safetensors.torch.save(contiguous, {HEADER_KEY: text})
    write_bytes_atomically(path, checksum.with_checksum(raw, digits))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and header of a file written by `save`.

    Raises:
        UserError: no such file, or not a checkpoint of this project.
        DamagedFile: it was one; the message names the epochs beside it that are good.
    """
    path = Path(path)
    try:
        raw, header = _verified(path)
        return _tensors(path, raw), header
    except DamagedFile as error:
        raise damaged(path, error.problem) from error


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the header of a file written by `save`; its tensors are verified, but not kept.

    Raises:
        UserError: as `read`.
    """
    path = Path(path)
    try:
        return _verified(path)[1]
    except DamagedFile as error:
        raise damaged(path, error.problem) from error


def damaged(path: str | os.PathLike[str], problem: str) -> DamagedFile:
    """Return the error for a damaged checkpoint, with what else of its run can be used.

    Args:
        path: the checkpoint.
        problem: what it is or lacks, to follow its name.
    """
    path = Path(path)
    if not path.match(NUMBERED):
        return DamagedFile(path, problem, "Restore it from a copy, or make it again.")
    remedy = (
        "Restore it from a copy; or delete it and the results.json of its run, and the command of "
        "the training makes both again."
        if path.stem.rpartition("-")[2].isdecimal()
        else "Restore it from a copy, or train again (train.py --overwrite)."  # the best one
    )
    if good := ", ".join(good_epochs(path.parent)):
        remedy += f" Of the epochs beside it these are good: {good} (--load-epoch of train.py)."
    return DamagedFile(path, problem, remedy)


def good_epochs(folder: Path) -> list[str]:
    """Return the epochs, in order, whose checkpoints in a folder are whole and finite."""
    numbered = _numbered(folder, NUMBERED)
    return [str(epoch) for epoch in sorted(numbered) if is_good(numbered[epoch])]


def is_good(path: Path) -> bool:
    """Return whether a checkpoint is there, whole and finite."""
    try:
        raw, _ = _verified(path)
        return not non_finite(_tensors(path, raw))
    except UserError:
        return False


def _verified(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of a checkpoint, once they are found to be whole, and its header."""
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}.")
    try:
        if not is_safetensors(path):
            if problem := not_weights(path):
                raise DamagedFile(path, problem)
            raise _unreadable(path, "no header, or bytes are missing")
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        outer: dict[str, Any] = parse_json(_header_text(raw), dict[str, Any], where="the header")
        metadata = outer.get("__metadata__", {})
        if not isinstance(metadata, dict) or not isinstance(metadata.get(HEADER_KEY), str):
            _tensors(path, raw)
            raise DamagedFile(
                path, "is a safetensors file, but has no dplq header: not a checkpoint"
            )
        header: dict[str, Any] = parse_json(
            metadata[HEADER_KEY], dict[str, Any], where="the dplq header"
        )
    except InvalidContent as error:
        raise DamagedFile(path, f"is damaged: in its header, {error.problem}") from error
    except UnicodeDecodeError as error:
        raise DamagedFile(path, "is damaged: its header is not UTF-8") from error
    _check_format(path, raw, header)
    return raw, {key: value for key, value in header.items() if key != checksum.KEY}


def _header_text(raw: bytes) -> str:
    return raw[8 : 8 + int.from_bytes(raw[:8], "little")].decode()


def _check_format(path: Path, raw: bytes, header: dict[str, Any]) -> None:
    """Refuse formats of other versions, and a file whose checksum is not that of its content."""
    found, digits = header.get("format"), header.get(checksum.KEY)
    if digits is None and type(found) is int and found == WITHOUT_CHECKSUM:
        return
    if not checksum.has_checksum(raw, digits):
        raise DamagedFile(path, "is damaged: its checksum is not that of its content")
    if found != FORMAT:
        raise UserError(
            f"{path} has format {found}, this version of dplq reads {FORMAT}: install the version "
            "that wrote it."
        )


def _tensors(path: Path, raw: bytes) -> dict[str, Tensor]:
    import safetensors.torch

    try:
        return safetensors.torch.load(raw)
    except Exception as error:  # safetensors' own, and torch's for kinds of numbers it lacks
        raise _unreadable(path, one_line(error)) from error


def _unreadable(path: Path, why: str) -> DamagedFile:
    return DamagedFile(
        path,
        f"is not a readable safetensors file ({why}). Checkpoints of this project end in "
        ".safetensors; other trees' model.pth.tar files go to train.py --model-dir",
    )


CURE = "Use the settings it was trained with, or another checkpoint."


def load_strictly(
    module: nn.Module, tensors: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> None:
    """Copy `tensors` into `module`; names and shapes must agree exactly.

    Raises:
        UserError: as `check_tensors`.
    """
    check_tensors(module.state_dict(), tensors, path)
    module.load_state_dict(dict(tensors))


def check_tensors(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> None:
    """Refuse tensors that do not fit a model, or are not finite.

    Args:
        own: the model's, whose names and shapes must be found.
        tensors: what is to be loaded.
        path: where it is from.

    Raises:
        UserError: naming the first few missing, left-over, misshapen or non-finite tensors.
    """
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is not part of this model" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, the model has {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    problems += [
        f"{name} is {tensors[name].dtype}, the model has {own[name].dtype}"
        for name in own
        if name in tensors and tensors[name].is_floating_point() != own[name].is_floating_point()
    ]
    if problems:
        raise UserError(
            f"{path} does not fit this model: {few(problems, 4, '; ')}. "
            "Use the settings it was trained with, or another checkpoint."
        )
    if found := non_finite(tensors):
        raise damaged(path, f"holds weights that are nan or infinite: {few(found, 4, '; ')}")


def check_header(
    header: Mapping[str, Any],
    expected: Mapping[str, Any],
    path: str | os.PathLike[str],
    cure: str = CURE,
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
        f"{key}: there {shown(theirs, 200)}, now {shown(ours, 200)}"
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
    numbered = _numbered(folder, numbered_as)
    best = folder / best_as
    if epoch in numbered:
        return numbered[epoch]
    if epoch is None and best.is_file():
        return best
    if epoch is None and numbered:
        return numbered[max(numbered)]
    there = f"; epochs that are there: {', '.join(map(str, sorted(numbered)))}" if numbered else ""
    wanted = "checkpoint" if epoch is None or not numbered else f"checkpoint of epoch {epoch}"
    raise UserError(
        f"{folder} holds no {wanted}{there}. "
        "Check the folder and the epoch (--model-dir and --load-epoch of train.py, --epoch of dplq "
        "predict; without an epoch the last one is used)."
    )


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Return the checkpoints of a folder by epoch."""
    before, after = map(len, pattern.split("*"))
    found = {path.name[before : len(path.name) - after]: path for path in folder.glob(pattern)}
    return {int(number): path for number, path in found.items() if number.isdecimal()}


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
    """Restore the result of `flatten_optimizer` to an optimiser with the same parameters.

    Raises:
        ValueError: it is not the state of such an optimiser; the message names the entry.
    """
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in rest}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        if not index.isdecimal() or int(index) not in state:
            raise ValueError(f"the tensor {name} belongs to no parameter")
        state[int(index)][key] = tensor
    if len(state) < len(rest):
        raise ValueError("a parameter is there twice")
    own = _state_after_a_step(optimizer)
    for number, entries in state.items():
        if number not in own or entries.keys() != own[number].keys():
            raise ValueError(f"parameter {number} has the entries {few(entries) or 'none'}")
        for key, value in entries.items():
            if not _is_such(value, own[number][key]):
                raise ValueError(f"{number}.{key} is not what it must be")
    if found := non_finite(tensors):
        raise ValueError(f"values are nan or infinite: {few(found, 4, '; ')}")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _state_after_a_step(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """Return the state that a step of an optimiser leaves, which is not changed."""
    probe = copy.deepcopy(optimizer)
    for group in probe.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    probe.step()
    return probe.state_dict()["state"]


def _is_such(value: Any, own: Any) -> bool:
    """Return whether an entry has the type, shape and dtype of an optimiser's own."""
    if isinstance(value, Tensor) and isinstance(own, Tensor):
        return value.shape == own.shape and value.dtype == own.dtype
    return type(value) is type(own)
