"""Seeding of all random generators: of a process, and of a data loader's workers."""

from __future__ import annotations

import random

import numpy as np
import torch

PHASES = {"train": 0, "test": 1}  # of a run: each has its own random stream


def seed_all(*words: int) -> int:
    """Seed Python, NumPy and torch with a mix of words.

    Args:
        *words: non-negative integers, such as seed, phase and epoch.

    Returns:
        The seed.
    """
    seed = int(np.random.SeedSequence(words).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed


def seed_worker(seed: int, worker: int) -> None:
    """Seed Python, NumPy and torch in a worker process of a data loader.

    Args:
        seed: of the epoch.
        worker: index of the worker.
    """
    random.seed(seed + worker)  # this and the next are DataLoader's own seeds
    torch.manual_seed(seed + worker)
    np.random.seed(np.random.SeedSequence((seed, worker)).generate_state(4))
