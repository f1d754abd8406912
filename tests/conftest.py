"""The option of the fuzz tests: how many inputs they try, and their report."""

from __future__ import annotations

from tests.fuzz import campaign


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz",
        type=int,
        metavar="N",
        help="about how many inputs tests/fuzz tries in all, new ones every time (default: "
        f"{campaign.FEW}, always the same ones)",
    )


def pytest_configure(config):
    campaign.begin(config.getoption("--fuzz"))


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--fuzz") and campaign.tally:
        terminalreporter.section("fuzz")
        terminalreporter.write_line(campaign.report())
