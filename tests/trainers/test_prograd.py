"""A step of ProGrad's trainer: two gradients, combined."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

import dplq.trainers  # noqa: F401 (makes `import dassl` work)
from tests.references.originals import CASES, Bench


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("clip"), layers=2, image_size=32, widths=(64, 64))
    return bench.ours(CASES["ProGrad"])


def gradients(trainer, images, labels):
    """The gradients of cross-entropy and of the divergence, each on its own."""
    model, context = trainer.model, trainer.model.prompt_learner.ctx
    logits = model(images)
    teacher = model.logits(model.image_features(images), model.reference_text())
    soft = -4 * ((teacher / 2).softmax(1) * (logits / 2).log_softmax(1)).sum(1).mean()
    (own,) = torch.autograd.grad(F.cross_entropy(logits, labels), context, retain_graph=True)
    (general,) = torch.autograd.grad(soft, context)
    return own, general


@pytest.fixture(scope="module")
def batch(trainer):
    """Images with the one label whose gradient conflicts most with the general direction."""
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def agreement(labels):
        own, general = gradients(trainer, images, labels)
        return float((own * general).sum() / own.norm() / general.norm())

    return images, min((torch.full((3,), label) for label in range(5)), key=agreement)


def test_a_step_follows_the_projected_gradient(trainer, batch):
    images, labels = batch
    context = trainer.model.prompt_learner.ctx
    own, general = gradients(trainer, images, labels)
    dot = (own * general).sum()
    assert dot < 0
    expected = own - dot / general.square().sum() * general
    before = context.detach().clone()
    logged = trainer.forward_backward({"img": images, "label": labels})
    torch.testing.assert_close(context.grad, expected, rtol=1e-4, atol=1e-5)
    assert (context.grad - own).abs().max() > 1e-2 * own.abs().max()
    moved = before - trainer.optim.param_groups[0]["lr"] * expected
    weight_decay = trainer.cfg.OPTIM.WEIGHT_DECAY * trainer.optim.param_groups[0]["lr"] * before
    torch.testing.assert_close(context.detach(), moved - weight_decay, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        context.copy_(before)
    cross_entropy = F.cross_entropy(trainer.model(images), labels)
    torch.testing.assert_close(logged["loss"], cross_entropy.detach())


def test_both_losses_are_scaled(trainer, batch, monkeypatch):
    context = trainer.model.prompt_learner.ctx
    loss, _ = trainer.compute_loss(*batch)
    trainer.optim.zero_grad()
    trainer.backward(loss)
    plain = context.grad.clone()
    scaled = []
    monkeypatch.setattr(
        trainer, "scaler", SimpleNamespace(scale=lambda one: scaled.append(one) or 1024 * one)
    )
    loss, _ = trainer.compute_loss(*batch)
    trainer.optim.zero_grad()
    trainer.backward(loss)
    assert len(scaled) == 2
    torch.testing.assert_close(context.grad, 1024 * plain, rtol=1e-4, atol=1e-5)
