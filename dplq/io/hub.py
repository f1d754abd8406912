"""Access to the Hugging Face hub that fails soon where there is no network.

The hub's client tries five times for every file, 25 seconds in all, and as long for one that is in
its cache. Inside `hub_access` it does not try where the hub did not answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dplq.errors import one_line

TIMEOUT = 3.0  # seconds for the hub to answer
KEPT = 60.0  # seconds for which its answer, or silence, is not asked for again
_answers: dict[str, tuple[float, bool]] = {}  # address -> when it was tried, and whether it answers


@contextmanager
def hub_access() -> Iterator[None]:
    """Have the hub's clients use their cache alone in this block where the hub does not answer.

    ``HF_HUB_OFFLINE`` has the same effect, and is not tried against.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers_now(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def hub_problem(error: Exception) -> str:
    """Return why a file of the hub is not available, on one line, for messages."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    _, answers = _answers.get(constants.ENDPOINT, (0.0, True))
    is_absent = isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled))
    is_absent |= str(error).startswith("Failed to download file")  # open_clip's own
    if is_absent and not answers and not constants.HF_HUB_OFFLINE:
        return f"it is not in the cache, and {constants.ENDPOINT} cannot be reached"
    return one_line(error)


def _answers_now(address: str) -> bool:
    """Return whether an address answers at all, through the client's own session and proxies."""
    tried, answers = _answers.get(address, (0.0, False))
    if tried and time.monotonic() - tried < KEPT:
        return answers
    found = threading.Event()

    def ask() -> None:
        from huggingface_hub.utils import get_session

        try:
            get_session().head(address, timeout=TIMEOUT)
        except Exception:  # each HTTP library has its own; any answer, even a refusal, is none
            return
        found.set()

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name has no time limit
    thread.start()
    thread.join(TIMEOUT)
    _answers[address] = time.monotonic(), found.is_set()
    return found.is_set()
