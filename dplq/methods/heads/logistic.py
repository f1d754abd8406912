"""Logistic regression on features (scikit-learn's), its C chosen on validation images."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from dplq.errors import UserError
from dplq.methods.heads.fitting import Choice

Labelled = tuple[np.ndarray, np.ndarray]  # features (N, d) and labels (N,)
C_VALUES = tuple(10.0**power for power in range(-6, 7))  # small: strongly regularised
DEFAULT_C = 1.0
MAX_ITERATIONS = 1000


def fit(train: Labelled, c: float, class_weight: str | None = None) -> Any:
    """Fit an L2-regularised multinomial `LogisticRegression` with C = `c`.

    Args:
        train: features and labels.
        c: inverse regularisation strength.
        class_weight: scikit-learn's: "balanced" weighs an image with n / (K n_c); None: with 1.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # A weakly regularised fit may be compared before its end.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS, class_weight=class_weight)
        return model.fit(*train)


def fit_best(
    train: Labelled,
    val: Labelled | None,
    class_weight: str | None = None,
    default: float = DEFAULT_C,
) -> Any:
    """Fit to `train` with every C of `C_VALUES`; return the fit that is best on `val`.

    Args:
        train: features and labels.
        val: the same of other images; None: C is `default`.
        class_weight: as for `fit`.
        default: see `val`.

    Raises:
        UserError: only one class.
    """
    if len(set(train[1].tolist())) < 2:
        raise UserError("A linear probe needs at least two classes, and there is one.")
    if val is None:
        return fit(train, default, class_weight)
    choice = Choice("C", torch.from_numpy(val[1]))
    fits = {}
    for c in C_VALUES:
        fits[c] = fit(train, c, class_weight)
        choice.offer(c, _logits(fits[c], val[0]))
    return fits[choice.best]


def _logits(model: Any, features: np.ndarray) -> torch.Tensor:
    weight, bias = linear_layer(model)
    return torch.from_numpy(features @ weight.T + bias)


def linear_layer(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights (K, d) and bias (K,) whose softmax gives the model's probabilities."""
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row, the second class against the first
        weight = np.concatenate([np.zeros_like(weight), weight])
        bias = np.concatenate([np.zeros_like(bias), bias])
    return weight, bias
