"""Folders of finished runs, written without a training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dplq.evaluation.prediction_table import PredictionTable

CLASSES = ("forest", "lake", "river")


def table(
    classes: Sequence[str] = CLASSES, images: int = 60, seed: int = 0, skill: float = 2.0
) -> PredictionTable:
    """Return random predictions that are right more often than by chance."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % len(classes)
    logits = rng.normal(size=(images, len(classes)))
    logits[np.arange(images), labels] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    paths = [f"class{label}/{number}.png" for number, label in enumerate(labels)]
    groups = [f"patient{number // 3}" for number in range(images)]
    predictions = probabilities.argmax(1)
    return PredictionTable(list(classes), paths, labels, predictions, groups, probabilities)


def write_run(
    folder: Path, predictions: PredictionTable | None, root: Path | None = None, **results: Any
) -> Path:
    """Write the files of a run that was tested; `results` replaces entries of results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    total = len(predictions.paths) if predictions is not None else 60
    hits = (
        (predictions.labels == predictions.predictions).mean() if predictions is not None else 0.5
    )
    content = {
        "format": 1,
        "trainer": "CoOp",
        "dataset": "Lakes",
        "subsample": "all",
        "split": "test",
        "split_hash": "abc",
        "shots": 16,
        "seed": 1,
        "accuracy": 100 * float(hits),
        "macro_f1": 50.0,
        "per_class_accuracy": {"forest": 40.0, "lake": 60.0},
        "total": total,
        "epochs": 2,
        "device": "cpu",
        "precision": "fp32",
        "versions": {"torch": "2.14.1"},
        "config": {"DATASET": {"ROOT": str(root or folder)}, "OPTIM": {"MAX_EPOCH": 2}},
        **results,
    }
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    if predictions is not None:
        predictions.write(folder / "predictions.csv")
    return folder


def write_images(root: Path, paths: Sequence[str]) -> None:
    """Write an image of one colour for each path."""
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number % 256, 90, 120)).save(root / path)


class Page(HTMLParser):
    """What a page holds: tags with attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element of a name."""
        return [attributes for name, attributes in self.tags if name == tag]
