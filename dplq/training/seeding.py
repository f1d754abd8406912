"""Seeding of all random generators, and how few-shot images are drawn."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class RandomState:
    """State of the global generators of Python, NumPy and torch (CPU)."""

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: bytes

    @classmethod
    def now(cls) -> RandomState:
        """Return the current state."""
        name, words, *rest = np.random.get_state(legacy=True)
        return cls(
            random.getstate(),
            (name, tuple(np.asarray(words).tolist()), *rest),
            torch.get_rng_state().numpy().tobytes(),
        )

    def restore(self) -> None:
        """Put the generators into this state."""
        random.setstate(self.python)
        name, words, *rest = self.numpy
        np.random.set_state((name, np.array(words, np.uint32), *rest))
        torch.set_rng_state(torch.frombuffer(bytearray(self.torch), dtype=torch.uint8))

    def digest(self) -> str:
        """Return a digest of the state in hex."""
        return hashlib.blake2b(self.to_text().encode(), digest_size=16).hexdigest()

    def to_text(self) -> str:
        """Return the state as JSON."""
        return json.dumps([self.python, self.numpy, base64.b64encode(self.torch).decode()])

    @classmethod
    def from_text(cls, text: str) -> RandomState:
        """Return the state that `to_text` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            (version, words, gauss), numpy, state = json.loads(text)
            name, more, *rest = numpy
            return cls(
                (version, tuple(words), gauss), (name, tuple(more), *rest), base64.b64decode(state)
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"no state of generators: {error}") from error
