"""Weight deltas: exact in every path, one backbone for many models, merging."""

from __future__ import annotations

import copy
import math
import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch.func import functional_call
from torch.nn import functional as F

import dplq
from dplq.clip import packed_text
from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.methods.registry import create_model
from tests.tiny import tiny_backbone

NAMES = ["river", "parking_lot", "dense residential area", "a"]
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(4)
TEMPLATE = "a photo of a {}, seen from above."
SETTINGS = {
    "CLIPLoRA": {"template": TEMPLATE, "dropout": 0.0, "params": "qkvo"},
    "CLIPSVD": {"template": TEMPLATE},
    "TwoStage": {"template": TEMPLATE},
    "GDPL": {"n_ctx": 2, "prompt_depth": 2, "delta_depth": 2, "rank": 3, "noise": False},
}
FIXED_TEXT = ("CLIPLoRA", "CLIPSVD", "TwoStage")


@pytest.fixture(scope="module")
def clip():
    """Shared by all tests: no model changes it."""
    return tiny_backbone()


def build(method, clip, **more):
    """A model whose weights have moved away from CLIP's, in eval mode."""
    parts = {}
    if method == "GDPL":
        parts["domain"] = dplq.load_domain_encoder("clip", backbone=clip)
    settings = {**SETTINGS[method], **more}
    model = create_model(method, clip, NAMES, seed=1, **parts, **settings)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.prompt_learner.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def outcome(model):
    """Logits of a batch, and the gradients of its loss."""
    model.zero_grad()
    logits = model(IMAGES.to(next(model.prompt_learner.parameters()).dtype))
    F.cross_entropy(logits, LABELS).backward()
    grads = {
        n: p.grad.clone() for n, p in model.prompt_learner.named_parameters() if p.grad is not None
    }
    assert any(grad.abs().max() > 0 for grad in grads.values())
    return logits.detach(), grads


def zeroshot(clip, names=NAMES, template=TEMPLATE):
    return create_model("ZeroshotCLIP", clip, names, templates=[template])


@pytest.mark.parametrize("method", SETTINGS)
def test_packed_and_plain_texts_agree(method, clip, monkeypatch):
    """Towers built anew on the same tensors, without packing: open_clip's own blocks."""
    packed = outcome(build(method, clip))
    monkeypatch.setattr(clip, "supports_packing", False)
    model = build(method, clip)
    assert model.texts is None
    monkeypatch.setattr(model.clip, "encode_packed_text", None)
    torch.testing.assert_close(outcome(model), packed, rtol=1e-4, atol=1e-5)


def dense_lora(model, weights):
    """W + (alpha / sqrt(r)) B A for q, k, v and the output, from the state dict alone."""
    state, found = dict(model.prompt_learner.named_parameters()), {}
    for name in {key.rsplit(".", 1)[0] for key in state}:
        down, up = state[f"{name}.down"], state[f"{name}.up"]
        scale = model.settings["alpha"] / math.sqrt(model.settings["rank"])
        changes = [scale * up[i] @ down[i] for i in range(len(up))]
        weight = name.replace("/", ".")
        found[weight] = weights[weight] + torch.cat(changes)
    return found


def dense_svd(model, weights):
    """U diag(s) V of every matrix."""
    found = {}
    for name, values in model.prompt_learner.named_parameters():
        weight = name.removesuffix(".values").replace("/", ".")
        parts = []
        for part, own in zip(weights[weight].chunk(len(values)), values, strict=True):
            left, _, right = torch.linalg.svd(part, full_matrices=False)
            parts.append(left @ torch.diag(own) @ right)
        found[weight] = torch.cat(parts)
    return found


def learned_norms(model, weights):
    return {
        name.removeprefix("deltas.").removesuffix(".value").replace("/", "."): value
        for name, value in model.prompt_learner.named_parameters()
        if name != "classifier"
    }


DENSE = {"CLIPLoRA": dense_lora, "CLIPSVD": dense_svd, "TwoStage": learned_norms}


