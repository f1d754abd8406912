"""The linear map from image features to text features, against a second computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dplq.methods import text_map
from dplq.methods.heads.fitting import balanced_weights
from dplq.methods.opinions import joined, with_spread_of
from dplq.methods.text_map import RIDGE, Images, TextMap, unseen_accuracy

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


def expected_scores(features, labels, texts, new_features, new_texts):
    """Return the scores by a least-squares problem whose extra rows are the penalties."""
    clip, domain = features[:, :CLIP], features[:, CLIP:]
    spread = np.linalg.norm(clip - clip.mean(0), axis=1).mean()
    width = domain.shape[1]

    def inputs(given):
        other = (given[:, CLIP:] - domain.mean(0)) / domain.std(0) / max(width, 1) ** 0.5
        return np.hstack([(given[:, :CLIP] - clip.mean(0)) / spread, other])

    mean = texts[labels].mean(0)
    targets = texts[labels] - mean
    targets = targets / np.linalg.norm(targets, axis=1).mean()
    own = inputs(features)
    slope = (own[:, :CLIP] * targets).sum() / (own[:, :CLIP] ** 2).sum()
    start = np.vstack([slope * np.eye(CLIP), np.zeros((width, CLIP))])
    penalty = np.sqrt(len(labels) * np.repeat(RIDGE, (CLIP, width)))[:, None]
    rows = np.vstack([own, penalty * np.eye(CLIP + width)])
    wanted = np.vstack([targets, penalty * start])
    solved = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    mapped, shown = inputs(new_features) @ solved, new_texts - mean
    norms = [np.linalg.norm(part, axis=1, keepdims=True) for part in (mapped, shown)]
    return (mapped / norms[0]) @ (shown / norms[1]).T


@pytest.fixture
def always_used(monkeypatch):
    """The domain feature, whatever unseen classes say."""
    monkeypatch.setattr(text_map, "unseen_accuracy", lambda *_: 0.5)


@pytest.mark.parametrize("domain", [DOMAIN, 0])
def test_equals_penalised_least_squares(domain, always_used):
    features, labels, texts = drawn(domain=domain)
    new, _, _ = drawn(seed=1, domain=domain)
    fitted = TextMap(CLIP, domain)
    fitted.fit(features, labels, texts[:CLASSES])
    arrays = [part.double().numpy() for part in (features, texts[:CLASSES], new, texts[CLASSES:])]
    expected = expected_scores(arrays[0], labels.numpy(), *arrays[1:])
    assert np.allclose(fitted(new, texts[CLASSES:]).numpy(), expected, atol=1e-5)


def test_balanced_is_as_if_rare_classes_had_more_images(always_used):
    """Where a count divides the largest, its images stand in for as many copies."""
    features, _, texts = drawn(count=18)
    labels = torch.tensor([0] * 8 + [1] * 8 + [2, 3])
    copies = torch.tensor([1] * 16 + [8, 8])
    new, _, _ = drawn(seed=1)
    scores = []
    for rows, how in ((copies, None), (torch.ones(18, dtype=int), "balanced"), (None, None)):
        repeated = features if rows is None else features.repeat_interleave(rows, dim=0)
        named = labels if rows is None else labels.repeat_interleave(rows)
        fitted = TextMap(CLIP, DOMAIN)
        weights = how and balanced_weights(named, CLASSES)
        fitted.fit(repeated, named, texts[:CLASSES], weights)
        scores.append(fitted(new, texts[CLASSES:]))
    assert torch.allclose(scores[0], scores[1], atol=1e-5)
    assert not torch.allclose(scores[0], scores[2], atol=0.1)


def attributes(domain):
    """Return images of four classes with features (80, CLIP + 2), labels and texts.

    CLIP's feature shows two attributes of the class, blurred; the domain feature shows them
    clearly, or only whether both are the same, which two classes share.
    """
    generator = torch.Generator().manual_seed(1)
    kinds = torch.tensor([(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)])
    directions = torch.randn(2, CLIP, generator=generator)
    texts = F.normalize(kinds @ directions + 3, dim=1)
    labels = torch.arange(4).repeat(20)
    blurred = kinds[labels] + 1.5 * torch.randn(80, 2, generator=generator)
    clip = F.normalize(blurred @ directions + 3, dim=1)
    shown = kinds if domain == "attributes" else kinds[:, :1] * kinds[:, 1:]
    other = shown.expand(4, 2)[labels] + 0.1 * torch.randn(80, 2, generator=generator)
    return torch.cat([clip, other], dim=1), labels, texts


def left_out_by_hand(features, labels, texts):
    """Return the accuracy on the classes that maps of three classes have not seen."""
    right = []
    for k in range(4):
        seen = [j for j in range(4) if j != k]
        kept = labels != k
        own = torch.tensor([seen.index(j) for j in labels[kept].tolist()])
        arrays = [part.double().numpy() for part in (features[kept], texts[seen])]
        new = [part.double().numpy() for part in (features[~kept], texts)]
        scores = expected_scores(arrays[0], own.numpy(), arrays[1], *new)
        right += (scores.argmax(1) == k).tolist()
    return sum(right) / len(right)


@pytest.mark.parametrize("domain", ["attributes", "class"])
def test_a_domain_feature_that_harms_unseen_classes_is_left_out(domain, caplog):
    caplog.set_level("INFO")
    features, labels, texts = attributes(domain)
    with_it, without = (
        left_out_by_hand(given, labels, texts) for given in (features, features[:, :CLIP])
    )
    fitted, plain = TextMap(CLIP, 2), TextMap(CLIP, 0)
    fitted.fit(features, labels, texts)
    plain.fit(features[:, :CLIP], labels, texts)
    images = Images(features.double(), texts.double()[labels], torch.ones(80, dtype=torch.float64))
    assert unseen_accuracy(images, labels, texts.double()) == pytest.approx(with_it)
    if domain == "attributes":
        assert with_it > without + 0.1
        assert fitted.weight[:, CLIP:].abs().max() > 0.01
        assert not caplog.text
        return
    assert with_it < without - 0.1
    assert fitted.weight[:, CLIP:].abs().max() == 0
    assert torch.equal(fitted.weight[:, :CLIP], plain.weight)
    assert torch.allclose(fitted(features, texts), plain(features[:, :CLIP], texts), atol=1e-5)
    assert f"{100 * with_it:.1f} % are right with it, {100 * without:.1f} % without" in caplog.text


def test_many_classes_are_left_out_in_ten_groups(monkeypatch):
    """Every image is out of one fit; rare classes count as much as others, where weighted."""
    labels = torch.arange(23).repeat(2)
    seen = []

    def fit_map(images, width):
        seen.append(images.weights.tolist())
        return torch.eye(23, dtype=torch.float64), torch.zeros(23), torch.zeros(23)

    monkeypatch.setattr(text_map, "fit_map", fit_map)
    texts = torch.eye(23, dtype=torch.float64)
    features = texts[labels].clone()
    features[3] = texts[4]  # one mistake
    weights = torch.arange(46, dtype=torch.float64)
    found = unseen_accuracy(Images(features, texts[labels], weights), labels, texts)
    assert found == pytest.approx(1 - 3 / weights.sum().item())
    assert len(seen) == 10
    times = [sum(weight in fold for fold in seen) for weight in weights.tolist()]
    assert times == [9] * 46


def test_groups_of_classes_do_not_depend_on_the_order_of_the_classes():
    generator = torch.Generator().manual_seed(0)
    texts = F.normalize(torch.randn(23, CLIP, generator=generator) + 1, dim=1).double()
    labels = torch.arange(23).repeat(4)
    noise = torch.randn(92, CLIP, generator=generator)
    features = F.normalize(texts[labels] + noise, dim=1)
    weights = torch.ones(92, dtype=torch.float64)
    found = []
    for seed in range(4):
        order = torch.randperm(23, generator=torch.Generator().manual_seed(seed))
        renamed = order.argsort()[labels]
        images = Images(features, texts[labels], weights)
        found.append(unseen_accuracy(images, renamed, texts[order]))
    assert len(set(found)) == 1
    assert 0 < found[0] < 1


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
    shown = texts[CLASSES:] - texts[labels].mean(0)
    expected = F.normalize(images, dim=1) @ F.normalize(shown, dim=1).T
    similar = torch.corrcoef(
        torch.stack([fitted(features, texts[CLASSES:]).flatten(), expected.flatten()])
    )[0, 1]
    assert similar > (0.9999 if classes > 1 else 0.9)
    if classes == 1:  # its own text is at the mean, where only rounding has a direction
        assert fitted(features, texts[:1] + 1e-6).abs().max() == 0


def test_equal_images_give_finite_scores():
    features, labels, texts = drawn()
    fitted = TextMap(CLIP, DOMAIN)
    fitted.fit(features[:1].repeat(len(labels), 1), labels, texts[:CLASSES])
    assert fitted(features, texts).isfinite().all()


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_scores_get_the_spread_of_the_logits(dtype):
    scores = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]], dtype=dtype)
    logits = torch.tensor([[10.0, 50.0, 30.0], [1.0, 0.0, 2.0]], dtype=dtype)
    found = with_spread_of(scores, logits)
    assert torch.allclose(found.float(), torch.tensor([[-20.0, 0.0, 20.0], [0.0] * 3]), rtol=1e-3)


def test_groups_keep_their_probability_whatever_their_size():
    """One class of probability 0.45 beside twenty others of 0.0275: it stays the first."""
    logits = torch.cat([torch.tensor([0.45]), torch.full((20,), 0.0275)]).log()[None] + 3
    scores = torch.arange(20.0)[None]
    found = joined(logits, [([0], torch.zeros(1, 1)), (range(1, 21), scores)]).exp()
    assert torch.allclose(found[0, 0], torch.tensor(0.45))
    assert torch.allclose(found.sum(), torch.tensor(1.0))
    assert torch.allclose(found[0, 1:], 0.55 * scores[0].softmax(0), atol=1e-6)
