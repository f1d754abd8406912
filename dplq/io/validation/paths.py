"""Validation of paths that a user gives, and of names on disk."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dplq.errors import UserError, printable

# What a system answers about a path that it cannot use, whatever the program does.
REFUSALS = frozenset(
    {
        *(errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ESTALE),
    }
)


def user_path(text: str | os.PathLike[str], key: str) -> Path:
    """Return a path that a user gave, `~` and `~user` expanded; nothing need be there.

    Args:
        text: as given.
        key: the flag, config key or argument, for messages.

    Raises:
        UserError: an unknown user, a NUL or a name that is not UTF-8, a link to itself or to
            nothing, or whatever else the system cannot use as a path.
    """
    given = os.fspath(text)
    try:
        path = Path(given)  # which drops the ./ of ./~name
        path = path.expanduser() if given.startswith("~") else path
    except RuntimeError as error:
        user = printable(given.partition("/")[0])
        raise UserError(
            f"{key} is {printable(given)}: the home folder of {user} is not known. Write the whole "
            "path, or ./~... for a name that begins with ~."
        ) from error
    problem = _not_utf8(os.path.abspath(path)) or refusal(path)
    if problem:
        raise UserError(f"{key} is {_short(given)}, which {problem}. Give another path.")
    return path


def user_folder(text: str | os.PathLike[str], key: str) -> Path:
    """Return the path of a folder that a user gave, as `user_path` does; it need not exist.

    Raises:
        UserError: as for `user_path`, or something else is there.
    """
    path = user_path(text, key)
    if path.exists() and not path.is_dir():
        raise UserError(
            f"{key} {_short(text)} cannot be used: it is not a folder. Give another path."
        )
    return path


def refusal(path: str | os.PathLike[str]) -> str:
    """Return why the system cannot use a path, "" if it can or nothing is there."""
    try:
        os.stat(path)
    except ValueError:
        return "has a NUL character"
    except (FileNotFoundError, NotADirectoryError):
        return "is a link that leads to nothing" if os.path.islink(path) else ""
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    return ""


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is there.

    Raises:
        UserError: something else is: a folder, a device, a link that leads to nothing or itself.
    """
    problem = refusal(path)
    if not problem and os.path.exists(path):
        problem = not_regular(os.stat(path).st_mode)
        if not problem:
            return True
    if problem:
        raise UserError(f"{_short(path)} {problem}. Put a file there, or remove it.")
    return False


def is_same_folder(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Return whether two paths name one folder, links resolved; "" names none."""
    named = os.fspath(one) != "" and os.fspath(other) != ""
    return named and os.path.realpath(one) == os.path.realpath(other)


def not_regular(mode: int, wanted: str = "a file") -> str:
    """Return what is wrong with a file's mode: reading a pipe or a device may never end."""
    if stat.S_ISREG(mode):
        return ""
    return f"is a {'folder' if stat.S_ISDIR(mode) else 'pipe or device'}, not {wanted}"


def name_problem(name: str) -> str:
    """Return why a name of a file, folder or class is refused, "" if it is not.

    Names are hashed as UTF-8 and listed one a line, in files and in messages.
    """
    if not name.strip():
        return "is empty"
    if name.isprintable():
        return ""
    if problem := _not_utf8(name):
        return problem
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in name):
        return "has a control character"
    return ""


def _not_utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return ""


def _short(path: str | os.PathLike[str]) -> str:
    """Return a path for a message: one that is too long for the system is too long to print."""
    text = printable(os.fspath(path))
    return text if len(text) <= 300 else f"{text[:200]}... ({len(text)} characters)"


@contextmanager
def refused_paths() -> Iterator[None]:
    """Raise UserError for what the system refuses about a path, in a whole command.

    `user_path` comes first; this is for the paths below it, which are made from names.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS or error.filename is None:
            raise
        name = os.fsdecode(error.filename) if error.filename != "" else "the current folder"
        raise UserError(
            f"{_short(name)} cannot be used: {error.strerror}. Give another one, or repair it."
        ) from error
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        raise UserError(f"{_short(error.object)} is not UTF-8: rename it.") from error