@pytest.mark.parametrize("method", DENSE)
def test_equal_to_open_clip_with_dense_weights(method, clip):
    """Logits and gradients of open_clip's own forward pass, its weights computed by hand."""
    model = build(method, clip)
    logits, grads = outcome(model)
    weights = dict(clip.clip.state_dict())
    changed = {**weights, **DENSE[method](model, weights)}
    tokens = clip.tokenize([TEMPLATE.format(name.replace("_", " ")) for name in NAMES])
    image, text, scale = functional_call(clip.clip, changed, (IMAGES, tokens))
    naive = scale * image @ text.t()
    torch.testing.assert_close(logits, naive.detach(), rtol=1e-5, atol=2e-5)
    assert (naive - zeroshot(clip)(IMAGES)).abs().max() > 0.05
    model.zero_grad()
    F.cross_entropy(naive, LABELS).backward()
    for name, parameter in model.prompt_learner.named_parameters():
        if name != "classifier":
            torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["CLIPLoRA", "CLIPSVD", "TwoStage"])
def test_training_starts_at_zero_shot(method, clip):
    model = create_model(method, clip, NAMES, seed=1, **SETTINGS[method])
    torch.testing.assert_close(model(IMAGES), zeroshot(clip)(IMAGES), rtol=1e-5, atol=1e-5)


