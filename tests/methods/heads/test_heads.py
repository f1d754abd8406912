"""Every head against its equations, written naively."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import dplq
from dplq.errors import UserError
from dplq.methods.heads.fitting import Choice, FitData, Labelled, choose
from dplq.methods.heads.gda import ALPHAS
from dplq.methods.heads.text_map import SCALES
from dplq.methods.text_map import TextMap
from tests.methods.heads.problem import NAMES, SHOTS, WIDTH, head, labelled, problem, steps
from tests.tiny import tiny_backbone

VAL = labelled(1, 1).mean()


def scaled(model):
    return float(model.clip.logit_scale)


def close(ours, expected):
    torch.testing.assert_close(ours.detach().double(), expected.double(), rtol=1e-4, atol=1e-4)


def test_the_rule_accuracy_then_log_loss_then_first():
    labels = torch.tensor([0, 1])
    logits = {
        "wrong": [[0.0, 9.0], [0.0, 9.0]],
        "right": [[1.0, 0.0], [0.0, 1.0]],
        "surer": [[2.0, 0.0], [0.0, 2.0]],
        "same": [[2.0, 0.0], [0.0, 2.0]],
    }
    chosen = choose("name", logits, lambda name: torch.tensor(logits[name]), labels)
    assert chosen == "surer"
    choice = Choice("name", labels)
    assert [choice.offer(name, torch.tensor(logits[name])) for name in logits] == [1, 1, 1, 0]


def test_logits_that_are_nan_are_never_better():
    nan, labels = torch.nan, torch.tensor([0, 0, 1])
    finite = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])  # one of three is right
    for other in (
        [[nan, nan], [nan, nan], [nan, nan]],  # argmax takes nan for the highest
        [[nan, 0.0], [0.0, 1.0], [1.0, 0.0]],
        [[1.0, 0.0], [0.0, nan], [nan, 0.0]],
    ):
        choice = Choice("name", labels)
        assert choice.offer("finite", finite)
        assert not choice.offer("nan", torch.tensor(other))
        choice = Choice("name", labels)
        assert choice.offer("nan", torch.tensor(other))
        assert choice.offer("finite", finite)
        assert choice.best == "finite"


@pytest.mark.parametrize("loss", [torch.inf, torch.nan])
def test_a_loss_that_is_not_finite_counts_as_infinite(loss):
    """At the same accuracy any finite loss is lower."""
    labels = torch.tensor([0, 1])
    endless = torch.tensor([[9.0, 0.0], [0.0, 0.0]])
    endless[1, 1] = -torch.inf if loss == torch.inf else torch.nan
    poor = torch.tensor([[0.1, 0.0], [9.0, 0.0]])
    choice = Choice("name", labels)
    assert [choice.offer("poor", poor), choice.offer("endless", endless)] == [True, False]
    choice = Choice("name", labels)
    assert [choice.offer("endless", endless), choice.offer("poor", poor)] == [True, True]


def zero_shot(model, x):
    return scaled(model) * F.normalize(x, dim=-1) @ model.text.T


@pytest.mark.parametrize("val", [True, False])
def test_gda(val):
    model, data = head("GDA", alpha=0.5), problem(views=2, val=val)
    chosen = model.fit(data)
    x, y = data.train.every_view()
    x, y = F.normalize(x, dim=-1).double().numpy(), y.numpy()
    means = np.stack([x[y == k].mean(axis=0) for k in range(3)])
    scatter = sum(np.outer(row - means[k], row - means[k]) for row, k in zip(x, y, strict=True))
    shrunk = scatter + np.trace(scatter) / (len(x) - 1) * np.eye(WIDTH)
    inverse = WIDTH * np.linalg.inv(shrunk)
    test = F.normalize(VAL, dim=-1).double().numpy()
    own = [test @ inverse @ m - m @ inverse @ m / 2 - np.log(3) for m in means]
    own = torch.from_numpy(np.stack(own, axis=1))
    text, labels = zero_shot(model, VAL), data.train.labels
    found = {alpha: text + alpha * own for alpha in ALPHAS}
    best = max(
        ALPHAS,
        key=lambda a: (
            (found[a].argmax(1) == labels).sum().item(),
            -F.cross_entropy(found[a], labels).item(),
        ),
    )
    assert chosen == {"alpha": best if val else 0.5}
    assert model.settings["alpha"] == chosen["alpha"]
    close(model.classify(VAL), text + chosen["alpha"] * own)


def test_gda_needs_two_images():
    model = dplq.create_model("GDA", tiny_backbone(), ["forest"], seed=0)
    one = Labelled(torch.ones(1, 1, WIDTH), torch.zeros(1, dtype=torch.long))
    with pytest.raises(UserError) as caught:
        model.fit(FitData(one))
    assert str(caught.value) == (
        "GDA estimates a covariance, for which it needs at least two training images, and there is "
        "one: add images, or set VIEWS to 2 or more."
    )
    two = Labelled(torch.randn(2, 1, WIDTH), torch.zeros(1, dtype=torch.long))
    model.fit(FitData(two))
    assert torch.isfinite(model.classify(VAL)).all()


def test_gda_says_that_one_image_of_each_class_gives_no_discriminant(caplog):
    model = head("GDA", alpha=5.0)
    caplog.clear()
    model.fit(FitData(labelled(1, 0, shots=1)))
    assert caplog.messages == [
        "GDA has no discriminant and predicts as zero-shot CLIP: no two training images of a class "
        "differ (3 images, 3 classes). Add images, or set VIEWS to 2 or more."
    ]
    assert not model.prompt_learner.weight.any()
    close(model.classify(VAL).softmax(1), zero_shot(model, VAL).softmax(1))
    caplog.clear()
    for data in (labelled(2, 0, shots=1), labelled(1, 0, shots=2)):
        model.fit(FitData(data))
        assert model.prompt_learner.weight.any()
    assert not caplog.messages


def cache_logits(keys, labels, x, beta):
    out = torch.zeros(len(x), 3)
    for row, feature in enumerate(F.normalize(x, dim=-1)):
        for key, label in zip(keys, labels, strict=True):
            out[row, label] += torch.exp(-beta * (1 - feature @ key))
    return out


def test_tip_adapter():
    model, data = head("TipAdapter", max_alpha=2.0), problem(views=3)
    chosen = model.fit(data)
    keys = F.normalize(data.train.features.mean(dim=0), dim=-1)
    expected = zero_shot(model, VAL)
    expected = expected + chosen["alpha"] * cache_logits(
        keys, data.train.labels, VAL, chosen["beta"]
    )
    close(model.classify(VAL), expected)
    accuracy = (expected.argmax(1) == data.val.labels).double().mean()
    for beta in (0.1, 3.55, 6.9655):
        for alpha in (0.1, 1.05, 1.905):
            other = zero_shot(model, VAL) + alpha * cache_logits(keys, data.train.labels, VAL, beta)
            assert (other.argmax(1) == data.val.labels).double().mean() <= accuracy
    assert 0.1 <= chosen["alpha"] < 2
    fixed = head("TipAdapter", alpha=2.0, beta=3.0)
    assert fixed.fit(replace(data, val=None)) == {}
    cache = cache_logits(keys, data.train.labels, VAL, 3.0)
    close(fixed.classify(VAL), zero_shot(fixed, VAL) + 2 * cache)


@pytest.mark.parametrize("eps", [1e-4, 0.01])
def test_tip_adapter_f_trains_the_keys_alone(eps):
    given = {} if eps == 1e-4 else {"adam_eps": eps}
    model, data = head("TipAdapterF", beta=2.0, **given), problem(val=False)
    data = replace(data, steps=steps(torch.optim.AdamW, lr=0.01))
    model.fit(data)
    (x,), y = data.train.features, data.train.labels
    keys = F.normalize(x, dim=-1).requires_grad_()
    optimizer = torch.optim.AdamW([keys], lr=0.01, eps=eps)
    logits = zero_shot(model, x) + 1.17 * cache_logits(keys, y, x, 2.0)
    F.cross_entropy(logits, y).backward()
    optimizer.step()
    close(model.prompt_learner.keys, keys)
    assert (keys - F.normalize(x, dim=-1)).abs().max() > 1e-3


def test_tip_adapter_f_keeps_the_best_epoch_on_val():
    data, found = problem(), {}
    for epochs in (1, 2, 3, 6):
        model = head("TipAdapterF")
        fast = replace(data, steps=steps(torch.optim.SGD, epochs, lr=20.0))
        chosen = model.fit(fast)
        found[epochs] = chosen["epoch"]
        again = head("TipAdapterF")
        again.fit(replace(data, steps=steps(torch.optim.SGD, chosen["epoch"], lr=20.0)))
        assert torch.equal(again.prompt_learner.keys, model.prompt_learner.keys)
    assert all(1 <= found[epochs] <= epochs for epochs in found)


def one_step(parameters, loss, lr=0.1):
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.data -= lr * gradient


def test_task_res():
    model, data = head("TaskRes", alpha=0.7), problem()
    model.fit(replace(data, steps=steps(torch.optim.SGD)))
    (x,), y = data.train.features, data.train.labels
    residual = torch.zeros(3, WIDTH, requires_grad=True)

    def logits(x):
        texts = F.normalize(model.base + 0.7 * residual, dim=-1)
        return scaled(model) * F.normalize(x, dim=-1) @ texts.T

    one_step([residual], F.cross_entropy(logits(x), y))
    assert residual.abs().max() > 1e-4
    close(model.prompt_learner.residual, residual)
    close(model.classify(VAL), logits(VAL))


def test_clip_adapter():
    model, data = head("CLIPAdapter", ratio=0.4), problem()
    down, up = (getattr(model.prompt_learner, name).detach().clone() for name in ("down", "up"))
    assert down.shape == (WIDTH // 4, WIDTH)
    down.requires_grad_(), up.requires_grad_()

    def logits(x):
        mixed = 0.4 * ((x @ down.T).relu() @ up.T).relu() + 0.6 * x
        return zero_shot(model, mixed)

    close(model.classify(VAL), logits(VAL))
    model.fit(replace(data, steps=steps(torch.optim.SGD)))
    one_step([down, up], F.cross_entropy(logits(data.train.features[0]), data.train.labels))
    close(model.prompt_learner.up, up)
    close(model.classify(VAL), logits(VAL))


@pytest.mark.parametrize("constraint", [True, False])
def test_clap(constraint):
    model, data = head("CLAP", constraint=constraint), problem()
    model.fit(replace(data, steps=steps(torch.optim.SGD, epochs=2)))
    (x,), y = data.train.features, data.train.labels
    weight = model.base.clone().requires_grad_()

    def logits(x):
        cosine = F.normalize(x, dim=-1) @ F.normalize(weight, dim=-1).T
        return scaled(model) * cosine

    probability = logits(x).detach().softmax(dim=1)
    multipliers = torch.stack([probability[y == k, k].mean() for k in range(3)])
    for _ in range(2):
        penalty = (multipliers * (weight - model.base).pow(2).sum(1)).mean()
        one_step([weight], F.cross_entropy(logits(x), y) + constraint * penalty)
    close(model.prompt_learner.weight, weight)
    close(model.classify(VAL), logits(VAL))


def test_lp_plus_plus():
    """25 epochs: alpha changes after 10 and 20, by all gradients so far."""
    model, data = head("LPPlusPlus", epochs=25), problem(val=False)
    model.fit(data)
    x, y = F.normalize(data.train.features[0], dim=-1).double(), data.train.labels
    text = x @ model.text.double().T
    weight = torch.stack([x[y == k].sum(0) for k in range(3)]).requires_grad_()
    bias = torch.zeros(3, dtype=torch.double, requires_grad=True)
    first = 250 * torch.stack([text[y == k, k].mean() for k in range(3)]).mean()
    alpha = (first * torch.ones(3, dtype=torch.double)).requires_grad_()
    rate = 4 * len(x) / torch.linalg.svdvals(x)[0].item() ** 2
    optimizer = torch.optim.SGD([weight, bias], rate, momentum=0.9)
    for epoch in range(25):
        loss = F.cross_entropy(x @ weight.T + bias + alpha * text, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if epoch in (9, 19):
            alpha.data -= len(x) / (4 * text.pow(2).sum(0).max()) * alpha.grad
    close(model.prompt_learner.alpha, alpha)
    test = F.normalize(VAL, dim=-1).double()
    close(model.classify(VAL), test @ weight.T + bias + alpha * (test @ model.text.double().T))


def test_the_step_sizes_of_lp_plus_plus_are_those_of_repeated_images(monkeypatch):
    """Weights 2, 1/2, 1/2 are images that are there 4, 1 and 1 times."""
    once = replace(problem(), steps=steps(torch.optim.SGD))
    rows = torch.arange(12).repeat_interleave(torch.tensor([4, 1, 1])[once.train.labels])
    train = Labelled(once.train.features[:, rows], once.train.labels[rows])
    weighted = replace(once, class_weights=torch.tensor([2.0, 0.5, 0.5]))
    found = []
    for data in (weighted, replace(once, train=train), once):
        model = head("LPPlusPlus")
        monkeypatch.setattr(model, "descend", lambda data: found.append(data.steps.rate(0)))
        model.solve(data)
        found.append(model.alpha_rate.item())
    assert found[:2] == pytest.approx(found[2:4], rel=1e-5)
    assert found[:2] != pytest.approx(found[4:], rel=0.1)


@pytest.mark.parametrize("repel", [False, True])
def test_ss_text(repel):
    model, data = head("SSText", repel=repel), problem()
    assert model.fit(data) == {}
    x, y = F.normalize(data.train.features[0], dim=-1), data.train.labels
    weights = []
    for k in range(3):
        of_text = 1 / SHOTS if repel else 1 / len(x)
        visual = scaled(model) * x[y == k].sum(0)
        weights.append(visual / len(x) / of_text + model.text[k])
    weight = torch.stack(weights)
    if repel:
        weight = weight - F.normalize(2 * weight - weight.mean(0), dim=-1)
    cosine = F.normalize(VAL, dim=-1) @ F.normalize(weight, dim=-1).T
    close(model.classify(VAL), scaled(model) * cosine)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
def test_text_map(weights):
    """tests/methods/test_text_map.py has the map's equations."""
    model, data = head("TextMap", scale=3.0), problem(views=2)
    data = replace(data, class_weights=weights and torch.tensor(weights))
    fitted = TextMap(WIDTH, 0)
    x, y = data.train.every_view()
    fitted.fit(F.normalize(x, dim=-1), y, model.text, data.class_weights)
    cosines = fitted(F.normalize(data.val.mean(), dim=-1), model.text)
    losses = [F.cross_entropy(scale * cosines.double(), data.val.labels) for scale in SCALES]
    assert model.fit(data) == {"scale": SCALES[int(torch.stack(losses).argmin())]}
    cosines = fitted(F.normalize(VAL, dim=-1), model.text)
    close(model.classify(VAL), model.settings["scale"] * cosines)
    assert model.fit(replace(data, val=None)) == {"scale": model.settings["scale"]}
    model.set_classnames(["lake", "sea"])
    texts = model.clip.encode_text(model.clip.tokenize(["a photo of a lake.", "a photo of a sea."]))
    close(
        model.classify(VAL),
        model.settings["scale"] * fitted(F.normalize(VAL, dim=-1), F.normalize(texts, dim=-1)),
    )


