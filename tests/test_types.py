"""Types: mypy has no complaint, and a type checker sees the public names."""

import importlib.util
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch.export import ExportedProgram

PROJECT = Path(__file__).resolve().parents[1]


def mypy(*arguments: object) -> str:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    command = [sys.executable, "-m", "mypy", *map(str, arguments)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_mypy_has_no_complaint():
    if "check_guards" not in signature(ExportedProgram.module).parameters:
        pytest.skip(f"torch {torch.__version__} declares older types than those we write for")
    printed = mypy()
    assert "Success: no issues found" in printed, printed


def test_public_names_have_types(tmp_path):
    """`dplq` imports its names on first use; a type checker knows them all the same."""
    user = tmp_path / "user.py"
    user.write_text(
        "import dplq\n"
        "reveal_type(dplq.load_backbone('demo'))\n"
        "reveal_type(dplq.load('x').classnames)\n"
        "dplq.no_such_name\n"
    )
    printed = mypy(user)
    assert 'Revealed type is "dplq.clip.backbone.Backbone"' in printed
    assert 'Revealed type is "list[str]"' in printed.replace("builtins.", "")
    assert 'Module has no attribute "no_such_name"' in printed
