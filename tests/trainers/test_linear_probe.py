"""The linear probe against scikit-learn used directly, and from the command line."""

from __future__ import annotations

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from dplq.clip.backbone import load_backbone
from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.methods.heads import logistic
from tests.host.test_plugin import run
from tests.peers import peer
from tests.runner import PROJECT, make_project, train

BASE = ["DATASET.NUM_SHOTS", "4", "DATASET.SUBSAMPLE_CLASSES", "base"]
MODEL = "prompt_learner/model-1.safetensors"


def blobs(classes, seed=0, per_class=6, width=5):
    """Features around one centre per class, and their labels."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(classes, width))
    labels = np.repeat(np.arange(classes), per_class)
    return centres[labels] + random.normal(size=(len(labels), width)), labels


@pytest.mark.parametrize("classes", [2, 4])
def test_the_linear_layer_is_scikit_learns_model(classes):
    train_set, val = blobs(classes), blobs(classes, seed=1)
    model = logistic.fit_best(train_set, val)
    weight, bias = map(torch.from_numpy, logistic.linear_layer(model))
    assert weight.shape == (classes, 5)
    assert bias.shape == (classes,)
    probabilities = torch.softmax(torch.from_numpy(val[0]) @ weight.T + bias, dim=1)
    np.testing.assert_allclose(probabilities, model.predict_proba(val[0]), atol=1e-12)


def test_c_is_the_most_accurate_on_val_then_of_the_lowest_loss():
    (x, y), (x_val, y_val) = blobs(4), blobs(4, seed=1)
    found = {}
    for power in range(-6, 7):
        model = LogisticRegression(C=10.0**power, max_iter=1000).fit(x, y)
        right = model.predict_proba(x_val)[np.arange(len(y_val)), y_val]
        found[model.C] = (np.mean(model.predict(x_val) == y_val), np.mean(np.log(right)))
    assert len({accuracy for accuracy, _ in found.values()}) < len(found)  # some are equal
    assert max(found, key=found.get) == logistic.fit_best((x, y), (x_val, y_val)).C
    assert logistic.fit_best((x, y), None).C == 1


def test_one_class_is_refused():
    with pytest.raises(UserError, match="at least two classes, and there is one"):
        logistic.fit_best(blobs(1), None)


def test_c_is_not_chosen_on_test_images(caplog):
    import dplq.plugin  # noqa: F401
    from dplq.trainers.heads import CLAP, LinearProbe

    def may_choose(val, test, trainer=LinearProbe, split="test"):
        val, test = ([SimpleNamespace(impath=name) for name in part] for part in (val, test))
        dataset = SimpleNamespace(val=val or None, test=test)
        keys = SimpleNamespace(SELECT="val")
        cfg = SimpleNamespace(TEST=SimpleNamespace(SPLIT=split))
        given = {"keys": keys, "model_class": trainer.model_class, "cfg": cfg}
        return trainer._uses_val(SimpleNamespace(dm=SimpleNamespace(dataset=dataset), **given))

    assert may_choose("ab", "cd")
    assert not may_choose("ab", "cd", CLAP)
    assert not may_choose("", "cd", CLAP)  # it chooses nothing, and says nothing
    assert not caplog.records
    assert not may_choose("ab", "cd", split="val")
    caplog.clear()
    assert not may_choose("ab", "bc")
    assert not may_choose("", "bc")
    assert [record.getMessage() for record in caplog.records] == [
        "The val images are test images: nothing is chosen on them.",
        "The val images are absent: nothing is chosen on them.",
    ]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A small project's flags."""
    flags = make_project(tmp_path_factory.mktemp("probe"), images=16)
    flags[flags.index("--trainer") + 1] = "LinearProbe"
    return flags


@pytest.fixture(scope="module")
def trained(project, tmp_path_factory):
    """A finished run on the base classes."""
    out = tmp_path_factory.mktemp("probe_run") / "base"
    done = train(f"{out}.log", [*project, "--output-dir", str(out), *BASE])
    assert done.code == 0, done.err
    assert "C 1e-06: accuracy" in done.out
    assert "LinearProbe: C is " in done.out
    return out


def test_results_json(trained):
    result = json.loads((trained / "results.json").read_text())
    assert result["learnable_parameters"] == 48 * 2 + 2
    assert result["epochs"] == 1
    assert set(result["images"]["kinds"]) == {"8-bit RGB"}
    assert result["images"]["steps"] == {}
    assert result["checkpoint_bytes"] == (trained / MODEL).stat().st_size
    assert result["seconds"]["train"] > 0
    assert result["seconds"]["step"] is None
    assert list(result["per_class_accuracy"]) == ["forest", "parking lot"]


