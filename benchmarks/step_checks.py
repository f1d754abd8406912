"""Equality checks between the sides, in fp32, on the timed inputs and weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.step_plain import InParts
from benchmarks.step_sides import SEED, LogitsSide

LOGITS, GRADIENTS, RELEASE = 1e-5, 1e-4, 1e-4  # relative tolerances


def relative(value: Tensor, reference: Tensor) -> float:
    """Return the largest difference over the largest reference value."""
    value, reference = value.detach(), reference.detach()
    largest = reference.abs().max().clamp(min=torch.finfo(reference.dtype).tiny)
    return float((value - reference).abs().max() / largest)


def exact_fp32() -> AbstractContextManager:
    """Return a context without TF32, which costs GPU convolutions three digits."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def against_plain(
    ours: LogitsSide, plain: LogitsSide, what: str, images: Tensor, labels: Tensor, whole: bool
) -> dict[str, Any]:
    """Compare our logits, and for "train" all gradients, with the plain model's.

    Args:
        ours: our side.
        plain: the plain side.
        what: "train" or "eval".
        images: (B, 3, H, W).
        labels: (B,).
        whole: compare all images; False: the plain model runs `InParts`, and only the first image's
            logits and the gradients of its loss are compared.
    """
    noise = None
    # Timing trains each side further, so their weights have diverged.
    plain.model.prompt_learner.load_state_dict(ours.model.prompt_learner.state_dict())
    for side in (ours, plain):
        side.train(what == "train")
        side.zero_grad()
    if what == "train":
        width = ours.model.clip.text_width
        generator = torch.Generator().manual_seed(SEED)
        noise = 0.1 * torch.randn(len(images), width, generator=generator).to(images.device)
    with torch.set_grad_enabled(what == "train"):
        counted = slice(None) if whole else slice(1)
        logits = ours.model(images, noise=noise)[counted]
        upstream = _losses_gradient(logits, labels[counted]) if what == "train" else None
        if whole:
            reference = plain.model(images, noise=noise)
    if not whole:
        row = None if upstream is None else upstream[0]
        parts = InParts(plain.model, images, row, nullcontext, noise)
        for _, run in parts.parts:
            run()
        reference = parts.logits[None]
    found = {"against": "plain", "logits": relative(logits, reference), "whole batch": whole}
    found["passed"] = found["logits"] <= LOGITS
    if what == "train":
        logits.backward(upstream)
        if whole:
            F.cross_entropy(reference, labels).backward()
        theirs = plain.learnable()
        wrong = {n: relative(p.grad, theirs[n].grad) for n, p in ours.learnable().items()}
        found["gradients"] = max(wrong.values())
        found["passed"] = found["passed"] and found["gradients"] <= GRADIENTS
    for side in (ours, plain):
        side.zero_grad()
    return found


def _losses_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient (B, K) of the cross-entropy with respect to the logits."""
    wanted = F.one_hot(labels, logits.shape[1])
    return (logits.detach().softmax(dim=1) - wanted) / len(labels)


@torch.no_grad()
def against_release(ours: LogitsSide, original: Any, images: Tensor) -> dict[str, Any]:
    """Compare our logits with those of DPLQ's release: same weights, no noise."""
    reference = original.quiet_logits(images)
    wrong = relative(ours.eval()(images), reference)
    return {"against": "dplq", "logits": wrong, "whole batch": True, "passed": wrong <= RELEASE}
