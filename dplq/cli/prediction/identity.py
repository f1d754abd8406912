"""What an output file was made with: ``x.csv.json`` beside ``x.csv``."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from dplq.errors import UserError, few, printable
from dplq.io.atomic import write_bytes_atomically
from dplq.io.lock import exclusive
from dplq.io.validation.paths import is_file
from dplq.io.validation.schema import Name, read_json


class Identity(msgspec.Struct, frozen=True):
    """What the rows of an output file have in common.

    Attributes:
        model: SHA-256 of the checkpoint.
        method: of the model.
        classes: that the images were classified into.
        topk: classes in a row; None: the probabilities of all.
        features_file: its name, beside the output; "" without one.
        backbone: what identifies the CLIP that was loaded.
        domain: what identifies the domain encoder; None without one.
        reading: settings of the image reader that the command has other than the model.
        folder: working directory, from the output's folder; relative paths of the rows are from
            there.
    """

    model: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    method: Name
    classes: list[Name]
    topk: Annotated[int, msgspec.Meta(ge=1)] | None = None
    features_file: str = ""
    backbone: dict[str, Any] = {}
    domain: dict[str, Any] | None = None
    reading: dict[str, Any] = {}
    folder: str = "."
    format: Literal[1] = 1


def identity_file(output: Path) -> Path:
    """Return the path of the record that belongs to an output file."""
    return output.with_name(output.name + ".json")


def lock_file(output: Path) -> Path:
    """Return the path of the lock of an output file."""
    return output.with_name(f".{output.name}.lock")


@contextlib.contextmanager
def writing_alone(output: Path) -> Iterator[None]:
    """Keep other commands from an output file while the block runs; they wait."""
    with contextlib.ExitStack() as stack:
        # without locks, or where nothing can be written, which `claim` says
        with contextlib.suppress(OSError):
            output.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(lock_file(output), f"writes {output}"))
        yield


def claim(output: Path, own: Identity, overwrite: bool) -> str:
    """Make an output file one of this model; one of the same model is continued.

    Args:
        output: the CSV file.
        own: what is to be written.
        overwrite: delete what is there.

    Returns:
        The folder that relative paths in the file are from.

    Raises:
        UserError: the file is another model's, has other classes, or is of unknown origin.
    """
    record = identity_file(output)
    if overwrite:
        for path in (output, record):
            if is_file(path):  # a device or a pipe is refused
                path.unlink()
    if is_file(record):
        there: Identity = read_json(
            record, Identity, remedy="Give another --out, or --overwrite.", max_bytes=1 << 26
        )
        differences = _differences(there, own)
        if is_file(output) and not differences:
            own = there  # its folder is that of its rows
        elif is_file(output):
            raise UserError(
                f"{output} was written by another command ({'; '.join(differences)}). "
                "Give another --out, or --overwrite to replace it."
            )
    elif is_file(output):
        raise UserError(
            f"{output} is there, and is no output of `dplq predict`, which has {record.name} "
            "beside it. Give another --out, or --overwrite to replace it."
        )
    content = json.dumps(msgspec.to_builtins(own), ensure_ascii=False, indent=1)
    write_bytes_atomically(record, content.encode())
    return os.path.join(output.resolve().parent, own.folder)


def _differences(there: Identity, own: Identity) -> list[str]:
    words: list[str] = []
    for name in own.__struct_fields__:
        if name == "folder":  # of the paths alone
            continue
        then, now = (getattr(one, name) for one in (there, own))
        if then != now:
            words.append(f"{name}: there {_shown(then)}, now {_shown(now)}")
    return words


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} ({few(value, 3)})"
    if isinstance(value, str) and len(value) == 64:
        return f"checkpoint {value[:12]}"
    if value and isinstance(value, dict):
        return printable(", ".join(f"{key} {entry}" for key, entry in value.items()))[:200]
    return str(value) if value not in (None, "", {}) else "none"


def name_from(output: Path, other: Path) -> str:
    """Return how the record of an output names another file or folder."""
    return os.path.relpath(other.resolve(), output.resolve().parent).replace(os.sep, "/")
