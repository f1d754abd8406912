"""Prompt methods: what is trained, what must not change, what is refused."""

from __future__ import annotations

import re
from unittest import mock

import pytest
import torch
from torch.nn import functional as F

import dplq.trainers
from dplq.errors import UserError
from dplq.methods.cocoop import CoCoOpModel
from dplq.methods.coop import CoOpModel
from dplq.methods.ivlp import IVLPModel
from dplq.methods.maple import MaPLeModel
from dplq.methods.prompts.biomedcoop import BiomedCoOpModel
from dplq.methods.prompts.kgcoop import KgCoOpModel
from dplq.methods.prompts.prograd import ProGradModel
from dplq.methods.prompts.tcp import TCPModel
from dplq.methods.vpt import VPTModel
from tests.tiny import tiny_backbone

CLASSNAMES = ["river", "parking_lot", "Dense Residential Area", "storage tank", "a"]
OTHERS = ["desert", "lake"]
WORDS = "a photo of a"
IVLP_SIZES = {"n_ctx_vision": 3, "prompt_depth_text": 2, "prompt_depth_vision": 2}
# name -> model, settings, names of what is trained, how many numbers (widths 64, 64 and 48)
MODELS = {
    "CoOp": (CoOpModel, {"n_ctx": 5}, "ctx", 5 * 64),
    "CoOp, middle": (
        CoOpModel,
        {"ctx_init": WORDS, "class_token_position": "middle"},
        "ctx",
        4 * 64,
    ),
    "CoOp, class-specific": (CoOpModel, {"n_ctx": 3, "csc": True}, "ctx", 5 * 3 * 64),
    "CoCoOp": (
        CoCoOpModel,
        {"ctx_init": WORDS},
        "ctx meta_net.0.bias meta_net.0.weight meta_net.2.bias meta_net.2.weight",
        4 * 64 + (48 * 3 + 3) + (3 * 64 + 64),
    ),
    "KgCoOp": (KgCoOpModel, {}, "ctx", 4 * 64),
    "ProGrad": (ProGradModel, {"n_ctx": 6}, "ctx", 6 * 64),
    "TCP": (
        TCPModel,
        {"ctx_init": WORDS, "class_layer": 2},
        "ctx meta_net.0.bias meta_net.0.weight meta_net.2.bias meta_net.2.weight",
        4 * 64 + (48 * 12 + 12) + (12 * 4 * 64 + 4 * 64),
    ),
    "BiomedCoOp": (BiomedCoOpModel, {}, "ctx", 4 * 64),
    "VPT, shallow": (VPTModel, {"n_ctx_vision": 3}, "vision", 3 * 64),
    "VPT, deep": (
        VPTModel,
        {"n_ctx_vision": 2, "prompt_depth_vision": 3},
        "deep_vision.0 deep_vision.1 vision",
        3 * 2 * 64,
    ),
    "IVLP": (
        IVLPModel,
        IVLP_SIZES,
        "ctx deep_text.0 deep_vision.0 vision",
        2 * 2 * 64 + 2 * 3 * 64,
    ),
    "IVLP, text only": (
        IVLPModel,
        {"n_ctx_vision": 0, "prompt_depth_text": 2, "prompt_depth_vision": 0},
        "ctx deep_text.0",
        2 * 2 * 64,
    ),
    "MaPLe": (
        MaPLeModel,
        {"prompt_depth": 2},
        "ctx deep_text.0 vision.0.bias vision.0.weight vision_proj.bias vision_proj.weight",
        2 * 2 * 64 + 2 * (64 * 64 + 64),
    ),
}


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone()


@pytest.fixture(scope="module")
def images(clip):
    size = clip.image_size
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def make(name, clip, **more):
    """A model of the table, in evaluation."""
    kind, settings, _, _ = MODELS[name]
    return kind(clip, CLASSNAMES, **{"seed": 0, **settings, **more}).eval()


def zero_shot(clip, images, texts):
    """Logits of CLIP itself."""
    image, text = clip.encode_image(images), clip.encode_text(clip.tokenize(texts))
    return clip.logit_scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T


