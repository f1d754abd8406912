"""Logistic regression on features (scikit-learn's), its C chosen on validation images."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np

from dplq.errors import UserError

logger = logging.getLogger(__name__)
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
        # A weakly regularised fit may be compared before its end; the log shows the iterations.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS, class_weight=class_weight)
        return model.fit(*train)


def fit_best(train: Labelled, val: Labelled | None, class_weight: str | None = None) -> Any:
    """Fit to `train` with every C of `C_VALUES`; return the fit that is most accurate on `val`.

    Of equally accurate fits, which few images give often, it is the one of the lowest log loss.

    Args:
        train: features and labels.
        val: the same of other images; None: C is `DEFAULT_C`.
        class_weight: as for `fit`.

    Raises:
        UserError: only one class.
    """
    from sklearn.metrics import log_loss

    if len(set(train[1].tolist())) < 2:
        raise UserError("A linear probe needs at least two classes, and there is one.")
    if val is None:
        return fit(train, DEFAULT_C, class_weight)
    fits = []
    for c in C_VALUES:
        model = fit(train, c, class_weight)
        accuracy = model.score(*val)
        loss = log_loss(val[1], model.predict_proba(val[0]), labels=model.classes_)
        fits.append((accuracy, -loss, -c, model))
        logger.info(
            "C %g: accuracy %.1f%%, log loss %.4f on val; %d iterations",
            c,
            100 * accuracy,
            loss,
            model.n_iter_[0],
        )
    return max(fits, key=lambda fit: fit[:3])[3]


def linear_layer(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights (K, d) and bias (K,) whose softmax gives the model's probabilities."""
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row, the second class against the first
        weight = np.concatenate([np.zeros_like(weight), weight])
        bias = np.concatenate([np.zeros_like(bias), bias])
    return weight, bias
