"""One place where all random generators of a process are seeded."""

from __future__ import annotations

import random

import numpy as np
import torch

PHASES = {"train": 0, "test": 1}  # of a run: each draws from its own random stream


def seed_all(*words: int) -> int:
    """Seed Python, NumPy and torch with a mix of `words`, whole numbers from 0; return it."""
    seed = int(np.random.SeedSequence(words).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed
