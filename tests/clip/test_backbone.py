"""Backbones: equal to open_clip and to a naive loop, strict loading, all error texts."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import open_clip
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import dplq
from dplq.clip import sources as backbone_sources
from dplq.clip.backbone import CONFIG_FILE, Backbone, load_backbone
from dplq.clip.tokenizer import eot_index
from dplq.errors import UserError
from dplq.io.files import file_digest
from dplq.io.spec import Spec
from dplq.io.weights import read_state_dict, skip_weight_init
from tests.hub import use_hub
from tests.peers import peer
from tests.tiny import tiny_backbone, tiny_clip_config, write_clip_dir

TEXTS = ["a photo of a river.", "a dense residential area", "x"]


@pytest.fixture(scope="module")
def source() -> Backbone:
    """A backbone that no test changes."""
    return tiny_backbone(seed=7)


# Nearly all numbers of a tiny CLIP are its word embedding: a narrow one keeps files small.
NARROW = {"text_width": 16}


@pytest.fixture(scope="module")
def narrow() -> Backbone:
    """What the files hold in the tests of reading them; no test changes it."""
    return tiny_backbone(seed=7, **NARROW)


def images(seed: int = 0, size: int = 32, count: int = 3) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.requires_grad_(grad)


def same_features(one: Backbone, other: Backbone) -> bool:
    tokens = one.tokenize(TEXTS)
    return torch.equal(one.encode_image(images()), other.encode_image(images())) and torch.equal(
        one.encode_text(tokens), other.encode_text(tokens)
    )


def tower_options(vision: Mapping[str, object], text: Mapping[str, object]) -> dict[str, object]:
    config = tiny_clip_config()
    return {
        "vision_cfg": {**config["vision_cfg"], **vision},
        "text_cfg": {**config["text_cfg"], **text},
    }


VARIANTS = {
    "clip": {},
    "quickgelu": {"quick_gelu": True},
    "custom_text": {"custom_text": True},
    "linear_projection": {"custom_text": True, **tower_options({}, {"proj_bias": True})},
    "no_projection": {"embed_dim": 64, "custom_text": True}
    | tower_options({}, {"proj_type": "none"}),
    "no_ln_pre": tower_options({"no_ln_pre": True, "ls_init_value": 0.1}, {"ls_init_value": 0.1}),
    "output_tokens": {"custom_text": True}
    | tower_options({"output_tokens": True, "patch_dropout": 0.5}, {"output_tokens": True}),
    "logit_bias": {"init_logit_bias": -10.0, "nonscalar_logit_scale": True},
    "sizes": {"image_size": 48, "vision_width": 32, "text_width": 16},
}


# --- towers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_prompts_equal_to_open_clip(variant: str) -> None:
    try:
        backbone = tiny_backbone(**VARIANTS[variant])
    except UserError as error:
        if "unexpected keyword" not in str(error):
            raise
        pytest.skip(f"an older open_clip: {error}")
    pixels, tokens = images(size=backbone.image_size), backbone.tokenize(TEXTS)

    def first(features: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        return features[0] if isinstance(features, tuple) else features

    image, text = backbone.encode_image(pixels), backbone.encode_text(tokens)
    torch.testing.assert_close(image, first(backbone.clip.encode_image(pixels)))
    torch.testing.assert_close(text, first(backbone.clip.encode_text(tokens)))
    assert image.shape == text.shape == (3, backbone.embed_dim)
    assert backbone.logit_scale.shape == ()
    torch.testing.assert_close(backbone.logit_scale, torch.tensor(1 / 0.07))


def naive_text(clip: nn.Module, x: Tensor, eot: Tensor, deep: list[Tensor]) -> Tensor:
    """CLIP's text tower at its full length, item by item, with torch.cat."""
    text = getattr(clip, "text", clip)
    features = []
    for item, end in enumerate(eot.tolist()):
        h = x[item : item + 1] + text.positional_embedding
        for layer, block in enumerate(text.transformer.resblocks):
            if 0 < layer <= len(deep):
                new = deep[layer - 1] if deep[layer - 1].dim() == 2 else deep[layer - 1][item]
                h = torch.cat([h[:, :1], new[None], h[:, 1 + len(new) :]], dim=1)
            h = block(h, attn_mask=text.attn_mask)
        features.append(text.ln_final(h)[0, end] @ text.text_projection)
    return torch.stack(features)


