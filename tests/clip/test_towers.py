"""Image towers of every kind: equal to open_clip, prompts equal to a naive loop, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dplq.clip.backbone import Backbone, load_backbone
from dplq.clip.towers.clip_vit import ClipViT
from dplq.clip.towers.plain import PlainImage
from dplq.clip.towers.timm_vit import TimmViT
from dplq.errors import UserError
from dplq.methods.registry import create_model
from tests.tiny import tiny_backbone, tiny_clip_config, write_clip_dir
from tests.tiny_timm import small_timm, vision_config

PLAIN = tiny_clip_config()["vision_cfg"]
POOLED = PLAIN | {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 6}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
VITS: dict[str, dict[str, Any]] = {
    "avg": PLAIN | {"pool_type": "avg"},
    "clipa": PLAIN | {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
    "coca": POOLED | {"output_tokens": True},
    "coca_avg": POOLED | {"pool_type": "avg"},
    "parallel": POOLED | {"attentional_pool": "parallel"},
    "cascade": POOLED | {"attentional_pool": "cascade", "attn_pooler_heads": 1},
    "dropout": PLAIN | {"patch_dropout": 0.5},
    "sin_cos": PLAIN | {"pos_embed_type": "sin_cos_2d"},
    "other_blocks": PLAIN | {"qk_norm": True, "scale_attn": True},
}
TIMM_VITS = {
    "biomedclip": vision_config("vit_base_patch16_224", "", "linear"),
    "siglip": vision_config("vit_base_patch16_siglip_224", "map", "none"),
    "clip_in_timm": vision_config("vit_large_patch14_clip_224", "token"),
    "eva02": vision_config("eva02_base_patch16_clip_224", "token"),
    "eva01": vision_config("eva_giant_patch14_224", "token"),
    "pe": vision_config("vit_pe_core_base_patch16_224", "map"),
    "mobileclip_b": vision_config("vit_base_mci_224", "token"),
    "vitamin": vision_config("vitamin_small_224", "", "linear"),
    "average": vision_config("vit_base_patch16_224", "avg", "mlp"),
}
TOKENLESS = {
    "resnet": RESNET,
    "convnext": vision_config("convnext_base", "", "mlp"),
    "fastvit": vision_config("fastvit_mci0", "avg"),
}
KINDS = {"clip": PLAIN} | VITS | TIMM_VITS | TOKENLESS
WIDTHS = dict.fromkeys(("siglip", "parallel", "cascade"), 64)  # other widths than d_v fail


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small_timm():
        yield


def backbone_of(kind: str, folder: Path, **config: Any) -> Backbone:
    small = tiny_clip_config(embed_dim=WIDTHS.get(kind, 48), text_width=16)
    whole = small | {"vision_cfg": KINDS[kind]} | config
    return load_backbone(write_clip_dir(folder, whole), pretrained=False, seed=3)


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.requires_grad_(grad)


def images_for(clip: Backbone, count: int = 2) -> Tensor:
    return draw(count, 3, clip.image_size, clip.image_size, seed=8)


def first(features: Any) -> Tensor:
    return features[0] if isinstance(features, tuple) else features


@pytest.mark.parametrize("kind", KINDS)
def test_without_prompts_equal_to_open_clip(kind: str, tmp_path: Path) -> None:
    clip = backbone_of(kind, tmp_path)
    pixels = images_for(clip)
    ours, theirs = clip.encode_image(pixels), first(clip.clip.encode_image(pixels))
    assert ours.shape == (2, clip.embed_dim)
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=1e-6, atol=1e-6)
    expected = PlainImage if kind in TOKENLESS else TimmViT if kind in TIMM_VITS else ClipViT
    assert type(clip.image) is expected
    assert bool(clip.image.lacks) is (kind in TOKENLESS)


# --- prompts, step by step ------------------------------------------------------------------------


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate pairs of neighbours (heads, patches, e) by angles given as [sines, cosines]."""
    sines, cosines = rope.chunk(2, dim=-1)
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cosines + turned * sines


