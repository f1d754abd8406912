"""Access to the Hugging Face hub that fails soon where there is no network.

The hub's client tries five times for every file, 25 seconds in all, and as long for one that is in
its cache. Inside `hub_access` it does not try where the hub did not answer.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dplq.errors import one_line

TIMEOUT = 3.0  # seconds for the hub to answer, where the user did not set `LIMIT`
LIMIT = "HF_HUB_ETAG_TIMEOUT"  # the client's own environment variable, in seconds
KEPT = 60.0  # seconds for which its answer, or silence, is not asked for again
_answers: dict[str, tuple[float, bool]] = {}  # address -> when it was tried, and whether it answers


class _Switch:
    """The client's ``HF_HUB_OFFLINE``, restored by the last of the blocks that overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._own = False

    @property
    def own(self) -> bool:
        """Return what the user chose."""
        from huggingface_hub import constants

        return self._own if self._blocks else constants.HF_HUB_OFFLINE

    def enter(self) -> None:
        """Begin a block."""
        with self._lock:
            self._own = self.own
            self._blocks += 1

    def set(self, offline: bool) -> None:
        """Set it for the blocks that are open."""
        from huggingface_hub import constants

        with self._lock:
            constants.HF_HUB_OFFLINE = offline

    def leave(self) -> None:
        """End a block."""
        from huggingface_hub import constants

        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                constants.HF_HUB_OFFLINE = self._own


_switch = _Switch()


@contextmanager
def hub_access() -> Iterator[None]:
    """Have the hub's clients use their cache alone in this block where the hub does not answer.

    ``HF_HUB_OFFLINE`` has the same effect, and is not tried against.
    """
    from huggingface_hub import constants

    _switch.enter()
    try:
        _switch.set(_switch.own or not _answers_now(constants.ENDPOINT))
        yield
    finally:
        _switch.leave()


class Unavailable(Exception):
    """A file of the hub cannot be downloaded; whether its repository has it may not be known.

    The text says why, on one line; `file` is its name.
    """

    def __init__(self, file: str, error: Exception) -> None:
        super().__init__(hub_problem(error))
        self.file = file


def first_file(repository: str, files: Sequence[str], revision: str | None = None) -> Path | None:
    """Return the first of some files that a repository has, downloaded; None: it has none of them.

    Args:
        repository: ``org/name``.
        files: in order of preference.
        revision: branch, tag or commit; None: the main branch.

    Raises:
        Unavailable: none can be had, and the repository may have one.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    unknown: Unavailable | None = None
    for file in files:
        try:
            with hub_access():
                return Path(hf_hub_download(repository, file, revision=revision))
        except LocalEntryNotFoundError as error:  # another one may be in the cache
            if not _is_known_absent(repository, file, revision):
                unknown = unknown or Unavailable(file, error)
        except EntryNotFoundError:
            continue
        except Exception as error:  # the hub raises its HTTP client's own exceptions
            raise Unavailable(file, error) from error
    if unknown is not None:
        raise unknown
    return None


def _is_known_absent(repository: str, file: str, revision: str | None) -> bool:
    """Return whether the cache records that the hub has no such file."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    return try_to_load_from_cache(repository, file, revision=revision) is _CACHED_NO_EXIST


def hub_problem(error: Exception) -> str:
    """Return why a file of the hub is not available, on one line, for messages."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    _, answers = _answers.get(constants.ENDPOINT, (0.0, True))
    is_absent = isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled))
    is_absent |= str(error).startswith("Failed to download file")  # open_clip's own
    if is_absent and _switch.own:
        return "it is not in the cache, and nothing is downloaded: set HF_HUB_OFFLINE=0 for that"
    if is_absent and not answers:
        return (
            f"it is not in the cache, and {constants.ENDPOINT} cannot be reached within "
            f"{_limit():g} s ({LIMIT} sets that)"
        )
    return one_line(error)


def _limit() -> float:
    """Return how many seconds the hub has to answer."""
    from huggingface_hub import constants

    return float(constants.HF_HUB_ETAG_TIMEOUT) if os.environ.get(LIMIT) else TIMEOUT


def _answers_now(address: str) -> bool:
    """Return whether an address answers at all, through the client's own session and proxies."""
    from huggingface_hub.utils import get_session  # its import is not part of the time limit

    tried, answers = _answers.get(address, (0.0, False))
    if tried and time.monotonic() - tried < KEPT:
        return answers
    found, limit = threading.Event(), _limit()

    def ask() -> None:
        try:
            get_session().head(address, timeout=limit)
        except Exception:  # each HTTP library has its own; any answer, even a refusal, is none
            return
        found.set()

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name has no time limit
    thread.start()
    thread.join(limit)
    _answers[address] = time.monotonic(), found.is_set()
    return found.is_set()
