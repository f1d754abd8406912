"""Nearest words: known where a context starts with words, and equal to a naive search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dplq
from dplq.clip.backbone import Backbone
from dplq.clip.tokenizer import make_tokenizer
from dplq.errors import UserError
from dplq.explain import nearest_words
from dplq.methods.registry import create_model
from tests.methods.test_load import SETTINGS, model_of
from tests.tiny import VOCABULARY, tiny_backbone, write_biomedclip_dir
from tests.tiny_timm import small_timm

NAMES = ["lake", "river", "parking lot"]
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
WORDS = "a satellite photo of"
# The methods whose untrained context is the words of CTX_INIT.
OF_WORDS: dict[str, dict[str, Any]] = {
    "CoOp": {},
    "KgCoOp": {},
    "TCP": {"class_layer": 1},
    "ProGrad": {"n_ctx": 4},
    "BiomedCoOp": {"n_ctx": 4},
    "MaPLe": {"n_ctx": 4, "prompt_depth": 3},
    "IVLP": {"n_ctx_text": 4, "prompt_depth_text": 3, "prompt_depth_vision": 3},
    "PromptSRC": {"n_ctx_text": 4, "prompt_depth_text": 3, "prompt_depth_vision": 3},
    "QuaternionPrompt": {"n_ctx": 4, "prompt_depth": 3, "preset": "residual_head"},
}


@pytest.fixture(scope="module")
def clip() -> Backbone:
    return tiny_backbone()


def words_of(found: Any, rank: int = 0) -> list[str]:
    return [token.words[rank].word for token in found.tokens]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("method", OF_WORDS)
def test_an_untrained_context_has_its_words(clip: Backbone, method: str, metric: str) -> None:
    domain = dplq.load_domain_encoder("clip", backbone=clip)
    given = {"domain": domain} if method == "QuaternionPrompt" else {}
    model = create_model(method, clip, NAMES, seed=0, ctx_init=WORDS, **given, **OF_WORDS[method])
    found = nearest_words(model, IMAGES, metric=metric)
    assert words_of(found) == WORDS.split()
    assert [token.position for token in found.tokens] == [0, 1, 2, 3]
    for token in found.tokens:
        assert len(token.words) == 5
        assert token.words[0].euclidean == 0
        assert token.words[0].cosine < 1e-6
        assert getattr(token.words[1], metric) > 0.1
        assert token.classname == ""
        assert token.spread == 0


def test_the_demo_clips_words() -> None:
    """The shipped table is filled up for words that were not used in its training."""
    model = create_model("CoOp", dplq.load_backbone("demo"), NAMES, seed=0, ctx_init=WORDS)
    found = nearest_words(model, k=1)
    assert words_of(found) == WORDS.split()
    assert found.typical > 0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_equal_to_a_naive_search(clip: Backbone, metric: str) -> None:
    model = create_model("CoOp", clip, NAMES, seed=0, n_ctx=2, csc=True)
    found = nearest_words(model, k=3, metric=metric)
    assert [token.classname for token in found.tokens] == [n for n in NAMES for _ in range(2)]
    assert [token.position for token in found.tokens] == [0, 1] * 3
    table: Any = clip.clip
    table = table.token_embedding.weight.double()
    decode = make_tokenizer("lower").decode  # writes a space where a word ends
    for token, own in zip(found.tokens, model.prompt_learner.ctx.flatten(0, 1), strict=True):
        own = own.detach().double()
        euclidean = ((table - own) ** 2).sum(dim=1).sqrt()
        cosine = 1 - (table @ own) / (table.norm(dim=1) * own.norm())
        order = (euclidean if metric == "euclidean" else cosine).argsort()[:3].tolist()
        written = [decode([i]) for i in order]
        expected = [w[:-1] if w.endswith(" ") else f"{w}..." for w in written]
        assert [near.word for near in token.words] == expected
        for near, i in zip(token.words, order, strict=True):
            assert near.euclidean == pytest.approx(euclidean[i].item(), rel=1e-5)
            assert near.cosine == pytest.approx(cosine[i].item(), abs=1e-5)


def test_a_context_of_the_image_is_averaged(clip: Backbone) -> None:
    model = model_of("CoCoOp", clip)
    found = nearest_words(model, IMAGES)
    contexts = model.prompts(IMAGES).language[:, 0].detach()  # type: ignore[operator]
    mean = contexts.mean(dim=0)
    for token in found.tokens:
        spread = (contexts[:, token.position] - mean[token.position]).norm(dim=1).mean().item()
        assert token.spread == pytest.approx(spread, rel=1e-5)
        assert token.spread > 0
    with pytest.raises(UserError, match="context of CoCoOp depends on the image: give images"):
        nearest_words(model)
    with pytest.raises(UserError, match="images is empty"):
        nearest_words(model, IMAGES[:0])


def test_words_of_bert(tmp_path: Path) -> None:
    with small_timm():
        clip = dplq.load_backbone(write_biomedclip_dir(tmp_path), pretrained=False)
    model = create_model("CoOp", clip, ["brain glioma", "pituitary"], ctx_init="a photo of a")
    found = nearest_words(model, k=len(VOCABULARY))
    assert words_of(found) == ["a", "photo", "of", "a"]
    assert {near.word for near in found.tokens[0].words} == set(VOCABULARY)


def test_signs_and_pieces_are_written_as_text(clip: Backbone) -> None:
    tokens = clip.tokenize(["photogrammetry \N{LATIN SMALL LETTER E WITH ACUTE}"])[0]
    ids = [i for i in tokens.tolist() if i]
    words = clip.text.words(ids)
    assert words[0] == "<start_of_text>"
    assert words[-1] == "<end_of_text>"
    assert words[-2] == "\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert "".join(word.removesuffix("...") for word in words[1:-2]) == "photogrammetry"
    assert all(word.endswith("...") for word in words[1:-3])


@pytest.mark.parametrize("method", ["VPT", "ZeroshotCLIP", "LinearProbe", "CLIPLoRA"])
def test_a_fixed_text_is_refused(clip: Backbone, method: str) -> None:
    with pytest.raises(UserError, match=f"{method} learns no context of words"):
        nearest_words(model_of(method, clip, **SETTINGS[method]), IMAGES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "manhattan"}, "metric is 'manhattan'; it must be one of euclidean, cosine"),
        ({"k": 0}, "k is 0; it must be at least 1 and at most 49408"),
    ],
)
def test_wrong_arguments(clip: Backbone, given: dict[str, Any], message: str) -> None:
    model = create_model("CoOp", clip, NAMES, seed=0, n_ctx=2)
    with pytest.raises(UserError, match=message):
        nearest_words(model, **given)
