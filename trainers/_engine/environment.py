"""Environment of a run: device, memory, versions, commit."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision

from dplq import __version__
from dplq.host.dassl import which_dassl
from dplq.images.reader import reading_key
from dplq.images.settings import read_settings
from dplq.training.precision import Precision

DECODERS = (torch, torchvision, PIL)  # libraries that turn files into inputs
PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "numpy")


def peak_memory_mib(device: torch.device) -> float | None:
    """Peak memory in MiB: allocated on a GPU, resident set size of the process on a CPU.

    None on Windows without a GPU, where Python does not know it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def device_name(device: torch.device) -> str:
    """The GPU's name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def preparation(cfg: Any, precision: Precision) -> dict[str, Any]:
    """Return how files become the inputs of a frozen encoder, for the keys of cached features."""
    return {
        "input": dict(cfg.INPUT),
        "reader": reading_key(read_settings(cfg.INPUT)),
        "precision": precision.name,
        "device": precision.device,
        "versions": [library.__version__ for library in DECODERS],
    }


@cache
def git_commit() -> str | None:
    """Commit of this source tree, with "-dirty" if it was changed; None outside a checkout.

    It is that of the first call: a process keeps the code that it has imported.
    """
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Installed below somebody else's checkout, this file is not one of theirs.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python, this project, the libraries that decide numbers, and which Dassl."""
    found = {"python": platform.python_version(), "dplq": __version__, "dassl": which_dassl()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
