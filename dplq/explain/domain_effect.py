"""What the domain feature of an image changes in its logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dplq.errors import UserError
from dplq.methods.base import CLIPModel
from dplq.methods.labels import check_labels

SOURCES = ("own", "mean", "other")
MOST_AT_ONCE = 50  # images of a forward pass, by default


@dataclass(frozen=True)
class DomainRow:
    """The effect of one choice of the domain feature.

    Attributes:
        source: "own", the image's; "mean", of the given images; "other", another image's.
        accuracy: 0 to 1; None without labels.
        logit_change: mean absolute difference of a logit to that with the own feature.
        changed: share of the images whose predicted class is another than with the own feature.
    """

    source: str
    accuracy: float | None
    logit_change: float
    changed: float


@dataclass(frozen=True)
class DomainEffect:
    """The effect of all choices of the domain feature.

    Attributes:
        rows: one for each of `SOURCES`.
        logit_spread: mean standard deviation of an image's logits over the classes, with the own
            feature: the scale of the changes.
        images: number of images.
    """

    rows: list[DomainRow]
    logit_spread: float
    images: int


@torch.no_grad()
def domain_effect(
    model: CLIPModel,
    images: Tensor,
    labels: Tensor | Sequence[int] | None = None,
    *,
    seed: int = 0,
    batch_size: int = MOST_AT_ONCE,
) -> DomainEffect:
    """Return accuracy and logits with the own, the mean and another image's domain feature.

    A feature that makes no difference here is not used; one that does need not be needed: the
    model was trained with the own one, and a wrong feature is more than a missing one.

    Args:
        model: of a method that has a domain encoder; in eval mode.
        images: (N, 3, H, W), CLIP-normalised; at least two.
        labels: classes, (N,); -1 where it is not known; None: of no image.
        seed: of the cycle through all images in which the next one's feature is "another's".
        batch_size: images of a forward pass.

    Raises:
        UserError: there is no domain encoder, there are fewer than two images, or labels of another
            number or out of range.
    """
    if model.domain is None:
        raise UserError(f"This {model.method} model has no domain encoder, whose effect to show.")
    if len(images) < 2:
        raise UserError(f"{len(images)} images are given; the effect needs at least two.")
    classes = len(model.classnames)
    known = None if labels is None else check_labels(labels, images, classes, least=-1)
    parts = images.split(batch_size)
    features = torch.cat([model.domain(part) for part in parts])
    # In double precision the mean of equal features is that feature, to the last bit.
    mean = features.double().mean(dim=0).to(features.dtype).expand_as(features)
    given = {"own": features, "mean": mean, "other": features[_cycle(len(features), seed)]}
    logits = {
        source: torch.cat(
            [
                _logits(model, part, chosen)
                for part, chosen in zip(parts, found.split(batch_size), strict=True)
            ]
        )
        for source, found in given.items()
    }
    own = logits["own"]
    rows = [_row(source, logits[source], own, known) for source in SOURCES]
    return DomainEffect(rows, own.std(dim=1, correction=0).mean().item(), len(images))


def _row(source: str, logits: Tensor, own: Tensor, labels: Tensor | None) -> DomainRow:
    guess, accuracy = logits.argmax(dim=1), None
    if labels is not None and (labels >= 0).any():
        right = (guess == labels)[labels >= 0]
        accuracy = right.float().mean().item()
    changed = (guess != own.argmax(dim=1)).float().mean().item()
    return DomainRow(source, accuracy, (logits - own).abs().mean().item(), changed)


def _cycle(count: int, seed: int) -> Tensor:
    """Return for each item another one: the next of a random cycle through all."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    following = torch.empty_like(order)
    following[order] = order.roll(-1)
    return following


def _logits(model: CLIPModel, images: Tensor, features: Tensor) -> Tensor:
    with _given_features(model, features):
        return model(images).float()


class _Given(nn.Module):
    """Features in the place of an encoder."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, whatever the images."""
        return self.features


@contextmanager
def _given_features(model: CLIPModel, features: Tensor) -> Iterator[None]:
    """Let a model take these domain features (B, d_f) in this context, by whatever path."""
    encoder = model.domain
    model._modules["domain"] = _Given(features)
    try:
        yield
    finally:
        model._modules["domain"] = encoder
