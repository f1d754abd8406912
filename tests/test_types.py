"""Types: mypy has no complaint, and a type checker sees the public names."""

import ast
import importlib.util
import re
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch.export import ExportedProgram

PROJECT = Path(__file__).resolve().parents[1]
USER = """import dplq
reveal_type(dplq.load_backbone('demo'))
reveal_type(dplq.load('x').classnames)
dplq.no_such_name
"""


def configured_files() -> list[str]:
    """Return what `mypy` without arguments checks."""
    (files,) = re.findall(
        r"^\[tool\.mypy\]\nfiles = (.+)$", (PROJECT / "pyproject.toml").read_text(), re.M
    )
    return ast.literal_eval(files)


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> str:
    """What mypy prints of the project and a program that uses it, in one run."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    user = tmp_path_factory.mktemp("types") / "user.py"
    user.write_text(USER)
    command = [sys.executable, "-m", "mypy", *configured_files(), str(user)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_mypy_has_no_complaint(printed):
    """The only error is the one of the program that uses the project."""
    if "check_guards" not in signature(ExportedProgram.module).parameters:
        pytest.skip(f"torch {torch.__version__} declares older types than those we write for")
    *lines, last = printed.splitlines()
    assert all(re.match(r".*user\.py:[234]: (error|note): ", line) for line in lines), printed
    assert re.match(r"Found 1 error in 1 file \(checked \d+ source files\)", last), printed


def test_public_names_have_types(printed):
    """`dplq` imports its names on first use; a type checker knows them all the same."""
    assert 'user.py:2: note: Revealed type is "dplq.clip.backbone.Backbone"' in printed
    assert 'Revealed type is "list[str]"' in printed.replace("builtins.", "")
    assert 'Module has no attribute "no_such_name"' in printed