def naive_attention(attn: Any, x: Tensor, rope: Tensor | None, before: int, patches: int) -> Tensor:
    """Attention of one image's tokens (L, d); only its patches have a rotary position."""
    if getattr(attn, "qkv", None) is not None:
        bias = attn.qkv.bias
        if getattr(attn, "q_bias", None) is not None:
            bias = torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
        q, k, v = nn.functional.linear(x, attn.qkv.weight, bias).chunk(3, dim=-1)
    else:
        q, k, v = attn.q_proj(x), attn.k_proj(x), attn.v_proj(x)
    q, k, v = (part.unflatten(-1, (attn.num_heads, -1)).transpose(0, 1) for part in (q, k, v))
    if rope is not None:
        own = slice(before, before + patches)
        q, k = q.clone(), k.clone()
        q[:, own], k[:, own] = rotate(q[:, own], rope), rotate(k[:, own], rope)
    weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(dim=-1)
    mixed = (weights @ v).transpose(0, 1).flatten(1)
    return attn.proj(getattr(attn, "norm", nn.Identity())(mixed))


def naive_timm(model: Any, pixels: Tensor, prompts: Tensor, deep: list[Tensor]) -> Tensor:
    """A timm ViT image by image; pooling gets the tokens that are there without prompts."""
    trunk, features = model.trunk, []
    for image in range(len(pixels)):
        x = trunk._pos_embed(trunk.patch_embed(pixels[image : image + 1]))
        x, rope = x if isinstance(x, tuple) else (x, None)
        x, own = x[0], x.shape[1]
        before = trunk.num_prefix_tokens
        new = prompts if prompts.dim() == 2 else prompts[image]
        x = trunk.norm_pre(torch.cat([x, new]))
        for layer, block in enumerate(trunk.blocks):
            if 0 < layer <= len(deep):
                new = deep[layer - 1] if deep[layer - 1].dim() == 2 else deep[layer - 1][image]
                x = torch.cat([x[:own], new])
            found = naive_attention(block.attn, block.norm1(x), rope, before, own - before)
            x = x + (found if getattr(block, "gamma_1", None) is None else block.gamma_1 * found)
            found = block.mlp(block.norm2(x))
            x = x + (found if getattr(block, "gamma_2", None) is None else block.gamma_2 * found)
        features.append(model.head(trunk.forward_head(trunk.norm(x[None, :own])))[0])
    return torch.stack(features)


def naive_open_clip(visual: Any, pixels: Tensor, prompts: Tensor, deep: list[Tensor]) -> Tensor:
    """open_clip's ViT with its own blocks and pooling, which gets the image's tokens only."""
    features = []
    for image in range(len(pixels)):
        patches = visual.conv1(pixels[image : image + 1]).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding[None, None], patches], dim=1)
        x, own = x + visual.positional_embedding, x.shape[1]
        new = prompts if prompts.dim() == 2 else prompts[image]
        x = visual.ln_pre(torch.cat([x, new[None]], dim=1))
        for layer, block in enumerate(visual.transformer.resblocks):
            if 0 < layer <= len(deep):
                new = deep[layer - 1] if deep[layer - 1].dim() == 2 else deep[layer - 1][image]
                x = torch.cat([x[:, :own], new[None]], dim=1)
            x = block(x)
        pooled, _ = visual._pool(x[:, :own])
        features.append((pooled.reshape(1, -1) @ visual.proj)[0])
    return torch.stack(features)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("kind", [*VITS, *(k for k in TIMM_VITS if k != "mobileclip_b")])
