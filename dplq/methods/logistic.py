"""Logistic regression on features: scikit-learn's, its regularisation chosen on held-out images."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np

from dplq.errors import UserError

logger = logging.getLogger(__name__)
Labelled = tuple[np.ndarray, np.ndarray]  # features (N, d) and labels (N,)
STRENGTHS = tuple(10.0**power for power in range(-6, 7))  # C, small: strongly regularised
DEFAULT_STRENGTH = 1.0
MAX_ITERATIONS = 1000


def fit(train: Labelled, strength: float) -> Any:
    """An L2-regularised multinomial `LogisticRegression` with C = `strength`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # A weakly regularised fit may be compared before its end; the log shows the iterations.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS).fit(*train)


def choose(train: Labelled, val: Labelled | None) -> Any:
    """Fit to `train` with every C of `STRENGTHS`; return the fit that is most accurate on `val`.

    Of equally accurate fits, which few images give often, it is the one of the lowest log loss.

    Args:
        train: features and labels.
        val: the same of other images; None: C is `DEFAULT_STRENGTH`.

    Raises:
        UserError: only one class.
    """
    from sklearn.metrics import log_loss

    if len(set(train[1].tolist())) < 2:
        raise UserError("A linear probe needs at least two classes, and there is one.")
    if val is None:
        return fit(train, DEFAULT_STRENGTH)
    fits = []
    for strength in STRENGTHS:
        model = fit(train, strength)
        accuracy = model.score(*val)
        loss = log_loss(val[1], model.predict_proba(val[0]), labels=model.classes_)
        fits.append((accuracy, -loss, -strength, model))
        logger.info(
            "C %g: accuracy %.1f%%, log loss %.4f on val; %d iterations",
            strength,
            100 * accuracy,
            loss,
            model.n_iter_[0],
        )
    return max(fits, key=lambda fit: fit[:3])[3]


def linear_layer(model: Any) -> Labelled:
    """Weights (K, d) and bias (K,) whose softmax gives the model's probabilities."""
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row, the second class against the first
        weight = np.concatenate([np.zeros_like(weight), weight])
        bias = np.concatenate([np.zeros_like(bias), bias])
    return weight, bias
