"""The list of prompts in the log."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

import dplq.trainers  # noqa: F401 (makes `import dassl` work)
from dplq.trainers._engine.prompts import print_prompts
from tests.runner import make_project, train


def model(classes, texts=1):
    """A model of so many classes, with so many texts for each."""
    names = [f"c{k}" for k in range(classes)]
    return SimpleNamespace(
        method="Some",
        classnames=names,
        prompt_texts=lambda: [[f"text {t} of {name}." for t in range(texts)] for name in names],
        prompt_kind=lambda: "fixed text",
    )


class Log(io.StringIO):
    """Dassl's Logger: what is written goes to a console and to a file."""

    def __init__(self):
        super().__init__()
        self.console, self.file = io.StringIO(), io.StringIO()

    def write(self, text):
        self.console.write(text)
        return self.file.write(text)


def test_ten_on_the_terminal_and_all_in_the_log(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Log())
    print_prompts(model(45))
    console, file = (part.getvalue().splitlines() for part in (sys.stdout.console, sys.stdout.file))
    lines = [f"  c{k} -> text 0 of c{k}." for k in range(45)]
    assert file == ["Prompts (fixed text):", *lines]
    assert console == [*file[:11], "  and 35 more, in the log file"]


def test_without_a_log_file(capsys):
    print_prompts(model(11, texts=8))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  c0 -> text 0 of c0. (and 7 more texts)"
    assert lines[11:] == ["  and 1 more"]
    print_prompts(model(10))
    assert len(capsys.readouterr().out.splitlines()) == 11


EXPECTED = {
    "CoOp": "  parking lot -> X X X parking lot.",
    "VPT": "  parking lot -> a photo of a parking lot.",
    "ZeroshotCLIP": "  parking lot -> a photo of parking lot.",
    "ZeroshotCLIP2": "  parking lot -> itap of a parking lot. (and 7 more texts)",
    "LinearProbe": "  parking lot",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("prompts"))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_run_shows_its_prompts(project, tmp_path, name):
    at = project.index("--trainer") + 1
    flags = [*project[:at], name, *project[at + 1 :], "--no-train", "--output-dir", str(tmp_path)]
    done = train(tmp_path / "log", [*flags, "TRAINER.COOP.N_CTX", "3"])
    assert done.code == 0, done.err
    assert EXPECTED[name] in done.out.splitlines()
    assert f"DOMAIN.ENCODER is set, but {name} does not read it." in done.out.splitlines()
    assert EXPECTED[name] in (tmp_path / "log.txt").read_text().splitlines()
