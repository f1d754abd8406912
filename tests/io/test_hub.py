"""Access to the hub: one try where it does not answer, none where it is switched off."""

from __future__ import annotations

import threading
import time

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from dplq.io import hub


class Session:
    """Stands in for the client's session; it raises or returns what it is given."""

    def __init__(self, answer=None, seconds=0.0):
        self.answer, self.seconds, self.calls = answer, seconds, []

    def head(self, address, timeout):
        self.calls.append((address, timeout))
        time.sleep(self.seconds)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def session(monkeypatch):
    """Return a function that has the client use a session; nothing is remembered."""
    monkeypatch.setattr(hub, "_answers", {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv(hub.LIMIT, raising=False)

    def use(given):
        monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: given)
        return given

    return use


def test_a_silent_hub_is_not_tried_again(session):
    used = session(Session(ConnectionError("no route")))
    for _ in range(3):
        with hub.hub_access():
            assert constants.HF_HUB_OFFLINE
        assert not constants.HF_HUB_OFFLINE
    assert used.calls == [(constants.ENDPOINT, hub.TIMEOUT)]


def test_a_hub_that_answers_is_used(session):
    used = session(Session("any answer"))
    with hub.hub_access():
        assert not constants.HF_HUB_OFFLINE
    assert len(used.calls) == 1
    error = LocalEntryNotFoundError("of this file alone")
    assert hub.hub_problem(error) == "LocalEntryNotFoundError: of this file alone"


def test_a_network_that_swallows_everything_costs_the_timeout(session, monkeypatch):
    session(Session("late", seconds=2.0))
    monkeypatch.setattr(hub, "TIMEOUT", 0.05)
    began = time.monotonic()
    with hub.hub_access():
        assert constants.HF_HUB_OFFLINE
    assert time.monotonic() - began < 1.5


def test_the_user_sets_how_long_a_slow_hub_may_take(session, monkeypatch):
    used = session(Session("late", seconds=0.3))
    monkeypatch.setattr(hub, "TIMEOUT", 0.05)
    monkeypatch.setenv(hub.LIMIT, "20")
    monkeypatch.setattr(constants, hub.LIMIT, 20)
    with hub.hub_access():
        assert not constants.HF_HUB_OFFLINE
    assert used.calls == [(constants.ENDPOINT, 20.0)]


def test_blocks_of_two_threads_restore_the_users_choice(session):
    session(Session(ConnectionError("no route")))
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with hub.hub_access():
            inside.set()
            leave.wait(20)

    first = threading.Thread(target=hold)
    first.start()
    assert inside.wait(20)
    with hub.hub_access():  # begins while the first is open, and ends after it
        leave.set()
        first.join()
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


def test_offline_by_choice_is_respected(session, monkeypatch):
    used = session(Session("any answer"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with hub.hub_access():
        assert constants.HF_HUB_OFFLINE
    assert used.calls == []
    error = LocalEntryNotFoundError("set HF_HUB_OFFLINE=0")
    assert "set HF_HUB_OFFLINE=0" in hub.hub_problem(error)
    long = LocalEntryNotFoundError("try again " * 50)  # a message that would be cut
    assert hub.hub_problem(long).endswith("set HF_HUB_OFFLINE=0 for that")


def test_the_problem_is_that_the_hub_is_silent(session):
    session(Session(ConnectionError("no route")))
    with hub.hub_access():
        pass
    wanted = (
        f"it is not in the cache, and {constants.ENDPOINT} cannot be reached within 3 s "
        "(HF_HUB_ETAG_TIMEOUT sets that)"
    )
    assert hub.hub_problem(LocalEntryNotFoundError("HF_HUB_OFFLINE=0 ...")) == wanted
    assert hub.hub_problem(FileNotFoundError("Failed to download file (x) for y")) == wanted
    assert hub.hub_problem(ValueError("damaged")) == "ValueError: damaged"


def test_a_real_client_fails_at_once(session, tmp_path):
    session(Session(ConnectionError("no route")))
    began = time.monotonic()
    with hub.hub_access(), pytest.raises(LocalEntryNotFoundError):
        huggingface_hub.hf_hub_download("org/name", "file", cache_dir=tmp_path)
    assert time.monotonic() - began < 3
