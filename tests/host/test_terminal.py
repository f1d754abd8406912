"""A terminal shows the essentials; the log file, and piped output, have everything."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import re
import struct
import sys
import termios
import threading
from contextlib import contextmanager

import pytest

from dplq.host import terminal
from dplq.io.log import CurrentStdout
from tests.runner import make_project, train

END = b"the end"


class Console(io.StringIO):
    """A console that says whether it is a terminal."""

    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


class Logger:
    """Dassl's, in short."""

    def __init__(self, console):
        self.console, self.file = console, io.StringIO()

    def write(self, text):
        self.console.write(text)
        self.file.write(text)
        return len(text)

    def flush(self):
        pass


@contextmanager
def output(is_terminal=True, quiet=True):
    """Have `sys.stdout` be Dassl's Logger; in the test itself, since pytest replaces it between."""
    before, logger = sys.stdout, Logger(Console(is_terminal))
    sys.stdout = logger
    terminal.set_quiet(quiet)
    try:
        yield logger
        assert sys.stdout is logger
    finally:
        sys.stdout = before
        terminal.set_quiet(False)


def printed():
    with terminal.log_only():
        print("detail")
        with terminal.log_only():
            print("inner detail")
    terminal.print_in_terminal("summary")
    print("result")


def test_details_go_to_the_log_alone():
    with output() as logger:
        printed()
    assert logger.file.getvalue() == "detail\ninner detail\nresult\n"
    assert logger.console.getvalue() == "summary\nresult\n"


@pytest.mark.parametrize(("is_terminal", "quiet"), [(False, True), (True, False)])
def test_a_pipe_gets_all_and_so_does_verbose(is_terminal, quiet):
    with output(is_terminal, quiet) as logger:
        printed()
    assert logger.console.getvalue() == logger.file.getvalue() == "detail\ninner detail\nresult\n"


def test_warnings_are_seen_among_details():
    with output() as logger, terminal.log_only():
        CurrentStdout().emit(logging.makeLogRecord({"msg": "a warning"}))
    assert logger.console.getvalue() == logger.file.getvalue() == "a warning\n"


def test_one_line_of_an_epoch():
    with output() as logger, terminal.last_line_only("epoch ["):
        for batch in (1, 2, 3):
            print(f"epoch [1/1] batch [{batch}/3]")
        print("something else")
    assert logger.console.getvalue() == "epoch [1/1] batch [3/3]\n"
    assert len(logger.file.getvalue().splitlines()) == 4


def test_an_error_leaves_the_output_as_it_was():
    with output(), pytest.raises(ValueError, match="x"), terminal.last_line_only("epoch ["):
        raise ValueError("x")


def use_terminal(name):
    """In a child: have standard output and errors be this terminal."""
    for number in (1, 2):
        os.dup2(os.open(name, os.O_RDWR | os.O_NOCTTY), number)


def train_in_a_terminal(log, flags):
    """Run train.py in a terminal of 100 columns; return its code and all that came there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    found: list[bytes] = []

    def collect():
        while block := os.read(master, 1 << 16):
            found.append(block)
            if block.endswith(END):
                return

    reader = threading.Thread(target=collect, daemon=True)
    reader.start()
    code = train(log, flags, use_terminal, os.ttyname(slave)).code
    os.write(slave, END)
    reader.join(10)
    for end in (master, slave):
        os.close(end)
    return code, b"".join(found).decode().replace("\r\n", "\n")


def test_a_run_in_a_terminal(tmp_path):
    flags = make_project(tmp_path)
    run = tmp_path / "run"
    options = ["--output-dir", str(run), "DATASET.NUM_SHOTS", "2", "OPTIM.MAX_EPOCH", "2"]
    code, shown = train_in_a_terminal(tmp_path / "log", [*flags, *options])
    assert code == 0, shown
    assert "** Config **" not in shown
    assert "Building transform" not in shown
    assert "Settings that differ from their defaults" in shown
    assert "4 classes; images: 8 train (2 a class)" in shown
    assert re.search(r"^Device: .*, precision fp32$", shown, re.MULTILINE)
    assert "forest -> a photo of a forest." in shown
    assert re.search(r"\rtrain: +\d+%\|", shown)  # the bar is redrawn
    assert len(re.findall(r"epoch \[\d/2\] batch \[4/4\]", shown)) == 2  # PRINT_FREQ is 1
    assert not re.search(r"epoch \[\d/2\] batch \[3/4\]", shown)
    log = (run / "log.txt").read_text()
    assert len(re.findall(r"^epoch \[\d/2\] batch \[\d/4\]", log, re.MULTILINE)) == 8
    assert "** Config **" in log
    assert "Building transform_train" in log
    assert "* accuracy: " in log
    assert "\r" not in log
    end = shown[shown.index("The run is in") :]
    for text in ("log.txt", "prompt_learner/model-2.safetensors", "results.json"):
        assert text in end
    assert f"\n  dplq report {run}\n" in end
    assert f"\n  dplq predict {run} IMAGES\n" in end