def make_features_infinite():
    from dplq.methods.heads.linear_probe import LinearProbeModel

    LinearProbeModel.features = lambda self, images: torch.full((len(images), 48), torch.inf)


def test_features_that_are_not_finite_are_not_fitted(project, tmp_path):
    out = tmp_path / "out"
    done = train(
        tmp_path / "log", [*project, "--output-dir", str(out), *BASE], make_features_infinite
    )
    assert done.code == 2
    assert "are nan or infinite: nothing is fitted. The weights of the encoders are" in done.err
    assert not (out / MODEL).exists()
    assert not (out / "results.json").exists()


def test_weights_are_scikit_learns_on_un_augmented_images(project, trained):
    import dplq.plugin  # noqa: F401
    from dplq.cli import train as script

    from dassl.data.datasets import build_dataset  # isort: skip

    cfg = script.setup_cfg(script.build_parser().parse_args([*project, *BASE]))
    dataset = build_dataset(cfg)
    clip = load_backbone(cfg.MODEL.BACKBONE.NAME, pretrained=False)
    mean, std = (torch.tensor(cfg.INPUT[key]) for key in ("PIXEL_MEAN", "PIXEL_STD"))

    def features(items):
        pixels = np.stack([np.asarray(Image.open(item.impath)) for item in items])
        images = (torch.from_numpy(pixels) / 255 - mean) / std
        with torch.no_grad():
            found = clip.clip.encode_image(images.permute(0, 3, 1, 2))
        return found.double().numpy(), np.array([item.label for item in items])

    x, y = features(dataset.train_x)
    assert len(x) == 8
    tensors, header = checkpoint.read(trained / MODEL)
    expected = LogisticRegression(C=header["settings"]["C"], max_iter=1000).fit(x, y)
    weight = (tensors["weight"][1] - tensors["weight"][0]).numpy()
    np.testing.assert_allclose(weight, expected.coef_[0], rtol=1e-3, atol=1e-6)
    x_test, y_test = features(dataset.test)
    result = json.loads((trained / "results.json").read_text())
    assert result["accuracy"] == pytest.approx(100 * expected.score(x_test, y_test))


def test_it_loads_for_its_own_classes_only(project, trained, tmp_path):
    test = [*project, "--eval-only", "--output-dir", str(tmp_path / "again")]
    assert "--eval-only needs --model-dir" in train(tmp_path / "log", test).err
    test += ["--model-dir", str(trained), *BASE]
    done = train(tmp_path / "log", test)
    assert done.code == 0, done.err
    again, first = (
        json.loads((folder / "results.json").read_text())
        for folder in (tmp_path / "again", trained)
    )
    assert again["per_class_accuracy"] == first["per_class_accuracy"]
    assert again["seconds"]["train"] is None
    done = train(tmp_path / "log", [*test[:-1], "new", "OUTPUT_DIR", str(tmp_path / "new")])
    assert done.code == 2
    assert "Traceback" not in done.err
    message = (
        r"error: .*model-1.safetensors is a LinearProbe model for the classes forest, parking lot"
    )
    assert re.search(message, done.err)
    assert "(now: river, storage tank): test it on its own classes" in done.err


SEVERAL = """
import sys, train
folder, *flags = sys.argv[1:]
for name in ("ZeroshotCLIP", "ZeroshotCLIP2", "LinearProbe"):
    sys.argv = ["train.py", *flags, "TRAINER.NAME", name, "OUTPUT_DIR", f"{folder}/{name}"]
    assert train.main() == 0
"""


def test_both_dassls_give_the_same(project, trained, tmp_path):
    """All trainers without gradient steps, on the real Dassl and on ours."""
    dassl = peer("Dassl.pytorch")
    ours = {"LinearProbe": trained}
    for name in ("ZeroshotCLIP", "ZeroshotCLIP2"):
        ours[name] = tmp_path / "ours" / name
        options = [*BASE, "TRAINER.NAME", name, "OUTPUT_DIR", str(ours[name])]
        assert train(tmp_path / "log", [*project, *options]).code == 0
    command = [sys.executable, "-c", SEVERAL, str(tmp_path / "real"), *project, *BASE]
    assert "Dassl in use: real" in run(command, cwd=PROJECT, dassl=dassl)
    for name, folder in ours.items():
        theirs = tmp_path / "real" / name
        results = [json.loads((place / "results.json").read_text()) for place in (folder, theirs)]
        for key in ("trainer", "macro_f1", "per_class_accuracy", "epochs", "checkpoint_bytes"):
            assert results[0][key] == results[1][key]
    for name in ("weight", "bias"):
        assert checkpoint.read(theirs.parent / "LinearProbe" / MODEL)[0][name].equal(
            checkpoint.read(trained / MODEL)[0][name]
        )
