"""The accuracy on the training images, before and after a training."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import dplq
from dplq.evaluation.fit import FITTED, fit_problem
from dplq.evaluation.metrics import METRICS
from dplq.trainers._engine import fit
from dplq.trainers._engine.results import ENTRIES
from tests.runner import make_project, train


def allow_few_images():
    fit.MOST_IMAGES = 20


def test_the_accuracies_are_those_of_the_saved_model_on_the_plain_images(tmp_path):
    flags = [*make_project(tmp_path), "--output-dir", str(tmp_path / "run"), "OPTIM.LR", "0.05"]
    done = train(tmp_path / "log", flags)
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results.keys() - METRICS.keys() <= ENTRIES  # no metric of one's own may have these names
    found = results["train_accuracy"]
    clip = str(tmp_path / "clip")
    model = dplq.load(tmp_path / "run/prompt_learner/model-3.safetensors", weights=clip)
    names = json.loads((tmp_path / "run/prompt_learner/train_images.json").read_text())["train"]
    # already of the size of the tower's images
    pixels = np.stack([np.asarray(Image.open(tmp_path / "data" / name)) for name in names]) / 255
    scaled = (pixels - model.clip.image_mean) / np.array(model.clip.image_std)
    with torch.no_grad():
        logits = model(torch.from_numpy(scaled).float().permute(0, 3, 1, 2))
    guesses = logits.argmax(dim=1).tolist()
    classes = [name.replace("_", " ") for name in model.classnames]
    labels = [classes.index(name.split("/")[0].replace("_", " ")) for name in names]
    hits = sum(label == guess for label, guess in zip(labels, guesses, strict=True))
    assert found["end"] == pytest.approx(100 * hits / len(names))
    assert found["end"] > found["start"] > 0
    start, end = (f"{found[key]:.1f}" for key in ("start", "end"))
    assert f"images: {start}% before, {end}% after the training. The training did not" in done.out


def test_many_images_are_left_out(tmp_path):
    flags = [*make_project(tmp_path), "--output-dir", str(tmp_path / "run")]
    done = train(tmp_path / "log", [*flags, "OPTIM.MAX_EPOCH", "1"], allow_few_images)
    assert done.code == 0, done.err
    text = "Accuracy on the training images: not measured (24, more than 20)"
    assert done.out.count(text) == 2
    assert json.loads((tmp_path / "run/results.json").read_text())["train_accuracy"] is None


@pytest.mark.parametrize(
    ("start", "end", "problem"),
    [
        (60.0, 59.0, "ended below its start"),
        (99.0, 98.0, "ended below its start"),
        (60.0, 60.0, "did not fit"),
        (None, 66.0, "did not fit"),
        (60.0, FITTED, ""),
        (None, 67.0, ""),
    ],
)
def test_what_is_wrong(caplog, capsys, start, end, problem):
    assert fit_problem(start, end) == problem
    fit.report_fit(start, end)
    before = "" if start is None else f"{start:.1f}% before, "
    text = f"Accuracy on the training images: {before}{end:.1f}% after the training"
    if not problem:
        assert (capsys.readouterr().out, caplog.messages) == (f"{text}\n", [])
        return
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"{text}. The training {problem}: ")
    assert "OPTIM.LR" in record.message


def test_hits_are_counted_over_all_batches_in_eval_mode(monkeypatch):
    logits = torch.eye(3)
    batches = [(logits, torch.tensor([0, 1, 0])), (logits[:1], torch.tensor([0]))]
    monkeypatch.setattr(fit, "training_images", lambda trainer: batches)
    modes = []
    trainer = SimpleNamespace(
        dm=SimpleNamespace(dataset=SimpleNamespace(train_x=range(4))),
        model=SimpleNamespace(gradient_part=nullcontext),
        set_model_mode=modes.append,
        parse_batch_test=lambda batch: batch,
        model_inference=lambda images: images,
    )
    assert fit.train_accuracy(trainer) == 75.0
    assert modes == ["eval"]


def test_what_is_no_part_of_the_training_is_named(capsys):
    fit.report_fit(50.0, 90.0, "the head")
    assert capsys.readouterr().out == (
        "Accuracy on the training images (without the head): 50.0% before, 90.0% after the "
        "training\n"
    )
