"""Processes of this host: which host it is, and whether a process runs.

Temporary files and locks share it, to know what a dead process left.
"""

from __future__ import annotations

import contextlib
import os
import platform
from functools import cache

from dplq.io.files import bytes_digest


@cache
def host_digest() -> str:
    """Return eight hex digits of this host, or container with process ids of its own."""
    namespace = ""
    with contextlib.suppress(OSError):  # Linux only
        namespace = os.readlink("/proc/self/ns/pid")
    return bytes_digest(f"{platform.node()} {namespace}".encode(errors="replace"))[:8]


def is_alive(pid: int) -> bool:
    """Return whether a process of this host runs; True where that is not known."""
    if os.name != "posix":  # elsewhere signal 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True
