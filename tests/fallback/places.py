"""Path of the fallback, and scripts run with a chosen Dassl."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
FALLBACK = HERE.parent.parent / "dplq" / "_fallback"


def start(script: str, *args: object, path: Iterable[Path], cwd: Path) -> subprocess.Popen:
    """Start a script of this folder with `path` as PYTHONPATH; wait with `finish`."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, args)],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen) -> str:
    """Wait for a started script; fail with its output unless it succeeded."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-4000:]
    return output