def test_features_of_both_are_each_of_length_one():
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = {name: head("LinearProbe", features=name) for name in ("clip", "domain", "both")}
    with torch.no_grad():
        clip, domain, both = (model.features(images) for model in found.values())
        torch.testing.assert_close(clip, found["clip"].clip.encode_image(images))
        torch.testing.assert_close(domain, found["domain"].domain(images))
    parts = [F.normalize(part, dim=-1) for part in (clip, domain)]
    torch.testing.assert_close(both, torch.cat(parts, dim=-1))
    torch.testing.assert_close(found["both"].joint(both), both / 2**0.5)


@pytest.mark.parametrize("method", ["TaskRes", "CLIPAdapter"])
def test_with_both_features_an_untrained_head_is_zero_shot_clip(method):
    """The texts are zero beside CLIP's part, which keeps its length."""
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    settings = {"ratio": 0.0} if method == "CLIPAdapter" else {}
    model = head(method, features="both", templates=["a map of {}."], **settings)
    plain = dplq.create_model("ZeroshotCLIP", model.clip, NAMES, templates=["a map of {}."])
    with torch.no_grad():
        found = model.classify(model.features(images))  # the model itself asks for a fit
        torch.testing.assert_close(found, plain(images), rtol=1e-5, atol=1e-5)


