"""The plain reference against the authors' release, and the reference's own foundations."""

from __future__ import annotations

from types import SimpleNamespace

import open_clip
import pytest
import torch
from torch.nn import functional as F

from dplq.clip.backbone import Backbone
from dplq.io.spec import Spec
from dplq.methods.quaternion_prompt import QuaternionPromptCLIP
from tests.peers import peer
from tests.references.authors_release import openai_state_from_open_clip, release_name, run_release
from tests.references.naive_reference import count_numbers, hamilton, naive_logits, random_state

CLASSNAMES = ["river", "parking_lot", "Dense Residential", "forest"]
PROMPTS = [f"a photo of a {name.replace('_', ' ')}." for name in CLASSNAMES]
CLIP_CONFIG = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 768, "patch_size": 16},
    "text_cfg": {"width": 512, "heads": 8, "layers": 3},
    "quick_gelu": True,
}
IMAGES = 3
FEATURE_DIM = 512
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def clip():
    """ViT-B/16's widths, which the release fixes, with three layers and 2 x 2 patches."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**CLIP_CONFIG)
    return model.eval().requires_grad_(False)


def relative_difference(value, reference):
    """Largest absolute difference over the largest absolute reference value."""
    return ((value - reference).abs().max() / reference.abs().max()).item()


def inputs(seed):
    """Images, domain features, labels and standard-normal noise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(IMAGES, 3, 32, 32, generator=generator)
    features = 0.3 + torch.randn(IMAGES, FEATURE_DIM, generator=generator)
    labels = torch.randint(len(CLASSNAMES), (IMAGES,), generator=generator)
    return images, features, labels, torch.randn(IMAGES, 512, generator=generator)


@pytest.fixture(scope="module", params=[(4, 1), (2, 3)], ids=lambda p: f"n{p[0]}-J{p[1]}")
def case(request, clip):
    """One set of weights and inputs with the release's answer to it (`case.release`)."""
    peer_dir = peer("DPLQ")
    n_ctx, depth = request.param
    images, features, labels, noise = inputs(seed=n_ctx + depth)
    generator = torch.Generator().manual_seed(depth)
    state = random_state(
        clip, n_ctx=n_ctx, depth=depth, domain_dim=FEATURE_DIM, generator=generator
    )
    weights = openai_state_from_open_clip(clip)
    # The release draws standard-normal noise and scales it by the mean of all features.
    release = run_release(
        peer_dir, weights, state, images, features, labels, CLASSNAMES, n_ctx, depth, noise
    )
    return SimpleNamespace(
        n_ctx=n_ctx,
        depth=depth,
        state=state,
        images=images,
        features=features,
        labels=labels,
        noise=noise * features.mean(),
        tokens=open_clip.tokenize(PROMPTS),
        release=release,
    )


def assert_equals_release(case, logits):
    """Compare logits, their loss and its gradients (w.r.t. case.state) with the release's."""
    loss = F.cross_entropy(logits, case.labels)
    grads = torch.autograd.grad(loss, list(case.state.values()))
    assert relative_difference(logits, case.release["logits"]) <= TOLERANCE
    assert relative_difference(loss, case.release["loss"]) <= TOLERANCE
    for name, grad in zip(case.state, grads, strict=True):
        assert case.release["grads"][name].abs().max() > 0, name
        assert relative_difference(grad, case.release["grads"][name]) <= TOLERANCE, name


def test_reference_equals_the_release(clip, case):
    logits = naive_logits(
        clip,
        case.state,
        case.images,
        case.features,
        case.tokens,
        n_ctx=case.n_ctx,
        depth=case.depth,
        noise=case.noise,
    )
    assert_equals_release(case, logits)


def test_ours_equals_the_release(clip, case):
    """The library with PRESET reference against the authors' own code."""
    backbone = Backbone(clip, CLIP_CONFIG, {}, Spec("test"))
    model = QuaternionPromptCLIP(
        backbone,
        None,
        CLASSNAMES,
        n_ctx=case.n_ctx,
        prompt_depth=case.depth,
        preset="reference",
        domain_dim=FEATURE_DIM,
    )
    parameters = {name.removeprefix("prompt_learner."): p for name, p in model.named_parameters()}
    assert case.state.keys() == {name for name, p in parameters.items() if p.requires_grad}

    logits = torch.func.functional_call(
        model,
        {f"prompt_learner.{name}": tensor for name, tensor in case.state.items()},
        case.images,
        {"domain_features": case.features, "noise": case.noise},
    )
    assert_equals_release(case, logits)


def test_hamilton_rules():
    one, i, j, k = torch.eye(4, dtype=torch.float64)
    for unit in (i, j, k):
        assert torch.equal(hamilton(unit, unit), -one)
        assert torch.equal(hamilton(one, unit), unit)
        assert torch.equal(hamilton(unit, one), unit)
    assert torch.equal(hamilton(hamilton(i, j), k), -one)
    assert torch.equal(hamilton(i, j), k)
    assert torch.equal(hamilton(j, i), -k)


def test_hamilton_multiplies_norms():
    a, b = torch.randn(2, 50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    norms = a.norm(dim=-1) * b.norm(dim=-1)
    torch.testing.assert_close(hamilton(a, b).norm(dim=-1), norms)


def test_learnable_numbers_at_vit_b16(clip):
    generator = torch.Generator().manual_seed(0)
    state = random_state(clip, n_ctx=2, depth=9, domain_dim=512, generator=generator)
    parts = 2 * 512, 512 * 768 + 768, 33_312, 131_584, 8 * 2 * 512, 8 * 197_376
    assert count_numbers(state) == sum(parts) == 2_147_104


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("fusion", ["sum", "axes"])
def test_each_learnable_tensor_matters(clip, fusion, residual):
    images, features, _, noise = inputs(seed=0)
    generator = torch.Generator().manual_seed(0)
    sizes = {"n_ctx": 2, "depth": 3}
    variant = {"fusion": fusion, "residual": residual}
    state = random_state(clip, domain_dim=FEATURE_DIM, generator=generator, **sizes, **variant)
    tokens = open_clip.tokenize(["a photo of a river.", "a photo of a lake."])
    logits = naive_logits(
        clip, state, images[:1], features[:1], tokens, noise=noise[:1], **sizes, **variant
    )
    assert logits.shape == (1, 2)
    gradients = torch.autograd.grad(logits[0, 0] - 2 * logits[0, 1], list(state.values()))
    for name, gradient in zip(state, gradients, strict=True):
        assert gradient.abs().max() > 0, name


def test_layouts_that_the_release_cannot_express_are_refused(clip):
    with pytest.raises(ValueError, match=r"no counterpart of 'language.gain'"):
        release_name("language.gain")
    clip.logit_bias = torch.nn.Parameter(torch.zeros(()))
    try:
        with pytest.raises(ValueError, match="logit_bias"):
            openai_state_from_open_clip(clip)
    finally:
        clip.logit_bias = None
