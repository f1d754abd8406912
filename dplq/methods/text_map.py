"""Linear map from image features to text features, for classes without training images.

A head cannot score classes that it was not trained on; a map from image features to the texts of
their classes can, as any name has a text (ESZSL, Romera-Paredes and Torr, ICML 2015). Ours is a
ridge regression that shrinks towards CLIP's own alignment of the two instead of towards zero: what
the training images say nothing about stays as CLIP has it (docs/method.md, "Variants").
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.methods.domain_head import statistics
from dplq.methods.heads.base import Fitted

logger = logging.getLogger(__name__)

RIDGE = (1.0, 2.0)  # per training image: for CLIP's feature, and for the domain feature
BETWEEN = 0.75  # part of its weight between trained classes, which it favours, and others
SMALLEST_SLOPE = 0.05  # of CLIP's own alignment, where the training images contradict it
SMALLEST_TEXT = 1e-3  # length of a centred text; a shorter one is the rounding of two encodings
FOLDS = 10  # groups of classes, each left out once


class Images(NamedTuple):
    """Training images, in double precision."""

    features: Tensor  # (N, D)
    texts: Tensor  # (N, d), of their classes
    weights: Tensor  # (N,), how often each counts

    def part(self, rows: Tensor | slice = slice(None), width: int | None = None) -> Images:
        """Return the images of some rows, (N,) bool, with the first `width` columns."""
        return Images(self.features[rows, :width], self.texts[rows], self.weights[rows])


class TextMap(Fitted):
    """Ridge regression from CLIP's image feature and the domain feature to text features.

    It is fitted once, by no gradient steps, to the features of the training images.

    Args:
        clip_width: d, of CLIP's image and text features.
        domain_width: d_f, of the domain feature; 0: none.
    """

    def __init__(self, clip_width: int, domain_width: int) -> None:
        self.widths = (clip_width, domain_width)
        tensors = {
            "weight": torch.zeros(clip_width, sum(self.widths)),
            "bias": torch.zeros(clip_width),
            "text_mean": torch.zeros(clip_width),
        }
        super().__init__(tensors, learned=())

    def fit(
        self, features: Tensor, labels: Tensor, texts: Tensor, class_weights: Tensor | None = None
    ) -> None:
        """Fit the map to centred features and texts, and fold the centring into it.

        The domain feature is left out where it harms classes that a fit has not seen
        (`unseen_accuracy`); its columns are 0 then, and the log says so.

        Args:
            features: (N, d + d_f), of CLIP, L2-normalised, and of the domain encoder side by side.
            labels: (N,), in 0 .. K - 1.
            texts: (K, d), L2-normalised text features of the trained classes.
            class_weights: (K,), how often an image of a class counts; None: once.
        """
        labels, texts = labels.cpu(), texts.double().cpu()
        each = torch.ones(len(texts)) if class_weights is None else class_weights
        images = Images(features.double().cpu(), texts[labels], each.double().cpu()[labels])
        width = self.widths[0]
        if not self._domain_helps(images, labels, texts):
            images = images.part(width=width)
        weight, bias, text_mean = fit_map(images, width)
        left_out = sum(self.widths) - weight.shape[1]
        self.put(weight=F.pad(weight, (0, left_out)), bias=bias, text_mean=text_mean)

    def _domain_helps(self, images: Images, labels: Tensor, texts: Tensor) -> bool:
        """Return whether unseen classes are recognised as well with the domain feature, or better.

        True as well with fewer than three classes, of which none can be left out.
        """
        width, domain_width = self.widths
        if not domain_width or len(texts) < 3:
            return True
        with_it = unseen_accuracy(images, labels, texts)
        without = unseen_accuracy(images.part(width=width), labels, texts)
        if with_it < without:
            logger.info(
                "The map from images to texts does not use the domain feature: of images whose "
                "class is left out of the fit %.1f %% are right with it, %.1f %% without it.",
                *(100 * with_it, 100 * without),
            )
        return with_it >= without

    def forward(self, features: Tensor, texts: Tensor) -> Tensor:
        """Return cosines (B, K) of mapped features and centred texts; 0 for a text at the mean.

        Args:
            features: (B, d + d_f), as for `fit`.
            texts: (K, d), L2-normalised text features of any classes.
        """
        return cosines(self.mapped(features), texts, self.text_mean)

    def mapped(self, features: Tensor) -> Tensor:
        """Return L2-normalised mapped features (B, d) of features (B, d + d_f)."""
        return F.normalize(features @ self.weight.T + self.bias, dim=1)


def fit_map(images: Images, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight (d, D), bias (d,) and mean text (d,) of the map that fits images best.

    Args:
        images: D columns of features, of which the first d are CLIP's.
        width: d.
    """
    features, texts, weights = images
    mean, scale = _scales(features, weights, width)
    inputs = (features - mean) / scale
    text_mean, _ = statistics(texts, weights)
    targets = texts - text_mean
    targets = targets / _length(targets, weights)
    weighted = weights[:, None] * inputs
    moment = (weighted[:, :width] * inputs[:, :width]).sum().clamp_min(1e-12)
    slope = (weighted[:, :width] * targets).sum() / moment
    start = torch.zeros(len(mean), width, dtype=torch.float64)
    start[:width].fill_diagonal_(max(slope.item(), SMALLEST_SLOPE))
    parts = torch.tensor([width, len(mean) - width])
    ridge = weights.sum() * torch.tensor(RIDGE).repeat_interleave(parts)
    # (X' W X + R) M = X' W T + R M_0
    left = inputs.T @ weighted + ridge.diag()
    right = weighted.T @ targets + ridge[:, None] * start
    weight = (torch.linalg.solve(left, right) / scale[:, None]).T
    return weight, -(weight @ mean), text_mean


