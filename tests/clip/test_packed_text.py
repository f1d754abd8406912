"""Packed texts against separate sequences: same features, same gradients."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

import dplq
from dplq.clip import packed_text
from dplq.clip.backbone import Backbone
from dplq.clip.blocks import is_supported
from dplq.methods.base import PromptedCLIP, Prompts
from tests.tiny import tiny_clip_config, write_clip_dir

NAMES = {
    "ragged": ["river", "dense residential area", "lake", "storage tank", "a b c d e f g h i j k"],
    "one": ["parking lot"],
    "equal": ["river", "forest", "lake"],
    "extremes": ["sea", " ".join(["very"] * 40) + " long"],
    "twice": ["lake", "lake", "river"],
}
DEPTHS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    config = tiny_clip_config(vision_layers=4, text_layers=4)
    return dplq.load_backbone(write_clip_dir(folder, config), pretrained=False).double()


class Learner(torch.nn.Module):
    """Free prompts, one context per image."""

    def __init__(self, clip, batch, n_ctx, depth):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        shape = (n_ctx, clip.text_width)
        self.language = torch.nn.Parameter(torch.randn(batch, 1, *shape, generator=draw).double())
        self.deep = torch.nn.ParameterList(
            torch.randn(shape, generator=draw).double() for _ in range(depth - 1)
        )

    def forward(self):
        return Prompts(self.language, list(self.deep))


def make_model(clip, names, batch=3, n_ctx=2, depth=3, prefix="a photo of a"):
    learner = Learner(clip, batch, n_ctx, depth)
    return PromptedCLIP(clip, learner, names, prefix=prefix, n_ctx=n_ctx, settings={})


def outcome(model, features):
    """Features, and the gradients of all prompts for a fixed direction."""
    model.zero_grad()
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1)).double()
    (features * weights).sum().backward()
    return features.detach(), [p.grad.clone() for p in model.prompt_learner.parameters()]


def assert_same(model):
    prompts = model.prompt_learner()
    plain = outcome(model, model._plain_text_features(prompts))
    fast = outcome(model, model.text_features(model.prompt_learner()))
    torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("names", "depth", "n_ctx", "batch"),
    [
        *itertools.product(NAMES, DEPTHS, [2], [3]),
        *itertools.product(["ragged"], [1, 3], [1, 4], [1]),
    ],
)
def test_features_and_gradients_are_those_of_the_plain_tower(clip, names, depth, n_ctx, batch):
    assert_same(make_model(clip, NAMES[names], batch, n_ctx, depth))


def test_without_common_words(clip):
    """The whole prefix is learned: nothing stands between context and names."""
    assert_same(make_model(clip, NAMES["ragged"], n_ctx=4))


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("size", [1, 5, 12])
def test_several_blocks_of_classes(clip, names, size, monkeypatch):
    monkeypatch.setattr(packed_text, "TOKENS_PER_BLOCK", size)
    model = make_model(clip, NAMES[names])
    if size == 1:
        assert len(model.texts.packed) == len(NAMES[names])
    assert_same(model)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_chunks_change_nothing(clip, chunk, monkeypatch):
    monkeypatch.setattr(packed_text, "TOKENS_PER_BLOCK", 1)
    model = make_model(clip, NAMES["ragged"])
    assert len(model.texts.packed) == 5
    whole = outcome(model, model.text_features(model.prompt_learner()))
    runs = []
    monkeypatch.setattr(packed_text, "_forward_chunk", record(packed_text._forward_chunk, runs))
    model.text_chunk = chunk
    parts = outcome(model, model.text_features(model.prompt_learner()))
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-12)
    # A block per class; the backward pass recomputes each chunk, the last one first.
    assert runs == {1: [1] * 10, 2: [2, 2, 1, 1, 2, 2], 4: [4, 1, 1, 4]}[chunk]


def record(run, sizes):
    def recorded(blocks, prefix, deep_prompts, packed, *rest):
        sizes.append(len(packed))
        return run(blocks, prefix, deep_prompts, packed, *rest)

    return recorded


def test_blocks_are_filled_evenly_and_in_order():
    counts = [3, 4, 5, 3, 4, 6, 3, 3, 4, 5]
    blocks = packed_text.split_into_blocks(counts, 14)
    assert [k for block in blocks for k in block] == list(range(10))
    assert [sum(counts[k] for k in block) for block in blocks] == [15, 13, 12]
    assert packed_text.split_into_blocks([40], 8) == [[0]]


def test_layers_without_deep_prompts_are_unchanged(clip):
    model = make_model(clip, NAMES["ragged"], depth=1)
    width = clip.text_width
    deep = [torch.zeros(0, width), torch.randn(2, width).double()]
    prompts = Prompts(model.prompt_learner.language, deep)
    torch.testing.assert_close(
        model.text_features(prompts), model._plain_text_features(prompts), rtol=1e-9, atol=1e-12
    )


def test_a_tower_that_is_not_causal_is_not_packed(clip, monkeypatch):
    monkeypatch.setattr(clip, "supports_packing", False)
    model = make_model(clip, NAMES["ragged"])
    assert model.texts is None
    monkeypatch.setattr(clip, "encode_packed_text", None)  # calling it would fail
    model.text_features(model.prompt_learner())


def test_which_towers_support_packing(clip):
    assert clip.supports_packing
    assert not is_supported(torch.nn.TransformerEncoderLayer(8, 2))
    free = copy.deepcopy(clip.clip)
    free.attn_mask = None
    assert not Backbone(free, {"embed_dim": 48, "text_cfg": {}}, {}, clip.spec).supports_packing


def test_class_specific_contexts_are_not_packed(clip, monkeypatch):
    names = NAMES["ragged"]
    model = make_model(clip, names)
    monkeypatch.setattr(clip, "encode_packed_text", None)
    language = torch.randn(1, len(names), 2, clip.text_width).double()
    assert model.text_features(Prompts(language)).shape == (1, len(names), clip.embed_dim)
