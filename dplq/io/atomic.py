"""Files that are whole or not there: written aside, then renamed into place."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_aside(path: str | os.PathLike) -> Iterator[Path]:
    """Give a name beside `path` to write to; it takes the place of `path` when the block ends.

    If the block fails, what was written is removed and `path` is left as it was. The name is this
    thread's own, so that any number of processes may write one file, and keeps the ending.

    Raises:
        OSError: as the block does, or the file cannot be renamed.
    """
    path = Path(path)
    own = f"{os.getpid()}-{threading.get_ident()}"
    aside = path.with_name(f".{path.stem}.{own}.part{path.suffix}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
