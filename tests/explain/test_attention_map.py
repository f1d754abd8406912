"""Attention maps: they point at the object, equal a naive computation, and work on every tower."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dplq
from dplq.clip.backbone import Backbone
from dplq.demo import AERIAL_CLASSES
from dplq.errors import UserError
from dplq.explain import attention_map
from dplq.methods.registry import METHODS, create_model
from tests.clip.test_towers import KINDS, RESNET, TOKENLESS, backbone_of, images_for
from tests.explain.one_object import draw_objects, mass_inside
from tests.methods.test_load import SETTINGS, model_of
from tests.tiny import tiny_backbone, tiny_clip_config, write_clip_dir
from tests.tiny_timm import small_timm

CLASSES = list(AERIAL_CLASSES)
NAMES = ["lake", "river", "parking lot"]
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def clip() -> Backbone:
    return tiny_backbone()


@pytest.fixture(scope="module")
def demo() -> Backbone:
    return dplq.load_backbone("demo")


def test_maps_point_at_the_one_object(demo: Backbone) -> None:
    """Of the mass 0.61 is inside, of the area 0.16; of another picture's map 0.33."""
    pictures, model = draw_objects(demo, 25), create_model("ZeroshotCLIP", demo, CLASSES)
    maps = attention_map(model, pictures.images, pictures.labels(CLASSES))
    inside, area = mass_inside(maps, pictures.boxes), pictures.boxes.mean().item()
    assert len(maps) == 100
    assert area < 0.2
    assert inside > 3 * area
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert inside > 1.5 * mass_inside(maps[order], pictures.boxes)
    peaks = maps.flatten(1).argmax(dim=1)
    assert pictures.boxes.flatten(1).gather(1, peaks[:, None]).mean() > 0.9


def test_the_predicted_class_is_the_default(demo: Backbone) -> None:
    pictures, model = draw_objects(demo, 2), create_model("ZeroshotCLIP", demo, CLASSES)
    guess = model(pictures.images).argmax(dim=1)
    maps = attention_map(model, pictures.images)
    assert torch.equal(maps, attention_map(model, pictures.images, guess))
    assert not torch.equal(maps, attention_map(model, pictures.images, (guess + 1).tolist()))


def test_what_has_no_gradient_chooses_the_class_but_is_not_explained(clip: Backbone) -> None:
    """Head and map of residual_head, with trained and other classes."""
    settings = {"preset": "residual_head", "prompt_depth": 2, "n_ctx": 2}
    domain = dplq.load_domain_encoder("clip", backbone=clip)
    model = create_model("QuaternionPrompt", clip, NAMES, domain=domain, seed=1, **settings)
    model.fit_features(model.frozen_features(IMAGES), torch.arange(3))
    model.eval().set_classnames(["lake", "river", "desert", "forest"])
    guess = model(IMAGES).argmax(dim=1)
    maps = attention_map(model, IMAGES)
    with model.gradient_part():
        assert not torch.equal(model(IMAGES).argmax(dim=1), guess)
        assert torch.equal(attention_map(model, IMAGES, guess), maps)


# --- equal to a naive computation -----------------------------------------------------------------


def naive_block(block: Any, x: Tensor, kept: list[Tensor]) -> Tensor:
    """open_clip's block with its attention written out; the probabilities go to `kept`."""
    attn, y = block.attn, block.ln_1(x)
    q, k, v = nn.functional.linear(y, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (t.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1).requires_grad_()
    weights.retain_grad()
    kept.append(weights)
    x = x + attn.out_proj((weights @ v).transpose(1, 2).flatten(-2))
    return x + block.mlp(block.ln_2(x))


def naive_map(model: Any, images: Tensor, labels: list[int], deep: int) -> Tensor:
    """Chefer's rule on a whole pass of the tower, with VPT's prompts; (B, h, w), not scaled."""
    visual, prompts, kept = model.clip.clip.visual, model.prompts(images), list[Tensor]()
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    token = visual.class_embedding.expand(len(x), 1, -1)
    x = torch.cat([token, x], dim=1) + visual.positional_embedding
    own, count = x.shape[1], len(prompts.vision)
    x = visual.ln_pre(torch.cat([x, prompts.vision.expand(len(x), -1, -1)], dim=1))
    for layer, block in enumerate(visual.transformer.resblocks):
        if 0 < layer < deep:
            x = torch.cat([x[:, :own], prompts.deep_vision[layer - 1].expand(len(x), -1, -1)], 1)
        x = naive_block(block, x, kept)
    feature = nn.functional.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=-1)
    logits = model.logits(feature, model.fixed_text)
    torch.testing.assert_close(logits, model(images))
    logits[range(len(images)), labels].sum().backward()
    total = own + count
    relevance = torch.eye(total).expand(len(images), -1, -1).clone()
    for layer, weights in enumerate(kept):
        if 0 < layer < deep:  # what a new prompt carries is itself alone
            relevance[:, own:] = torch.eye(total)[own:]
        assert weights.grad is not None
        positive = (weights * weights.grad).clamp(min=0).mean(dim=1)
        relevance = relevance + positive @ relevance
    side = int((own - 1) ** 0.5)
    return relevance[:, 0, 1:own].unflatten(1, (side, side)).detach()


