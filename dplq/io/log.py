"""Where log lines go: to the current `sys.stdout`, which Dassl replaces to keep a log file."""

from __future__ import annotations

import logging
import sys
from typing import Any


class CurrentStdout(logging.StreamHandler):
    """Logging handler for the current `sys.stdout`, which Dassl replaces to keep a log file."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        """Return the present `sys.stdout`, whole where a terminal is left out for a while."""
        terminal = sys.modules.get("dplq.host.terminal")
        return sys.stdout if terminal is None else terminal.full_stdout()


def log_to_stdout() -> None:
    """Print the log lines of this project where the program has set up no logging of its own.

    The `train.py` of a host tree sets up none, and its log file has what is printed.
    """
    own = logging.getLogger("dplq")
    if own.hasHandlers():
        return
    handler = CurrentStdout()
    handler.addFilter(lambda _: not logging.getLogger().handlers)
    own.addHandler(handler)
    if own.level == logging.NOTSET:
        own.setLevel(logging.INFO)
