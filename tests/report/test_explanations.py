"""The sections that run the model: features, and what the model uses."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dplq
from dplq.evaluation.prediction_table import PredictionTable
from dplq.explain import domain_effect, layer_effects, nearest_words
from dplq.io.runs.files import MODEL_FOLDER
from dplq.report import Options, RunPage, render_run
from dplq.report.explained import evenly_chosen, model_of
from dplq.report.sections import explanations, features
from tests.report.runs import CLASSES, Page, table, write_images, write_run

WORDS = "a photo of a"


@pytest.fixture(scope="module", autouse=True)
def few_words() -> Iterator[None]:
    """Have the scale of the words' distances measured on few of them: no test is about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[nearest_words.__module__], "SAMPLE", 8)
        yield


def write_model(folder: Path, method: str, **settings: Any) -> None:
    """Write an untrained model of the demo's parts as the checkpoint of a run."""
    clip = dplq.load_backbone("demo")
    given = {}
    if method == "QuaternionPrompt":
        given["domain"] = dplq.load_domain_encoder("demo", backbone=clip)
    model = dplq.create_model(method, clip, CLASSES, seed=0, **given, **settings).eval()
    (folder / MODEL_FOLDER).mkdir()
    model.save(folder / MODEL_FOLDER / "model-2.safetensors")


@pytest.fixture(scope="module")
def predictions() -> PredictionTable:
    return table(images=24)


@pytest.fixture(scope="module")
def quaternion(tmp_path_factory: Any, predictions: PredictionTable) -> Path:
    folder = tmp_path_factory.mktemp("quaternion")
    write_images(folder, predictions.paths)
    write_run(folder, predictions)
    write_model(folder, "QuaternionPrompt", n_ctx=2, prompt_depth=3)
    return folder


@pytest.fixture(scope="module")
def coop(tmp_path_factory: Any, predictions: PredictionTable) -> Path:
    folder = tmp_path_factory.mktemp("coop")
    write_images(folder, predictions.paths)
    write_run(folder, predictions)
    write_model(folder, "CoOp", ctx_init=WORDS)
    return folder


def page_of(folder: Path, **options: Any) -> RunPage:
    return RunPage.read(folder, Options(**options))


def body(module: Any, folder: Path, **options: Any) -> str:
    made = module.section(page_of(folder, **options))
    assert made is not None
    return str(made.body)


def cells(html: str, heading: str) -> list[list[str]]:
    """Return the cells of the rows of the table below a heading."""
    part = html[html.index(heading) :]
    rows = re.findall(r"<tr>(.*?)</tr>", part[: part.index("</table>")], flags=re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows[1:]]


def test_numbers_are_those_of_the_library(quaternion: Path, predictions: PredictionTable) -> None:
    html = body(explanations, quaternion)
    run = page_of(quaternion)
    model, rows = run.model(), evenly_chosen(predictions, 32)
    from dplq.report.explained import images_of, tensor_of

    images = tensor_of(model, images_of(run, predictions, rows))
    effect = domain_effect(model, images, predictions.labels[rows])
    assert [row[2] for row in cells(html, ">The domain feature<")] == [
        f"{row.logit_change:.3f}" for row in effect.rows
    ]
    assert effect.rows[1].logit_change > 0
    layers = layer_effects(model, images)
    assert [row[1] for row in cells(html, ">The prompts of each layer<")] == [
        f"{effect.image:.2g}" for effect in layers
    ]
    assert len(layers) == 3
    assert (
        '<p>Of 24 of the 24 images.</p>\n<p class="caption">With the image\'s own'
        in html.replace("&#39;", "'")
    )
    assert "Explained is the checkpoint model-2.safetensors. The numbers" in html


@pytest.fixture(scope="module")
def explained(coop: Path) -> str:
    return body(explanations, coop)


def test_words_of_an_untrained_context(explained: str) -> None:
    html = explained
    rows = cells(html, ">The words nearest to the context<")
    assert [row[1].split(" (")[0] for row in rows] == WORDS.split()
    assert [row[1].split(", ")[0].split(" ")[1] for row in rows] == ["(0.00)"] * 4
    assert "This CoOp model has no domain encoder" in html
    assert ">The domain feature<" not in html


def test_maps_are_of_mistakes_first(explained: str, predictions: PredictionTable) -> None:
    page = Page(explained)
    pictures = page.all("img")
    wrong = int((predictions.labels != predictions.predictions).sum())
    assert len(pictures) == min(wrong, 6) + 6
    assert all(str(picture["src"]).startswith("data:image/jpeg") for picture in pictures)
    assert {str(picture["alt"]).split(" attention")[0] for picture in pictures} <= {
        "Image, and 1",
        "Image, and 2",
    }


def test_without_images_nothing_names_or_shows_one(
    quaternion: Path, predictions: PredictionTable
) -> None:
    html = render_run(page_of(quaternion, images=False))
    assert ">The domain feature<" in html
    assert ">Features<" in html
    assert "data:image/jpeg" not in html
    assert not [path for path in predictions.paths if path in html]