def test_prompts_and_their_gradients_equal_a_naive_loop(
    kind: str, per_image: bool, tmp_path: Path
) -> None:
    clip = backbone_of(kind, tmp_path)
    lead = (2,) if per_image else ()
    prompts = draw(*lead, 2, clip.vision_width, seed=1, grad=True)
    deep = [draw(*lead, 2, clip.vision_width, seed=2, grad=True)]
    pixels = images_for(clip)
    ours = clip.encode_prompted_image(pixels, prompts, deep)
    naive = naive_timm if kind in TIMM_VITS else naive_open_clip
    theirs = naive(clip.clip.visual, pixels, prompts, deep)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    weight = draw(*ours.shape, seed=3)
    grads = torch.autograd.grad((ours * weight).sum(), [prompts, *deep])
    expected = torch.autograd.grad((theirs * weight).sum(), [prompts, *deep])
    torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-5)
    assert all(grad.abs().max() > 0 for grad in grads)


@pytest.mark.parametrize("kind", ["avg", "coca", "eva02", "siglip"])
def test_recomputed_activations_change_nothing(kind: str, tmp_path: Path) -> None:
    clip = backbone_of(kind, tmp_path)
    prompts, pixels = draw(2, clip.vision_width, grad=True), images_for(clip)

    def gradient() -> Tensor:
        (grad,) = torch.autograd.grad(
            clip.encode_prompted_image(pixels, prompts).square().sum(), prompts
        )
        return grad

    whole, calls = gradient(), []
    blocks = clip.image.module.get_submodule(clip.image.block_names()[0])
    handle = blocks.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    clip.set_grad_checkpointing()
    torch.testing.assert_close(gradient(), whole)
    handle.remove()
    assert len(calls) == 2  # forward, and again in the backward pass


@pytest.mark.parametrize("kind", ["avg", "eva02", "siglip", "vitamin", "resnet", "convnext"])
def test_low_precision_and_autocast(kind: str, tmp_path: Path) -> None:
    clip = backbone_of(kind, tmp_path)
    pixels, exact = images_for(clip), clip.encode_image(images_for(clip))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = clip.encode_image(pixels)
    low = clip.to(torch.bfloat16).encode_image(pixels)
    assert clip.dtype == low.dtype == torch.bfloat16
    for features in (mixed, low):
        assert torch.cosine_similarity(features.float(), exact, dim=-1).min() > 0.99


def test_a_tower_that_does_not_pool_is_refused(tmp_path: Path) -> None:
    config = tiny_clip_config() | {"vision_cfg": PLAIN | {"pool_type": "none"}}
    with pytest.raises(UserError, match=r"pool_type 'none' in vision_cfg .* use tok or avg"):
        load_backbone(write_clip_dir(tmp_path, config), pretrained=False)


def test_a_copy_has_towers_of_its_own(tmp_path: Path) -> None:
    clip = backbone_of("siglip", tmp_path)
    other = clip.sharing_copy()
    assert other.image is not clip.image
    assert other.image.module is other.clip.visual
    assert other.text.module is other.clip
    assert other.text.tokenizer is clip.text.tokenizer
    assert torch.equal(other.encode_image(images_for(clip)), clip.encode_image(images_for(clip)))


# --- what methods need ----------------------------------------------------------------------------

NAMES = ["river", "forest", "dense residential"]
TEXT_METHODS = {
    "CoOp": {"n_ctx": 2},
    "CoCoOp": {"n_ctx": 2},
    "KgCoOp": {},
    "IVLP": {"n_ctx_vision": 0, "prompt_depth_vision": 0, "prompt_depth_text": 2},
}


@pytest.mark.parametrize("kind", TOKENLESS)
@pytest.mark.parametrize("method", TEXT_METHODS)
def test_text_prompts_on_a_tower_without_tokens(kind: str, method: str, tmp_path: Path) -> None:
    clip = backbone_of(kind, tmp_path)
    model = create_model(method, clip, NAMES, seed=0, **TEXT_METHODS[method])
    logits = model(images_for(clip))
    logits.logsumexp(dim=-1).sum().backward()
    assert logits.shape == (2, 3)
    assert all(p.grad is not None for p in model.prompt_learner.parameters())


