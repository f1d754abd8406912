"""Atomic file writes: write beside the target, then rename into place."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from dplq.errors import UserError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` when the block ends.

    If the block fails, the temporary file is removed and `path` keeps its content. The temporary
    name is unique to process and thread, so that any number of them may write one file, and has
    the suffix of `path`.

    Raises:
        OSError: from the block, or the file cannot be renamed.
    """
    path = Path(path)
    writer = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.stem}.{writer}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` in one step, flushed to disk; its folder is made.

    Raises:
        UserError: the file cannot be written (disk full, no permission); an older file of that
            name is unchanged.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        kept = "The file that was there is unchanged. " if path.exists() else ""
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. {kept}"
            "Free some space or choose another --output-dir, then run the same command again."
        ) from error