def test_gdpl_starts_as_quaternionprompt(clip):
    """The singular values of the changes start at 0."""
    domain = dplq.load_domain_encoder("clip", backbone=clip)
    gdpl = create_model("GDPL", clip, NAMES, domain=domain, seed=1, **SETTINGS["GDPL"])
    plain = {k: v for k, v in SETTINGS["GDPL"].items() if k not in ("rank", "delta_depth")}
    plain = create_model("QuaternionPrompt", clip, NAMES, domain=domain, seed=1, **plain)
    torch.testing.assert_close(gdpl(IMAGES), plain(IMAGES), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", SETTINGS)
def test_merged_weights_give_the_same_towers(method, clip, tmp_path):
    """As a file for the plain architecture, and beside its config as a `local-dir:`."""
    model = build(method, clip)
    folder = clip.spec.name.removeprefix("local-dir:")
    merged = tmp_path / "open_clip_model.safetensors"
    if method == "GDPL":  # `merge` refuses it: its prompts are no weights
        save_file(model.merged_state(), merged)
    else:
        model.merge(merged)
    shutil.copy(f"{folder}/open_clip_config.json", tmp_path)
    tokens = clip.tokenize(["a river", "a lake"])
    for loaded in (
        dplq.load_backbone(clip.spec.name, weights=str(merged)),
        dplq.load_backbone(f"local-dir:{tmp_path}"),
    ):
        assert loaded.clip.state_dict().keys() == clip.clip.state_dict().keys()
        with torch.no_grad():
            for name, given in (("encode_image", IMAGES), ("encode_text", tokens)):
                ours, theirs = (getattr(towers, name)(given) for towers in (loaded, model.clip))
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        if method in FIXED_TEXT:
            expected = model(IMAGES)
            torch.testing.assert_close(zeroshot(loaded)(IMAGES), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("method", "learned"), [("TwoStage", "classifier"), ("GDPL", "ctx, ")])
def test_what_a_plain_clip_cannot_hold_is_not_dropped(method, learned, clip, tmp_path):
    """TwoStage is merged before its second stage, see above."""
    model, path = build(method, clip), tmp_path / "merged.safetensors"
    if method == "TwoStage":
        model.begin_second_stage()
    with pytest.raises(UserError) as caught:
        model.merge(path)
    message = f"a plain CLIP cannot hold what {method} has learned beside its weights ({learned}"
    assert message in str(caught.value)
    assert str(caught.value).endswith("Use `save`, and `dplq.load` to open it.")
    assert not path.exists()


@pytest.mark.parametrize("method", FIXED_TEXT)
def test_a_checkpoint_is_tested_with_another_text(method, clip, tmp_path, caplog):
    """The logits are those of the learned weights under the new text."""
    model, path = build(method, clip), tmp_path / "m.safetensors"
    model.save(path)
    other = create_model(method, clip, NAMES, **{**SETTINGS[method], "template": "a map of {}."})
    other.load(path)
    expected = f"TEMPLATE is 'a map of {{}}.', but {path} was trained with '{TEMPLATE}'."
    assert caplog.messages == [expected]
    towers = copy.deepcopy(clip)
    towers.clip.load_state_dict(model.merged_state())
    naive = zeroshot(towers, template="a map of {}.")(IMAGES)
    torch.testing.assert_close(other.eval()(IMAGES), naive, rtol=1e-4, atol=2e-5)
    build(method, clip).load(path)
    assert len(caplog.messages) == 1


def test_without_a_text_it_is_the_usual_one(clip):
    model = create_model("CLIPSVD", clip, NAMES, template="")
    assert model.settings["template"] == "a photo of a {}."
    usual = zeroshot(clip, template="a photo of a {}.")(IMAGES)
    torch.testing.assert_close(model(IMAGES), usual, rtol=1e-5, atol=1e-5)


def test_merged_weights_are_without_dropout(clip, tmp_path):
    model = build("CLIPLoRA", clip, dropout=0.5).train()
    model(IMAGES)
    model.merge(tmp_path / "a.safetensors")
    assert model.prompt_learner.training
    model.eval().merge(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_two_models_on_one_backbone_do_not_meet(clip):
    """The backbone stays as it was; each model has modules of its own, and shares all tensors."""
    before = zeroshot(clip)(IMAGES)
    lora, norms = build("CLIPLoRA", clip), build("TwoStage", clip)
    expected = norms(IMAGES)
    outcome(lora)
    with torch.no_grad():
        for parameter in lora.prompt_learner.parameters():
            parameter += 1
    assert torch.equal(norms(IMAGES), expected)
    assert torch.equal(zeroshot(clip)(IMAGES), before)
    assert not clip.is_adapted
    assert lora.clip.is_adapted
    assert lora.frozen_clip is clip
    theirs = {p.data_ptr() for p in clip.parameters()}
    assert {p.data_ptr() for p in lora.clip.parameters()} == theirs


@pytest.mark.parametrize("method", ["CLIPLoRA", "CoOp", "ZeroshotCLIP"])
def test_no_model_is_built_on_another_one_s_weights(method, clip):
    adapted = build("CLIPLoRA", clip).clip
    with pytest.raises(
        UserError, match=r"changed by another model: use the backbone .*frozen_clip"
    ):
        create_model(method, adapted, NAMES)


def test_an_adapted_tower_is_still_supported(clip):
    """A `Backbone` made of adapted modules packs texts, too."""
    from dplq.clip.blocks import is_supported

    adapted = build("CLIPLoRA", clip).clip
    blocks = adapted.clip.transformer.resblocks
    assert type(blocks[0].attn) is not torch.nn.MultiheadAttention
    assert all(map(is_supported, blocks))


@pytest.mark.parametrize("method", SETTINGS)
def test_recomputed_activations_change_nothing(method, clip, monkeypatch):
    monkeypatch.setattr(packed_text, "TOKENS_PER_BLOCK", 1)
    model = build(method, clip)
    model.train()
    whole = outcome(model)
    model.text_chunk = 1
    model.clip.set_grad_checkpointing()
    assert len(model.texts.packed) > 1
    torch.testing.assert_close(outcome(model), whole, rtol=1e-4, atol=1e-6)


def test_recomputed_activations_have_the_same_dropout(clip):
    model = build("CLIPLoRA", clip, dropout=0.5).train()
    model.noise_generator = torch.Generator()

    def seeded():
        model.noise_generator.manual_seed(3)
        return outcome(model)

    whole = seeded()
    model.clip.set_grad_checkpointing()
    torch.testing.assert_close(seeded(), whole, rtol=1e-4, atol=1e-6)


def test_dropout_leaves_out_input_features(clip):
    """In training a column of every change is 0 or doubled; in a test none is."""
    model = build("CLIPLoRA", clip, dropout=0.5)
    delta = next(iter(model.prompt_learner.values()))
    weight = torch.zeros(192, 64)
    whole = delta(weight)
    model.train()
    model.noise_generator = torch.Generator().manual_seed(0)
    model(IMAGES)
    for part, full in zip(delta(weight).chunk(3), whole.chunk(3), strict=True):
        dropped = (part == 0).all(dim=0)
        assert 15 < int(dropped.sum()) < 50
        torch.testing.assert_close(part[:, ~dropped], 2 * full[:, ~dropped])
    first = delta(weight)
    model(IMAGES)
    assert not torch.equal(delta(weight), first)
    assert torch.equal(
        model.eval().prompt_learner["transformer/resblocks/0/attn/in_proj_weight"](weight), whole
    )


@pytest.mark.parametrize("method", FIXED_TEXT)
def test_texts_are_encoded_once_for_each_state_of_the_weights(method, clip, monkeypatch):
    model, calls = build(method, clip), []
    encode = model.clip.encode_packed_text
    monkeypatch.setattr(
        model.clip, "encode_packed_text", lambda *a, **k: calls.append(1) or encode(*a, **k)
    )

    def encoded(times=2):
        del calls[:]
        with torch.no_grad():
            for _ in range(times):
                model(IMAGES)
        return len(calls)

    assert encoded() == 1
    assert encoded() == 0
    optimizer = torch.optim.SGD(model.prompt_learner.parameters(), lr=1.0)
    for steps in (1, 2):
        F.cross_entropy(model.train()(IMAGES), LABELS).backward()
        assert len(calls) == steps
    optimizer.step()
    model.eval()
    assert encoded() == 1
    model.set_classnames(["lake", "sea"])
    assert encoded() == 1


def test_a_text_over_frozen_weights_is_encoded_once(clip, monkeypatch):
    model, calls = build("CLIPLoRA", clip, encoder="image"), []
    encode = model.clip.encode_packed_text
    monkeypatch.setattr(
        model.clip, "encode_packed_text", lambda *a, **k: calls.append(1) or encode(*a, **k)
    )
    assert {name.split("/")[0] for name in model.prompt_learner} == {"visual"}
    model.train()
    for _ in range(2):
        outcome(model)
    with torch.no_grad():
        model.eval()(IMAGES)
    assert calls == [1]


def test_weights_are_computed_once_in_a_test(clip, monkeypatch):
    model, calls = build("CLIPSVD", clip), []
    delta = model.prompt_learner["visual/transformer/resblocks/0/mlp/c_fc/weight"]
    compute = delta.forward
    monkeypatch.setattr(delta, "forward", lambda weight: calls.append(1) or compute(weight))
    with torch.no_grad():
        for _ in range(3):
            before = model(IMAGES)
        assert calls == [1]
        delta.values += 1
        assert not torch.equal(model(IMAGES), before)
    assert calls == [1, 1]


def test_frozen_weights_in_half_precision():
    """Learnable weights stay float32; what the towers read is in their dtype."""
    model = build("CLIPLoRA", tiny_backbone())
    expected = model(IMAGES)
    model.clip.to(torch.bfloat16)
    assert {p.dtype for p in model.prompt_learner.parameters()} == {torch.float32}
    assert model.clip.clip.transformer.resblocks[0].attn.in_proj_weight.dtype == torch.bfloat16
    logits, grads = outcome(model)
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() < 0.3
    assert {grad.dtype for grad in grads.values()} == {torch.float32}


def test_the_change_is_not_rounded_under_autocast(clip):
    model = build("CLIPLoRA", clip)
    attention = model.clip.clip.transformer.resblocks[0].attn
    exact = attention.in_proj_weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attention.in_proj_weight, exact)
        logits, _ = outcome(model)
    assert (logits - model(IMAGES)).abs().max() < 0.3


def test_a_copy_of_a_model_is_its_own(clip):
    model = build("CLIPLoRA", clip)
    with torch.no_grad():
        expected = model(IMAGES)
        other = copy.deepcopy(model)
        for parameter in other.prompt_learner.parameters():
            parameter.zero_()
        assert torch.equal(model(IMAGES), expected)
        torch.testing.assert_close(other(IMAGES), zeroshot(clip)(IMAGES), rtol=1e-4, atol=2e-5)


TEXT, IMAGE = "transformer/resblocks/1", "visual/transformer/resblocks/1"
LEARNABLE = {
    "CLIPLoRA": {f"{TEXT}/attn/in_proj_weight.down", f"{IMAGE}/attn/out_proj/weight.up"},
    "CLIPSVD": {f"{TEXT}/attn/in_proj_weight.values", f"{IMAGE}/mlp/c_proj/weight.values"},
    "TwoStage": {
        "classifier",
        f"deltas.{TEXT}/ln_1/weight.value",
        f"deltas.{IMAGE}/ln_2/bias.value",
    },
    "GDPL": {"ctx", f"deltas.{TEXT}/attn/in_proj_weight.left"},
}
# of 3 + 3 layers, 64 wide, features 48 wide, 4 classes
COUNTS = {
    "CLIPLoRA": 6 * (4 * 2 * 2 * 64),
    "CLIPSVD": 6 * (6 * 64),
    "TwoStage": 6 * (4 * 64) + 4 * 48,
}


@pytest.mark.parametrize("method", SETTINGS)
def test_a_checkpoint_holds_the_deltas_only(method, clip, tmp_path):
    model = build(method, clip)
    names = set(dict(model.prompt_learner.named_parameters()))
    assert names >= LEARNABLE[method]
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        f"prompt_learner.{name}" for name in names
    }
    state = set(model.prompt_learner.state_dict())
    assert state - names == ({"stage"} if method == "TwoStage" else set())
    if method in COUNTS:
        count = sum(p.numel() for p in model.prompt_learner.parameters())
        assert count == COUNTS[method]
    path = tmp_path / "m.safetensors"
    model.save(path)
    again = dplq.load(path, clip=clip)
    with torch.no_grad():
        assert torch.equal(again(IMAGES), model(IMAGES))


