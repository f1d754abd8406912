"""A small few-shot problem: clustered features, their labels, and how steps are made."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

import dplq
from dplq.methods.heads.fitting import FitData, Labelled, Steps
from tests.tiny import tiny_backbone

NAMES = ["forest", "river", "parking lot"]
WIDTH, SHOTS = 48, 4


def labelled(views: int, seed: int, width: int = WIDTH, shots: int = SHOTS) -> Labelled:
    """Return features around one centre per class, in the order 0 1 2 0 1 2 ..."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(len(NAMES), width, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(len(NAMES)).repeat(shots)
    noise = torch.randn(views, len(labels), width, generator=random)
    return Labelled(3 * (centres[labels] + noise), labels)


def problem(views: int = 1, *, width: int = WIDTH, val: bool = True) -> FitData:
    """Return a problem with another one of the same classes for val."""
    data = FitData(labelled(views, 0, width), labelled(1, 1, width))
    return data if val else replace(data, val=None)


def head(method: str, **settings: Any) -> Any:
    """Return a head on the tiny CLIP, and on CLIP as a domain encoder where that is used."""
    clip = tiny_backbone()
    is_used = settings.get("features", "clip") != "clip"
    domain = dplq.load_domain_encoder("clip", backbone=clip) if is_used else None
    return dplq.create_model(method, clip, NAMES, domain=domain, seed=0, **settings).eval()


def steps(optimizer: Any, epochs: int = 1, lr: float = 0.1, batch_size: int = 100) -> Steps:
    """Return steps on whole batches at a constant rate; `optimizer` is a class of torch's."""
    make = partial(optimizer, lr=lr)
    return Steps(
        optimizer=lambda learner: make([p for p in learner.parameters() if p.requires_grad]),
        rate=lambda epoch: lr,
        epochs=epochs,
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(3),
    )