METHODS = ("LinearProbe", "GDA", "TipAdapter", "SSText", "LPPlusPlus")


@pytest.mark.parametrize("method", METHODS)
def test_the_same_fit_on_both_features_that_are_equal(method):
    """Twice the same feature gives the predictions of one."""
    one, two = problem(), problem()
    one, two = (
        FitData(Labelled(F.normalize(d.train.features, dim=-1), d.train.labels)) for d in (one, two)
    )
    twice = replace(two.train, features=torch.cat([two.train.features] * 2, dim=-1))
    first, second = head(method), head(method, features="both")
    first.fit(one), second.fit(replace(two, train=twice))
    x = F.normalize(VAL, dim=-1)
    predictions = first.classify(x), second.classify(torch.cat([x, x], dim=-1))
    assert torch.equal(*(logits.argmax(1) for logits in predictions))


@pytest.mark.parametrize(
    "method", [*METHODS, "TipAdapterF", "CLAP", "TaskRes", "CLIPAdapter", "TextMap"]
)
def test_a_fit_forgets_the_one_before(method):
    """Tensors and chosen values alike, whatever the other fit was of, and the global generator."""

    def data(val=True, shots=SHOTS):
        train = labelled(2, 0, shots=shots)
        own = steps(torch.optim.AdamW, epochs=4, batch_size=5)
        return FitData(train, labelled(1, 1) if val else None, steps=own)

    def outcome(model):
        settings = dict(model.settings)
        return settings, {n: p.clone() for n, p in model.prompt_learner.named_parameters()}

    expected = []
    for val in (True, False):
        fresh = head(method)
        fresh.fit(data(val))
        expected.append(outcome(fresh))
    model = head(method)
    drawn_before = torch.get_rng_state()
    model.fit(data(shots=2))
    for val, (settings, tensors) in zip((True, False, True), [*expected, expected[0]], strict=True):
        model.fit(data(val))
        found = outcome(model)
        assert found[0] == settings == model.header()["settings"]
        assert all(torch.equal(found[1][name], tensor) for name, tensor in tensors.items())
    assert torch.equal(torch.get_rng_state(), drawn_before)