def test_gdpl_couples_the_singular_values_of_the_towers(clip):
    """The image tower's follow the text tower's, in value, in gradient and in a test."""
    model = build("GDPL", clip)
    name = "transformer/resblocks/1/attn/in_proj_weight"
    deltas = model.prompt_learner.deltas
    text, image = deltas[name], deltas[f"visual/{name}"]
    torch.testing.assert_close(image.singular_values(), text.values @ image.values)
    zero = torch.zeros(192, 64)
    naive = [
        image.left[i] @ torch.diag((text.values @ image.values)[i]) @ image.right[i]
        for i in range(3)
    ]
    torch.testing.assert_close(image(zero), torch.cat(naive), rtol=1e-5, atol=1e-6)
    image(zero).square().sum().backward()
    assert text.values.grad.abs().max() > 0
    with torch.no_grad():
        before = model.clip.encode_image(IMAGES)
        text.values += 1
        assert not torch.equal(model.clip.encode_image(IMAGES), before)


def test_only_the_classifier_learns_in_the_second_stage(clip):
    model = build("TwoStage", clip)
    model.train()
    _, first = outcome(model)
    assert "classifier" not in first
    before = model.eval()(IMAGES)
    model.begin_second_stage()
    model.train()
    logits, second = outcome(model)
    assert set(second) == {"classifier"}
    torch.testing.assert_close(logits, before.detach(), rtol=1e-5, atol=1e-5)


