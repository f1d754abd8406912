"""PRESET residual_head: it starts at CLIP's texts, and a head decides among trained classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

import dplq
from dplq.methods.domain_head import C, DomainHead, statistics
from dplq.methods.opinions import decided, mixed, with_spread_of
from dplq.methods.quaternion_prompt import QuaternionPromptCLIP
from dplq.methods.text_map import BETWEEN
from tests.tiny import tiny_backbone

CLASSNAMES = ["river", "parking_lot", "storage tank"]
NEW = ["desert", "river", "lake", "storage tank"]
WIDTH = 20


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


def make_model(backbone, classnames=CLASSNAMES, **settings):
    given = {"n_ctx": 2, "prompt_depth": 3, "preset": "residual_head", "domain_dim": WIDTH}
    return QuaternionPromptCLIP(backbone, None, classnames, seed=0, **{**given, **settings})


def decide_among(logits, others, columns, weight):
    """The logits where a second opinion takes part among some classes."""
    return decided(logits, mixed(logits[:, columns], others, weight), columns)


def inputs(backbone, count=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = backbone.image_size
    images = torch.randn(count, 3, size, size, generator=generator)
    features = 5 + 3 * torch.randn(count, WIDTH, generator=generator)
    return images, features, torch.arange(count) % len(CLASSNAMES)


def fitted(backbone, **settings):
    model = make_model(backbone, **settings)
    images, features, labels = inputs(backbone)
    model.fit_features(model.frozen_features(images, features), labels)
    return model.eval(), images, features, labels


def with_and_without(model, images, features, classnames):
    """Logits among these classes, of the prompts and of the whole model; and frozen features."""
    model.set_classnames(classnames)
    prompted = model.train()(images, domain_features=features)
    found = model.eval()(images, domain_features=features)
    return prompted, found, model.frozen_features(images, features)


def plain_texts(backbone, classnames):
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in classnames]
    return F.normalize(backbone.encode_text(backbone.tokenize(texts)), dim=-1)


def zero_shot(backbone, images, classnames):
    image = F.normalize(backbone.encode_image(images), dim=-1)
    return backbone.logit_scale * image @ plain_texts(backbone, classnames).T


@pytest.mark.parametrize(("n_ctx", "depth"), [(2, 3), (4, 2), (1, 1)])
def test_texts_start_as_those_of_clip(backbone, n_ctx, depth):
    model = make_model(backbone, n_ctx=n_ctx, prompt_depth=depth)
    images, features, _ = inputs(backbone)
    expected = plain_texts(backbone, CLASSNAMES)
    found = model.text_features(model.prompts(images, features))
    assert torch.allclose(found, expected.expand(len(found), -1, -1), atol=1e-5)
    random = make_model(backbone, n_ctx=n_ctx, prompt_depth=depth, text_init="random")
    far = (random.text_features(random.prompts(images, features)) - expected).abs().max()
    assert (far > 1e-2) == (depth > 1)


def test_domain_features_are_standardised(backbone):
    model, _, features, _ = fitted(backbone)
    learner = model.prompt_learner
    standard = (features - features.mean(0)) / features.std(0, correction=0)
    plain = make_model(backbone, standardize=False).prompt_learner
    plain.load_state_dict(
        {k: v for k, v in learner.state_dict().items() if k in plain.state_dict()}
    )
    for module in (learner, plain):
        for gain in (module.language_gain, *module.vision_gain):
            gain.data.fill_(0.5)
    ours, theirs = learner(features), plain(standard)
    assert torch.allclose(ours.language, theirs.language, atol=1e-5)
    assert torch.allclose(ours.deep_vision[1], theirs.deep_vision[1], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float32])
def test_statistics_keep_the_dtype_of_the_learner(backbone, dtype):
    model = make_model(backbone)
    images, features, labels = inputs(backbone)
    frozen = model.frozen_features(images, 1000 + features).to(dtype)
    model.fit_features(frozen, labels)
    domain = frozen[:, backbone.embed_dim :].float()
    for found, expected in (
        (model.prompt_learner.mean, domain.mean(0)),
        (model.prompt_learner.std, domain.std(0, correction=0)),
    ):
        assert torch.equal(found, expected)
    assert {buffer.dtype for buffer in model.prompt_learner.buffers()} == {torch.float32}
    assert model.eval()(images, domain_features=features).dtype == torch.float32


def test_statistics_keep_the_device_of_the_learner(backbone):
    learner = make_model(backbone).prompt_learner.to("meta")
    mean, std = learner.mean, learner.std
    learner.set_statistics(inputs(backbone)[1])
    assert learner.mean is mean
    assert learner.std is std
    assert learner.mean.is_meta


def test_a_feature_that_never_varies_is_left_alone():
    mean, std = statistics(torch.tensor([[1.0, 1000.0], [3.0, 1000.0]]))
    assert mean.tolist() == [2.0, 1000.0]
    assert std.tolist() == [1.0, 1.0]
    assert statistics(torch.tensor([[1.0], [7.0]]))[1].tolist() == [3.0]


def test_head_is_logistic_regression_on_standardised_features(backbone):
    model, images, features, labels = fitted(backbone)
    with torch.no_grad():
        clip = F.normalize(backbone.encode_image(images), dim=-1).numpy()
    parts = []
    for part in (clip.astype(float), features.numpy().astype(float)):
        parts.append((part - part.mean(0)) / part.std(0) / part.shape[1] ** 0.5)
    standard = np.concatenate(parts, axis=1)
    expected = LogisticRegression(C=C, max_iter=1000).fit(standard, labels.numpy())
    found = model.prompt_learner.head(model.frozen_features(images, features))
    assert np.allclose(found.numpy(), expected.decision_function(standard), atol=1e-3)


def test_the_head_decides_among_trained_classes_only():
    generator = torch.Generator().manual_seed(0)
    logits, head = (torch.randn(50, k, generator=generator) for k in (5, 3))
    columns = [0, 2, 4]
    for weight in (0.0, 0.3, 1.0):
        found = decide_among(logits, head, columns, weight)
        assert torch.equal(found[:, [1, 3]], logits[:, [1, 3]])
        assert torch.allclose(found[:, columns].amax(1), logits[:, columns].amax(1), atol=1e-6)
        trained = torch.isin(logits.argmax(1), torch.tensor(columns))
        assert torch.equal(torch.isin(found.argmax(1), torch.tensor(columns)), trained)
    assert torch.equal(found[:, columns].argmax(1), head.argmax(1))
    same = decide_among(logits, head, columns, 0.0)
    assert torch.allclose(same, logits, atol=1e-6)
    assert torch.equal(decide_among(logits, head[:, :1], [1], 0.5), logits)


def test_logits_with_and_without_the_head(backbone):
    model, images, features, _ = fitted(backbone)
    prompted = model.train()(images, domain_features=features)
    found = model.eval()(images, domain_features=features)
    head = model.prompt_learner.head(model.frozen_features(images, features))
    expected = decide_among(prompted, head, [0, 1, 2], 0.7)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, prompted, atol=1e-2)
    off = make_model(backbone, head_weight=0.0).eval()
    assert "head.weight" not in off.prompt_learner.state_dict()


def test_trained_classes_are_known_by_name(backbone, tmp_path):
    model, images, features, _ = fitted(backbone)
    before = model(images, domain_features=features)
    path = tmp_path / "prompts.safetensors"
    model.set_classnames(NEW)
    model.save(path)
    loaded = dplq.load(path, clip=backbone)
    assert loaded.classnames == CLASSNAMES
    assert torch.equal(loaded(images, domain_features=features), before)
    found = dplq.load(path, NEW, clip=backbone)(images, domain_features=features)
    prompted = model.train()(images, domain_features=features)
    frozen = model.frozen_features(images, features)
    scores = model.prompt_learner.text_map(frozen, plain_texts(backbone, NEW))
    between = mixed(prompted, with_spread_of(scores, prompted), 0.6 * BETWEEN).softmax(1)
    head = model.prompt_learner.head(frozen)[:, [0, 2]]
    old = mixed(prompted[:, [1, 3]], head, 0.7)
    own = prompted[:, [0, 2]]
    new = mixed(own, with_spread_of(scores[:, [0, 2]], own), 0.6)
    for columns, part in (([1, 3], old), ([0, 2], new)):
        within = with_spread_of(part, prompted).softmax(1)
        expected = between[:, columns].sum(1, keepdim=True) * within
        assert torch.allclose(found[:, columns].exp(), expected, atol=1e-5)
    # as train.py --eval-only does it: a model of other classes, then the file
    other = make_model(backbone, NEW).eval()
    other.load(path)
    assert torch.equal(other(images, domain_features=features), found)
    assert other.header()["classnames"] == CLASSNAMES


def accuracy(model, images, features, labels):
    """Share of images of each class that are assigned to it."""
    right = model(images, domain_features=features).argmax(1) == labels
    return [right[labels == k].float().mean().item() for k in range(int(labels.max()) + 1)]


def separable(backbone, names):
    """A model fitted to images whose domain features tell these classes apart, and the images."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10 * len(names)) % len(names)
    images = torch.randn(len(labels), 3, 32, 32, generator=generator)
    centres = 3 * torch.randn(len(names), WIDTH, generator=generator)
    features = centres[labels] + torch.randn(len(labels), WIDTH, generator=generator)
    model = make_model(backbone, names)
    model.fit_features(model.frozen_features(images, features), labels)
    return model.eval(), images, features, labels