@pytest.mark.parametrize("name", MODELS)
def test_what_is_trained(name, clip):
    model, expected = make(name, clip), MODELS[name][2:]
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    names = sorted(n.removeprefix("prompt_learner.") for n in trained)
    assert (" ".join(names), sum(p.numel() for p in trained.values())) == expected
    assert not [n for n in trained if not n.startswith("prompt_learner.")]
    assert {p.dtype for p in trained.values()} == {torch.float32}


@pytest.mark.parametrize("name", MODELS)
def test_every_number_matters_and_no_image_sees_another(name, clip, images):
    model = make(name, clip)
    logits = model(images)
    assert logits.shape == (3, 5)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(model(images[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)
    F.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    for parameter_name, parameter in model.prompt_learner.named_parameters():
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", [name for name in MODELS if "class-specific" not in name])
def test_other_classes(name, clip, images, tmp_path):
    """A checkpoint is loaded for other classes; there and back nothing is lost."""
    model = make(name, clip)
    before = model(images)
    model.save(tmp_path / "prompts.safetensors")
    kind, settings, _, _ = MODELS[name]
    other = kind(clip, OTHERS, seed=1, **settings).eval()
    other.load(tmp_path / "prompts.safetensors")
    model.set_classnames(OTHERS)
    assert torch.equal(model(images), other(images))
    assert other(images).shape == (3, 2)
    model.set_classnames(CLASSNAMES)
    assert torch.equal(model(images), before)


@pytest.mark.parametrize("name", MODELS)
def test_seed_decides_the_initial_weights(name, clip):
    first, second, other = (
        torch.cat([p.flatten() for p in make(name, clip, seed=seed).prompt_learner.parameters()])
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert torch.equal(first, other) == (name in ALL_FROM_WORDS)


ALL_FROM_WORDS = {"CoOp, middle", "KgCoOp", "ProGrad", "BiomedCoOp"}
POSITIONS = {"end": "a photo of a {}.", "middle": "a photo {} of a.", "front": "{} a photo of a."}


@pytest.mark.parametrize("position", POSITIONS)
def test_coop_starts_at_zero_shot(position, clip, images):
    """Words as the context, with the name at each of the three places, are a plain text."""
    model = CoOpModel(clip, CLASSNAMES, ctx_init=WORDS, class_token_position=position)
    texts = [POSITIONS[position].format(name.replace("_", " ")) for name in CLASSNAMES]
    torch.testing.assert_close(model(images), zero_shot(clip, images, texts), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("words", ["a close-up photo of a", "close-up", "an x-ray, mammogram"])
@pytest.mark.parametrize("method", ["CoOp", "KgCoOp", "ProGrad"])
def test_words_of_several_tokens_stay_in_order(method, words, position, clip, images):
    """The name stands between words, though fewer tokens are learned than these have."""
    settings = {"ctx_init": words, "n_ctx": 1, "class_token_position": position}
    model = dplq.create_model(method, clip, CLASSNAMES, seed=0, **settings).eval()
    whole = words.split()
    before = {"end": len(whole), "middle": len(whole) // 2, "front": 0}[position]
    names = [name.replace("_", " ") for name in CLASSNAMES]
    texts = [" ".join([*whole[:before], name, *whole[before:]]) + "." for name in names]
    assert model.prompt_texts() == [[text] for text in texts]
    assert (
        len(model.prompt_learner.ctx) == len(whole) < int(clip.count_tokens(clip.tokenize([words])))
    )
    torch.testing.assert_close(model(images), zero_shot(clip, images, texts), rtol=1e-4, atol=1e-4)


def test_the_others_hold_zero_shot_too(clip, images):
    expected = zero_shot(clip, images, [f"{WORDS} {n.replace('_', ' ')}." for n in CLASSNAMES])
    text_only = {"n_ctx_vision": 0, "prompt_depth_vision": 0, "prompt_depth_text": 1}
    cocoop = make("CoCoOp", clip)
    with torch.no_grad():
        for parameter in cocoop.prompt_learner.meta_net[2].parameters():
            parameter.zero_()
    for model in (cocoop, IVLPModel(clip, CLASSNAMES, n_ctx_text=4, **text_only)):
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
    vpt = make("VPT, shallow", clip)
    assert vpt.prefix == WORDS
    maple = make("MaPLe", clip, prompt_depth=1, ctx_init="a_photo_of_a")
    words = clip.embed_tokens(clip.tokenize(["a photo"]))[0, 1:3]
    assert torch.equal(maple.prompt_learner.ctx, words)
    assert not len(maple.prompt_learner.vision)


def test_maple_s_projections_start_equal(clip):
    vision = make("MaPLe", clip, prompt_depth=3).prompt_learner.vision
    assert torch.equal(vision[0].weight, vision[1].weight)
    assert vision[0].weight is not vision[1].weight


@pytest.mark.parametrize(
    ("name", "texts"),
    [("CoOp", (1, 5)), ("CoOp, class-specific", (1, 5)), ("CoCoOp", (3, 5)), ("MaPLe", (1, 5))],
)
def test_how_many_texts_a_batch_costs(name, texts, clip, images):
    """Once per class; CoCoOp once per image and class."""
    model = make(name, clip)
    assert model.text_features(model.prompts(images)).shape[:2] == texts


def test_vpt_encodes_its_texts_once(clip, images):
    model = make("VPT, deep", clip)
    for part in ("encode_prompted_text", "encode_packed_text"):
        with mock.patch.object(clip, part, side_effect=AssertionError, create=True):
            assert model(images).shape == (3, 5)
    text = clip.encode_text(clip.tokenize([f"{WORDS} parking lot."]))
    torch.testing.assert_close(model.fixed_text[:, 1], F.normalize(text), rtol=1e-4, atol=1e-5)


def test_number_of_words_is_coop_s_context_length(clip, caplog):
    model = CoOpModel(clip, CLASSNAMES, n_ctx=16, ctx_init="a large photo of a", csc=True)
    assert model.prompt_learner.ctx.shape == (5, 64)
    assert model.settings["n_ctx"] == 5
    assert "CSC True is not used" in caplog.text


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("CoOp", {"class_token_position": "centre"}, "CLASS_TOKEN_POSITION 'centre' is unknown"),
        ("CoOp", {"n_ctx": 0}, "N_CTX is 0; it must be at least 1"),
        ("CoOp", {"ctx_init": "a " * 80}, "CTX_INIT has 80 words; at most 73 are possible"),
        ("MaPLe", {"prompt_depth": 4}, "PROMPT_DEPTH 4 does not fit .* 1 to 3 layers"),
        (
            "VPT, deep",
            {"prompt_depth_vision": 0},
            "PROMPT_DEPTH_VISION is 0; it must be at least 1",
        ),
        ("VPT, deep", {"n_ctx_vision": 0}, "N_CTX_VISION is 0; it must be at least 1"),
        ("IVLP", {"prompt_depth_text": 0}, "PROMPT_DEPTH_TEXT is 0; it must be at least 1"),
        ("IVLP", {"prompt_depth_vision": 4}, "PROMPT_DEPTH_VISION 4 does not fit"),
        ("IVLP", {"n_ctx_vision": -1}, "N_CTX_VISION is -1; it must be at least 0"),
    ],
)
def test_bad_settings(name, settings, message, clip):
    with pytest.raises(UserError, match=message):
        make(name, clip, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("CoOp", {"n_ctx": 4}, "settings.n_ctx: there 5, now 4"),
        (
            "CoOp, middle",
            {"class_token_position": "front"},
            "settings.class_token_position: there 'middle', now 'front'",
        ),
        ("VPT, deep", {"prompt_depth_vision": 2}, "settings.prompt_depth_vision: there 3, now 2"),
        ("IVLP", {"prompt_depth_text": 3}, "settings.prompt_depth_text: there 2, now 3"),
        ("MaPLe", {"prompt_depth": 3}, "settings.prompt_depth: there 2, now 3"),
    ],
)
def test_checkpoint_of_other_settings(name, settings, message, clip, tmp_path):
    make(name, clip).save(tmp_path / "prompts.safetensors")
    with pytest.raises(UserError, match=message):
        make(name, clip, **settings).load(tmp_path / "prompts.safetensors")
    with pytest.raises(UserError, match=r"method: there .*, now 'CoCoOp'"):
        make("CoCoOp", clip).load(tmp_path / "prompts.safetensors")


def test_class_specific_context_is_of_its_classes(clip, tmp_path):
    model, path = make("CoOp, class-specific", clip), tmp_path / "prompts.safetensors"
    model.save(path)
    with pytest.raises(UserError, match="context of 5 classes, and now there are 2"):
        model.set_classnames(OTHERS)
    settings = MODELS["CoOp, class-specific"][1]
    with pytest.raises(UserError, match=f"{path} has .* of 5 classes, and now there are 2"):
        CoOpModel(clip, OTHERS, **settings).load(path)
    others = ["lake", *CLASSNAMES[1:]]
    with pytest.raises(UserError, match=r"of 5 classes, and now there are 5 \(others: lake\): it"):
        CoOpModel(clip, others, **settings).load(path)
    with pytest.raises(UserError, match="of these classes in another order: it cannot be read"):
        CoOpModel(clip, CLASSNAMES[::-1], **settings).load(path)


@torch.no_grad()
@pytest.mark.parametrize("method", ["CoOp", "KgCoOp", "ProGrad"])
def test_class_specific_contexts_follow_their_classes(method, clip, images, tmp_path):
    names, path = ["river", "parking_lot", "river", "sea"], tmp_path / "prompts.safetensors"
    model = dplq.create_model(method, clip, names, seed=0, n_ctx=3, ctx_init="", csc=True).eval()
    before, order = model(images), [3, 0, 1, 2]
    model.save(path)
    other = ["sea", "river", "parking lot", "river"]
    found = dplq.load(path, other, clip=clip)
    torch.testing.assert_close(found(images), before[:, order], rtol=1e-5, atol=1e-5)
    assert torch.equal(found.prompt_learner.ctx, model.prompt_learner.ctx[order])
    found.save(path)  # the header has the new order, as has the context
    torch.testing.assert_close(dplq.load(path, clip=clip)(images), found(images))
    found.set_classnames(names)
    assert torch.equal(found(images), before)
    message = (
        "This model has a class-specific context of 4 classes, and now there are 4 (others: lake): "
        f"it cannot be used for other classes. Train with TRAINER.{method.upper()}.CSC False for "
        "that."
    )
    with pytest.raises(UserError, match=re.escape(message)):
        dplq.load(path, ["sea", "river", "parking_lot", "lake"], clip=clip)


def messages_of(caplog):
    """What was logged of unused settings, as (level, text)."""
    logged = [(r.levelname, r.getMessage()) for r in caplog.records if "not used" in r.msg]
    caplog.clear()
    return logged


@pytest.mark.parametrize("kind", [CoOpModel, CoCoOpModel])
def test_a_context_length_that_the_words_decide_is_said(kind, clip, caplog):
    caplog.set_level("INFO", "dplq")
    reason = f"is not used: CTX_INIT '{WORDS}' has 4 tokens."
    for n_ctx, level in ((16, "INFO"), (8, "WARNING")):  # 16 is the default
        assert kind(clip, CLASSNAMES, n_ctx=n_ctx, ctx_init=WORDS).settings["n_ctx"] == 4
        assert messages_of(caplog) == [(level, f"N_CTX {n_ctx} {reason}")]
    kind(clip, CLASSNAMES, n_ctx=4, ctx_init="a_photo_of_a")
    kind(clip, CLASSNAMES, n_ctx=8)
    assert messages_of(caplog) == []
    split = kind(clip, CLASSNAMES, n_ctx=8, ctx_init="an ultrasonogram of")
    assert split.settings["n_ctx"] == 3
    ((_, text),) = messages_of(caplog)
    assert text.startswith("N_CTX 8 is not used: CTX_INIT 'an ultrasonogram of' has ")
    assert text.endswith(" tokens, of which the first 3, one a word, are learned.")


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (MaPLeModel, {"n_ctx": 5}, ("INFO", f"CTX_INIT '{WORDS}' is not used: N_CTX 5 is more")),
        (MaPLeModel, {"n_ctx": 6, "ctx_init": "an X-ray"}, ("WARNING", "CTX_INIT 'an X-ray' is")),
        (
            IVLPModel,
            {"n_ctx_text": 5, "ctx_init": "a scan", "n_ctx_vision": 0, "prompt_depth_vision": 0},
            ("WARNING", "CTX_INIT 'a scan' is not used: N_CTX_TEXT 5 is more than 4."),
        ),
        (
            IVLPModel,
            {"n_ctx_vision": 0, "prompt_depth_vision": 3},
            ("WARNING", "PROMPT_DEPTH_VISION 3 is not used: N_CTX_VISION is 0."),
        ),
        (
            IVLPModel,
            {"n_ctx_vision": 5, "prompt_depth_vision": 0},
            ("WARNING", "N_CTX_VISION 5 is not used: PROMPT_DEPTH_VISION is 0."),
        ),
        (
            MaPLeModel,
            {"prompt_depth": 1, "clone_init": False},
            ("WARNING", "CLONE_INIT False is not used: PROMPT_DEPTH 1 leaves no deeper layers."),
        ),
    ],
)
def test_a_setting_that_another_disables_is_said(kind, settings, expected, clip, caplog):
    caplog.set_level("INFO", "dplq")
    depth = "prompt_depth" if kind is MaPLeModel else "prompt_depth_text"
    kind(clip, CLASSNAMES, **{depth: 1, **settings})
    ((level, text),) = messages_of(caplog)
    assert (level, text[: len(expected[1])]) == expected


