"""SigLIP's, CLIPA's, MobileCLIP's and CoCa's text towers against open_clip and a naive loop."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.transformer import TextTransformer
from torch import Tensor

from dplq.clip.hub_tokenizer import HubTokenizer
from dplq.clip.tokenizer import make_tokenizer, tokenize
from dplq.clip.towers.open_text import BidirectionalText, ClassTokenText
from tests.clip.test_hf_text import draw
from tests.tiny import write_biomedclip_dir

WIDTH, LAYERS, DIM, LENGTH = 32, 3, 16, 20
TEXTS = ["a photo of a river.", "a photo of an image with dense parking lots", "x"]


def transformer(**options: Any) -> TextTransformer:
    torch.manual_seed(1)
    sizes = {"width": WIDTH, "layers": LAYERS, "heads": 4, "output_dim": DIM}
    module = TextTransformer(**{"context_length": LENGTH, **sizes, **options})
    with torch.no_grad():  # so that no bias is 0
        for parameter in module.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return module.eval().requires_grad_(False)


def clip_tokenizer() -> Any:
    return partial(tokenize, make_tokenizer("lower"), length=LENGTH, model="tiny")


def t5_tokenizer(folder: Path, pad: str) -> HubTokenizer:
    """Return a tokenizer with T5's markers: none before a text, </s> behind it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "river", "x", "parking", "lot"]
    words += ["an", "image", "with", "dense"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    markers = {"pad_token": pad, "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **markers).save_pretrained(folder)
    return HubTokenizer("t5", LENGTH, "tiny", folder=folder, options={"clean": "canonicalize"})


def siglip(folder: Path, pad: str = "</s>") -> BidirectionalText:
    options = {"vocab_size": 16, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    return BidirectionalText(transformer(**options), t5_tokenizer(folder, pad), "last")


def clipa(folder: Path) -> BidirectionalText:
    write_biomedclip_dir(folder)
    tokenizer = HubTokenizer(
        "bert", LENGTH, "tiny", folder=folder, options={"strip_sep_token": True}
    )
    options = {"vocab_size": 64, "no_causal_mask": True, "pool_type": "last"}
    return BidirectionalText(transformer(**options), tokenizer, "last")


def mobileclip(folder: Path) -> BidirectionalText:
    return BidirectionalText(transformer(no_causal_mask=True), clip_tokenizer(), "argmax")


def coca(folder: Path, **options: Any) -> ClassTokenText:
    return ClassTokenText(transformer(embed_cls=True, **options), clip_tokenizer(), "text.")


def correct_coca(folder: Path) -> ClassTokenText:
    return coca(folder, correct_cls_mask=True)


KINDS = {
    "SigLIP": siglip,
    "SigLIP 2": partial(siglip, pad="<pad>"),
    "CLIPA": clipa,
    "MobileCLIP": mobileclip,
    "CoCa": coca,
    "CoCa, correct mask": correct_coca,
}
FACTS = {  # position of the first context token, tokens of the texts' own
    "SigLIP": (0, [5, 9, 1]),
    "SigLIP 2": (0, [5, 9, 1]),
    "CLIPA": (1, [6, 11, 1]),
    "MobileCLIP": (1, [6, 9, 1]),
    "CoCa": (1, [6, 9, 1]),
    "CoCa, correct mask": (1, [6, 9, 1]),
}


def naive(tower: Any, tokens: Tensor, x: Tensor, deep: Sequence[Tensor]) -> Tensor:
    """The tower at its full length, from open_clip's embedding and mask, with torch.cat."""
    text, n = tower.module, deep[0].shape[-2] if deep else 0
    _, mask = text._embeds(tokens)
    if text.cls_emb is not None:
        x = torch.cat([x, text.cls_emb.expand(len(x), 1, -1)], dim=1)
    h, start = x + text.positional_embedding, tower.prompt_start
    for layer, block in enumerate(text.transformer.resblocks):
        if 0 < layer <= len(deep):
            new = deep[layer - 1].expand(len(h), -1, -1)
            h = torch.cat([h[:, :start], new, h[:, start + n :]], dim=1)
        h = block(h, attn_mask=mask)
    position = tokens.argmax(dim=-1) if text.pool_type == "argmax" else torch.tensor(-1)
    if text.cls_emb is not None:
        position = torch.tensor(-1)
    pooled = text.ln_final(h)[torch.arange(len(h)), position.expand(len(h))]
    projection = text.text_projection
    return projection(pooled) if callable(projection) else pooled @ projection


@pytest.mark.parametrize("kind", KINDS)
def test_without_prompts_equal_to_open_clip(kind: str, tmp_path: Path) -> None:
    tower = KINDS[kind](tmp_path)
    tokens = tower.tokenize(TEXTS)
    assert tokens.shape == (3, LENGTH)
    expected = tower.module(tokens)
    torch.testing.assert_close(tower.encode_tokens(tokens), expected)
    torch.testing.assert_close(tower.encode(tower.embed(tokens), tower.end(tokens)), expected)
    assert (tower.prompt_start, tower.count(tokens).tolist()) == FACTS[kind]
    facts = (tower.width, tower.layers, tower.context_length, tower.lacks)
    assert facts == (WIDTH, LAYERS, LENGTH, "")


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_and_gradients_equal_a_naive_loop(kind: str, depth: int, tmp_path: Path) -> None:
    tower = KINDS[kind](tmp_path)
    tokens, n = tower.tokenize(TEXTS[:2]), 2
    words, start = tower.embed(tokens), tower.prompt_start
    context = draw(n, WIDTH, seed=1, grad=True)
    deep = [draw(n, WIDTH, seed=10 + i, grad=True) for i in range(1, depth)]
    x = torch.cat([words[:, :start], context.expand(2, -1, -1), words[:, start + n :]], dim=1)
    ours = tower.encode(x, tower.end(tokens), deep)
    theirs = naive(tower, tokens, x, deep)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    weights, learnable = draw(2, DIM, seed=5), [context, *deep]
    grads, expected = (
        torch.autograd.grad((f * weights).sum(), learnable, retain_graph=True)
        for f in (ours, theirs)
    )
    torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-5)


def test_siglip_s_padding_takes_part_and_coca_s_does_not_but_for_the_first(tmp_path: Path) -> None:
    """Why SigLIP runs at its full length, and CoCa at that of the longest text."""
    for tower, first, later in ((siglip(tmp_path), True, True), (coca(tmp_path), True, False)):
        tokens = tower.tokenize(TEXTS)
        words, end = tower.embed(tokens), tower.end(tokens)
        plain = tower.encode(words, end)
        for offset, matters in ((1, first), (2, later)):
            spoiled = words.clone()
            for row, last in zip(spoiled, end.tolist(), strict=True):
                row[last + offset] = 5.0
            assert torch.allclose(tower.encode(spoiled, end), plain, atol=1e-5) is not matters
        assert tower.ignores_padding is False


def test_coca_runs_as_many_tokens_as_its_longest_text_needs(tmp_path: Path) -> None:
    tower = coca(tmp_path)
    tokens = tower.tokenize(TEXTS)
    lengths: list[int] = []
    tower.module.transformer.resblocks[0].register_forward_pre_hook(
        lambda _, given: lengths.append(given[0].shape[1])
    )
    tower.encode(tower.embed(tokens), tower.end(tokens))
    assert lengths == [1 + 9 + 1 + 1 + 1]  # SOS, the text, EOT, one of padding, the class token


def test_coca_s_text_is_causal_and_its_states_are_prompts_that_change_nothing(
    tmp_path: Path,
) -> None:
    tower = coca(tmp_path)
    tokens = tower.tokenize(TEXTS)
    words, end = tower.embed(tokens), tower.end(tokens)
    states = [state[1:] for state in tower.prefix_states(tokens[0, :4])]  # "a photo of"
    assert tower.causal
    plain = tower.encode(words[:1], end[:1])
    torch.testing.assert_close(tower.encode(words[:1], end[:1], states), plain)


def test_an_unknown_pooling_is_said(tmp_path: Path) -> None:
    module = transformer(no_causal_mask=True, pool_type="none")
    tower = BidirectionalText(module, clip_tokenizer(), "none")
    assert tower.lacks == "its text tower pools by 'none'"


def test_siglip_s_tokens_are_open_clip_s(tmp_path: Path) -> None:
    from open_clip.tokenizer import HFTokenizer

    ours = t5_tokenizer(tmp_path, "</s>")
    theirs = HFTokenizer(str(tmp_path), context_length=LENGTH, clean="canonicalize")
    assert torch.equal(ours(TEXTS), theirs(TEXTS))
    assert ours(TEXTS)[2].tolist() == [7] + [1] * (LENGTH - 1)
