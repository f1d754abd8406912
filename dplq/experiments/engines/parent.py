"""Processes that end with the one that started them, however that ends.

Runs that nobody waits for would hold their GPUs unseen.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from dplq.io.exit_code import TERMINATED

PR_SET_PDEATHSIG = 1  # of Linux


def ending_with(parent: int) -> Callable[[], None] | None:
    """Return what has a new process end with SIGTERM when another ends; None: it cannot be done.

    Args:
        parent: the process that starts it, from the thread that lives as long as itself.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # here: between fork and exec it may only be called

    def end_with_parent() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it ended before
            os._exit(TERMINATED)

    return end_with_parent


def end_with(parent: int) -> None:
    """Have this process end with SIGTERM when the one that forked it ends."""
    if (end := ending_with(parent)) is not None:
        end()