def naive_vision(visual: nn.Module, x: Tensor, prompts: Tensor, deep: list[Tensor]) -> Tensor:
    """CLIP's image tower, image by image, with torch.cat."""
    features = []
    for item in range(len(x)):
        patches = visual.conv1(x[item : item + 1]).flatten(2).permute(0, 2, 1)
        h = torch.cat([visual.class_embedding[None, None], patches], dim=1)
        h = h + visual.positional_embedding
        own = prompts if prompts.dim() == 2 else prompts[item]
        h = visual.ln_pre(torch.cat([h, own[None]], dim=1))
        for layer, block in enumerate(visual.transformer.resblocks):
            if 0 < layer <= len(deep):
                new = deep[layer - 1] if deep[layer - 1].dim() == 2 else deep[layer - 1][item]
                h = torch.cat([h[:, : -len(new)], new[None]], dim=1)
            h = block(h)
        features.append(visual.ln_post(h[0, 0]) @ visual.proj)
    return torch.stack(features)


@pytest.mark.parametrize("per_item", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_prompts_and_their_gradients_equal_a_naive_loop(per_item: bool, depth: int) -> None:
    backbone = tiny_backbone(custom_text=per_item)
    tokens = backbone.tokenize(TEXTS)
    assert tokens.shape == (3, 77)
    eot, n = eot_index(tokens), 2
    lead = (3,) if per_item else ()
    context = draw(n, 64, grad=True)
    deep_text = [draw(*lead, n, 64, seed=i, grad=True) for i in range(1, depth)]
    deep_vision = [draw(*lead, n, 64, seed=i, grad=True) for i in range(11, 10 + depth)]
    prompts = draw(*lead, n, 64, seed=9, grad=True)
    embedded = backbone.embed_tokens(tokens)
    x = torch.cat([embedded[:, :1], context.expand(3, -1, -1), embedded[:, 1 + n :]], dim=1)
    learnable = [context, prompts, *deep_text, *deep_vision]

    def loss(text: Tensor, image: Tensor) -> Tensor:
        return (text * draw(3, 48, seed=20)).sum() + (image * draw(3, 48, seed=21)).sum()

    text, image = (
        backbone.encode_prompted_text(x, eot, deep_text),
        backbone.encode_prompted_image(images(), prompts, deep_vision),
    )
    grads = torch.autograd.grad(loss(text, image), learnable, retain_graph=True)
    naive = (
        naive_text(backbone.clip, x, eot, deep_text),
        naive_vision(backbone.clip.visual, images(), prompts, deep_vision),
    )
    torch.testing.assert_close((text, image), naive, rtol=1e-5, atol=1e-5)
    naive_grads = torch.autograd.grad(loss(*naive), learnable)
    torch.testing.assert_close(grads, naive_grads, rtol=1e-4, atol=1e-5)


def test_a_deep_prompt_without_rows_leaves_its_layer_unchanged(source: Backbone) -> None:
    backbone = source
    none, prompts = torch.empty(0, 64), draw(2, 64)
    tokens = backbone.tokenize(TEXTS)
    x, eot = backbone.embed_tokens(tokens), eot_index(tokens)
    torch.testing.assert_close(
        backbone.encode_prompted_text(x, eot, [none, none]), backbone.encode_text(tokens)
    )
    skipped = backbone.encode_prompted_image(images(), prompts, [none, prompts])
    for deep, equal in (([none], False), ([none, prompts, none][:2], True)):
        other = backbone.encode_prompted_image(images(), prompts, deep)
        assert torch.allclose(skipped, other) is equal


def test_nothing_behind_eot_matters(source: Backbone) -> None:
    backbone = source
    tokens = backbone.tokenize(TEXTS)
    eot = eot_index(tokens)
    spoiled = tokens.clone()
    for row, end in zip(spoiled, eot.tolist(), strict=True):
        row[end + 1 :] = 7
    torch.testing.assert_close(
        backbone.encode_prompted_text(backbone.embed_tokens(spoiled), eot),
        backbone.encode_text(tokens),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(source: Backbone, dtype: torch.dtype) -> None:
    exact, backbone = source, tiny_backbone(seed=7).to(dtype)
    assert (exact.dtype, backbone.dtype) == (torch.float32, dtype)
    tokens, prompts, deep = exact.tokenize(TEXTS), draw(2, 64), [draw(2, 64, seed=1)]

    def features(model: Backbone) -> list[Tensor]:
        x, eot = model.embed_tokens(tokens), eot_index(tokens)
        return [
            model.encode_image(images()),
            model.encode_text(tokens),
            model.encode_prompted_image(images(), prompts, deep),
            model.encode_prompted_text(x, eot, deep),
        ]

    for low, full in zip(features(backbone), features(exact), strict=True):
        assert low.dtype == dtype
        assert torch.cosine_similarity(low.float(), full, dim=-1).min() > 0.999


def test_autocast_equals_open_clip(source: Backbone) -> None:
    backbone = source
    tokens = backbone.tokenize(TEXTS)
    exact = backbone.clip.encode_image(images()), backbone.clip.encode_text(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        ours = backbone.encode_image(images()), backbone.encode_text(tokens)
        theirs = backbone.clip.encode_image(images()), backbone.clip.encode_text(tokens)
    for mine, other, right in zip(ours, theirs, exact, strict=True):
        assert mine.dtype == other.dtype == torch.bfloat16
        # A matrix product of another length may round otherwise, so both are held to float32.
        errors = [(given - right).abs().max().item() for given in (mine, other)]
        assert errors[0] <= 1.5 * errors[1]
        assert errors[1] > 0


def test_frozen_and_always_in_eval_mode(source: Backbone) -> None:
    backbone = source
    outer = nn.Sequential(backbone, nn.Linear(2, 2)).train()
    assert outer[1].training
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_facts() -> None:
    backbone = tiny_backbone(vision_width=32, text_width=16, vision_layers=2, text_layers=4)
    facts = (backbone.vision_width, backbone.text_width, backbone.embed_dim)
    assert facts == (32, 16, 48)
    assert (backbone.vision_layers, backbone.text_layers) == (2, 4)
    assert (backbone.context_length, backbone.image_size, backbone.causal) == (77, 32, True)
    assert backbone.image_mean == open_clip.OPENAI_DATASET_MEAN
    assert backbone.image_std == open_clip.OPENAI_DATASET_STD


def test_tokens_are_clips(source: Backbone) -> None:
    backbone = source
    assert torch.equal(backbone.tokenize(TEXTS), open_clip.tokenize(TEXTS))
    assert backbone.tokenize([]).shape == (0, 77)
    longest = " ".join(["river"] * 75)
    assert backbone.tokenize([longest])[0, 76] == 49407
    with pytest.raises(UserError, match=r"'river .* river' has 78 tokens .* at most 77; shorten"):
        backbone.tokenize(["x", longest + " river"])


def test_use_errors(source: Backbone) -> None:
    backbone = source
    prompts = draw(2, 64)
    for call in (backbone.encode_image, lambda x: backbone.encode_prompted_image(x, prompts)):
        with pytest.raises(UserError, match=r"images of 48x40 pixels .* accepts 32x32; set INPUT"):
            call(torch.zeros(1, 3, 48, 40))
    with pytest.raises(UserError, match="prompt depth 4 is more than the tower's 3 layers"):
        backbone.encode_prompted_image(images(), prompts, [prompts] * 3)
    with pytest.raises(ValueError, match=r"of \[2, 3\] tokens would replace 2"):
        backbone.encode_prompted_image(images(), prompts, [prompts, draw(3, 64)])


# --- random weights -------------------------------------------------------------------------------


def test_random_weights_come_from_the_seed_alone(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        one = tiny_backbone(seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    frame = caplog.records[-1].getMessage().strip().splitlines()
    assert set(frame[0]) == set(frame[2]) == {"!"}
    assert len(frame[0]) == len(frame[1])
    assert "RANDOM weights (pretrained=False, seed 5)" in frame[1]
    torch.manual_seed(4)
    assert same_features(one, tiny_backbone(seed=5))
    assert not same_features(one, tiny_backbone(seed=6))
    # The same on every machine: the CPU generator's stream is part of torch's contract.
    assert one.spec.pretrained is False
    assert one.spec.seed == 5
    assert same_features(one, load_backbone(**json.loads(json.dumps(one.spec.as_dict()))))


# --- checkpoints ----------------------------------------------------------------------------------


class Nest(nn.Module):
    """Holds tensors under dotted names, so that any state dict can be made TorchScript."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in dict.fromkeys(key.split(".")[0] for key in state):
            start = f"{name}."
            inner = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            if inner:
                self.add_module(name, Nest(inner))
            else:
                self.register_buffer(name, state[name])

    def forward(self) -> int:
        return 0


def openai_numbers() -> dict[str, Tensor]:
    numbers = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    return {key: torch.tensor(value) for key, value in numbers.items()}


def in_module(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{key}": value for key, value in state.items()}


def custom_text(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    shared = ("visual.", "logit_scale")
    return {k if k.startswith(shared) else f"text.{k}": v for k, v in state.items()}


WRITERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "openai_state_dict.pt": lambda s, p: torch.save({**s, **openai_numbers()}, p),
    "openai_archive.pt": lambda s, p: torch.jit.save(
        torch.jit.script(Nest({**s, **openai_numbers()})), str(p)
    ),
    "plain.pt": lambda s, p: torch.save(s, p),
    "old_zip.pt": lambda s, p: torch.save(s, p, _use_new_zipfile_serialization=False),
    "open_clip_training.pt": lambda s, p: torch.save(
        {"epoch": 3, "name": "run", "state_dict": in_module(s), "optimizer": {"state": {}}}, p
    ),
    "with_command_line.pth": lambda s, p: torch.save(
        {"model": s, "args": argparse.Namespace(lr=1.0)}, p
    ),
    "custom_text.pt": lambda s, p: torch.save(custom_text(s), p),
    "attn_mask.pt": lambda s, p: torch.save({**s, "attn_mask": torch.zeros(77, 77)}, p),
    "logit_scale_1d.pt": lambda s, p: torch.save({**s, "logit_scale": s["logit_scale"][None]}, p),
    "weights.safetensors": safetensors.torch.save_file,
}


def state_of(backbone: Backbone) -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in backbone.clip.state_dict().items()}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.jit, which OpenAI's files need
@pytest.mark.parametrize(
    ("layout", "custom"),
    [*((layout, False) for layout in WRITERS), ("plain.pt", True), ("custom_text.pt", True)],
)
def test_public_checkpoint_layouts(
    narrow: Backbone, tmp_path: Path, layout: str, custom: bool
) -> None:
    file = tmp_path / layout
    WRITERS[layout](state_of(narrow), file)
    name = write_clip_dir(tmp_path / "clip", tiny_clip_config(custom_text=custom, **NARROW))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    backbone = load_backbone(name, weights=str(file))
    assert torch.equal(torch.get_rng_state(), before)
    assert same_features(backbone, narrow)
    assert backbone.spec == Spec(name, weights=layout, sha256=file_digest(file))
    assert backbone.spec.as_dict() == {
        "name": name,
        "weights": layout,
        "pretrained": True,
        "seed": 0,
        "weights_sha256": file_digest(file),
    }
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_half_precision_file_loads_into_fp32(narrow: Backbone, tmp_path: Path) -> None:
    half = {key: value.half() for key, value in state_of(narrow).items()}
    torch.save(half, tmp_path / "half.pt")
    backbone = load_backbone(narrow.spec.name, weights=str(tmp_path / "half.pt"))
    assert backbone.dtype == torch.float32
    assert torch.equal(backbone.clip.visual.proj, half["visual.proj"].float())


@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "my_own.pt"])
def test_local_dir(narrow: Backbone, tmp_path: Path, file: str) -> None:
    name = write_clip_dir(
        tmp_path, tiny_clip_config(**NARROW), mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 2.0]
    )
    with pytest.raises(UserError, match=r"one single weights file in .* found none; name one with"):
        load_backbone(name)
    WRITERS["weights.safetensors" if file.endswith("s") else "plain.pt"](
        state_of(narrow), tmp_path / file
    )
    backbone = load_backbone(name)
    assert same_features(backbone, narrow)
    assert (backbone.image_mean, backbone.image_std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 2.0))
    spec = backbone.spec.as_dict()
    assert len(spec.pop("weights_sha256")) == 64
    assert same_features(load_backbone(**spec), narrow)
    (tmp_path / "second.pt").touch()
    if file == "my_own.pt":
        with pytest.raises(UserError, match=r"found my_own\.pt, second\.pt; name one"):
            load_backbone(name)


@pytest.fixture
def tiny_openai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """CoOp's name ViT-B/16 and open_clip's name tiny-clip stand for a tiny model."""
    config = tmp_path / "tiny-clip.json"
    config.write_text(json.dumps(tiny_clip_config(**NARROW)), encoding="utf-8")
    open_clip.add_model_config(config)
    monkeypatch.setitem(backbone_sources.OPENAI_VITS, "ViT-B/16", "tiny-clip")
    tags = {"openai": {}, "fast": {"mean": [0.5] * 3, "std": [0.5] * 3, "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-clip", tags)
    return "tiny-clip"


def activation(backbone: Backbone) -> str:
    return type(backbone.clip.visual.transformer.resblocks[0].mlp.gelu).__name__


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_names_with_files_decide_the_activation(
    narrow: Backbone, tmp_path: Path, tiny_openai: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain, openai = tmp_path / "RemoteCLIP.pt", tmp_path / "openai.pt"
    WRITERS["plain.pt"](state_of(narrow), plain)
    WRITERS["openai_archive.pt"](state_of(narrow), openai)
    for name, weights, expected in (
        ("ViT-B/16", openai, "QuickGELU"),
        (f"ViT-B/16:{openai}", "", "QuickGELU"),
        (f"{tiny_openai}:{plain}", "", "GELU"),
        (tiny_openai, plain, "GELU"),
    ):
        backbone = load_backbone(name, weights=str(weights))
        assert activation(backbone) == expected
        # A path in the name goes into the spec as a file name only.
        assert str(tmp_path) not in json.dumps(backbone.spec.as_dict())
        assert backbone.spec.name == name.partition(":")[0]
    assert not caplog.records
    load_backbone(tiny_openai, weights=str(openai))
    assert "openai.pt is in OpenAI's own layout" in caplog.text
    assert "QuickGELU" in caplog.text


def test_tags(
    narrow: Backbone, tmp_path: Path, tiny_openai: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "downloaded.bin"
    WRITERS["plain.pt"](state_of(narrow), file)
    monkeypatch.setattr("open_clip.pretrained.download_pretrained", lambda cfg: str(file))
    for name, expected in (("ViT-B/16", "QuickGELU"), (f"{tiny_openai}:fast", "QuickGELU")):
        backbone = load_backbone(name)
        assert activation(backbone) == expected
        assert torch.equal(backbone.clip.visual.proj, narrow.clip.visual.proj)
        assert backbone.spec == Spec(name)
    assert backbone.image_mean == (0.5, 0.5, 0.5)
    own = load_backbone(f"{tiny_openai}:fast", weights=str(file))
    assert (activation(own), own.image_mean) == ("QuickGELU", (0.5, 0.5, 0.5))
    assert own.spec.name == f"{tiny_openai}:fast"
    assert own.spec.weights == "downloaded.bin"
    untrained = load_backbone(f"{tiny_openai}:fast", pretrained=False)
    assert not torch.equal(untrained.clip.visual.proj, narrow.clip.visual.proj)


def test_hub(narrow: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip_dir(tmp_path, tiny_clip_config(**NARROW))
    hub = use_hub(monkeypatch, tmp_path)
    with pytest.raises(UserError) as caught:
        load_backbone("hf-hub:o/n")
    assert str(caught.value).startswith(
        "'hf-hub:o/n' holds none of the weights open_clip_model.safetensors, "
    )
    hub.broken = {"open_clip_model.safetensors"}
    with pytest.raises(
        UserError, match=r"cannot get open_clip_model\.safetensors of 'hf-hub:o/n' "
    ):
        load_backbone("hf-hub:o/n")
    hub.broken = set()
    safetensors.torch.save_file(state_of(narrow), tmp_path / "open_clip_model.safetensors")
    backbone = load_backbone("hf-hub:o/n")
    assert same_features(backbone, narrow)
    digest = hashlib.sha256((tmp_path / "open_clip_model.safetensors").read_bytes()).hexdigest()
    assert backbone.spec == Spec("hf-hub:o/n", sha256=digest)
    (tmp_path / CONFIG_FILE).unlink()
    with pytest.raises(UserError, match=r"holds neither open_clip_config\.json nor config\.json"):
        load_backbone("hf-hub:o/n")
    hub.broken = {CONFIG_FILE}
    with pytest.raises(UserError) as caught:
        load_backbone("hf-hub:o/n")
    assert str(caught.value) == (
        "cannot get open_clip_config.json of 'hf-hub:o/n' (ConnectionError: no network at all); "
        "check the name, use a machine with access to the hub, or download the folder "
        "https://huggingface.co/o/n and name it local-dir:PATH"
    )


@pytest.mark.filterwarnings("ignore")  # tracing OpenAI's code warns about its size checks
def test_openais_own_model(tmp_path: Path) -> None:
    """Archive and state dict of OpenAI's code: its features come out."""
    file = peer("CLIP") / "clip" / "model.py"
    spec = importlib.util.spec_from_file_location("openai_clip_model", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    theirs = module.CLIP(48, 32, 2, 64, 16, 77, 49408, 64, 1, 2).eval()
    name = write_clip_dir(
        tmp_path,
        tiny_clip_config(vision_layers=2, text_layers=2, quick_gelu=True)
        | {"text_cfg": {"width": 64, "heads": 1, "layers": 2}}
        | {"vision_cfg": {**tiny_clip_config()["vision_cfg"], "layers": 2, "head_width": 64}},
    )
    tokens = open_clip.tokenize(TEXTS)
    traced = torch.jit.trace_module(
        theirs, {"forward": (images(), tokens), "encode_text": tokens}, check_trace=False
    )
    torch.jit.save(traced, str(tmp_path / "archive.pt"))
    torch.save(theirs.state_dict(), tmp_path / "state.pt")
    for weights in ("archive.pt", "state.pt"):
        ours = load_backbone(name, weights=str(tmp_path / weights))
        torch.testing.assert_close(ours.encode_image(images()), theirs.encode_image(images()))
        torch.testing.assert_close(ours.encode_text(tokens), theirs.encode_text(tokens))
        torch.testing.assert_close(ours.logit_scale, theirs.logit_scale.exp())


# --- errors in loading ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "ViT-B/61"}, r"unknown CLIP model 'ViT-B/61'.* Did you mean 'ViT-B/16'"),
        (
            {"name": "ViT-B-32"},
            "does not say which weights: write ViT-B-32:TAG.* laion2b_s34b_b79k",
        ),
        (
            {"name": "ViT-B-32:laion2b"},
            "'laion2b' is neither a pretrained tag .* Did you mean 'laion",
        ),
        ({"name": "ViT-B-32:gone.pt"}, r"no weights at '.*/gone\.pt'; use the path"),
        ({"name": "ViT-B/16", "weights": "no/gone"}, "no weights at '/.*no/gone'"),
        ({"name": "ViT-B/16", "weights": "x.pt", "pretrained": False}, "'x.pt' names a checkpoint"),
        ({"name": "ViT-B/16:x.pt", "pretrained": False}, "'ViT-B/16:x.pt' names weights and"),
        (
            {"name": "ViT-B-32:y.pt", "weights": "x.pt"},
            "'ViT-B-32:y.pt' names weights already and weights='x.pt'",
        ),
        (
            {"name": "local-dir:nowhere"},
            r"no open_clip_config\.json in '/.*nowhere'; a local model",
        ),
    ],
)
def test_loading_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_backbone(**arguments)


def test_weights_that_cannot_be_had_are_never_random(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise OSError("no route\nto host")

    monkeypatch.setattr("open_clip.pretrained.download_pretrained", fail)
    with pytest.raises(
        UserError,
        match=r"cannot get the weights of 'ViT-B/32' \(open_clip tag ViT-B-32:openai; OSError: "
        r"no route to host\); .* weights=PATH .* pretrained=False",
    ):
        load_backbone("ViT-B/32")


@pytest.mark.parametrize(
    ("tower", "options", "message"),
    [
        ("vision_cfg", {"image_size": [32, 48]}, "for images of 32x48 pixels; only square"),
        ("text_cfg", {"heads": 3}, r"open_clip [0-9.]+ cannot build .*\(AssertionError"),
        ("text_cfg", {"new_option": 1}, "cannot build .* 'new_option'.*install a newer"),
    ],
)
def test_architectures_that_cannot_be_built(
    tmp_path: Path, tower: str, options: dict[str, object], message: str
) -> None:
    config = tiny_clip_config()
    config[tower].update(options)
    with pytest.raises(UserError, match=message):
        load_backbone(write_clip_dir(tmp_path, config), pretrained=False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "it is not valid JSON"),
        ("[]", "expected `object`, got `array`"),
        (
            '{"model_cfg": {"embed_dim": 4}}',
            "model_cfg: object missing required field `vision_cfg`",
        ),
        (
            '{"model_cfg": {"embed_dim": null, "vision_cfg": {}, "text_cfg": {}}}',
            "model_cfg.embed_dim: expected `int`, got `null`",
        ),
        (
            '{"model_cfg": {"embed_dim": 4, "vision_cfg": {"layers": 0}, "text_cfg": {}}}',
            "model_cfg.vision_cfg.layers: expected `int` >= 1",
        ),
        (
            '{"model_cfg": {"embed_dim": 4, "vision_cfg": {}, "text_cfg": {}}, '
            '"preprocess_cfg": {"std": [0, 1, 1]}}',
            "preprocess_cfg.std[0]: expected `float` > 0.0",
        ),
        (
            '{"model_cfg": {"embed_dim": 4, "vision_cfg": {}, "text_cfg": {}}, '
            '"preprocess_cfg": {"resize_mode": "longest"}}',
            "preprocess_cfg.resize_mode: invalid enum value 'longest'",
        ),
        (
            '{"model_cfg": {"embed_dim": 4, "vision_cfg": {}, "text_cfg": {}}, '
            '"preprocess_cfg": {"interpolation": "lanczos"}}',
            "preprocess_cfg.interpolation: invalid enum value 'lanczos'",
        ),
    ],
)
def test_bad_config_file(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(content)
    with pytest.raises(UserError, match=rf"{CONFIG_FILE} cannot be used: {re.escape(said)}"):
        load_backbone(f"local-dir:{tmp_path}", pretrained=False)


def test_checkpoint_errors(source: Backbone, tmp_path: Path) -> None:
    name, state = source.spec.name, state_of(source)

    def message(content: object, suffix: str = "pt", **config: int) -> str:
        file = tmp_path / f"weights.{suffix}"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)
        model = write_clip_dir(tmp_path / "other", tiny_clip_config(**config)) if config else name
        with pytest.raises(UserError) as caught:
            load_backbone(model, weights=str(file))
        assert str(file) in str(caught.value)
        return str(caught.value)

    other = message(state, image_size=48, vision_layers=2, text_width=32)
    assert "the file has image layers 3, image size 32, text width 64; the model has " in other
    assert "image layers 2, image size 48, text width 32. Name the model" in other
    assert "text_projection" not in other
    assert "patch 16, image size 32; the model" in message(state, patch=8, image_size=16)

    less = {key: value for key, value in state.items() if "mlp.c_fc.bias" not in key}
    assert "6 keys missing (visual.transformer.resblocks.0.mlp.c_fc.bias, " in message(less)
    assert "1 keys left over (head.weight)" in message({**state, "head.weight": torch.ones(1)})
    wrong = {**state, "ln_final.bias": torch.ones(3)}
    assert "1 keys of other shape (ln_final.bias (3,) instead of (64,))" in message(wrong)
    other = message({"vision_model.embeddings": torch.ones(1)})
    assert "holds no image and no text tower of 'local-dir:" in other
    assert "a checkpoint of Hugging Face CLIP; load_backbone loads it by the name of its" in other
    assert "it looks like a file without weights" in message({})
    halves = {key: value for key, value in state.items() if key.startswith("visual.")}
    assert "holds no text tower of" in message(halves)
    encoder = message({"image_encoder.blocks.0.norm1.weight": torch.ones(1)})
    assert "looks like a checkpoint of SAM / MedSAM; load_domain_encoder loads it" in encoder
    assert "holds a list, expected a state dict" in message([1])
    assert "is a web page, not a file of weights" in message(b"<html>not found</html>")
    assert "cannot be read as a checkpoint" in message(b"PK", "safetensors")
    evil = message({"state_dict": state, "hook": Path("x")})
    assert "cannot be read as a checkpoint (UnpicklingError" in evil


CLIP_PREFIXES = (
    *("model.", "module.", "clip.", "clip_model.", "model.clip.", "_orig_mod."),
    *("module._orig_mod.model.clip.", "net.student.", "text_and_image."),
)


@pytest.mark.parametrize("prefix", CLIP_PREFIXES)
@pytest.mark.parametrize("custom", [False, True])
def test_the_prefix_of_a_wrapper_is_removed_and_said(
    narrow: Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str, custom: bool
) -> None:
    state = {**state_of(narrow), **openai_numbers()} if custom else custom_text(state_of(narrow))
    file = tmp_path / "w.pt"
    torch.save({"state_dict": {prefix + key: value for key, value in state.items()}}, file)
    name = write_clip_dir(tmp_path / "clip", tiny_clip_config(custom_text=custom, **NARROW))
    with caplog.at_level(logging.INFO, "dplq"):
        assert same_features(load_backbone(name, weights=str(file)), narrow)
    said = f"{file}: its keys carry the prefix '{prefix}', which is removed"
    assert said in [record.getMessage() for record in caplog.records]


def test_a_prefix_that_does_not_help_is_named(source: Backbone, tmp_path: Path) -> None:
    def message(state: Mapping[str, Tensor], name: str = source.spec.name) -> str:
        torch.save(dict(state), tmp_path / "w.pt")
        with pytest.raises(UserError) as caught:
            load_backbone(name, weights=str(tmp_path / "w.pt"))
        return str(caught.value)

    def below(prefix: str) -> dict[str, Tensor]:
        return {prefix + key: value for key, value in state_of(source).items()}

    text = message({**below("model."), "head.weight": torch.ones(2)})
    assert "carry the prefix 'model.', except for 1 that belong to something else" in text
    assert "(head.weight). Save the weights below that prefix alone" in text
    text = message({**below("model."), **below("model_ema.module.")})
    assert "the model 2 times, with the prefixes 'model.' and 'model_ema.': save" in text
    other = write_clip_dir(tmp_path / "other", tiny_clip_config(image_size=48))
    text = message(below("clip."), other)
    assert "the file has image size 32; the model has image size 48. Name the model" in text
    assert text.endswith("(without the prefix 'clip.' of its keys)")
    other = write_clip_dir(tmp_path / "patch", tiny_clip_config(patch=8, image_size=16))
    text = message(below(""), other)
    assert "the file has patch 16, image size 32; the model has patch 8, image size 16" in text
    assert "the prefix" not in text


def test_read_state_dict_stays_on_tensors(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2), "n": 3}, "epoch": 1}, tmp_path / "f")
    assert {key: value.tolist() for key, value in read_state_dict(tmp_path / "f").items()} == {
        "a": [1.0, 1.0]
    }


def test_weights_that_a_file_replaces_are_not_initialised() -> None:
    before = torch.get_rng_state()
    with skip_weight_init():
        layer = torch.nn.Linear(64, 64)
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.ones_(layer.bias)
        norm = torch.nn.LayerNorm(8)
    assert torch.get_rng_state().equal(before)
    assert layer.bias.eq(1).all()
    assert norm.weight.eq(1).all()
    assert norm.bias.eq(0).all()
    with skip_weight_init():  # rejection sampling: it draws until all numbers are in range
        torch.nn.init.trunc_normal_(layer.weight.data.fill_(9.0), std=1, a=-2, b=2)
    assert layer.weight.abs().max() <= 2
    assert not torch.get_rng_state().equal(before)


def test_a_scale_in_place_of_its_logarithm_is_refused(tmp_path):
    name = write_clip_dir(tmp_path / "clip", tiny_clip_config())
    state = dplq.load_backbone(name, pretrained=False).clip.state_dict()
    torch.save({**state, "logit_scale": torch.tensor(100.0)}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"logit_scale is 100, but it must be a logarithm \(4\.605"):
        dplq.load_backbone(name, weights=str(tmp_path / "weights.pt"))