def test_a_setting_that_is_changed_after_a_fit_stays():
    model = head("GDA", alpha=0.5)
    model.fit(problem())
    model.settings["alpha"] = 7.0
    assert model.fit(problem(val=False)) == {"alpha": 7.0}


def test_class_weights_reach_the_loss():
    data = replace(problem(), steps=steps(torch.optim.SGD))
    weights = torch.tensor([1.0, 0.0, 2.0])
    model = head("TaskRes")
    plain = model.loss(*data.train.every_view(), None)
    weighted = model.loss(*data.train.every_view(), weights)
    losses = F.cross_entropy(model.classify(data.train.mean()), data.train.labels, reduction="none")
    torch.testing.assert_close(plain, losses.mean())
    torch.testing.assert_close(weighted, (weights[data.train.labels] * losses).mean())


def test_an_epoch_takes_one_view_of_every_image():
    from dplq.methods.heads.trained import batches

    train = labelled(3, 0)
    found = list(batches(train, steps(torch.optim.SGD, batch_size=5)))
    assert [len(labels) for _, labels in found] == [5, 5, 2]
    rows = torch.cat([features for features, _ in found])
    where = [(train.features == row).all(dim=-1).nonzero().tolist() for row in rows]
    assert sorted(image for ((_, image),) in where) == list(range(12))
    assert len({view for ((view, _),) in where}) > 1