PROMPTS = {
    "CoOp": "X X X X X river.",
    "CoOp, middle": "a photo river of a.",
    "CoOp, class-specific": "X X X river.",
    "CoCoOp": "a photo of a river.",
    "KgCoOp": "a photo of a river.",
    "ProGrad": "X X a photo of a river.",
    "TCP": "a photo of a river.",
    "BiomedCoOp": "a photo of a river.",
    "VPT, shallow": "a photo of a river.",
    "VPT, deep": "a photo of a river.",
    "IVLP": "a photo of a river.",
    "IVLP, text only": "a photo of a river.",
    "MaPLe": "a photo of a river.",
}


@pytest.mark.parametrize("name", MODELS)
def test_prompt_texts_are_what_the_text_tower_gets(name, clip):
    model = make(name, clip)
    texts = model.prompt_texts()
    assert texts[0] == [PROMPTS[name]]
    assert [len(own) for own in texts] == [1] * 5
    assert "parking lot" in texts[1][0]
    # The tokens as the model has them: those of the text, in this order.
    tokens = clip.tokenize([own[0] for own in texts])
    embedded = clip.embed_tokens(tokens[:, : model.rest.shape[1] + model.n_ctx + 1])
    ctx = embedded.new_zeros(5, model.n_ctx, 64)
    if model.n_ctx and "X" not in texts[0][0]:
        ctx = clip.embed_tokens(clip.tokenize([WORDS]))[:, 1 : 1 + model.n_ctx].expand(5, -1, -1)
    mine = torch.cat([model.sos, ctx, model.rest], dim=1)
    if model.order is not None:
        mine = mine.gather(1, model.order[:, :, None].expand(-1, -1, 64))
    random = mine.abs().sum(-1) == 0
    assert random.sum() == (5 * model.n_ctx if "X" in texts[0][0] else 0)
    assert torch.equal(mine[~random], embedded[~random])


def test_prompt_kind(clip):
    kinds = {name: make(name, clip).prompt_kind() for name in ("CoOp", "MaPLe", "VPT, deep")}
    start = "tokens of the context are learned and start"
    assert kinds == {
        "CoOp": f"the first 5 {start} random, shown as X",
        "MaPLe": f"the first 2 {start} as written",
        "VPT, deep": "fixed text",
    }
