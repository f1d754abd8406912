"""Effect of the prompts of each layer: equal to hiding them in a naive pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import dplq
from dplq.clip.backbone import Backbone
from dplq.errors import UserError
from dplq.explain import layer_effects
from dplq.explain.layer_effect import hiding_prompts
from dplq.explain.tower import replaced_encode
from dplq.methods.registry import create_model
from tests.clip.test_towers import KINDS, TOKENLESS, backbone_of, draw, images_for
from tests.methods.test_load import model_of
from tests.tiny import tiny_backbone, write_biomedclip_dir
from tests.tiny_timm import small_timm

NAMES = ["lake", "river", "parking lot"]
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def clip() -> Backbone:
    return tiny_backbone()


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(TOKENLESS)))
def test_prompts_hidden_in_all_layers_are_no_prompts(kind: str, tmp_path: Path) -> None:
    with small_timm():
        clip = backbone_of(kind, tmp_path)
    images, prompts = images_for(clip), draw(3, clip.vision_width, seed=1)
    deep = [draw(3, clip.vision_width, seed=2)]
    plain, prompted = clip.encode_image(images), clip.encode_prompted_image(images, prompts, deep)
    assert not torch.allclose(plain, prompted)
    with replaced_encode(clip.image, hiding_prompts(set(range(clip.vision_layers)))):
        torch.testing.assert_close(
            clip.encode_prompted_image(images, prompts, deep), plain, rtol=1e-4, atol=1e-5
        )
    assert torch.equal(clip.encode_prompted_image(images, prompts, deep), prompted)


def masked(blocks: Any, x: Tensor, deep: Any, place: slice, hidden: int, mask: Tensor) -> Tensor:
    """Run open_clip's blocks, with the prompts at `place` unseen by others in one layer."""
    for layer, block in enumerate(blocks):
        if 0 < layer <= len(deep):
            x = x.clone()
            x[:, place] = deep[layer - 1]
        unseen = mask.clone()
        if layer == hidden:
            unseen[:, place] = -torch.inf
            unseen[place] = mask[place]
        x = block(x, attn_mask=unseen)
    return x


@torch.no_grad()
def image_feature(model: Any, prompts: Any, hidden: int) -> Tensor:
    visual = model.clip.clip.visual
    x = visual.conv1(IMAGES).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], 1)
    x = x + visual.positional_embedding
    own = x.shape[1]
    x = visual.ln_pre(torch.cat([x, prompts.vision.expand(len(x), -1, -1)], 1))
    place, mask = slice(own, x.shape[1]), torch.zeros(x.shape[1], x.shape[1])
    x = masked(visual.transformer.resblocks, x, prompts.deep_vision, place, hidden, mask)
    return F.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=-1)


@torch.no_grad()
def text_feature(model: Any, prompts: Any, hidden: int) -> Tensor:
    """Features (K, d) of texts written out, of prompts that all images share."""
    clip = model.clip.clip
    tokens = model.clip.tokenize([texts[0] for texts in model.prompt_texts()])
    x = clip.token_embedding(tokens)
    place = slice(1, 1 + model.n_ctx)
    x[:, place] = prompts.language[0]
    x = x + clip.positional_embedding
    x = masked(clip.transformer.resblocks, x, prompts.deep_text, place, hidden, clip.attn_mask)
    x = clip.ln_final(x[torch.arange(len(x)), tokens.argmax(dim=1)]) @ clip.text_projection
    return F.normalize(x, dim=-1)


@pytest.mark.parametrize("method", ["MaPLe", "IVLP", "QuaternionPrompt"])
def test_equal_to_a_mask_in_one_layer(clip: Backbone, method: str) -> None:
    model: Any = model_of(method, clip)
    prompts, effects = model.prompts(IMAGES), layer_effects(model, IMAGES)
    if len(prompts.language) > 1:
        assert torch.equal(prompts.language[:1].expand_as(prompts.language), prompts.language)
    image, text = image_feature(model, prompts, -1), text_feature(model, prompts, -1)
    logits = model.logits(image, text[None])
    torch.testing.assert_close(logits, model(IMAGES))
    assert [effect.layer for effect in effects] == list(range(1 + len(prompts.deep_vision)))
    for effect in effects:
        hidden = image_feature(model, prompts, effect.layer)
        expected = (1 - (image * hidden).sum(-1)).mean().item()
        assert effect.image == pytest.approx(expected, rel=1e-2, abs=1e-6)
        assert effect.image is not None
        assert effect.image > 1e-4
        guess = model.logits(hidden, text[None]).argmax(dim=1)
        assert effect.changed == (guess != logits.argmax(dim=1)).float().mean().item()
        if effect.layer > len(prompts.deep_text):
            assert effect.text is None
            continue
        expected = (1 - (text * text_feature(model, prompts, effect.layer)).sum(-1)).mean().item()
        assert effect.text == pytest.approx(expected, rel=1e-2, abs=1e-6)


def test_layers_of_each_tower(clip: Backbone) -> None:
    def layers(method: str) -> list[tuple[int, bool, bool]]:
        found = layer_effects(model_of(method, clip), IMAGES)
        return [(e.layer, e.image is not None, e.text is not None) for e in found]

    assert layers("VPT") == [(0, True, False), (1, True, False)]
    assert layers("CoCoOp") == [(0, False, True)]
    assert layers("TCP") == [(0, False, True), (2, False, True)]  # its layer 1 has no tokens
    assert layers("PromptSRC") == [(0, True, True), (1, False, True)]
    assert layers("CoOp") == []  # class names in the middle of the context


def test_texts_in_chunks_give_the_same(clip: Backbone) -> None:
    model = create_model("MaPLe", clip, NAMES, seed=0, prompt_depth=3)
    whole = [effect.text for effect in layer_effects(model, IMAGES)]
    model.text_chunk = 1
    assert [effect.text for effect in layer_effects(model, IMAGES)] == pytest.approx(whole)


def test_bert(tmp_path: Path) -> None:
    with small_timm():
        clip = dplq.load_backbone(write_biomedclip_dir(tmp_path), pretrained=False)
    model = create_model("MaPLe", clip, ["brain glioma", "pituitary"], seed=0, prompt_depth=2)
    found = layer_effects(model, images_for(clip))
    assert [effect.layer for effect in found] == [0, 1]
    assert all(effect.text is not None and effect.text > 1e-8 for effect in found)
    assert all(effect.image is not None and effect.image > 1e-6 for effect in found)


def test_refusals(clip: Backbone) -> None:
    with pytest.raises(UserError, match="ZeroshotCLIP has no prompts"):
        layer_effects(model_of("ZeroshotCLIP", clip), IMAGES)
    with pytest.raises(UserError, match="images is empty"):
        layer_effects(model_of("MaPLe", clip), IMAGES[:0])