@pytest.mark.parametrize(
    ("method", "settings", "with_domain", "message"),
    [
        ("GDA", {"features": "domain"}, True, "FEATURES is domain, but GDA compares images with"),
        ("LinearProbe", {"features": "both"}, False, "FEATURES is both, but there is no domain"),
        ("LinearProbe", {}, True, "FEATURES is clip: leave domain out"),
        ("GDA", {"alpha": -1.0}, False, "ALPHA is -1.0; it must be at least 0"),
        ("CLIPAdapter", {"ratio": 1.5}, False, "RATIO is 1.5; it must be at most 1"),
        ("TipAdapter", {"select": "test"}, False, "SELECT 'test' is unknown"),
        ("TipAdapter", {"views": -1}, False, "VIEWS is -1; it must be at least 0"),
    ],
)
def test_what_is_refused(method, settings, with_domain, message):
    clip = tiny_backbone()
    domain = dplq.load_domain_encoder("clip", backbone=clip) if with_domain else None
    with pytest.raises(UserError) as caught:
        dplq.create_model(method, clip, NAMES, domain=domain, **settings)
    assert message in str(caught.value)


def test_a_fit_needs_images_of_all_classes_steps_and_a_finite_loss():
    data = problem()
    lacking = Labelled(data.train.features[:, :2], data.train.labels[:2])
    with pytest.raises(UserError, match="GDA needs a training image of parking lot"):
        head("GDA").fit(FitData(lacking))
    with pytest.raises(UserError, match="TaskRes makes gradient steps: give FitData its steps"):
        head("TaskRes").fit(data)
    infinite = replace(data.train, features=data.train.features * torch.inf)
    with pytest.raises(UserError, match="The loss of TaskRes is nan in epoch 1: train with a low"):
        head("TaskRes").fit(FitData(infinite, steps=steps(torch.optim.SGD)))


