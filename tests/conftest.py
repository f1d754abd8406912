"""Threads and caches of the tests, and the option of the fuzz tests: how many inputs they try."""

from __future__ import annotations

import os
import signal

# Before torch is imported, for child processes too: threads of several workers wait for each other,
# and the tiny models of the tests are computed four times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from tests.fuzz import campaign


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    """A cache folder of this test's own."""
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path / "cache"))


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz",
        type=int,
        metavar="N",
        help="about how many inputs tests/fuzz tries in all, new ones every time (default: "
        f"{campaign.FEW}, always the same ones)",
    )


def pytest_configure(config):
    # `nohup` and jobs in the background of a script have them ignored, and children inherit that.
    for name, default in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)
    campaign.begin(config.getoption("--fuzz"))


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--fuzz") and campaign.tally:
        terminalreporter.section("fuzz")
        terminalreporter.write_line(campaign.report())
