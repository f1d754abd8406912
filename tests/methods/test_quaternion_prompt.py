"""The whole model against the naive reference (tests/references), and its switches."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import dplq
from dplq.methods.presets import PRESET_NORMALIZE
from dplq.methods.prompt_learner import PromptLearner, QuaternionPromptSettings
from dplq.methods.quaternion_prompt import QuaternionPromptCLIP
from tests.references import naive_biomedclip
from tests.references.naive_reference import naive_logits
from tests.tiny import tiny_backbone, write_biomedclip_dir

CLASSNAMES = ["river", "parking_lot", "Dense Residential Area", "storage tank", "a"]
DOMAIN_DIM = 20


def naive_name(name: str) -> str:
    """Our parameter name -> the plain reference's."""
    if name == "language_gain":
        return "language.gain"
    if name.startswith("vision_gain."):
        return f"vision.{name.split('.')[1]}.gain"
    return name


def inputs(backbone, batch=3, domain_dim=DOMAIN_DIM, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = backbone.image_size
    images = torch.randn(batch, 3, size, size, generator=generator)
    features = 0.3 + torch.randn(batch, domain_dim, generator=generator)
    noise = 0.1 * torch.randn(batch, backbone.text_width, generator=generator)
    return images, features, noise


def make_model(backbone, *, domain_dim=DOMAIN_DIM, seed=0, **settings):
    settings = {"n_ctx": 2, "prompt_depth": 3, "preset": "reference", **settings}
    return QuaternionPromptCLIP(
        backbone, None, CLASSNAMES, domain_dim=domain_dim, seed=seed, **settings
    )


def by_tensor(names, grads):
    """Gradients by parameter name; the scalar gains of all layers count as one vector."""
    grouped = {}
    for name, grad in zip(names, grads, strict=True):
        key = name.split(".")[0] if grad.dim() == 0 else name
        grouped.setdefault(key, []).append(grad)
    return {key: torch.stack(values) for key, values in grouped.items()}


def assert_equals_naive(model, images, features, noise, tolerance=1e-4, towers=None):
    """Logits and the gradient of every learnable tensor agree with the plain reference."""
    settings = model.settings
    parameters = dict(model.prompt_learner.named_parameters())
    if settings["residual"]:  # a gain of 0 would hide what it multiplies
        with torch.no_grad():
            for name, parameter in parameters.items():
                if "gain" in name:
                    parameter.fill_(0.7)
    labels = torch.arange(len(images)) % len(CLASSNAMES)
    logits = model(images, domain_features=features, noise=noise)
    grads = torch.autograd.grad(F.cross_entropy(logits, labels), list(parameters.values()))

    state = {
        naive_name(name): p.detach().clone().requires_grad_() for name, p in parameters.items()
    }
    words = [f"{model.prefix} {name.replace('_', ' ')}." for name in CLASSNAMES]
    expected = naive_logits(
        model.clip.clip,
        state,
        images,
        features,
        model.clip.tokenize(words),
        n_ctx=settings["n_ctx"],
        depth=settings["prompt_depth"],
        fusion=settings["fusion"],
        residual=settings["residual"],
        noise=noise,
        towers=towers,
    )
    expected_grads = torch.autograd.grad(F.cross_entropy(expected, labels), list(state.values()))
    assert (logits - expected).abs().max() <= tolerance * expected.abs().max()
    theirs = by_tensor(parameters, expected_grads)
    for name, ours in by_tensor(parameters, grads).items():
        assert theirs[name].abs().max() > 0, name
        assert (ours - theirs[name]).abs().max() <= tolerance * theirs[name].abs().max(), name


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone(vision_width=48, vision_layers=12, text_layers=12)


@pytest.fixture(scope="module")
def shallow():
    """One layer more than the depths of up to 3 replace the prompts of."""
    return tiny_backbone(vision_width=48, vision_layers=4, text_layers=4)


@pytest.mark.parametrize("fusion", ["sum", "axes"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("n_ctx", "depth"), [(2, 9), (2, 1), (2, 3), (2, 12), (1, 3), (4, 3), (16, 3)]
)
def test_equals_plain_reference(backbone, shallow, n_ctx, depth, fusion, residual):
    if depth < 4:
        backbone = shallow
    model = make_model(backbone, n_ctx=n_ctx, prompt_depth=depth, fusion=fusion, residual=residual)
    assert_equals_naive(model, *inputs(backbone))


@pytest.mark.parametrize("fusion", ["sum", "axes"])
@pytest.mark.parametrize("residual", [False, True])
def test_equals_plain_reference_in_double_precision(fusion, residual):
    """The same equations, not only the same numbers to rounding."""
    backbone = tiny_backbone(vision_width=48, vision_layers=4, text_layers=4).double()
    model = make_model(backbone, fusion=fusion, residual=residual).double()
    doubles = [tensor.double() for tensor in inputs(backbone)]
    assert_equals_naive(model, *doubles, tolerance=1e-10)


@pytest.mark.parametrize(("n_ctx", "depth"), [(2, 1), (2, 4), (1, 3), (4, 2)])
def test_equals_plain_reference_on_biomedclip(n_ctx, depth, tmp_path):
    """BERT and timm's ViT in place of CLIP's towers."""
    size = {"layers": 4, "image_size": 160}  # of timm's test_vit, so that no position is resampled
    name = write_biomedclip_dir(tmp_path, **size)
    backbone = dplq.load_backbone(name, pretrained=False).double()
    words = {"n_ctx": n_ctx, "ctx_init": "a photo of a"}
    model = make_model(backbone, prompt_depth=depth, **words).double()
    given = [tensor.double() for tensor in inputs(backbone, batch=2)]
    assert_equals_naive(model, *given, tolerance=1e-10, towers=naive_biomedclip)


def test_equals_plain_reference_at_vit_b16():
    """Full size: ViT-B/16, n = 2, J = 9, d_f = 512 has 2,147,104 learnable numbers."""
    backbone = dplq.load_backbone("ViT-B/16", pretrained=False)
    model = make_model(backbone, domain_dim=512, prompt_depth=9)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2_147_104
    assert sum(t.numel() for t in model.prompt_learner.state_dict().values()) == 2_147_104
    assert_equals_naive(model, *inputs(backbone, batch=2, domain_dim=512))


def test_trainable_names(backbone):
    model = make_model(backbone, prompt_depth=2)
    assert sorted(n for n, p in model.named_parameters() if p.requires_grad) == [
        "prompt_learner.ctx",
        "prompt_learner.deep_text.0",
        *[f"prompt_learner.language.{part}" for part in ("bias", "i", "j", "k", "r")],
        *[f"prompt_learner.meta_net.{i}.{part}" for i in (0, 2) for part in ("bias", "weight")],
        *[f"prompt_learner.vision.0.{part}" for part in ("bias", "i", "j", "k", "r")],
        "prompt_learner.vision_proj.bias",
        "prompt_learner.vision_proj.weight",
    ]


def test_residual_starts_at_the_unconditioned_prompts(backbone):
    """Before training, RESIDUAL gives exactly the logits of plain prompts c and p'."""
    model = make_model(backbone, residual=True).eval()
    images, features, noise = inputs(backbone)
    learner = model.prompt_learner
    logits = model(images, domain_features=features, noise=noise)
    with torch.no_grad():
        image = backbone.encode_prompted_image(
            images, learner.vision_proj(learner.ctx), list(learner.deep_vision)
        )
        sequences = torch.cat([model.sos, learner.ctx.expand(5, -1, -1), model.rest], dim=1)
        text = backbone.encode_prompted_text(sequences, model.eot, list(learner.deep_text))
        plain = backbone.logit_scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    torch.testing.assert_close(logits.detach(), plain, rtol=1e-5, atol=1e-4)
    other = model(images, domain_features=features + 1, noise=None)
    assert torch.equal(other, logits)


def test_context_is_initialised_from_words(backbone):
    model = make_model(backbone, n_ctx=2, ctx_init="a_photo of a")
    words = backbone.embed_tokens(backbone.tokenize(["a photo"]))[0, 1:3]
    assert torch.equal(model.prompt_learner.ctx, words)
    assert model.prefix == "a photo of a"
    long = make_model(backbone, n_ctx=16)
    assert long.prefix == " ".join(["X"] * 16)
    assert long.prompt_learner.ctx.std().item() == pytest.approx(0.02, rel=0.1)


def test_clone_init(backbone):
    clones = make_model(backbone, clone_init=True).prompt_learner.vision
    draws = make_model(backbone, clone_init=False).prompt_learner.vision
    assert torch.equal(clones[0].r, clones[1].r)
    assert clones[0].r is not clones[1].r
    assert not torch.equal(draws[0].r, draws[1].r)


def test_seed_decides_the_initial_weights(backbone):
    first, second, other = (make_model(backbone, seed=s).prompt_learner for s in (1, 1, 2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
    assert not torch.equal(first.language.r, other.language.r)


@pytest.mark.parametrize(("scale", "expected"), [("image", [1.0, 5.0]), ("batch", [3.0, 3.0])])
def test_noise_scale(scale, expected):
    """The noise is standard normal times the mean feature: of the image, or of the batch."""
    learner = PromptLearner(
        torch.zeros(2, 4000),
        QuaternionPromptSettings(prompt_depth=1, domain_dim=2, noise_scale=scale).resolved(),
        vision_width=8,
    )
    features = torch.tensor([[0.5, 1.5], [4.0, 6.0]])
    noise = learner.draw_noise(features, torch.Generator().manual_seed(0))
    assert noise.shape == (2, 4000)
    assert noise.std(dim=1).tolist() == pytest.approx(expected, rel=0.05)
    assert noise.mean(dim=1).abs().max() < 0.3


@pytest.mark.parametrize(
    ("switches", "training", "drawn"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"noise_at_test": True}, False, True),
        ({"noise": False, "noise_at_test": True}, True, False),
    ],
)
def test_when_noise_is_drawn(backbone, switches, training, drawn):
    model = make_model(backbone, preset="default", **switches).train(training)
    noise = model.prompt_learner.draw_noise(torch.ones(1, DOMAIN_DIM))
    assert (noise is not None) == drawn


def test_presets():
    reference, default = (
        QuaternionPromptSettings(preset=preset).resolved() for preset in ("reference", "default")
    )
    assert (reference.noise_scale, reference.noise_at_test, reference.clone_init) == (
        "batch",
        True,
        True,
    )
    assert (default.noise_scale, default.noise_at_test, default.clone_init) == (
        "image",
        False,
        False,
    )
    assert PRESET_NORMALIZE == {"default": "native", "reference": "clip", "residual_head": "native"}
    switched = QuaternionPromptSettings(preset="reference", clone_init=False, fusion=None)
    assert switched.resolved().clone_init is False


@pytest.mark.parametrize(("preset", "independent"), [("default", True), ("reference", False)])
def test_does_an_image_depend_on_its_batch(backbone, preset, independent):
    """The reference scales every image's noise by the mean of the whole batch."""
    model = make_model(backbone, preset=preset).train()
    images, features, _ = inputs(backbone)
    logits = []
    for count in (3, 1):
        model.noise_generator = torch.Generator().manual_seed(0)
        logits.append(model(images[:count], domain_features=features[:count])[0])
    assert torch.allclose(*logits, rtol=1e-5, atol=1e-4) == independent


def test_save_and_load_for_new_classes(backbone, tmp_path):
    model = make_model(backbone).eval()
    images, features, noise = inputs(backbone)
    path = tmp_path / "prompts.safetensors"
    model.save(path)
    size = sum(p.numel() for p in model.prompt_learner.parameters()) * 4
    assert size < path.stat().st_size < size + 20_000
    loaded = dplq.load(path, clip=backbone)
    assert loaded.classnames == CLASSNAMES
    assert torch.equal(
        loaded(images, domain_features=features, noise=noise),
        model(images, domain_features=features, noise=noise),
    )
    folder = backbone.spec.name.removeprefix("local-dir:")
    new = dplq.load(path, classnames=["desert", "lake"], weights=folder)
    assert new.clip is not backbone
    assert new(images, domain_features=features).shape == (3, 2)
    with pytest.raises(dplq.UserError, match="neither in the current folder nor beside"):
        dplq.load(path)
    with pytest.raises(dplq.UserError, match="weights is /no/where, which does not exist"):
        dplq.load(path, weights="/no/where")


def test_files_are_known_by_their_content(tmp_path):
    """A moved and renamed weights file still fits; no folder of this machine is written down."""
    from safetensors.torch import save_file

    from tests.tiny import tiny_clip_config, write_clip_dir

    folder = tmp_path / "here"
    name = write_clip_dir(folder, tiny_clip_config())
    state = {k: v.clone() for k, v in tiny_backbone().clip.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    model = make_model(dplq.load_backbone(name))
    model.save(tmp_path / "prompts.safetensors")
    assert str(tmp_path) not in str(dplq.io.checkpoint.read(tmp_path / "prompts.safetensors")[1])
    folder.rename(tmp_path / "moved")
    loaded = dplq.load(tmp_path / "prompts.safetensors", weights=str(tmp_path / "moved"))
    images, features, noise = inputs(model.clip)
    again = loaded(images, domain_features=features, noise=noise)
    assert torch.equal(again, model.eval()(images, domain_features=features, noise=noise))
    other = {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}
    save_file(other, tmp_path / "moved/open_clip_model.safetensors")
    with pytest.raises(dplq.UserError, match=r"backbone.weights_sha256: there .*, now "):
        dplq.load(tmp_path / "prompts.safetensors", weights=str(tmp_path / "moved"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_depth": 13}, "PROMPT_DEPTH 13 does not fit .* 1 to 12 layers"),
        ({"prompt_depth": 0}, "PROMPT_DEPTH is 0; it must be at least 1"),
        ({"n_ctx": 0}, "N_CTX is 0; it must be at least 1"),
        ({"n_ctx": 4, "ctx_init": "photo"}, "'photo' has 1 tokens, fewer than N_CTX 4"),
        ({"preset": "refrence"}, "PRESET 'refrence' is unknown. Did you mean 'reference'"),
        ({"fusion": "axis"}, "FUSION 'axis' is unknown. Did you mean 'axes'"),
        ({"noise_scale": "img"}, "NOISE_SCALE 'img' is unknown"),
        ({"residual": "false"}, "RESIDUAL is 'false'; write True or False"),
        ({"n_ctx": 80}, "N_CTX must be at least 1 and at most 73, not 80"),
    ],
)
def test_bad_settings(backbone, settings, message):
    with pytest.raises(dplq.UserError, match=message):
        make_model(backbone, **settings)


def test_refused_class_names_change_nothing(backbone):
    model = make_model(backbone, preset="default").eval()
    images, features, _ = inputs(backbone)
    before = model(images, domain_features=features)
    with pytest.raises(dplq.UserError, match="at most 77"):
        model.set_classnames(["river", "very " * 80])
    assert model.classnames == CLASSNAMES
    assert torch.equal(model(images, domain_features=features), before)


def test_reference_preset_wants_the_encoder_to_follow(backbone, caplog):
    for normalize, warned in (("native", True), ("clip", False)):
        caplog.clear()
        domain = dplq.load_domain_encoder(
            "test_vit", pretrained=False, normalize=normalize, backbone=backbone
        )
        QuaternionPromptCLIP(backbone, domain, ["a"], prompt_depth=1, preset="reference")
        assert ("normalize='clip' to follow the release" in caplog.text) == warned


def test_class_name_too_long(backbone):
    name = "very " * 80 + "long"
    with pytest.raises(dplq.UserError, match=r"very long.* has .* tokens .* at most 77"):
        QuaternionPromptCLIP(backbone, None, ["river", name], domain_dim=4, prompt_depth=1)


def test_wrong_checkpoint_names_both(backbone, tmp_path):
    path = tmp_path / "prompts.safetensors"
    make_model(backbone, prompt_depth=3).save(path)
    with pytest.raises(dplq.UserError, match=r"settings.prompt_depth: there 3, now 5"):
        make_model(backbone, prompt_depth=5).load(path)
    other = tiny_backbone(vision_width=32)
    with pytest.raises(dplq.UserError, match=r"backbone.name: there .*, now "):
        make_model(other, prompt_depth=3).load(path)


def test_missing_parts(backbone):
    with pytest.raises(dplq.UserError, match="give domain_dim"):
        QuaternionPromptCLIP(backbone, None, CLASSNAMES)
    with pytest.raises(dplq.UserError, match="At least one class name"):
        QuaternionPromptCLIP(backbone, None, [], domain_dim=4, prompt_depth=1)
    with pytest.raises(dplq.UserError, match="classnames is 'cat'; give a list of names"):
        QuaternionPromptCLIP(backbone, None, "cat", domain_dim=4, prompt_depth=1)
    with pytest.raises(dplq.UserError, match=r"classnames\[1\] is None; it must be a text"):
        QuaternionPromptCLIP(backbone, None, ["cat", None], domain_dim=4, prompt_depth=1)
    names = np.array(["cat", "dog"])
    model = QuaternionPromptCLIP(backbone, None, names, domain_dim=4, prompt_depth=1)
    assert json.dumps(model.classnames) == '["cat", "dog"]'
    images = torch.zeros(3, 3, 32, 32)
    for shape in ((3, DOMAIN_DIM + 1), (1, DOMAIN_DIM)):
        with pytest.raises(dplq.UserError, match=r"expected \(3, 20\)"):
            make_model(backbone)(images, domain_features=torch.zeros(shape))
    with pytest.raises(dplq.UserError, match="pass domain_features"):
        make_model(backbone)(torch.zeros(1, 3, 32, 32))


def test_frozen_half_precision_towers(backbone):
    """fp16: frozen towers in half, learnables and their gradients in float32, close to fp32."""
    model = make_model(backbone)
    images, features, noise = inputs(backbone)
    expected = model(images, domain_features=features, noise=noise).detach()
    half = make_model(tiny_backbone(vision_width=48, vision_layers=12, text_layers=12))
    half.clip.to(torch.float16)
    logits = half(images, domain_features=features, noise=noise)
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() < 0.02 * expected.abs().max()
    logits.logsumexp(dim=1).sum().backward()
    for parameter in half.prompt_learner.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"noise": True, "noise_scale": "batch"}, []),
        ({"noise": False, "noise_scale": "image"}, ["NOISE_SCALE 'image' is not used: NOISE is"]),
        ({"noise": False, "noise_at_test": True, "prompt_depth": 1}, []),
        (
            {"prompt_depth": 1, "clone_init": False},
            ["CLONE_INIT False is not used: PROMPT_DEPTH 1"],
        ),
        (
            {"domain_dim": 0, "noise": False, "noise_scale": "image"},
            [
                "NOISE_SCALE 'image' is not used: there is no domain feature.",
                "NOISE False is not used: there is no domain feature.",
            ],
        ),
    ],
)
def test_switches_that_another_setting_disables_are_said(backbone, caplog, settings, expected):
    """The preset is `reference`: noise of the scale `batch`, at test time too, and clones."""
    make_model(backbone, **settings)
    said = [r.getMessage() for r in caplog.records if "is not used" in r.getMessage()]
    assert len(said) == len(expected)
    for text in expected:
        assert any(line.startswith(text) for line in said), said
