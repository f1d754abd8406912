"""Validation of what is read from outside: the content against a type.

JSON is parsed strictly (finite numbers, no key twice, bounded size and depth), then compared as a
whole with a type by msgspec: a `msgspec.Struct`, a dataclass, or annotations such as
``dict[str, list[Count]]``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from dplq.errors import UserError, printable
from dplq.io.validation.paths import not_regular

T = TypeVar("T")
Count = Annotated[int, Meta(ge=0, le=2**53)]  # a whole number that JSON can hold exactly
Name = Annotated[str, Meta(min_length=1, max_length=4096)]
MAX_MESSAGE = 400  # characters of why a content is refused, which may quote from it
MAX_BYTES = 1 << 28  # of a JSON file: 256 MiB, a hundred times the largest split file


class InvalidContent(UserError):
    """Error for a file with invalid content; `problem` is why, without the file."""

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{where} cannot be used: {problem}. {remedy}")
        self.where, self.problem, self.remedy = where, problem, remedy

    def at(self, key: str) -> InvalidContent:
        """Return the error with the problem at `key`, in front of the key that is named."""
        joint = "." if re.match(r"[\w.[\]]+: ", self.problem) else ": "
        return InvalidContent(self.where, f"{key}{joint}{self.problem}", self.remedy)


def read_json(
    path: str | os.PathLike[str],
    shape: type[T] | Any = Any,
    *,
    remedy: str = "Repair it, or delete it.",
    max_bytes: int = MAX_BYTES,
) -> T:
    """Return the content of a JSON file, checked whole.

    Args:
        path: the file, in UTF-8, with or without a byte order mark.
        shape: the type that it must have.
        remedy: what to do with a file that is refused, a sentence.
        max_bytes: the largest size.

    Raises:
        InvalidContent: it cannot be read, is not JSON, or is not of that type; file and key are
            named.
    """
    text = read_text(path, remedy=remedy, max_bytes=max_bytes)
    return parse_json(text, shape, where=_named(path), remedy=remedy)


def read_text(
    path: str | os.PathLike[str],
    *,
    remedy: str = "Repair it, or delete it.",
    max_bytes: int = MAX_BYTES,
) -> str:
    """Return the text of a file.

    Args:
        path: the file, in UTF-8, with or without a byte order mark.
        remedy: what to do with a file that is refused, a sentence.
        max_bytes: the largest size.

    Raises:
        InvalidContent: it cannot be read, is no regular file, is too large or not UTF-8.
    """
    where = _named(path)
    try:
        status = os.stat(path)  # before it is opened: a pipe would wait for a writer
        if problem := not_regular(status.st_mode):
            raise InvalidContent(where, f"it {problem}", remedy)
        if (size := status.st_size) > max_bytes:
            raise InvalidContent(where, f"it has {size:,} bytes, more than {max_bytes:,}", remedy)
        return Path(path).read_text(encoding="utf-8-sig")  # Windows begins UTF-8 with a mark
    except OSError as error:
        raise InvalidContent(where, error.strerror or str(error), remedy) from error
    except UnicodeDecodeError as error:
        raise InvalidContent(where, f"it is not UTF-8 text ({error})", remedy) from error
    except ValueError as error:
        raise InvalidContent(where, f"its name cannot be used ({error})", remedy) from error


def _named(path: str | os.PathLike[str]) -> str:
    return printable(str(path))


def parse_json(
    text: str, shape: type[T] | Any = Any, *, where: str, remedy: str = "Repair it, or delete it."
) -> T:
    """Return the content of a JSON text, checked whole.

    Args:
        text: the JSON.
        shape: the type that it must have.
        where: what it was read from, for messages.
        remedy: what to do with a text that is refused, a sentence.

    Raises:
        InvalidContent: it is not JSON, or not of that type.
    """
    try:
        content = json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise InvalidContent(where, "it is nested too deeply", remedy) from error
    except ValueError as error:
        raise InvalidContent(where, f"it is not valid JSON ({error})", remedy) from error
    return convert(content, shape, where=where, remedy=remedy)


def convert(
    content: Any, shape: type[T] | Any, *, where: str, remedy: str = "Repair it, or delete it."
) -> T:
    """Return plain content as a type; nothing is converted in silence but lists to tuples.

    Raises:
        InvalidContent: it is not of that type; the message names the key, such as ``train[0][1]``.
    """
    try:
        return msgspec.convert(content, shape, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidContent(where, in_words(error), remedy) from error
    except RecursionError as error:
        raise InvalidContent(where, "it is nested too deeply", remedy) from error
    except UnicodeEncodeError as error:  # half of a surrogate pair, where no text is expected
        problem = f"it holds '{printable(error.object)[:80]}', which is no text"
        raise InvalidContent(where, problem, remedy) from error


def in_words(error: msgspec.ValidationError) -> str:
    """Return msgspec's message with the key first: ``seed: Expected `int`, got `str```."""
    message, _, key = str(error).partition(" - at `")
    key = key.rstrip("`").removeprefix("$").lstrip(".")
    message = message[:1].lower() + message[1:]
    return printable(f"{key}: {message}" if key else message)[:MAX_MESSAGE]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key '{printable(twice)[:80]}' is there twice")
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number
