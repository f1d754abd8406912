"""The heads against the originals, whose files run unmodified on the same features.

Skipped without their checkouts (see tests/peers.py). Patched: `.cuda()` and `.half()` do nothing,
and the modules that they import for data and for CLIP are replaced, as is a function for the
accuracy that fails on today's NumPy. What they compute is taken from
the functions that they call: those of accuracy and of cross-entropy.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from dataclasses import replace
from math import log
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dplq.trainers  # noqa: F401 (makes `import dassl` work)
from tests.methods.heads.problem import SHOTS, head, labelled, problem, steps
from tests.peers import peer

TOLERANCE = 1e-4
VAL = labelled(1, 1)
TEST = labelled(1, 2)
REPLACED = ("clip", "clip.clip", "clip.simple_tokenizer", "datasets", "datasets.utils",
            "datasets.imagenet", "datasets.imagenet_templates", "trainers",
            "trainers.imagenet_templates", "methods.method")  # fmt: skip


def load(path, *, package=None, **modules):
    """Return a file of a checkout as a module, with others in place of what it imports."""
    name = f"{package}.{path.stem}" if package else f"original_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(found)
    stubs = {name: mock.MagicMock() for name in REPLACED}
    with mock.patch.dict(sys.modules, {**stubs, **modules}):
        found.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    for owner in (torch.Tensor, nn.Module):
        for name in ("cuda", "half"):
            monkeypatch.setattr(owner, name, lambda self, *args, **kwargs: self)
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def at_scale_100(method, **settings):
    """A head whose CLIP has the logit scale that the originals have written in."""
    model = head(method, **settings)
    model.clip.clip.logit_scale.data.fill_(log(100))
    return model


def close(ours, theirs):
    """Compare relative to the largest value."""
    difference = (ours.double() - theirs.double()).abs().max() / theirs.abs().max()
    assert difference <= TOLERANCE, difference


def accuracy(logits, labels):
    return 100 * (logits.argmax(dim=1) == labels).double().mean().item()


def recorder(of=accuracy):
    """Return a function that notes its first argument and calls another."""
    noted = []

    def note(given, *rest, **more):
        noted.append(given.detach().clone())
        return of(given, *rest, **more)

    return note, noted


def unit(part):
    return F.normalize(part.mean(), dim=-1)


class Features:
    """A CLIP whose images are features already."""

    dtype = torch.float32

    def encode_image(self, images):
        return images.clone()


def tip():
    """Return the two modules, and the logits whose accuracy they compute."""
    folder = peer("Tip-Adapter")
    utils = load(folder / "utils.py")
    main = load(folder / "main.py", utils=utils)
    main.cls_acc, noted = recorder()
    utils.cls_acc = accuracy
    return utils, main, noted


CFG = {"search_hp": True, "search_scale": [7, 3], "search_step": [200, 20], "load_cache": False}


def test_tip_adapter(tmp_path):
    utils, main, noted = tip()
    cfg = CFG | {"init_beta": 2.0, "init_alpha": 1.17, "cache_dir": str(tmp_path)}
    data, model = problem(views=3), at_scale_100("TipAdapter", beta=2.0)
    labels = data.train.labels
    views = iter(data.train.features)

    class Loader:
        def __iter__(self):
            yield next(views), labels

    cfg |= {"augment_epoch": 3, "shots": SHOTS}
    keys, values = utils.build_cache_model(cfg, Features(), Loader())
    model.fill(data)
    close(model.prompt_learner.keys, keys.T)
    given = (keys, values.float(), unit(VAL), VAL.labels, unit(TEST), TEST.labels)
    main.run_tip_adapter(cfg, *given, model.text.T)
    close(model.classify(VAL.mean()), noted[1])  # before the search
    chosen = utils.search_hp(cfg, keys, values.float(), unit(VAL), VAL.labels, model.text.T)
    model.search(data)
    pair = model.prompt_learner.beta.item(), model.prompt_learner.alpha.item()
    affinity, zero = model.affinity(VAL.mean()), model.cosine_logits(VAL.mean(), model.text)
    found = [
        accuracy(zero + alpha * model.cache_logits(affinity, beta), VAL.labels)
        for beta, alpha in (pair, chosen)
    ]
    assert found[0] == found[1]  # of equally accurate pairs we take that of lower log loss


def test_tip_adapter_f(tmp_path):
    _, main, noted = tip()
    cfg = CFG | {"init_beta": 2.0, "init_alpha": 1.17, "cache_dir": str(tmp_path), "shots": SHOTS,
                 "lr": 0.001, "train_epoch": 1}  # fmt: skip
    data, model = problem(val=False), at_scale_100("TipAdapterF", beta=2.0)
    model.fill(data)
    keys, values = model.prompt_learner.keys.T.clone(), F.one_hot(data.train.labels).float()
    loader = [(data.train.mean(), data.train.labels)]
    given = (keys, values, unit(VAL), VAL.labels, unit(TEST), TEST.labels, model.text.T)
    main.run_tip_adapter_F(cfg, *given, Features(), loader)
    close(model.classify(data.train.mean()).detach(), noted[0])
    model.fit(replace(data, steps=steps(torch.optim.AdamW, lr=0.001)))
    close(model.classify(TEST.mean()).detach(), noted[1])
    trained = torch.load(tmp_path / f"best_F_{SHOTS}shots.pt", weights_only=False)
    close(model.prompt_learner.keys.detach(), trained.detach())


def test_gda():
    folder = peer("ICLR24")
    utils = mock.MagicMock(__all__=["cls_acc"], cls_acc=accuracy)
    main = load(folder / "main_few_shots.py", utils=utils)
    main.cls_acc, noted = recorder()
    data, model = problem(views=3), at_scale_100("GDA")
    main.val_features, main.val_labels = unit(VAL), VAL.labels
    main.test_features, main.test_labels = unit(TEST), TEST.labels
    views = [(view, data.train.labels) for view in data.train.features]
    main.run({"augment_epoch": 1}, views, model.text.T, Features())
    for alpha, theirs in zip([10.0**power for power in range(-4, 3)], noted, strict=False):
        model.settings["alpha"] = alpha
        model.fit(replace(data, val=None))
        close(model.classify(VAL.mean()), theirs)
    assert len(noted) == 8


def test_lp_plus_plus(monkeypatch):
    folder = peer("FewShot-CLIP-Strong-Baseline") / "methods"
    utils = load(folder / "utils.py")
    base = SimpleNamespace(FSCLIPmethod=type("Base", (), {"__init__": lambda self, args: None}))
    modules = {"methods": mock.MagicMock(), "methods.method": base, "methods.utils": utils}
    modules["matplotlib"] = modules["matplotlib.pyplot"] = mock.MagicMock()
    monkeypatch.setattr(torch, "float16", torch.float32)
    module = load(folder / "linear_probe_p2.py", package="methods", **modules)
    note, noted = recorder(F.cross_entropy)
    monkeypatch.setattr(module.F, "cross_entropy", note)
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: nn.init.zeros_(self.bias))
    data, model = problem(val=False), head("LPPlusPlus", epochs=40)
    args = {"train_epoch": 41, "shots": SHOTS, "dataset": "", "output_dir": ""}
    loaders = [[(part.mean().clone(), part.labels)] for part in (data.train, VAL)]
    theirs = module.LinearProbe_P2(args)
    theirs.forward(*loaders, unit(TEST), TEST.labels, model.text.T, Features(), None)
    del noted[41:]
    ours = []
    for epochs in (1, 9, 10, 11, 25, 40):
        model.settings["epochs"] = epochs
        model.fit(data)
        ours.append(model.classify(data.train.mean()).detach())
        close(ours[-1], noted[epochs])
    assert (noted[40] - noted[0]).abs().max() > 0.1


def dassl_cfg(**trainer):
    return SimpleNamespace(TRAINER=SimpleNamespace(**trainer))


def test_clap():
    module = load(peer("CLAP") / "trainers/adapters.py")
    settings = SimpleNamespace(INIT="ZS", CONSTRAINT="l2")
    model, data = head("CLAP"), problem(views=2)
    clip = SimpleNamespace(dtype=torch.float32, logit_scale=model.clip.logit_scale.log())
    theirs = module.AdapterMethod(dassl_cfg(ADAPTER=settings), clip, model.base)
    theirs.device = "cpu"
    x, y = data.train.every_view()
    whole = SimpleNamespace(adapter=theirs, logit_scale=clip.logit_scale)

    def logits(features):
        return module.CustomCLIP.forward_lp(whole, features)

    theirs.init_lagrangian_multipliers(y, logits(x).detach())
    model.start(data)
    close(model.multipliers, theirs.alpha_constraint)
    optimizer = torch.optim.SGD([theirs.prototypes], 0.1)
    one_view = replace(data, train=replace(data.train, features=data.train.features[:1]))
    model.fit(replace(one_view, val=None, steps=steps(torch.optim.SGD, epochs=3)))
    theirs.init_lagrangian_multipliers(data.train.labels, logits(data.train.features[0]).detach())
    for _ in range(3):
        loss = F.cross_entropy(logits(data.train.features[0]), data.train.labels)
        loss = loss + theirs.zero_shot_constraint()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    close(model.prompt_learner.weight.detach(), theirs.prototypes.detach())
    close(model.classify(TEST.mean()).detach(), logits(TEST.mean()).detach())


def compare_step(model, module, learner, parameters):
    """Compare logits, then the weights and logits after a step of SGD."""
    data = problem(val=False)
    whole = SimpleNamespace(
        image_encoder=lambda images: images,
        dtype=torch.float32,
        logit_scale=model.clip.logit_scale.log(),
        **learner,
    )

    def logits(features):
        return module.CustomCLIP.forward(whole, features)

    close(model.classify(TEST.mean()).detach(), logits(TEST.mean()).detach())
    loss = F.cross_entropy(logits(data.train.mean()), data.train.labels)
    gradients = torch.autograd.grad(loss, parameters)
    model.fit(replace(data, steps=steps(torch.optim.SGD, lr=0.5)))
    for name, parameter, gradient in zip(model.learned, parameters, gradients, strict=True):
        close(model.prompt_learner.get_parameter(name).grad, gradient)
        parameter.data -= 0.5 * gradient
        close(model.prompt_learner.get_parameter(name).detach(), parameter.detach())
    close(model.classify(TEST.mean()).detach(), logits(TEST.mean()).detach())


def test_task_res():
    module = load(peer("TaskRes") / "trainers/taskres.py")
    model = head("TaskRes", alpha=0.7)
    cfg = dassl_cfg(TaskRes=SimpleNamespace(RESIDUAL_SCALE=0.7))
    clip = SimpleNamespace(dtype=torch.float32)
    learner = module.TaskResLearner(cfg, None, clip, model.base)
    compare_step(model, module, {"prompt_learner": learner}, [learner.text_feature_residuals])


def test_clip_adapter():
    module = load(peer("CLIP-Adapter") / "clip_adapter.py")
    model = head("CLIPAdapter")
    adapter = module.Adapter(48, 4)
    layers = [adapter.fc[0].weight, adapter.fc[2].weight]
    for name, layer in zip(("down", "up"), layers, strict=True):
        layer.data = model.prompt_learner.get_parameter(name).detach().clone()
    learner = {"adapter": adapter, "text_encoder": lambda: model.base}
    compare_step(model, module, learner, layers)


@pytest.mark.parametrize("repel", [False, True])
def test_ss_text(repel):
    folder = peer("SS-Text")
    solver = load(folder / "solvers/sstext.py")
    models = load(folder / "modeling/adapters/models.py")
    model, data = head("SSText", repel=repel), problem(val=False)
    scale = model.clip.logit_scale.log().item()
    theirs = models.Adapter(model.text.clone(), scale, adapter="SStext")
    given = unit(data.train), data.train.labels, theirs
    solver.ss_text_solver(*given, classes=[0, 1, 2], balanced_importance=not repel, repel=repel)
    model.fit(data)
    close(model.prompt_learner.weight, theirs.adapter.prototypes.detach())
    close(model.classify(TEST.mean()), theirs(TEST.mean()).detach())
