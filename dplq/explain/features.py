"""Image features of a model and of CLIP, in the plane, and how well they separate the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dplq.errors import UserError

FEWEST = 5  # points of an embedding
WIDEST = 50  # dimensions that t-SNE gets; more are reduced by PCA first
PERPLEXITY = 30.0
NEIGHBOURS = 5
SEED = 0


@dataclass(frozen=True)
class Embedding:
    """Features in the plane, and what tells how well they separate the classes.

    Attributes:
        points: (N, 2).
        perplexity: of t-SNE.
        neighbours: accuracy, 0 to 1, of the majority among the 5 nearest other images, by cosine,
            of all dimensions; None without labels.
        silhouette: -1 to 1, by cosine, of all dimensions; None where fewer than two classes, or no
            class with two images, are known.
    """

    points: NDArray[np.float32]
    perplexity: float
    neighbours: float | None
    silhouette: float | None


def embed(
    features: Tensor | ArrayLike, labels: Sequence[int] | ArrayLike | None = None
) -> Embedding:
    """Return features in the plane by t-SNE, with numbers of the features themselves.

    Distances between far clusters, and sizes of clusters, mean nothing in a t-SNE; the two numbers
    are of all dimensions, so they may disagree with it. The same features give the same points
    on the same machine.

    Args:
        features: (N, d).
        labels: classes (N,), -1 where unknown.

    Raises:
        UserError: fewer than 5 features, not one label for each, or features not finite.
    """
    given = features.detach().cpu().numpy() if isinstance(features, Tensor) else features
    rows = np.asarray(given, dtype=np.float32)
    if rows.ndim != 2 or len(rows) < FEWEST:
        raise UserError(
            f"features has the shape {rows.shape}; give at least {FEWEST} rows, (N, d)."
        )
    if not np.isfinite(rows).all():
        raise UserError("features has values that are nan or infinite.")
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    known = None
    if labels is not None:
        known = np.asarray(labels, dtype=np.int64)
        if known.shape != (len(rows),):
            raise UserError(f"labels has the shape {known.shape}, expected ({len(rows)},).")
    neighbours, silhouette = (None, None) if known is None else _separation(rows, known)
    return Embedding(_plane(rows, perplexity), perplexity, neighbours, silhouette)


def _plane(rows: NDArray[Any], perplexity: float) -> NDArray[np.float32]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    spread = rows.std(axis=0).max()
    if not spread:
        return np.zeros((len(rows), 2), np.float32)  # all are the same point
    rows, width = rows / spread, min(WIDEST, len(rows) - 1)
    if rows.shape[1] > width:
        rows = PCA(width, random_state=SEED, svd_solver="full").fit_transform(rows)
    # A start by PCA keeps the places of clusters alike between two embeddings.
    plane = TSNE(2, perplexity=perplexity, init="pca", random_state=SEED)
    return plane.fit_transform(rows).astype(np.float32)


def _separation(rows: NDArray[Any], labels: NDArray[np.int64]) -> tuple[float | None, float | None]:
    """Return the accuracy of the nearest neighbours, and the silhouette."""
    from sklearn.metrics import silhouette_score

    rows, labels = rows[labels >= 0], labels[labels >= 0]
    classes = len(np.unique(labels))
    if classes < 2:
        return None, None
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    silhouette = None
    if classes < len(labels):
        silhouette = float(silhouette_score(unit, labels, metric="cosine"))
    return _neighbour_accuracy(unit, labels), silhouette


def _neighbour_accuracy(unit: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Return the share of images whose nearest others are mostly of their class."""
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    count = min(NEIGHBOURS, len(labels) - 1)
    near = labels[np.argsort(-cosine, axis=1, kind="stable")[:, :count]]
    right = 0
    for own, others in zip(labels, near, strict=True):
        values, counts = np.unique(others, return_counts=True)
        best = values[counts == counts.max()]
        # The nearest of the classes that are equally frequent.
        right += int(next(other for other in others if other in best) == own)
    return right / len(labels)
