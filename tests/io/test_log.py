"""Log lines in a program that has set up no logging, such as the train.py of a host tree."""

from __future__ import annotations

import subprocess
import sys

from tests.runner import PROJECT


def test_they_are_printed_where_nothing_else_is_set_up():
    script = (
        "import logging, sys\n"
        "from dplq.io.log import log_to_stdout\n"
        "log_to_stdout(); log_to_stdout()\n"
        "logger = logging.getLogger('dplq.any')\n"
        "logger.info('first')\n"
        "logging.basicConfig(stream=sys.stderr)\n"
        "logger.warning('second')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert done.stdout == "first\n"
    assert done.stderr == "WARNING:dplq.any:second\n"
