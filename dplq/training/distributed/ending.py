"""How the processes of one run end, and which of them tells the user why."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from torch import distributed as dist

from dplq.training.distributed.processes import Process, given_size, is_main

PATIENCE, POLL = 2.0, 0.05  # seconds of a wait for what another process has to say
MESSAGE, REPORTER = "dplq/message", "dplq/reporter"  # keys of the store


def leave(message: str = "") -> None:
    """Disconnect from the other processes.

    Args:
        message: what the user should know of why this process ends, for the one that tells it.
    """
    if Process.store is None:
        return
    if message:
        with contextlib.suppress(Exception):  # nobody may be there any more
            Process.store.set(MESSAGE, message)
        _tell_torchrun(message)
    if dist.is_initialized():
        # torch 2.4 keeps the interpreter's lock while it waits for gloo's threads, and one of them
        # may need the lock to free what it has sent last: it gets it here.
        time.sleep(POLL)
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def _tell_torchrun(message: str) -> None:
    """Have torchrun's own report show, in place of a traceback, what the user should know."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        more = {"timestamp": str(int(time.time())), "py_callstack": message}
        report = {"message": {"message": message, "extraInfo": more}}
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps(report), encoding="utf-8")


def _is_set(key: str) -> bool:
    """Return whether a process has set a key of the store, now or in a moment."""
    end = time.monotonic() + PATIENCE
    while not Process.store.check([key]):
        if time.monotonic() > end:
            return False
        time.sleep(POLL)
    return True


def message_of_others() -> str:
    """Return what another process has left as `message`; "" for nothing."""
    try:
        return str(Process.store.get(MESSAGE).decode()) if _is_set(MESSAGE) else ""
    except Exception:  # nobody there any more
        return ""


def reports_error() -> bool:
    """Return whether this process tells the user why the run ends: one does, the first if it can.

    Call it once.
    """
    if Process.store is None:
        return True
    try:
        if not is_main():
            _is_set(REPORTER)
        first = Process.store.compare_set(REPORTER, "", str(Process.rank))
        return bool(first.decode() == str(Process.rank))
    except Exception:  # nobody there any more
        return True


@contextlib.contextmanager
def quiet_but_main() -> Iterator[None]:
    """Discard in this block what another process than the first prints."""
    if os.environ.get("RANK", "0") == "0" or given_size() == "1":
        yield
        return
    with open(os.devnull, "w") as nowhere:
        out, err = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = out, err
