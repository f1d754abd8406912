"""Nothing is written outside the test's own folder, and log messages are always caught."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path_factory, caplog):
    """A home of its own, no `DPLQ_CACHE`; Dassl's wilds loader disables logging, undo that."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("DPLQ_CACHE", raising=False)
    caplog.set_level(logging.INFO)
