"""The linear map from image features to text features, against a second computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dplq.methods import text_map
from dplq.methods.text_map import RIDGE, TextMap, with_spread_of

CLIP, DOMAIN, CLASSES = 6, 5, 4


def drawn(count=40, seed=0, domain=DOMAIN):
    """Return features (count, CLIP + domain), labels with unequal counts, and texts."""
    generator = torch.Generator().manual_seed(seed)
    texts = F.normalize(torch.randn(CLASSES + 3, CLIP, generator=generator) + 1, dim=1)
    labels = (torch.arange(count) ** 2) % CLASSES
    labels[:CLASSES] = torch.arange(CLASSES)
    clip = F.normalize(texts[labels] + torch.randn(count, CLIP, generator=generator), dim=1)
    other = 7 + 3 * torch.randn(count, domain, generator=generator)
    return torch.cat([clip, other], dim=1), labels, texts


def expected_scores(features, labels, texts, new_features, new_texts, weights):
    """Return the scores by a least-squares problem whose extra rows are the penalties."""
    clip, domain = features[:, :CLIP], features[:, CLIP:]
    spread = np.linalg.norm(clip - clip.mean(0), axis=1).mean()
    width = domain.shape[1]

    def inputs(given):
        other = (given[:, CLIP:] - domain.mean(0)) / domain.std(0) / max(width, 1) ** 0.5
        return np.hstack([(given[:, :CLIP] - clip.mean(0)) / spread, other])

    centred = texts - texts.mean(0)
    targets = (centred / np.linalg.norm(centred, axis=1).mean())[labels]
    own = inputs(features)
    slope = (weights[:, None] * own[:, :CLIP] * targets).sum() / (
        weights[:, None] * own[:, :CLIP] ** 2
    ).sum()
    start = np.vstack([slope * np.eye(CLIP), np.zeros((width, CLIP))])
    penalty = np.sqrt(len(labels) * np.repeat(RIDGE, (CLIP, width)))[:, None]
    root = np.sqrt(weights)[:, None]
    rows = np.vstack([root * own, penalty * np.eye(CLIP + width)])
    wanted = np.vstack([root * targets, penalty * start])
    solved = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    mapped, shown = inputs(new_features) @ solved, new_texts - texts.mean(0)
    norms = [np.linalg.norm(part, axis=1, keepdims=True) for part in (mapped, shown)]
    return (mapped / norms[0]) @ (shown / norms[1]).T


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("domain", [DOMAIN, 0])
def test_equals_penalised_least_squares(balanced, domain):
    features, labels, texts = drawn(domain=domain)
    new, _, _ = drawn(seed=1, domain=domain)
    counts = torch.bincount(labels).numpy()
    each = len(labels) / (CLASSES * counts[labels]) if balanced else np.ones(len(labels))
    fitted = TextMap(CLIP, domain)
    fitted.fit(features, labels, texts[:CLASSES], "balanced" if balanced else None)
    arrays = [part.double().numpy() for part in (features, texts[:CLASSES], new, texts[CLASSES:])]
    expected = expected_scores(arrays[0], labels.numpy(), *arrays[1:], each)
    assert np.allclose(fitted(new, texts[CLASSES:]).numpy(), expected, atol=1e-5)
    assert len(set(counts)) > 1


@pytest.mark.parametrize("classes", [CLASSES, 1])
def test_without_information_it_is_clip_about_the_training_mean(monkeypatch, classes):
    """A strong penalty, or a single class, whose text says nothing once centred."""
    if classes > 1:
        monkeypatch.setattr(text_map, "RIDGE", (1e9, 1e9))
    features, labels, texts = drawn()
    labels = labels % classes
    fitted = TextMap(CLIP, DOMAIN)
    fitted.fit(features, labels, texts[:classes])
    images = features[:, :CLIP] - features[:, :CLIP].mean(0)
    shown = texts[CLASSES:] - texts[:classes].mean(0)
    expected = F.normalize(images, dim=1) @ F.normalize(shown, dim=1).T
    similar = torch.corrcoef(
        torch.stack([fitted(features, texts[CLASSES:]).flatten(), expected.flatten()])
    )[0, 1]
    assert similar > (0.9999 if classes > 1 else 0.9)


def test_it_finds_classes_without_training_images_where_clip_cannot():
    """Images show attributes of their class in other directions than texts do."""
    generator = torch.Generator().manual_seed(0)
    trained = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)]
    attributes = torch.tensor([*trained, (1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)])
    texts = F.normalize(attributes @ torch.randn(2, CLIP, generator=generator), dim=1)
    shown = attributes @ torch.randn(2, CLIP, generator=generator)
    labels = torch.arange(4).repeat(20)
    noise = 0.05 * torch.randn(80, CLIP, generator=generator)
    features = F.normalize(shown[labels] + noise, dim=1)
    fitted = TextMap(CLIP, 0)
    fitted.fit(features, labels, texts[:4])
    new = F.normalize(shown[4:][labels] + noise, dim=1)
    plain = (new @ texts[4:].T).argmax(1)
    found = fitted(new, texts[4:]).argmax(1)
    assert (found == labels).double().mean() == 1
    assert (plain == labels).double().mean() < 0.7


def test_scores_get_the_spread_of_the_logits():
    scores = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    logits = torch.tensor([[10.0, 50.0, 30.0], [1.0, 0.0, 2.0]])
    found = with_spread_of(scores, logits)
    assert torch.allclose(found, torch.tensor([[-20.0, 0.0, 20.0], [0.0, 0.0, 0.0]]))
