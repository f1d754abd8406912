"""Calibration: reliability bins, expected calibration error, temperature scaling."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BINS = 15  # as in Guo et al. (2017)
EDGES = np.linspace(0, 1, BINS + 1)
COLDEST, HOTTEST = 1e-2, 1e2  # temperatures that are searched


class Reliability(NamedTuple):
    """Images by confidence, in bins ]low, high] of equal width; (BINS,) each."""

    images: NDArray[np.int64]
    accuracy: Floats  # nan in an empty bin
    confidence: Floats  # mean; nan in an empty bin

    @property
    def ece(self) -> float:
        """Return the expected calibration error: mean |accuracy - confidence| over the images."""
        filled = self.images > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float(gaps @ self.images[filled] / self.images.sum())


def bin_of(confidence: Floats) -> NDArray[np.int64]:
    """Return the bin of every confidence; 0 belongs to the first."""
    return np.searchsorted(EDGES[1:-1], confidence, side="left").astype(np.int64)


def reliability(confidence: Floats, hits: NDArray[np.bool_]) -> Reliability:
    """Return the reliability bins (Niculescu-Mizil and Caruana, 2005).

    Args:
        confidence: probability of the predicted class, (N,).
        hits: whether it is right, (N,).
    """
    bins = bin_of(confidence)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(
            count,
            np.bincount(bins, hits, minlength=BINS) / count,
            np.bincount(bins, confidence, minlength=BINS) / count,
        )


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Return the probabilities of logits (N, K), computed in float64."""
    from scipy.special import softmax as of_rows

    found: NDArray[np.float32] = of_rows(logits.astype(np.float64) / temperature, axis=1).astype(
        np.float32
    )
    return found


def log_loss_of_logits(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float = 1.0
) -> float:
    """Return the mean negative log-probability of the labels."""
    from scipy.special import log_softmax

    logs = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return float(-logs[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature of the lowest log loss (Guo et al., ICML 2017, section 4.2).

    The loss is convex in 1 / temperature, so that the minimum that is found is the only one.

    Args:
        logits: of val images, (N, K).
        labels: (N,).

    Returns:
        From `COLDEST` to `HOTTEST`. Where every image is right the loss falls towards 0, and
        where every one is wrong towards infinity: then it is near that bound.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda power: log_loss_of_logits(logits, labels, math.exp(power)),
        bounds=(math.log(COLDEST), math.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(found.x)
