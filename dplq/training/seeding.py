"""Seeding of all random generators, and how few-shot images are drawn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch

PHASES = {"train": 0, "test": 1}  # of a run: each has its own random stream
BY_NAME, BY_POSITION = "name", "position"  # what decides whether an image is drawn
_draw = ContextVar("draw", default=BY_NAME)


def current_draw() -> str:
    """Return how few-shot images are drawn: `BY_NAME`, but in a run of version 0.1.0."""
    return _draw.get()


@contextmanager
def drawing(how: str) -> Iterator[None]:
    """Draw few-shot images in another way within the block.

    Args:
        how: `BY_NAME`, or `BY_POSITION` as version 0.1.0 did, whose runs may be resumed.
    """
    token = _draw.set(how)
    try:
        yield
    finally:
        _draw.reset(token)


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