@torch.no_grad()
def test_two_trained_classes_of_one_name_keep_their_rows_of_the_head(backbone):
    names = ["river", "missile", "forest", "missile"]
    model, *batch = separable(backbone, names)
    assert accuracy(model, *batch) == [1.0, 1.0, 1.0, 1.0]
    images, features, labels = batch
    model.set_classnames(["missile", "forest", "missile"])
    kept = labels > 0
    assert accuracy(model, images[kept], features[kept], labels[kept] - 1) == [1.0, 1.0, 1.0]


@torch.no_grad()
def test_trained_classes_are_known_by_the_name_in_the_prompt(backbone):
    names = ["river", "parking_lot", "forest"]
    model, images, features, labels = separable(backbone, names)
    expected = model(images, domain_features=features)
    assert accuracy(model, images, features, labels) == [1.0, 1.0, 1.0]
    model.set_classnames(["river", "parking lot", "forest"])
    assert torch.equal(model(images, domain_features=features), expected)


def test_zero_shot_clip_takes_part_among_classes_that_were_not_trained(backbone):
    """Alone with weight 1; trained classes are not affected."""
    switches = {"head_weight": 0.0, "map_weight": 0.0, "zeroshot_weight": 1.0}
    model, images, features, _ = fitted(backbone, **switches)
    assert model.learned_classes == CLASSNAMES
    trained = model(images, domain_features=features)
    assert torch.equal(trained, model.train()(images, domain_features=features))
    others = ["desert", "lake", "forest"]
    prompted, found, _ = with_and_without(model, images, features, others)
    plain = zero_shot(backbone, images, others)
    assert not torch.allclose(prompted.softmax(1), plain.softmax(1), atol=1e-2)
    assert torch.allclose(found.amax(1), prompted.amax(1), atol=1e-4)
    assert torch.allclose(found.softmax(1), plain.softmax(1), atol=1e-5)
    model.set_classnames(["desert"])  # among one class there is nothing to decide
    assert model(images, domain_features=features).shape == (12, 1)