def test_a_cache_with_a_label_of_no_class_is_refused(tmp_path):
    model = head("TipAdapter")
    model.fit(problem(val=False))
    model.prompt_learner.labels.data[0] = 3
    model.save(tmp_path / "cache.safetensors")
    with pytest.raises(UserError, match="the labels of its images are not those of its classes"):
        dplq.load(tmp_path / "cache.safetensors", clip=model.clip)


def test_clip_adapter_is_tested_with_another_text(tmp_path, caplog):
    """What is fitted stands before the texts; TaskRes' residual is one of its text."""
    path = tmp_path / "m.safetensors"
    model = head("CLIPAdapter", templates=["a photo of a {}."], ratio=0.4)
    model.save(path)
    other = dplq.create_model(
        "CLIPAdapter", model.clip, ["lake", "sea"], templates=["a map of {}."], ratio=0.4, seed=5
    )
    other.load(path)
    learned = model.prompt_learner
    adapted = (VAL @ learned.down.T).relu() @ learned.up.T
    mixed = 0.4 * adapted.relu() + 0.6 * VAL
    texts = model.clip.encode_text(model.clip.tokenize(["a map of lake.", "a map of sea."]))
    naive = model.clip.logit_scale * F.cosine_similarity(mixed[:, None], texts[None], dim=-1)
    torch.testing.assert_close(other.classify(VAL), naive, rtol=1e-4, atol=1e-4)
    expected = (
        f"TEMPLATES is ['a map of {{}}.'], but {path} was trained with ['a photo of a {{}}.']."
    )
    assert caplog.messages[-1] == expected
    with pytest.raises(UserError, match=r"settings.ratio: there 0.4, now 0.2"):
        head("CLIPAdapter").load(path)
    head("TaskRes", templates=["a photo of a {}."]).save(path)
    with pytest.raises(UserError, match=r"settings.templates: there \['a photo of a {}.'\], now"):
        head("TaskRes", templates=["a map of {}."]).load(path)


def test_clip_adapter_names_other_classes():
    model = head("CLIPAdapter")
    model.set_classnames(["lake", "storage_tank"])
    assert model.classify(VAL).shape == (len(VAL), 2)
    with pytest.raises(UserError, match="This model is a TaskRes model"):
        head("TaskRes").set_classnames(["lake"])


@pytest.mark.parametrize("method", ["LinearProbe", "TaskRes", "TipAdapter"])
def test_names_with_the_same_prompts_are_the_same_classes(method, tmp_path):
    """NAMES have "parking lot"."""
    model, path = head(method), tmp_path / "m.safetensors"
    model.fit(replace(problem(), steps=steps(torch.optim.SGD)))
    expected = model.classify(VAL)
    model.save(path)
    names = ["forest", "river", "parking_lot"]
    other = dplq.create_model(method, model.clip, names, seed=0)
    other.load(path)
    for found in (other, dplq.load(path, names, clip=model.clip)):
        assert found.classnames == names
        assert torch.equal(found.classify(VAL), expected)
    with pytest.raises(
        UserError, match=r"exactly these, in this order \(now: river, forest, parking_"
    ):
        other.set_classnames(["river", "forest", "parking_lot"])
    with pytest.raises(UserError, match=r"cannot tell others apart \(now: lake\)"):
        dplq.create_model(method, model.clip, ["lake"]).load(path)


def test_what_is_fitted_stays_on_the_device_of_the_model():
    """scikit-learn's weights come from the CPU."""
    from dplq.methods.heads.base import Fitted

    learner = Fitted({"weight": torch.zeros(2, 3)}, []).to("meta")
    learner.put(weight=torch.ones(4, 3, dtype=torch.float64))
    assert (learner.weight.device.type, learner.weight.dtype) == ("meta", torch.float32)
    assert learner.weight.shape == (4, 3)


def test_what_is_fitted_lies_in_memory_as_when_loaded():
    from dplq.methods.heads.base import Fitted

    learner = Fitted({"weight": torch.zeros(4, 3)}, [])
    learner.put(weight=torch.arange(12.0).view(3, 4).T)
    assert learner.weight.is_contiguous()
    assert learner.weight[1].tolist() == [1.0, 5.0, 9.0]
