"""Features in the plane: reproducible, of any number, with the numbers of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from dplq.clip.backbone import Backbone
from dplq.errors import UserError
from dplq.explain import embed
from dplq.methods.base import PromptedCLIP
from tests.methods.test_load import SETTINGS, model_of
from tests.tiny import tiny_backbone

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def clip() -> Backbone:
    return tiny_backbone()


def clusters(each: int = 20, width: int = 64, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(size=(3, width)), np.repeat(np.arange(3), each)
    return (centres[labels] + noise * rng.normal(size=(3 * each, width))).astype("f4"), labels


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_numbers_equal_scikit_learns(noise: float) -> None:
    rows, labels = clusters(noise=noise)
    found = embed(rows, labels)
    expected = silhouette_score(rows, labels, metric="cosine")
    assert found.silhouette == pytest.approx(expected, abs=1e-6)
    right = 0
    for i in range(len(rows)):  # scikit-learn decides ties otherwise, so those are left out below
        others = np.delete(np.arange(len(rows)), i)
        near = KNeighborsClassifier(5, metric="cosine").fit(rows[others], labels[others])
        order = near.kneighbors(rows[i : i + 1], return_distance=False)[0]
        votes = labels[others][order]
        values, counts = np.unique(votes, return_counts=True)
        best = values[counts == counts.max()]
        right += next(v for v in votes if v in best) == labels[i]
    assert found.neighbours == pytest.approx(right / len(rows))
    assert (found.neighbours == 1) is (noise < 1)


def test_clusters_stay_together_in_the_plane() -> None:
    rows, labels = clusters()
    points = embed(rows, labels).points
    assert points.shape == (60, 2)
    assert silhouette_score(points, labels) > 0.7
    assert np.array_equal(points, embed(rows, labels).points)


@pytest.mark.parametrize("count", [5, 6, 40, 120])
def test_any_number_of_images(count: int) -> None:
    rows = np.random.default_rng(0).normal(size=(count, 8)).astype("f4")
    found = embed(torch.from_numpy(rows))
    assert found.points.shape == (count, 2)
    assert np.isfinite(found.points).all()
    assert found.perplexity == min(30, (count - 1) / 3)
    assert (found.neighbours, found.silhouette) == (None, None)


def test_labels_that_say_nothing() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 8)).astype("f4")
    assert embed(rows, [0] * 6).silhouette is None
    assert embed(rows, [-1] * 6).neighbours is None
    assert embed(rows, range(6)).silhouette is None  # no class has two images
    assert embed(rows, range(6)).neighbours == 0
    partly = embed(rows, [0, 0, 1, 1, -1, -1])
    assert partly.neighbours == embed(rows[:5], [0, 0, 1, 1, -1]).neighbours


def test_equal_features_are_one_point() -> None:
    assert not embed(np.ones((6, 8)), [0, 1, 0, 1, 0, 1]).points.any()


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (np.ones((4, 8)), None, r"shape \(4, 8\); give at least 5 rows"),
        (np.ones(8), None, r"shape \(8,\)"),
        (np.full((6, 8), np.nan), None, "nan or infinite"),
        (np.ones((6, 8)), [0, 1], r"labels has the shape \(2,\), expected \(6,\)"),
    ],
)
def test_refusals(rows: Any, labels: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        embed(rows, labels)


@pytest.mark.parametrize("method", SETTINGS)
def test_features_of_every_method(method: str, clip: Backbone) -> None:
    model: Any = model_of(method, clip)
    plain = model.image_features(IMAGES, adapted=False)
    assert torch.equal(plain, F.normalize(clip.encode_image(IMAGES), dim=-1))
    adapted = model.image_features(IMAGES)
    assert len(adapted) == 3
    if isinstance(model, PromptedCLIP) and method != "DCPL":
        prompts = model.prompts(IMAGES)
        changes = prompts.vision is not None
        assert torch.equal(adapted, model.image_features(IMAGES, prompts))
        assert torch.allclose(adapted, plain) is not changes