def test_two_stage_tells_new_classes_by_their_texts(clip, tmp_path):
    """Rows of the classifier for the classes it knows, text features for all others."""
    model = build("TwoStage", clip)
    model.begin_second_stage()
    with torch.no_grad():
        model.prompt_learner.classifier += 0.1
    known = model(IMAGES).detach()
    text = build("TwoStage", clip)
    text.set_classnames(["lake", "sea"])
    path = tmp_path / "m.safetensors"
    model.save(path)
    fresh = create_model("TwoStage", clip, ["lake", NAMES[1], "sea"], **SETTINGS["TwoStage"])
    fresh.load(path)
    for other in (fresh.eval(), dplq.load(path, ["lake", NAMES[1], "sea"], clip=clip)):
        logits = other(IMAGES).detach()
        torch.testing.assert_close(logits[:, 1], known[:, 1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(logits[:, ::2], text(IMAGES).detach(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("names", [["lake", "sea"], ["lake", "sea", NAMES[1], "a", "b"]])
def test_other_classes_do_not_change_what_two_stage_saves(stage, names, clip, tmp_path):
    """Trained, renamed, saved, loaded, renamed back: every row is that of its class."""
    model = build("TwoStage", clip)
    if stage == 2:
        model.begin_second_stage()
        with torch.no_grad():
            model.prompt_learner.classifier += 0.1 * torch.arange(4)[:, None]
    trained = model(IMAGES).detach()
    model.set_classnames(names)
    renamed = model(IMAGES).detach()
    path = tmp_path / "m.safetensors"
    model.save(path)
    assert checkpoint.read_header(path)["classnames"] == NAMES
    loaded = dplq.load(path, clip=clip)
    assert loaded.classnames == NAMES
    for classes, expected in ((NAMES, trained), (names, renamed)):
        loaded.set_classnames(classes)
        torch.testing.assert_close(loaded(IMAGES).detach(), expected, rtol=1e-5, atol=1e-5)
        direct = dplq.load(path, classes, clip=clip)
        torch.testing.assert_close(direct(IMAGES).detach(), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_two_stage_knows_its_rows_by_the_name_in_the_prompt(clip):
    """Of two classes of one name each keeps its own row."""
    names = ["river", "missile", "parking_lot", "missile"]
    model = create_model("TwoStage", clip, names, **SETTINGS["TwoStage"]).eval()
    model.begin_second_stage()
    rows = torch.randn(4, 48, generator=torch.Generator().manual_seed(3))
    model.prompt_learner.classifier.copy_(rows)
    known = model(IMAGES)
    model.set_classnames(["parking lot", "missile", "missile"])
    torch.testing.assert_close(model(IMAGES), known[:, [2, 1, 3]])


def test_the_second_stage_is_that_of_the_present_classes(clip):
    """The classifier's parameter stays the one that an optimiser holds."""
    model = build("TwoStage", clip)
    held = model.prompt_learner.classifier
    model.set_classnames(["lake", "sea"])
    before = model(IMAGES).detach()
    model.begin_second_stage()
    assert model.prompt_learner.classifier is held
    assert model.trained == model.header()["classnames"] == ["lake", "sea"]
    torch.testing.assert_close(model(IMAGES).detach(), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("CLIPLoRA", {"template": "a photo"}, r"TEMPLATE 'a photo' has no {}: write it where the"),
        ("CLIPLoRA", {"params": "qx"}, r"PARAMS is 'qx'; it must be letters of qkvo, such as qkv"),
        ("CLIPLoRA", {"params": "qq"}, r"PARAMS is 'qq'; it must be"),
        ("CLIPLoRA", {"rank": 0}, r"RANK is 0; it must be at least 1"),
        ("CLIPSVD", {"encoder": "vision"}, r"ENCODER 'vision' is unknown"),
        ("TwoStage", {"first_stage": 1.5}, r"FIRST_STAGE is 1.5; it must be"),
        ("GDPL", {"delta_depth": 4}, r"DELTA_DEPTH 4 does not fit .* 1 to 3 layers"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(method, given, message, clip):
    with pytest.raises(UserError, match=message):
        build(method, clip, **given)


def test_merged_weights_are_safetensors(clip, tmp_path):
    with pytest.raises(UserError, match=r"merged\.pt is no name for merged weights: end it in"):
        build("CLIPLoRA", clip).merge(tmp_path / "merged.pt")


def test_gdpl_keeps_head_and_map(clip, tmp_path):
    """They see the un-changed CLIP's features and texts, before and after loading."""
    model = build("GDPL", clip, preset="residual_head")
    model.fit_features(model.frozen_features(IMAGES), LABELS)
    path = tmp_path / "gdpl.safetensors"
    names = [*NAMES[:2], "lake", "desert"]
    model.set_classnames(names)
    expected = model(IMAGES)
    model.save(path)
    found = dplq.load(path, names, clip=clip)(IMAGES)
    assert torch.equal(found, expected)
    assert torch.allclose(found.exp().sum(1), torch.ones(4))
