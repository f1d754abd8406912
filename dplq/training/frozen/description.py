"""What a transform is: its code and its parameters, as JSON-able values.

Host trees change the code of transforms, and their parameters where they are built: both decide the
views of a pass. The state of an object is what pickle would write of it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from functools import cache
from types import CodeType
from typing import Any

import torch
from torch import Tensor

from dplq.io.files import bytes_digest, file_digest
from dplq.training.feature_cache import DIGEST

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in the `repr` of what has none of its own


def describe(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """Return what differs between two objects that behave differently, JSON-able.

    Args:
        value: a transform, a class or function, or part of its state.
        inside: `id` of the objects that it is part of.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return bytes_digest(value, DIGEST)
    if id(value) in inside:
        return "part of itself"
    inside = (*inside, id(value))
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return [str(value.dtype), list(value.shape), describe(content.numpy().tobytes())]
    if isinstance(value, Mapping):
        return [[describe(key, inside), describe(one, inside)] for key, one in value.items()]
    if isinstance(value, (set, frozenset)):
        return sorted(str(describe(one, inside)) for one in value)
    if isinstance(value, (list, tuple)):
        return [describe(one, inside) for one in value]
    if inspect.isfunction(value):
        given = [value.__defaults__, value.__kwdefaults__, _enclosed(value)]
        return [_code(value), describe(given, inside)]
    if inspect.isclass(value):
        return _code(value)
    return [_code(type(value)), *_state(value, inside)]


def describe_images(images: Any) -> Any:
    """Return what is known of a Dassl `DatasetWrapper`, but for its images and the config."""
    state = {name: v for name, v in vars(images).items() if name not in ("data_source", "cfg")}
    return [describe(type(images)), describe(state)]


def _state(value: Any, inside: tuple[int, ...]) -> Iterable[Any]:
    try:
        reduced = value.__reduce_ex__(2)
    except Exception:  # its own code: of a lock, or of a host's class
        return [ADDRESS.sub("", repr(value)), describe(getattr(value, "__dict__", None), inside)]
    if isinstance(reduced, str):
        return [reduced]
    items = (list(part) if part is not None else None for part in reduced[3:5])
    return [describe(part, inside) for part in (*reduced[:3], *items)]


def _enclosed(function: Any) -> list[Any]:
    """Return the values of the names that a function has of the function around it."""
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not yet assigned
            found.append(None)
    return found


def _code(kind: Any) -> list[Any]:
    """Return name and code of a class or function."""
    compiled = getattr(kind, "__code__", None)  # tells two functions of one file apart
    own = _instructions(compiled) if inspect.iscode(compiled) else None
    return [kind.__module__ or "", kind.__qualname__, _source(kind), own]


def _source(kind: Any) -> str:
    """Return the digest of the file of a class or function; "" where there is none."""
    try:
        file = inspect.getsourcefile(kind)
        return _digest_of_code(file) if file else ""
    except (TypeError, OSError):  # compiled into Python, or written in a notebook
        return ""


@cache
def _digest_of_code(file: str) -> str:
    """Return the digest of a file of code, which this process has read already."""
    return file_digest(file, DIGEST)


def _instructions(code: CodeType) -> list[Any]:
    constants = [_instructions(c) if inspect.iscode(c) else describe(c) for c in code.co_consts]
    return [bytes_digest(code.co_code, DIGEST), list(code.co_names), constants]