def test_without_explanations_the_model_is_not_loaded(quaternion: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(RunPage, "model", lambda self: pytest.fail("loaded"))
    html = render_run(page_of(quaternion, explanations=False))
    assert "What the model uses" not in html
    assert ">Features<" not in html


def test_features_of_a_method_that_leaves_them(coop: Path) -> None:
    html = body(features, coop)
    assert "The two are the same" in html
    model, clip = cells(html, "How well the features")
    assert model[1:] == clip[1:]
    assert html.count("<svg") == 1


def test_features_of_a_method_that_changes_them(quaternion: Path) -> None:
    html = body(features, quaternion)
    assert "The two are the same" not in html
    assert "Of 24 of the 24 images" in html


@pytest.mark.parametrize("module", [features, explanations])
def test_missing_images_are_said_and_the_page_is_made(
    module: Any, coop: Path, tmp_path: Path
) -> None:
    html = body(module, coop, root=tmp_path)
    assert "cannot be shown" in html
    assert "class0/0.png" in html
    hidden = body(module, coop, root=tmp_path, images=False)
    assert "An image cannot be read; --no-images leaves out which one" in hidden
    assert "class0/0.png" not in hidden


@pytest.mark.parametrize(
    ("results", "said"),
    [({}, "the model that was tested lies elsewhere"), ({"zero_shot": True}, "is not trained")],
)
def test_a_run_without_a_model_has_neither_and_says_why(
    tmp_path: Path, predictions: PredictionTable, results: dict[str, Any], said: str
) -> None:
    run = page_of(write_run(tmp_path / "run", predictions, **results))
    assert features.section(run) is None
    html = str(explanations.section(run).body)  # type: ignore[union-attr]
    assert said in html
    assert "<h3>" not in html


def test_the_checkpoint_is_that_of_the_tested_epoch(
    coop: Path, predictions: PredictionTable, tmp_path: Path
) -> None:
    shutil.copytree(coop / MODEL_FOLDER, tmp_path / MODEL_FOLDER)
    kept = tmp_path / MODEL_FOLDER / "model-2.safetensors"
    for name in ("model-5", "model-best"):
        shutil.copy(kept, kept.with_stem(name))
    assert page_of(write_run(tmp_path, predictions, epochs=2)).checkpoint == kept
    last = page_of(write_run(tmp_path, predictions, epochs=5)).checkpoint
    assert last == kept.with_stem("model-5")
    unsaid = page_of(write_run(tmp_path, predictions, epochs=None)).checkpoint
    assert unsaid == kept.with_stem("model-best")
    gone = page_of(write_run(tmp_path, predictions, epochs=4))
    assert gone.checkpoint is None
    assert "epoch 4, and the folder of the run has no checkpoint of it" in body(
        explanations, tmp_path
    )
    assert gone.header is None


def test_a_repeated_class_name_stays_in_the_prompts(coop: Path, tmp_path: Path) -> None:
    names = ["crane", "bird", "crane (2)"]  # as predictions.csv has them
    write_run(tmp_path, table(names, images=24))
    write_model(tmp_path, "CoOp", ctx_init=WORDS)
    run = page_of(tmp_path)
    assert run.predictions is not None
    assert model_of(run, run.predictions).classnames == ["crane", "bird", "crane"]


def test_other_class_names_are_set(coop: Path, tmp_path: Path) -> None:
    """A test on the new classes has others than the checkpoint."""
    others = table(("a&b", "<i>", "c"), images=24)
    write_images(tmp_path, others.paths)
    write_run(tmp_path, others)
    write_model(tmp_path, "CoOp", ctx_init=WORDS)
    run = page_of(tmp_path)
    html = str(explanations.section(run).body)  # type: ignore[union-attr]
    assert run.model().classnames == ["a&b", "<i>", "c"]
    assert "<i>" not in html
    assert "a&amp;b" in html


def test_a_choice_is_even_and_in_order() -> None:
    labels = np.array([2, 0, 0, 0, 1, 2, -1])
    chosen = PredictionTable(
        list(CLASSES),
        [str(i) for i in range(7)],
        labels,
        np.zeros(7, np.int64),
        [""] * 7,
        np.full((7, 3), 1 / 3, np.float32),
    )
    assert evenly_chosen(chosen, 5) == [6, 1, 4, 0, 2]
    assert evenly_chosen(chosen, 100) == [6, 1, 4, 0, 2, 5, 3]


def test_the_map_lies_over_the_image() -> None:
    shown = np.zeros((4, 4), np.float32)
    shown[1, 2] = 1
    made = explanations.overlay(np.full((4, 4, 3), 0.5, np.float32), shown)
    assert made.shape == (4, 4, 3)
    brightest = np.unravel_index(made.sum(axis=2).argmax(), (4, 4))
    assert brightest == (1, 2)
    assert torch.from_numpy(made).isfinite().all()
