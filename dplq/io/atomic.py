"""Atomic file writes: write beside the target, then rename into place.

A process that is killed while it writes leaves a temporary file, whose name says who wrote it;
`clear_temporaries` removes those that nobody writes any more.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from dplq.errors import UserError
from dplq.io.process import host_digest, is_alive

DAY = 24 * 3600  # seconds; no file takes so long to write
# .STEM.HOST-PID-THREAD.part.SUFFIX; version 0.1.0 wrote no host
TEMPORARY = re.compile(
    r"\..+\.(?:(?P<host>[0-9a-f]{8})-)?(?P<pid>\d+)-\d+\.part(\.[^.]*)?", re.DOTALL
)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` when the block ends.

    If the block fails, the temporary file is removed and `path` keeps its content. The temporary
    name is unique to host, process and thread, so that any number of them may write one file, and
    has the suffix of `path`.

    Raises:
        OSError: from the block, or the file cannot be renamed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{_writer()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder beside `path`; if it is still there when the block ends, it is removed.

    Those that killed processes left beside `path` are removed, too.

    Raises:
        OSError: from the block, or the folder cannot be made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f".{glob.escape(path.name)}.*"):
        name = TEMPORARY.fullmatch(old.name)
        with contextlib.suppress(OSError):  # another process may clear it too
            if name and old.is_dir() and _is_abandoned(old, name["host"], int(name["pid"])):
                shutil.rmtree(old)
    temporary = path.with_name(f".{path.name}.{_writer()}.part")
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _writer() -> str:
    return f"{host_digest()}-{os.getpid()}-{threading.get_ident()}"


def write_bytes_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` in one step, flushed to disk; its folder is made.

    Raises:
        UserError: the file cannot be written (disk full, no permission); an older file of that
            name is unchanged.
    """
    write_blocks_atomically(path, [data])


def write_blocks_atomically(path: str | os.PathLike[str], blocks: Iterable[bytes]) -> None:
    """Write blocks one after the other, as `write_bytes_atomically` does; none is kept in memory.

    Raises:
        UserError: as there; and whatever `blocks` raises.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            file.writelines(blocks)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        kept = "The file that was there is unchanged. " if path.exists() else ""
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. {kept}"
            "Free some space or choose another --output-dir, then run the same command again."
        ) from error


def clear_temporaries(folder: str | os.PathLike[str], all: bool = False) -> list[Path]:
    """Remove unfinished temporaries of `atomic_write` in a folder and, but for `all`, below it.

    Args:
        folder: it may be absent.
        all: whoever wrote them: for a folder that nobody else writes to; others may write below
            it. Else only those of dead processes of this host, and any that are older than a day.

    Returns:
        What was removed.
    """
    removed = []
    for path in Path(folder).glob(".*" if all else "**/.*"):
        name = TEMPORARY.fullmatch(path.name)
        if name is None:
            continue
        with contextlib.suppress(OSError):  # another process may clear it too
            if all or _is_abandoned(path, name["host"], int(name["pid"])):
                path.unlink()
                removed.append(path)
    return removed


def _is_abandoned(path: Path, host: str | None, pid: int) -> bool:
    """Return whether nobody writes a temporary file any more."""
    if time.time() - path.stat().st_mtime > DAY:
        return True
    return host == host_digest() and not is_alive(pid)