def test_the_map_takes_part_among_classes_that_were_not_trained(backbone):
    """Alone with weight 1; one class is not affected, and the highest logit stays."""
    model, images, features, _ = fitted(backbone, head_weight=0.0, map_weight=1.0)
    assert model.learned_classes == CLASSNAMES
    trained = model(images, domain_features=features)
    assert torch.equal(trained, model.train()(images, domain_features=features))
    others = ["desert", "lake", "forest"]
    prompted, found, frozen = with_and_without(model, images, features, others)
    scores = model.prompt_learner.text_map(frozen, plain_texts(backbone, others))
    assert torch.equal(found.argmax(1), scores.argmax(1))
    assert not torch.equal(found.argmax(1), prompted.argmax(1))
    assert torch.allclose(found.amax(1), prompted.amax(1), atol=1e-4)
    assert torch.allclose(found.std(1), prompted.std(1), atol=1e-4)
    # among one class there is nothing to decide
    prompted, found, _ = with_and_without(model, images, features, ["desert"])
    assert torch.equal(found, prompted)


def test_the_map_is_fitted_to_the_trained_classes_and_their_weights(backbone):
    images, features, labels = inputs(backbone)
    labels[:6] = 0
    kept = {}
    for names, weight in ((CLASSNAMES, None), (NEW, None), (CLASSNAMES, "balanced")):
        model = make_model(backbone)
        model.set_classnames(names)  # of a test before; the labels are those of CLASSNAMES
        model.fit_features(model.frozen_features(images, features), labels, weight)
        kept[tuple(names), weight] = model.prompt_learner.text_map.weight.clone()
    first, second, balanced = kept.values()
    assert torch.equal(first, second)
    assert not torch.allclose(first, balanced, atol=1e-3)