@pytest.mark.parametrize("kind", ["coca", "clipa", *TIMM_VITS])
def test_image_prompts_on_every_vit(kind: str, tmp_path: Path) -> None:
    clip = backbone_of(kind, tmp_path)
    model = create_model("VPT", clip, NAMES, seed=0, prompt_depth_vision=2)
    model(images_for(clip)).logsumexp(dim=-1).sum().backward()
    learned = dict(model.prompt_learner.named_parameters())
    assert learned["vision"].shape == (2, clip.vision_width)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in learned.values())
    assert all(p.grad is None for p in clip.parameters())


def refusal(method: str, clip: Backbone, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        create_model(method, clip, NAMES, seed=0, **settings)
    return str(caught.value)


def test_a_method_refuses_what_a_tower_lacks(tmp_path: Path) -> None:
    resnet = backbone_of("resnet", tmp_path / "r")
    text = refusal("VPT", resnet)
    assert text.startswith(
        f"VPT needs image prompts, which {resnet.spec.name} does not support: its image tower is a "
        "ResNet, which has no tokens. Methods that can use it, at their default settings: "
    )
    able = text.split("settings: ")[1].rstrip(".").split(", ")
    assert {"CoOp", "CoCoOp", "KgCoOp", "TCP", "ZeroshotCLIP", "LinearProbe"} <= set(able)
    assert not {"VPT", "MaPLe", "IVLP", "PromptSRC", "CLIPLoRA", "QuaternionPrompt"} & set(able)
    assert "MaPLe needs image prompts, which" in refusal("MaPLe", resnet)
    assert refusal("CLIPSVD", resnet).startswith(
        f"CLIPSVD needs CLIP's blocks in the image tower, which {resnet.spec.name} does"
    )
    timm = backbone_of("eva02", tmp_path / "t")
    text = refusal("CLIPLoRA", timm)
    assert "its image tower is timm's Eva, not open_clip's ViT" in text
    assert "MaPLe" in text.split("settings: ")[1]
    create_model("CLIPLoRA", timm, NAMES, seed=0, encoder="text")


@pytest.mark.parametrize("method", ["QuaternionPrompt", "GDPL", "DCPL", "PromptSRC", "TwoStage"])
def test_every_refusal_is_before_a_learner_is_made(method: str, tmp_path: Path) -> None:
    from dplq.methods.registry import METHODS

    resnet = backbone_of("resnet", tmp_path)
    extra = {"domain_dim": 8} if METHODS[method].uses_domain and method != "DCPL" else {}
    if method == "DCPL":
        with pytest.raises(UserError, match="DCPL needs image prompts"):
            METHODS[method].check_support(resnet, {})
        return
    if METHODS[method].uses_domain:
        with pytest.raises(UserError, match=f"{method} needs image prompts"):
            METHODS[method](resnet, None, NAMES, seed=0, **extra)
        return
    assert f"{method} needs" in refusal(method, resnet)


def test_a_depth_is_refused_by_the_tower_that_counts(tmp_path: Path) -> None:
    resnet = backbone_of("resnet", tmp_path)
    layers = resnet.text_layers
    with pytest.raises(
        UserError, match=f"its text tower supports prompts in 1 to {layers} layers"
    ) as said:
        create_model("IVLP", resnet, NAMES, n_ctx_vision=0, prompt_depth_text=layers + 1)
    assert "PROMPT_DEPTH_TEXT" in str(said.value)
    with pytest.raises(UserError, match="its image tower supports prompts in 1 to"):
        create_model("VPT", tiny_backbone(), NAMES, prompt_depth_vision=99)


def test_a_backbone_says_what_a_prompt_would_need(tmp_path: Path) -> None:
    resnet = backbone_of("resnet", tmp_path)
    with pytest.raises(UserError, match="takes no image prompts: its image tower is a ResNet"):
        resnet.encode_prompted_image(images_for(resnet), torch.zeros(2, 0))


@pytest.mark.parametrize("kind", ["resnet", "eva02", "siglip", "convnext"])
def test_a_file_in_open_clips_layout_is_loaded(kind: str, tmp_path: Path) -> None:
    clip = backbone_of(kind, tmp_path)
    torch.save(clip.clip.state_dict(), tmp_path / "weights.pt")
    again = load_backbone(clip.spec.name, weights=str(tmp_path / "weights.pt"))
    assert torch.equal(again.encode_image(images_for(clip)), clip.encode_image(images_for(clip)))


def test_a_resnet_s_file_without_counters_of_training_steps(tmp_path: Path) -> None:
    """Files of early versions of torch lack them, and no feature depends on them."""
    clip = backbone_of("resnet", tmp_path)
    state = clip.clip.state_dict()
    kept = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    torch.save(kept, tmp_path / "old.pt")
    again = load_backbone(clip.spec.name, weights=str(tmp_path / "old.pt"))
    assert torch.equal(again.encode_image(images_for(clip)), clip.encode_image(images_for(clip)))
    del kept["visual.bn1.running_var"]
    torch.save(kept, tmp_path / "less.pt")
    with pytest.raises(UserError, match=r"1 keys missing \(visual\.bn1\.running_var\)"):
        load_backbone(clip.spec.name, weights=str(tmp_path / "less.pt"))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    clip = backbone_of("clip", tmp_path)
    state = clip.clip.state_dict()
    state["visual.proj"][0, :2] = float("nan")
    torch.save(state, tmp_path / "x.pt")
    text = r"x\.pt' holds nan or infinite values: visual\.proj \(2 of \d+ values\)\. The file is"
    with pytest.raises(UserError, match=text):
        load_backbone(clip.spec.name, weights=str(tmp_path / "x.pt"))


def test_openais_resnet_by_coops_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state dict in OpenAI's layout, with its three numbers, for the name that CoOp uses."""
    import open_clip

    config = tiny_clip_config(text_width=16) | {"vision_cfg": RESNET}
    original = backbone_of("resnet", tmp_path, quick_gelu=True)
    numbers = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    state = {**original.clip.state_dict(), **{k: torch.tensor(v) for k, v in numbers.items()}}
    torch.save(state, tmp_path / "RN50.pt")
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: dict(config))
    clip = load_backbone(f"RN50:{tmp_path / 'RN50.pt'}")
    tokens = clip.tokenize(NAMES)
    assert clip.spec.name == "RN50"
    assert torch.equal(clip.encode_text(tokens), original.encode_text(tokens))
    pixels = images_for(clip)
    assert torch.equal(clip.encode_image(pixels), original.encode_image(pixels))


@pytest.mark.parametrize(
    ("method", "settings"),
    [("CoOp", {"n_ctx": 2, "csc": True}), ("TCP", {"n_ctx": 2, "class_layer": 2})],
)
def test_chunks_of_plain_texts_change_nothing(
    method: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each chunk is recomputed in the backward pass; TCP has deep prompts of every class's own."""
    clip = tiny_backbone(text_width=16)
    model: Any = create_model(method, clip, NAMES, seed=0, **settings)
    images, encode = images_for(clip), clip.text.encode
    learned, sizes = list(model.prompt_learner.parameters()), []

    def outcome() -> tuple[Tensor, tuple[Tensor, ...]]:
        features = model.text_features(model.prompts(images))
        weight = draw(*features.shape)
        return features, torch.autograd.grad((features * weight).sum(), learned)

    def recorded(embeddings: Tensor, *rest: Any) -> Tensor:
        sizes.append(len(embeddings))
        return encode(embeddings, *rest)

    whole = outcome()
    monkeypatch.setattr(clip.text, "encode", recorded)
    model.text_chunk = 2
    torch.testing.assert_close(outcome(), whole, rtol=1e-4, atol=1e-5)
    assert sizes == [2, 1, 1, 2]
