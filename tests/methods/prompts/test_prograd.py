"""ProGrad: its two losses and its projection written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from dplq.errors import UserError
from dplq.methods.coop import CoOpModel
from dplq.methods.prompts.prograd import ProGradModel, without_conflict
from tests.tiny import tiny_backbone

NAMES = ["river", "parking_lot", "a"]


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_losses_written_out(temperature, clip):
    model = ProGradModel(clip, NAMES, ctx_init="", n_ctx=3, temperature=temperature, seed=0)
    size = clip.image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0])
    terms, logits = model.losses(images, labels)
    texts = [f"a photo of a {name}." for name in ("river", "parking lot", "a")]
    text = F.normalize(clip.encode_text(clip.tokenize(texts)), dim=-1)
    image = F.normalize(clip.encode_image(images), dim=-1)
    expected = torch.zeros(())
    for zero_shot, own in zip(clip.logit_scale * image @ text.T, logits, strict=True):
        p = (zero_shot / temperature).exp() / (zero_shot / temperature).exp().sum()
        q = (own / temperature).exp() / (own / temperature).exp().sum()
        expected = expected - temperature**2 * (p * q.log()).sum() / 2
    torch.testing.assert_close(terms["general"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["ce"], F.cross_entropy(logits, labels))
    torch.testing.assert_close(logits, model(images))


def test_projection_removes_what_conflicts():
    gradient, general = torch.tensor([[3.0, -1.0]]), torch.tensor([[0.0, 5.0]])
    assert without_conflict(gradient, general, 1.0).tolist() == [[3.0, 0.0]]
    torch.testing.assert_close(
        without_conflict(gradient, general, 0.8), torch.tensor([[3.0, -0.2]])
    )
    aligned = torch.tensor([[3.0, 1.0]])
    assert torch.equal(without_conflict(aligned, general, 1.0), aligned)
    # The length of the general direction does not matter, not even that it has one.
    assert without_conflict(gradient, 1e-3 * general, 1.0).tolist() == [[3.0, 0.0]]
    assert torch.equal(without_conflict(gradient, 0 * general, 1.0), gradient)


def test_zeros_stand_before_fewer_words_than_tokens(clip):
    model = ProGradModel(clip, NAMES, n_ctx=6, ctx_init="a photo of a")
    words = clip.embed_tokens(clip.tokenize(["a photo of a"]))[0, 1:5]
    assert torch.equal(model.prompt_learner.ctx[2:], words)
    assert not model.prompt_learner.ctx[:2].any()
    assert model.settings["n_ctx"] == 6
    same = ProGradModel(clip, NAMES, n_ctx=4, ctx_init="a photo of a")
    assert torch.equal(same.prompt_learner.ctx, words)


def test_zeros_need_a_token_that_holds_their_place(monkeypatch):
    """As CoOp's random context does."""
    clip = tiny_backbone()
    tokenize, name = clip.tokenize, clip.spec.name

    def two_tokens(texts):
        return tokenize([text.replace("X", "qzx") for text in texts])

    monkeypatch.setitem(vars(clip), "tokenize", two_tokens)
    for model, settings, message in (
        (CoOpModel, {"n_ctx": 4}, "4 X as 8 tokens, so these cannot hold the place of a random "),
        (
            ProGradModel,
            {"n_ctx": 8, "ctx_init": "a photo of a"},
            "4 X as 8 tokens, so these cannot hold the place of zeros before CTX_INIT: set N_CTX "
            "4, the number of its words",
        ),
    ):
        with pytest.raises(UserError) as caught:
            model(clip, NAMES, seed=0, **settings)
        assert f"the tokenizer of {name} writes {message}" in str(caught.value)
    assert ProGradModel(clip, NAMES, n_ctx=4, ctx_init="a photo of a").n_ctx == 4