def test_the_map_decides_between_trained_and_other_classes_too(backbone):
    """With three quarters of its weight; one other class is enough."""
    names = [*CLASSNAMES[:2], "desert"]
    model, images, features, _ = fitted(backbone, head_weight=0.0, map_weight=0.8)
    prompted, found, frozen = with_and_without(model, images, features, names)
    found = found.exp()
    scores = model.prompt_learner.text_map(frozen, plain_texts(backbone, names))
    expected = mixed(prompted, with_spread_of(scores, prompted), 0.8 * 0.75).softmax(1)
    assert torch.allclose(found[:, 2], expected[:, 2], atol=1e-5)
    assert torch.equal(found[:, :2].argmax(1), prompted[:, :2].argmax(1))
    assert not torch.allclose(found[:, 2], prompted.softmax(1)[:, 2], atol=1e-2)


def test_map_and_zero_shot_clip_together(backbone):
    model, images, features, _ = fitted(backbone, zeroshot_weight=0.5)
    others = ["desert", "lake", "forest"]
    prompted, found, frozen = with_and_without(model, images, features, others)
    both = mixed(prompted, zero_shot(backbone, images, others), 0.5)
    scores = model.prompt_learner.text_map(frozen, plain_texts(backbone, others))
    expected = decided(prompted, mixed(both, with_spread_of(scores, both), 0.6), [0, 1, 2])
    assert torch.allclose(found, expected, atol=1e-4)


def test_zero_shot_weight_of_a_checkpoint_may_differ(backbone, tmp_path, caplog):
    model, *_ = fitted(backbone)
    model.save(tmp_path / "a.safetensors")
    other = make_model(backbone, zeroshot_weight=0.25)
    other.load(tmp_path / "a.safetensors")
    assert "ZEROSHOT_WEIGHT is 0.25" in caplog.text
    assert other.switches.zeroshot_weight == 0.25


def test_checkpoints_of_other_settings_are_refused(backbone, tmp_path):
    model, *_ = fitted(backbone)
    path = tmp_path / "prompts.safetensors"
    model.save(path)
    with pytest.raises(dplq.UserError, match=r"settings.head_weight: there 0.7, now None"):
        make_model(backbone, head_weight=0.0).load(path)
    with pytest.raises(dplq.UserError, match=r"settings.standardize: there True, now None"):
        make_model(backbone, standardize=False).load(path)


def test_the_default_records_what_earlier_versions_did(backbone):
    """Version 0.1.0 knows no later switch, and refuses settings that it does not know."""
    settings = make_model(backbone, preset="default").settings
    later = {"text_init", "standardize", "head_weight", "zeroshot_weight", "map_weight"}
    assert not later & settings.keys()
    assert make_model(backbone).settings["text_init"] == "words"


def test_without_a_domain_feature_the_head_has_clips(backbone):
    model = make_model(backbone, domain_dim=0)
    images, _, labels = inputs(backbone)
    model.fit_features(model.frozen_features(images), labels)
    assert model.prompt_learner.head.weight.shape == (3, backbone.embed_dim)
    assert not hasattr(model.prompt_learner, "mean")
    assert (model.eval()(images).argmax(1) == labels).float().mean() == 1


def test_bad_input(backbone):
    for settings in ({"ctx_init": ""}, {"n_ctx": 5, "prompt_depth": 1}):
        with pytest.raises(dplq.UserError, match="TEXT_INIT is words, but the context has none"):
            make_model(backbone, **settings)
    for key in ("zeroshot_weight", "map_weight"):
        settings = {"preset": "default", "ctx_init": "", key: 0.5}
        message = f"{key.upper()} needs words, but the context has no"
        with pytest.raises(dplq.UserError, match=message):
            make_model(backbone, **settings)
    with pytest.raises(dplq.UserError, match=r"HEAD_WEIGHT is 2"):
        make_model(backbone, head_weight=2.0)
    model = make_model(backbone)
    images, features, labels = inputs(backbone)
    frozen = model.frozen_features(images, features)
    with pytest.raises(dplq.UserError, match="HEAD_WEIGHT needs a training image of parking_lot"):
        model.fit_features(frozen, labels.clamp(max=1) * 2)
    assert model.prompt_learner.mean.count_nonzero() == 0  # nothing was fitted by halves
    model = make_model(backbone, head_weight=0.0)
    with pytest.raises(dplq.UserError, match="MAP_WEIGHT needs a training image of parking_lot"):
        model.fit_features(frozen, labels.clamp(max=1) * 2)
    assert model.prompt_learner.mean.count_nonzero() == 0
    one = DomainHead(1, 2, 0)
    one.fit(torch.ones(2, 2), torch.tensor([0, 0]))
    assert one.weight.count_nonzero() == 0


