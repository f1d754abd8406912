"""Effect of the domain feature: none where it is constant, and equal to passing features."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import dplq
from dplq.clip.backbone import Backbone
from dplq.errors import UserError
from dplq.explain import domain_effect
from dplq.explain.domain_effect import _cycle
from dplq.methods.base import CLIPModel
from dplq.methods.registry import create_model
from tests.methods.test_load import model_of
from tests.tiny import tiny_backbone

IMAGES = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = [0, 1, 2, 0, 1, 2, -1]
WITH_DOMAIN = ("QuaternionPrompt", "GDPL", "DCPL", "LinearProbe")


@pytest.fixture(scope="module")
def clip() -> Backbone:
    return tiny_backbone()


def active(method: str, clip: Backbone) -> CLIPModel:
    """Return a model in which the domain feature counts: a gain of 0 hides it before training."""
    model = model_of(method, clip)
    gain = getattr(model.prompt_learner, "language_gain", None)
    if gain is not None:
        gain.data.fill_(1)
    return model


@pytest.mark.parametrize("method", WITH_DOMAIN)
def test_a_constant_feature_has_no_effect(method: str, clip: Backbone, monkeypatch: Any) -> None:
    model = active(method, clip)
    assert model.domain is not None
    value = model.domain(IMAGES[:1])
    monkeypatch.setattr(model.domain, "forward", lambda images: value.repeat(len(images), 1))
    effect = domain_effect(model, IMAGES, LABELS, batch_size=3)
    assert [row.logit_change for row in effect.rows] == [0, 0, 0]
    assert [row.changed for row in effect.rows] == [0, 0, 0]
    assert len({row.accuracy for row in effect.rows}) == 1


@pytest.mark.parametrize("method", ["QuaternionPrompt", "GDPL", "DCPL"])
def test_equal_to_passing_features(method: str, clip: Backbone) -> None:
    model: Any = active(method, clip)
    own = model.domain(IMAGES)
    order = _cycle(7, 5)
    given = {"own": own, "mean": own.mean(0).expand_as(own), "other": own[order]}
    logits: dict[str, Tensor] = {
        source: model(IMAGES, domain_features=features).detach()
        for source, features in given.items()
    }
    effect = domain_effect(model, IMAGES, LABELS, seed=5)
    assert effect.images == 7
    spread = logits["own"].std(dim=1, correction=0).mean().item()
    assert effect.logit_spread == pytest.approx(spread, rel=1e-4)
    for row in effect.rows:
        expected = (logits[row.source] - logits["own"]).abs().mean().item()
        assert row.logit_change == pytest.approx(expected, rel=1e-3, abs=1e-7)
        assert (row.logit_change > 1e-4) is (row.source != "own")
        guess = logits[row.source].argmax(dim=1)
        right = (guess[:6] == torch.tensor(LABELS[:6])).float().mean().item()
        assert row.accuracy == pytest.approx(right)  # the seventh label is not known
        assert row.changed == (guess != logits["own"].argmax(dim=1)).float().mean().item()


def test_batches_make_no_difference_and_the_encoder_is_back(clip: Backbone) -> None:
    model = active("QuaternionPrompt", clip)
    encoder = model.domain
    whole, parts = (domain_effect(model, IMAGES, LABELS, batch_size=b) for b in (50, 2))
    for one, other in zip(whole.rows, parts.rows, strict=True):
        assert one.logit_change == pytest.approx(other.logit_change, rel=1e-3, abs=1e-6)
        assert one.accuracy == other.accuracy
    assert model.domain is encoder


def test_another_image_is_never_the_own_one() -> None:
    for count in (2, 3, 50):
        order = _cycle(count, seed=1)
        assert sorted(order.tolist()) == list(range(count))
        assert not (order == torch.arange(count)).any()
        assert torch.equal(order, _cycle(count, seed=1))


def test_without_labels_there_is_no_accuracy(clip: Backbone) -> None:
    model = active("DCPL", clip)
    assert [row.accuracy for row in domain_effect(model, IMAGES).rows] == [None] * 3
    assert [row.accuracy for row in domain_effect(model, IMAGES, [-1] * 7).rows] == [None] * 3


def test_refusals(clip: Backbone) -> None:
    with pytest.raises(UserError, match="This CoOp model has no domain encoder"):
        domain_effect(model_of("CoOp", clip), IMAGES)
    given = {"domain_dim": 0, "n_ctx": 2, "prompt_depth": 2}
    without = create_model("QuaternionPrompt", clip, ["a", "b"], seed=0, **given)
    with pytest.raises(UserError, match="has no domain encoder"):
        domain_effect(without, IMAGES)
    with pytest.raises(UserError, match="1 images are given; the effect needs at least two"):
        domain_effect(model_of("DCPL", clip), IMAGES[:1])


@pytest.mark.parametrize(
    ("labels", "said"), [([9, 0], "classes from 0 to 9"), ([0], "give one class for each of the 2")]
)
def test_labels_of_no_class_are_refused(labels, said):
    clip = tiny_backbone()
    domain = dplq.load_domain_encoder("clip", backbone=clip)
    model = dplq.QuaternionPromptCLIP(clip, domain, ["river", "lake"], prompt_depth=2, seed=0)
    with pytest.raises(UserError, match=said):
        domain_effect(model.eval(), torch.randn(2, 3, 32, 32), labels)
