"""Heads through train.py: features, views, the choice on val, loading."""

from __future__ import annotations

import json

import pytest
import torch

import dplq
from dplq.io import checkpoint
from tests.runner import make_project, train

SHORT = ["DATASET.NUM_SHOTS", "4", "DATASET.SUBSAMPLE_CLASSES", "base", "OPTIM.MAX_EPOCH", "2"]
MODEL = "prompt_learner/model-1.safetensors"
HEADS = ("GDA", "TipAdapter", "TipAdapterF", "LPPlusPlus", "CLAP", "TaskRes", "CLIPAdapter",
         "SSText", "TextMap")  # fmt: skip
# numbers that are fitted, of 2 classes, 8 images, 48 features of each encoder
SIZES = {
    "GDA": 2 * 48 + 2,
    "TipAdapter": 8 * 48 + 8 + 2,
    "TipAdapterF": 8 * 48 + 8 + 2,
    "LPPlusPlus": 2 * 48 + 2 + 2,
    "CLIPAdapter": 2 * 48 * 12,
    "TextMap": 48 * 48 + 2 * 48 + 1,
}


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    flags = make_project(folder, images=16)

    def of(name, out, *more):
        at = flags.index("--trainer") + 1
        given = [*flags[:at], name, *flags[at + 1 :], "--output-dir", str(out)]
        start = [word for word in more if word.startswith("--") or "/" in word]
        return [*given, *start, *SHORT, *(word for word in more if word not in start)]

    of.clip = str(folder / "clip")
    return of


@pytest.mark.parametrize("name", HEADS)
def test_a_run_and_its_test(name, flags, tmp_path):
    """The features and logits of the file are those of the run."""
    out = tmp_path / "run"
    done = train(tmp_path / "log", flags(name, out))
    assert done.code == 0, done.err
    result = json.loads((out / "results.json").read_text())
    assert result["learnable_parameters"] == SIZES.get(name, 2 * 48)
    assert result["seconds"]["step"] is None
    assert f"DOMAIN.ENCODER is set, but {name} does not read it." in done.out
    again = train(
        tmp_path / "again", flags(name, tmp_path / "test", "--eval-only", "--model-dir", str(out))
    )
    assert again.code == 0, again.err
    tested = json.loads((tmp_path / "test/results.json").read_text())
    assert tested["per_class_accuracy"] == result["per_class_accuracy"]
    settings = checkpoint.read_header(out / MODEL)["settings"]
    assert settings["templates"] == ["a photo of {}."]


def another_text():
    from dplq.datasets.own_images import OwnImages

    OwnImages.template = "a map of {}."


def test_clip_adapter_on_a_dataset_with_another_text(flags, tmp_path):
    """New classes of a dataset whose zero-shot text is another one."""
    done = train(tmp_path / "log", flags("CLIPAdapter", tmp_path / "run"))
    assert done.code == 0, done.err
    new = ["DATASET.SUBSAMPLE_CLASSES", "new"]
    given = ["--eval-only", "--model-dir", str(tmp_path / "run")]
    given = [*flags("CLIPAdapter", tmp_path / "test", *given), *new]
    again = train(tmp_path / "again", given, another_text)
    assert again.code == 0, again.err
    assert "TEMPLATES is ['a map of {}.'], but" in again.out
    assert "was trained with ['a photo of {}.']." in again.out
    result = json.loads((tmp_path / "test/results.json").read_text())
    assert list(result["per_class_accuracy"]) == ["river", "storage tank"]


def test_nothing_is_chosen_on_tested_val_images(flags, tmp_path):
    done = train(tmp_path / "log", flags("TipAdapter", tmp_path / "run", "TEST.SPLIT", "val"))
    assert done.code == 0, done.err
    assert "The val images are test images: nothing is chosen on them." in done.out + done.err


def test_both_features_and_views_are_repeated_exactly(flags, tmp_path):
    node = "TRAINER.TIPADAPTERF"
    keys = [f"{node}.FEATURES", "both", f"{node}.VIEWS", "2"]
    for name, more in {"first": [], "second": [], "other": ["SEED", "2"]}.items():
        done = train(tmp_path / name, flags("TipAdapterF", tmp_path / name, *keys, *more))
        assert done.code == 0, done.err
        assert "DOMAIN.ENCODER is set, but" not in done.out
        assert "TipAdapterF: epoch is" in done.out
    first, second, other = (
        checkpoint.read(tmp_path / name / MODEL)[0] for name in ("first", "second", "other")
    )
    assert first["keys"].shape == (8, 2 * 48)
    assert torch.equal(first["keys"], second["keys"])
    assert not torch.equal(first["keys"], other["keys"])
    model = dplq.load(tmp_path / "first", weights=flags.clip)
    assert model.domain is not None
    assert model.settings["features"] == "both"


def test_views_are_the_same_without_val(flags, tmp_path):
    node = "TRAINER.TIPADAPTER"
    for select in ("val", "fixed"):
        keys = [f"{node}.VIEWS", "2", f"{node}.SELECT", select, "SEED", "2"]
        done = train(tmp_path / select, flags("TipAdapter", tmp_path / select, *keys))
        assert done.code == 0, done.err
    chosen, fixed = (checkpoint.read(tmp_path / name / MODEL)[0] for name in ("val", "fixed"))
    assert torch.equal(chosen["keys"], fixed["keys"])


def test_hyperparameters_are_fixed_where_asked_for(flags, tmp_path):
    keys = ["TRAINER.GDA.SELECT", "fixed", "TRAINER.GDA.ALPHA", "0.25"]
    weights = ["TRAIN.CLASS_WEIGHTS", "balanced"]
    done = train(tmp_path / "log", flags("GDA", tmp_path / "out", *keys, *weights))
    assert done.code == 0, done.err
    assert "GDA: alpha is 0.25" in done.out
    assert "on val" not in done.out
    assert "TRAIN.CLASS_WEIGHTS is not used: GDA minimises no loss." in done.out
    assert checkpoint.read_header(tmp_path / "out" / MODEL)["settings"]["alpha"] == 0.25


def test_hyperparameters_that_the_choice_replaces_are_named(flags, tmp_path):
    done = train(tmp_path / "log", flags("GDA", tmp_path / "out", "TRAINER.GDA.ALPHA", "0.2345"))
    assert done.code == 0, done.err
    chosen = checkpoint.read_header(tmp_path / "out" / MODEL)["settings"]["alpha"]
    said = f"TRAINER.GDA.ALPHA is 0.2345, and not used: {chosen:g} was chosen on val."
    assert said in done.out
    done = train(tmp_path / "log", flags("GDA", tmp_path / "plain"))
    assert "and not used" not in done.out


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("GDA", ["TRAINER.GDA.FEATURES", "domain"], "error: TRAINER.GDA.FEATURES is domain, but"),
        (
            "LinearProbe",
            ["TRAINER.LINEARPROBE.FEATURES", "both", "DOMAIN.ENCODER", "none"],
            "error: TRAINER.LINEARPROBE.FEATURES is both, but there is no domain encoder: name one",
        ),
        ("CLAP", ["TRAINER.CLAP.SELECT", "test"], "TRAINER.CLAP.SELECT 'test' is unknown."),
        ("CLAP", ["OPTIM.WARMUP_EPOCH", "9"], "OPTIM.WARMUP_EPOCH is 9, but OPTIM.MAX_EPOCH 2"),
    ],
)
def test_what_is_refused(name, keys, message, flags, tmp_path):
    done = train(tmp_path / "log", flags(name, tmp_path / "out", *keys))
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