def test_switches_that_another_setting_disables_are_said(backbone, caplog):
    make_model(backbone, preset="default", prompt_depth=1, text_init="words")
    make_model(backbone, preset="default", domain_dim=0, standardize=True)
    text = " ".join(record.getMessage() for record in caplog.records)
    assert "TEXT_INIT 'words' is not used: PROMPT_DEPTH 1" in text
    assert "STANDARDIZE True is not used: there is no domain feature" in text


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"head_weight": 0.0, "map_weight": 0.0},
        {"standardize": False, "map_weight": 0.0},
        {"standardize": False, "head_weight": 0.0},
    ],
)
def test_a_model_that_is_not_fitted_says_so(backbone, tmp_path, settings):
    model = make_model(backbone, **settings)
    images, features, labels = inputs(backbone)
    path = tmp_path / "prompts.safetensors"
    for call in (lambda: model(images, domain_features=features), lambda: model.save(path)):
        with pytest.raises(dplq.UserError, match=r"call model.fit_features\(model.frozen_features"):
            call()
    assert not path.exists()
    model.fit_features(model.frozen_features(images, features), labels)
    model.save(path)
    found = dplq.load(path, clip=backbone)(images, domain_features=features)
    assert torch.equal(found, model.eval()(images, domain_features=features))


def test_without_these_switches_nothing_is_to_be_fitted(backbone):
    model = make_model(backbone, head_weight=0.0, standardize=False, map_weight=0.0)
    images, features, _ = inputs(backbone)
    assert model(images, domain_features=features).shape == (12, 3)
    assert "fitted" not in model.prompt_learner.state_dict()


def test_the_part_of_the_gradient_is_without_the_head(backbone):
    model, images, features, _ = fitted(backbone)
    prompted = model.train()(images, domain_features=features)
    model.eval()
    with model.gradient_part():
        assert torch.equal(model(images, domain_features=features), prompted)
    assert not torch.allclose(model(images, domain_features=features), prompted, atol=1e-2)


def test_loading_says_nothing_of_switches_that_nobody_set(backbone, tmp_path, caplog):
    model = make_model(backbone, domain_dim=0)
    images, _, labels = inputs(backbone)
    model.fit_features(model.frozen_features(images), labels)
    model.save(tmp_path / "prompts.safetensors")
    caplog.clear()
    dplq.load(tmp_path / "prompts.safetensors", clip=backbone)
    assert "STANDARDIZE" not in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda x, y: (x, y[:5]),
            r"labels has the shape \(5,\); give one class for each of the 12",
        ),
        (lambda x, y: (x[:, :3], y), r"features has the shape \(12, 3\)"),
        (lambda x, y: (x * float("nan"), y), "values that are nan or infinite"),
        (lambda x, y: (x, y + 1), "labels has classes from 1 to 3; the model's are 0 to 2"),
    ],
)
def test_what_cannot_be_fitted_is_refused(backbone, change, said):
    model = make_model(backbone)
    images, features, labels = inputs(backbone)
    frozen = model.frozen_features(images, features)
    with pytest.raises(dplq.UserError, match=said):
        model.fit_features(*change(frozen, labels))
    with pytest.raises(dplq.UserError, match=r"class_weight is 'foo'; it must be"):
        model.fit_features(frozen, labels, "foo")


@pytest.mark.parametrize("kind", [list, np.asarray, torch.Tensor.float])
def test_labels_of_other_kinds_are_taken(backbone, kind):
    model, images, features, labels = fitted(backbone)
    other = make_model(backbone)
    other.fit_features(other.frozen_features(images, features), kind(labels))
    first, second = (m.prompt_learner.state_dict() for m in (model, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
