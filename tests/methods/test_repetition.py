"""No six lines of code stand twice among methods and trainers."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
LENGTH = 6


def code_lines(source: str) -> list[str]:
    """The lines of statements, without imports, docstrings, comments and signatures."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)) or is_docstring(node):
            left_out.update(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.FunctionDef):
            left_out.update(range(node.lineno, node.body[0].lineno))
    lines = (line.strip() for i, line in enumerate(source.splitlines(), 1) if i not in left_out)
    return [line for line in lines if line and not line.startswith("#")]


def is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def repeated(sources: Iterable[tuple[str, str]]) -> dict[tuple[str, ...], list[str]]:
    """Runs of `LENGTH` lines that stand in more than one place, with the names of their files."""
    found = defaultdict(list)
    for name, source in sources:
        lines = code_lines(source)
        for start in range(len(lines) - LENGTH + 1):
            found[tuple(lines[start : start + LENGTH])].append(name)
    return {run: names for run, names in found.items() if len(names) > 1}


def test_nothing_stands_twice():
    files = [
        path for folder in ("dplq/methods", "trainers") for path in (PROJECT / folder).rglob("*.py")
    ]
    assert len(files) > 60
    assert repeated((str(path), path.read_text(encoding="utf-8")) for path in files) == {}


def test_a_repetition_is_found_whatever_its_comments():
    body = [f"    x{i} = {i}" for i in range(LENGTH)]
    first = "\n".join(["def f(a):", '    """One."""', *body])
    second = "\n".join(["import os", "def g(", "    b,", "):", "    # why", "", *body])
    (run,) = repeated([("first", first), ("second", second)])
    assert run == tuple(line.strip() for line in body)
    assert repeated([("first", first), ("short", "\n".join(["def g():", *body[1:]]))]) == {}
