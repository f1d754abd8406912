"""Command lines of the documentation, checked by the parsers and readers that they are for."""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

import dplq.plugin  # noqa: F401  registers trainers and datasets
from dplq.__main__ import COMMANDS
from dplq.__main__ import main as dplq_main
from dplq.cli import demo, train
from dplq.cli import run as experiment
from dplq.data import __main__ as data
from dplq.data.targets import find_targets
from dplq.experiments.engines import ENGINES
from dplq.experiments.requests import request, script
from dplq.experiments.requests.request import DATASET, make_plan
from dplq.results import __main__ as results
from tests.documents import BLOCKS, Command
from tests.runner import PROJECT

OF_OTHERS = {"apt-get", "cd", "git", "pre-commit", "ray", "source"}  # programs that are not ours
PROGRAMS = ("dplq", "python", "bash", "torchrun", "pip", "nox")
PLACEHOLDERS = {"COMMAND", "DATASET", "KEY", "NAME", "SEED", "SOURCE", "TRAINER", "VALUE"}
VARIABLES = {"CFG", "DATA", "GENERALISED", "OUT", "SHOTS", "TARGETS", "TRAINER", "TRAINERS"}


class Parsed(BaseException):
    """The arguments are parsed: the command's work does not begin."""


def parse_only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function: the arguments that `main` has its parser make of the words."""
    inside = []

    def outermost(method):
        @functools.wraps(method)
        def parsing(*given, **options):
            if inside:
                return method(*given, **options)
            inside.append(True)
            try:
                parsed = method(*given, **options)
            finally:
                inside.clear()
            raise Parsed(parsed)

        return parsing

    def error(parser, message):
        raise ValueError(f"{parser.prog}: {message}")

    for name in ("parse_args", "parse_known_args", "parse_intermixed_args"):
        method = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(argparse.ArgumentParser, name, outermost(method))
    monkeypatch.setattr(argparse.ArgumentParser, "error", error)

    def parsed(main, words, *given):
        monkeypatch.setattr(sys, "argv", ["program", *words])
        try:
            code = main(*given)
        except Parsed as done:
            return done.args[0]
        except SystemExit as done:  # --help, --version
            code = done.code
        assert not code, f"exit code {code}"
        return None

    return parsed


class Reader:
    """Checks of command lines, each as its program reads it; a mistake is raised."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        pytest_parser: Any,
        extras: Collection[str],
        folder: Path,
    ) -> None:
        self.parse, self.pytest_parser = parse_only(monkeypatch), pytest_parser
        self.extras, self.folder = extras, folder
        monkeypatch.setattr(request, "default_targets", targets)

    def check(self, line: Command) -> None:
        """Check a command line."""
        words = [word.removesuffix("...") for word in line.words if word != "..."]
        given = {part for one in (*words, *line.environment.values()) for part in one.split()}
        if given & own_names(line.place.partition(":")[0]):
            return  # test_extending.py runs it
        if not words:
            assert line.environment.keys() <= VARIABLES, line.environment
            return
        program, *rest = words
        if program.startswith("scripts/"):
            program, rest = "bash", words
        if program in OF_OTHERS:
            return
        if program not in (*PROGRAMS, "python3"):
            raise ValueError(f"no test knows the program {program}")
        getattr(self, program.removesuffix("3"))(rest, line)

    def dplq(self, words: list[str], line: Command) -> None:
        """Check ``dplq ...``: flags, and what names datasets, trainers, configs and keys."""
        if not words or "COMMAND" in words:
            return
        if words[0] not in (*COMMANDS, "--help", "--version"):
            raise ValueError(f"no command {words[0]}")
        args = self.parse(dplq_main, words, words)
        if args is None or PLACEHOLDERS & set(words):
            return
        check = getattr(self, f"_{words[0]}", None)
        if check:
            check(args, words[1:], line)

    def _train(self, args: Any, words: list[str], line: Command) -> None:
        if "--help" not in words and args.trainer:
            train.setup_cfg(args)

    def _run(self, args: Any, words: list[str], line: Command) -> None:
        options = words[words.index("--") + 1 :] if "--" in words else []
        plan, (engine, _) = experiment.planned(args, options, self.folder)
        assert plan.runs, words
        assert engine in ENGINES, engine
        check_keys(options)

    def _demo(self, args: Any, words: list[str], line: Command) -> None:
        demo.find_trainer(args.trainer)
        check_keys([word for pair in demo.pairs(args.opts) for word in pair])

    def _data(self, args: Any, words: list[str], line: Command) -> None:
        args, rest = args
        if hasattr(args, "name"):
            from dplq.data.catalogue import find, registered

            find(args.name, registered())
            data._options(argparse.Namespace(opts=rest))
        else:
            assert not rest, rest

    def _models(self, args: Any, words: list[str], line: Command) -> None:
        if hasattr(args, "name"):
            from dplq.models.catalogue import find

            find(args.name)

    def _results(self, args: Any, words: list[str], line: Command) -> None:
        results.report(args)

    def python(self, words: list[str], line: Command) -> None:
        """Check ``python train.py``, ``python -m MODULE`` and ``python benchmarks/FILE.py``."""
        first, *rest = words
        if first == "train.py":
            self.dplq(["train", *rest], line)
        elif first == "-m":
            module, *rest = rest
            if module == "pytest":
                self.pytest(rest)
            elif module in ("dplq", "dplq.data", "dplq.results"):
                self.dplq([*module.split(".")[1:], *rest], line)
            elif module != "venv":
                main = getattr(importlib.import_module(module), "main", None)
                assert main or not rest, f"{module} takes no arguments"
                if main:
                    self.parse(main, rest)
        elif first.startswith("benchmarks/"):
            main = importlib.import_module(first.removesuffix(".py").replace("/", ".")).main
            self.parse(main, rest, *([rest] if inspect.signature(main).parameters else []))
        else:
            raise ValueError(f"no test knows python {first}")

    def pytest(self, words: list[str]) -> None:
        """Check options, paths and markers."""
        given = self.parse(lambda: self.pytest_parser.parse(words) and 0, words)
        given = given[0] if isinstance(given, tuple) else given  # of pytest 8.0
        for path in given.file_or_dir:
            assert (PROJECT / path).exists(), path
        if given.markexpr:
            markers = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
            assert f'"{given.markexpr}:' in markers, given.markexpr

    def bash(self, words: list[str], line: Command) -> None:
        """Check a script's arguments and variables."""
        text = (PROJECT / words[0]).read_text(encoding="utf-8")
        protocol = re.search(r'common\.sh" (\S+)', text)
        if not protocol:
            assert words[0] == ".ci/run", words
            return
        if "--help" in words or PLACEHOLDERS & set(words):
            return
        wanted = script.request_of(
            protocol[1], words[1:] or [DATASET], line.environment, self.folder
        )
        assert line.environment.keys() <= VARIABLES, line.environment
        assert make_plan([wanted]).runs, words
        check_keys(words[words.index("--") + 1 :] if "--" in words else [])

    def torchrun(self, words: list[str], line: Command) -> None:
        """Check the launcher's flags, and the command of its processes."""
        from torch.distributed.run import get_args_parser

        given = self.parse(lambda: get_args_parser().parse_args(words) and 0, [])
        module = ["-m", given.training_script] if given.module else [given.training_script]
        self.python([*module, *given.training_script_args], line)

    def pip(self, words: list[str], line: Command) -> None:
        """Check the extras."""
        for word in words:
            if named := re.fullmatch(r"(?:\.|quaternion-prompt)\[(.+)\]", word):
                unknown = set(named[1].split(",")) - self.extras
                assert not unknown, unknown

    def nox(self, words: list[str], line: Command) -> None:
        """Check the sessions."""
        sessions = re.findall(
            r"^def (\w+)\(session", (PROJECT / "noxfile.py").read_text(encoding="utf-8"), re.M
        )
        for word in words[words.index("-s") + 1 :] if "-s" in words else []:
            assert word in sessions, word


def own_names(page: str) -> set[str]:
    """Return the classes that a page has its reader write."""
    own = [block.text for block in BLOCKS if block.page == page and "file=" in block.words]
    return {name for text in own for name in re.findall(r"^class (\w+)", text, re.MULTILINE)}


def check_keys(options: list[str]) -> None:
    """Merge config keys and values over the defaults; a UserError says what is wrong."""
    config = default_config()
    from dplq.host.config import merge_options

    merge_options(config, options)


def default_config() -> Any:
    from dassl.config import get_cfg_default

    from dplq.host.config import extend_cfg

    config = get_cfg_default()
    extend_cfg(config)
    return config


def targets(
    sources: Sequence[str], folder: Path, kind: str, imports: Sequence[str]
) -> dict[str, list[str]]:
    """Return what `default_targets` has another process find."""
    return {source: find_targets(source, str(folder), kind)[0] for source in sources}
