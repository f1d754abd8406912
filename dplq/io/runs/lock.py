"""Lock of a run's folder: one process at a time writes there.

The lock is the operating system's (by `filelock`), so it ends with the process that holds it. A
file beside it names the holder, for messages, and for file systems on which machines do not see
each other's locks.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

import filelock
import msgspec

from dplq.errors import UserError
from dplq.io.atomic import write_bytes_atomically
from dplq.io.process import is_alive
from dplq.io.validation.schema import Count, InvalidContent, Name, read_json

LOCK_FILE, OWNER_FILE = ".lock", ".owner.json"
ORPHANS = 30.0  # seconds for which the children of a killed process may live on: loader workers


class Owner(msgspec.Struct, frozen=True):
    """Process that holds a lock.

    Attributes:
        pid: its number.
        host: name of the machine on which it runs.
        since: when it took the lock, local time.
    """

    pid: Count
    host: Name
    since: str = ""

    @classmethod
    def here(cls) -> Owner:
        """Return this process."""
        return cls(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"))

    @property
    def is_here(self) -> bool:
        """Return whether it is a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def is_dead(self) -> bool:
        """Return whether it is known to have ended: a process of this machine that is gone."""
        return self.is_here and not is_alive(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" (since {self.since})" * bool(self.since))


class RunLock:
    """Lock of a folder that exists; released when the process ends, however it ends.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._owner_file = folder / OWNER_FILE
        self._lock = filelock.FileLock(str(folder / LOCK_FILE))

    def acquire(self) -> None:
        """Take the lock; that of a dead process of this machine is taken over.

        Raises:
            UserError: another process holds it, or one of another machine may; it is named.
        """
        owner = None
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            owner = self.owner()
            if owner is None or not owner.is_dead or not self._wait_for_orphans():
                raise UserError(self._in_use(owner)) from None
        owner = self.owner()
        if owner is not None and not owner.is_here:
            self._lock.release()
            raise UserError(
                f"{self.folder} is marked as in use by {owner}, and this machine cannot tell "
                f"whether that one still runs. If it does not, delete {self._owner_file}; or "
                "choose another --output-dir."
            )
        write_bytes_atomically(self._owner_file, msgspec.json.encode(Owner.here()))

    def release(self) -> None:
        """Give the lock back."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):  # the folder may have been deleted
                self._owner_file.unlink(missing_ok=True)
            self._lock.release(force=True)

    def owner(self) -> Owner | None:
        """Return who holds the lock, as far as is noted."""
        try:
            return read_json(self._owner_file, Owner)
        except InvalidContent:  # none, or one that was just deleted
            return None

    def _wait_for_orphans(self) -> bool:
        """Wait for the children of a killed process, which share its lock; return success."""
        with contextlib.suppress(filelock.Timeout):
            self._lock.acquire(timeout=ORPHANS)
            return True
        return False

    def _in_use(self, owner: Owner | None) -> str:
        return (
            f"{self.folder} is in use by {owner or 'another process'}. Wait until that has ended, "
            "or choose another --output-dir."
        )