@pytest.mark.parametrize("deep", [1, 2, 3])
def test_equal_to_chefers_rule_written_out(clip: Backbone, deep: int) -> None:
    model = create_model("VPT", clip, NAMES, seed=0, prompt_depth_vision=deep, n_ctx_vision=3)
    labels = [2, 0, 1]
    expected = naive_map(model, IMAGES, labels, deep)
    expected = nn.functional.interpolate(
        expected[:, None], (32, 32), mode="bilinear", align_corners=False
    )[:, 0]
    low, high = expected.amin((1, 2), keepdim=True), expected.amax((1, 2), keepdim=True)
    found = attention_map(model, IMAGES, labels)
    torch.testing.assert_close(found, (expected - low) / (high - low), rtol=1e-4, atol=1e-5)


def test_grad_cam_written_out(tmp_path: Any) -> None:
    config = tiny_clip_config() | {"vision_cfg": RESNET | {"image_size": 64}}
    clip = dplq.load_backbone(write_clip_dir(tmp_path, config), pretrained=False)
    model = create_model("ZeroshotCLIP", clip, NAMES)
    images = images_for(clip)
    visual: Any = clip.clip.visual
    stage, kept = visual.layer4, []
    handle = stage.register_forward_hook(lambda *given: kept.append(given[2].requires_grad_()))
    model(images)[:, 1].sum().backward(inputs=kept)
    handle.remove()
    weights = kept[0].grad.mean(dim=(2, 3), keepdim=True)
    cam = (weights * kept[0]).sum(1, keepdim=True).relu().detach()
    cam = nn.functional.interpolate(cam, images.shape[-2:], mode="bilinear", align_corners=False)
    found = attention_map(model, images, [1, 1])
    low, high = cam.amin((2, 3), keepdim=True), cam.amax((2, 3), keepdim=True)
    expected = torch.where(high > low, (cam - low) / (high - low), 0)[:, 0]
    torch.testing.assert_close(found, expected)


# --- every tower, every method --------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_tower_gives_a_map(kind: str, tmp_path: Any) -> None:
    with small_timm():
        clip = backbone_of(kind, tmp_path)
    images, before = images_for(clip), clip.encode_image(images_for(clip))
    model = create_model("ZeroshotCLIP", clip, NAMES)
    maps = attention_map(model, images, [0, 1])
    assert maps.shape == (2, clip.image_size, clip.image_size)
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()
    assert maps.min() == 0
    if kind not in TOKENLESS:  # the small ones have maps of one place
        assert maps.amax((1, 2)).tolist() == [1, 1]
        assert not torch.equal(maps[0], maps[1])
    assert torch.equal(clip.encode_image(images), before)  # nothing is left behind


@pytest.mark.parametrize("method", SETTINGS)
def test_every_method_gives_a_map(method: str, clip: Backbone) -> None:
    assert set(SETTINGS) == set(METHODS)
    model = model_of(method, clip)
    before = model(IMAGES).detach()
    maps = attention_map(model, IMAGES)
    assert maps.shape == (3, 32, 32)
    assert maps.amax((1, 2)).tolist() == [1, 1, 1]
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(model(IMAGES), before)


def test_checkpointing_is_back_on_afterwards(clip: Backbone) -> None:
    model = create_model("VPT", clip, NAMES, seed=0)
    plain = attention_map(model, IMAGES)
    clip.set_grad_checkpointing()
    assert torch.equal(attention_map(model, IMAGES), plain)
    assert clip.grad_checkpointing
    clip.set_grad_checkpointing(False)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"labels has the shape \(2,\); give one class for each of the 3 images"),
        ([0, 1, 3], "labels has classes from 0 to 3; the model's are 0 to 2"),
        ([-1, 1, 2], "labels has classes from -1 to 2"),
    ],
)
def test_wrong_labels(clip: Backbone, labels: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        attention_map(create_model("ZeroshotCLIP", clip, NAMES), IMAGES, labels)


def test_no_image(clip: Backbone) -> None:
    with pytest.raises(UserError, match="images is empty"):
        attention_map(create_model("ZeroshotCLIP", clip, NAMES), IMAGES[:0])


def test_a_model_of_the_domain_features_alone_is_refused(clip: Backbone) -> None:
    domain = dplq.load_domain_encoder("clip", backbone=tiny_backbone(seed=1))
    model = create_model("LinearProbe", clip, NAMES, domain=domain, seed=0, features="domain")
    model.prompt_learner.put()  # as if it were fitted
    with pytest.raises(UserError, match="do not depend, by a gradient, on CLIP's image tower"):
        attention_map(model, IMAGES)
