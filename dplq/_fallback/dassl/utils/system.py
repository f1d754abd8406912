"""Seeding, and the description of the environment for the log."""

from __future__ import annotations

import platform
import random
from importlib import metadata

import numpy as np
import torch

_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "timm", "open_clip_torch")


def set_random_seed(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators (the CPU's and all GPUs')."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def collect_env_info() -> str:
    """Return versions, CUDA build and GPUs, one a line.

    Shorter and seconds faster than ``torch.utils.collect_env``, which asks pip, gcc and the rest.
    """
    lines = [f"Platform: {platform.platform()}", f"Python: {platform.python_version()}"]
    lines += [f"{name}: {_version(name)}" for name in _PACKAGES]
    lines += [
        f"CUDA (PyTorch's build): {torch.version.cuda}",
        f"Threads: {torch.get_num_threads()}",
    ]
    for index in range(torch.cuda.device_count()):
        lines.append(f"GPU {index}: {torch.cuda.get_device_name(index)}")
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
