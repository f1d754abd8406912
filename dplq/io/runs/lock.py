"""Lock of a run's folder: one process at a time writes there.

The lock is the operating system's (by `filelock`), so it ends with the process that holds it. A
file beside it, the note, names the holder, for messages, and for file systems on which machines do
not see each other's locks. On a file system without locks there is the note alone.

A run that a cluster starts again on another machine takes its own lock over: the note has the name
of the job, and the cluster ends one attempt of a job before it starts the next.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import msgspec

from dplq.errors import UserError
from dplq.io.atomic import write_bytes_atomically
from dplq.io.process import is_alive
from dplq.io.validation.schema import Count, InvalidContent, Name, read_json

JOB_VARIABLE = "DPLQ_JOB"  # name of the job that a run is, the same for each attempt of it
IN_USE = "in use by"  # in the message about a folder that another process holds
LOCK_FILE, OWNER_FILE = ".lock", ".owner.json"
ORPHANS = 30.0  # seconds for which the children of a killed process may live on: loader workers
LEASE = 120.0  # seconds after which a file server frees the locks of a lost machine (NFSv4: 90)
NOTE = 1.0  # seconds from taking the lock to the note of it, at most
POLL = 0.05  # seconds between two attempts
SETTLE = 0.2  # seconds after which the last of two notes written at once stands
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what file systems without them say

logger = logging.getLogger(__name__)


class Owner(msgspec.Struct, frozen=True):
    """Process that holds a lock.

    Attributes:
        pid: its number.
        host: name of the machine on which it runs.
        since: when it took the lock, local time.
        job: name of the job that it is an attempt of, unique among all users' jobs; "" for none.
    """

    pid: Count
    host: Name
    since: str = ""
    job: str = ""

    @classmethod
    def here(cls) -> Owner:
        """Return this process."""
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(os.getpid(), socket.gethostname(), since, os.environ.get(JOB_VARIABLE, ""))

    @property
    def is_here(self) -> bool:
        """Return whether it is a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def is_dead(self) -> bool:
        """Return whether it is known to have ended: a process of this machine that is gone."""
        return self.is_here and not is_alive(self.pid)

    @property
    def is_earlier_attempt(self) -> bool:
        """Return whether it is this process's job on another machine, which has ended there."""
        return not self.is_here and self.job != "" and self.job == os.environ.get(JOB_VARIABLE)

    @property
    def patience(self) -> float:
        """Return the seconds to wait for its lock, which it may hold though it has ended."""
        return LEASE if self.is_earlier_attempt else ORPHANS if self.is_dead else 0.0

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
        self._lock = filelock.FileLock(str(folder / LOCK_FILE), fallback_to_soft=False)
        self._noted: Owner | None = None  # this process, while it holds the lock

    def acquire(self) -> None:
        """Take the lock; that of a dead process is taken over.

        Dead is a process of this machine that is gone, and an earlier attempt of the same job on
        another one.

        Raises:
            UserError: another process holds it, or one of another machine may; it is named.
            OSError: the folder or its file system lets nobody lock.
        """
        began = time.monotonic()
        while not self._try():
            owner = self.owner()
            # the note comes after the lock, so one that is missing or of the dead may be replaced
            if time.monotonic() - began >= (NOTE if owner is None else owner.patience):
                raise UserError(self._in_use(owner))
            time.sleep(POLL)
        owner = self.owner()
        if owner is not None and not owner.is_here and not owner.is_earlier_attempt:
            self._lock.release()
            raise UserError(
                f"{self.folder} is marked as {IN_USE} {owner}, and this machine cannot tell "
                f"whether that one still runs. If it does not, delete {self._owner_file}; or "
                "choose another --output-dir."
            )
        if owner is not None and owner.is_earlier_attempt:
            logger.warning("%s: this job goes on from where it was on %s", self.folder, owner.host)
        self._noted = Owner.here()
        write_bytes_atomically(self._owner_file, msgspec.json.encode(self._noted))
        if not self._lock.is_locked:
            time.sleep(SETTLE)
            if (owner := self.owner()) != self._noted:  # another one came at the same moment
                self._noted = None
                raise UserError(self._in_use(owner))

    def check(self) -> None:
        """Make sure that the folder has not been deleted, nor taken by another process.

        Raises:
            UserError: it has; what happened is said.
        """
        owner = self.owner()
        if owner == self._noted:
            return
        raise UserError(
            (f"{self.folder} was taken over by {owner}" if owner else f"{self.folder} was deleted")
            + " while this run wrote there: it stops, so that nothing is mixed. Start it again, "
            "with another --output-dir if that one is in use."
        )

    def release(self) -> None:
        """Give the lock back; a child of the process that took it cannot."""
        if self._noted is None or self._noted.pid != os.getpid():
            return
        with contextlib.suppress(OSError):  # the folder may have been deleted
            if self.owner() == self._noted:
                self._owner_file.unlink(missing_ok=True)
        self._noted = None
        self._lock.release(force=True)  # nothing, where there is no lock

    def owner(self) -> Owner | None:
        """Return who holds the lock, as far as is noted."""
        try:
            return read_json(self._owner_file, Owner)
        except InvalidContent:  # none, or one that was just deleted
            return None

    def _try(self) -> bool:
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            logger.warning("%s is on a file system without locks: a note stands in", self.folder)
            owner = self.owner()
            return owner is None or owner.is_dead or not owner.is_here
        return True

    def _in_use(self, owner: Owner | None) -> str:
        return (
            f"{self.folder} is {IN_USE} {owner or 'another process'}. Wait until that has ended, "
            "or choose another --output-dir."
        )


def holder(folder: Path) -> Owner | None:
    """Return the process that holds the lock of a folder, as far as is known; None: nobody does.

    A process of another machine counts as running, as in `RunLock.acquire`.
    """
    owner = RunLock(folder).owner()
    if owner is None or owner.is_dead:
        return None
    return None if owner.is_here and _is_free(folder / LOCK_FILE) else owner


def forget_job(folder: Path, job: str) -> None:
    """Delete the note of a job that has ended without doing so, as one that was killed.

    Another machine could not tell that it has ended, and its folder would be in use for ever.

    Args:
        folder: of the run.
        job: name of the job.
    """
    lock = RunLock(folder)
    if (owner := lock.owner()) is None or owner.job != job:
        return
    note = folder / OWNER_FILE
    try:
        with _taken(folder / LOCK_FILE) as taken:
            if taken and lock.owner() == owner:
                note.unlink(missing_ok=True)
    except OSError as error:  # NO_LOCKS: the note alone was the lock
        if error.errno in NO_LOCKS and lock.owner() == owner:
            note.unlink(missing_ok=True)


def _is_free(path: Path) -> bool:
    """Return whether nobody of this machine has a lock: the id in its note is another's by now."""
    try:
        with _taken(path) as taken:
            return taken
    except OSError:  # a file system without locks, or not ours
        return False


@contextlib.contextmanager
def _taken(path: Path) -> Iterator[bool]:
    """Take a lock while the block runs, unless somebody of this machine has it; say whether."""
    lock = filelock.FileLock(str(path), fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
