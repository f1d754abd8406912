"""Locks: processes that fill one folder or file wait for each other."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

PATIENCE = 0.5  # seconds before the wait is announced


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs; wait for another process that holds it.

    The system releases the lock of a process that dies. The file stays, empty: another process may
    be waiting for it, and would hold a deleted file.

    Args:
        path: the lock's file, hidden; its folder exists.
        what: what the other process is doing, for the message: ``"downloads a.zip"``.

    Raises:
        OSError: the file cannot be made, or the file system has no locks.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        logger.warning("another process %s (lock: %s); waiting until it is done", what, path)
        lock.acquire()
    except NotImplementedError as error:  # of filelock, where there is no flock
        raise OSError(f"the file system has no locks ({error})") from error
    try:
        yield
    finally:
        lock.release()