def unseen_accuracy(images: Images, labels: Tensor, texts: Tensor) -> float:
    """Return the accuracy on classes that the map was not fitted to, in 0 .. 1.

    Each class, or each of ten groups of them, is left out of a fit once, and its images are
    classified among all classes. Groups do not depend on the order of the classes.

    Args:
        images: N images.
        labels: (N,), in 0 .. K - 1.
        texts: (K, d), of the classes.
    """
    right = torch.zeros(len(labels), dtype=torch.float64)
    rank = texts[:, 0].argsort().argsort()
    fold = rank[labels] % FOLDS
    for number in fold.unique():
        out = fold == number
        weight, bias, text_mean = fit_map(images.part(~out), texts.shape[1])
        mapped = F.normalize(images.features[out] @ weight.T + bias, dim=1)
        right[out] = (cosines(mapped, texts, text_mean).argmax(dim=1) == labels[out]).double()
    return float(right @ images.weights / images.weights.sum())


def cosines(mapped: Tensor, texts: Tensor, text_mean: Tensor) -> Tensor:
    """Return cosines (B, K) of mapped features (B, d) and of texts (K, d) about their mean (d,)."""
    centred = texts.to(mapped.dtype) - text_mean
    is_zero = centred.norm(dim=1) < SMALLEST_TEXT
    return (mapped @ F.normalize(centred, dim=1).T).masked_fill(is_zero, 0)


def _scales(features: Tensor, weights: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return mean (D,) and divisor (D,): CLIP's part and the domain's have a length of about 1."""
    mean, std = statistics(features, weights)
    # CLIP's directions keep their proportions, which its texts share.
    spread = _length((features - mean)[:, :width], weights)
    domain_width = max(len(mean) - width, 1)
    return mean, torch.cat([spread.expand(width), std[width:] * domain_width**0.5])


def _length(rows: Tensor, weights: Tensor) -> Tensor:
    """Return the mean length of rows (N, d), 1 where all are 0."""
    length = weights @ rows.norm(dim=1) / weights.sum()
    return torch.where(length > 1e-12, length, torch.ones_like(length))
