"""What setup.py tells setuptools, and the wheel that is built with it."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools

from tests.runner import PROJECT

MADE = (".*", "*.egg-info", "__pycache__", "build", "dist", "output", "site", "venv")  # by tools


def setup_arguments() -> dict[str, Any]:
    """Return the arguments of setup.py's call of `setuptools.setup`."""
    given: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT)
        patch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
        runpy.run_path("setup.py")
    return given


def build_wheel(folder: Path) -> tuple[Path, Path]:
    """Build in a copy of the checkout, as building leaves files behind; return wheel and copy."""
    source = folder / "source"
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns(*MADE))
    code = "import setuptools.build_meta as b; b.build_wheel('..')"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel, source
