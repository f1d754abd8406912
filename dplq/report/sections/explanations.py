"""What the model uses: attention, nearest words, the domain feature, the prompts by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dplq.errors import UserError
from dplq.evaluation.prediction_table import PredictionTable
from dplq.explain import attention_map, domain_effect, layer_effects, nearest_words
from dplq.explain.nearest_words import TokenWords
from dplq.methods.base import CLIPModel
from dplq.report.explained import (
    evenly_chosen,
    images_of,
    model_of,
    pixels_of,
    problem_of,
    tensor_of,
)
from dplq.report.figures import picture_url
from dplq.report.numbers import counted, decimal, percent
from dplq.report.run_page import RunPage
from dplq.report.section import Section
from dplq.report.sections.gallery import most_certain_mistakes
from dplq.report.tables import table as table_of
from dplq.report.templating import fill

MOST = 32  # images that numbers are means of
MAPS = 6  # pictures of a kind with maps
EDGE = 160  # pixels of a picture with a map
WORDS = 5
TOKENS = 64  # rows of the table of words
GAP = "#808080"  # between pictures; on light and on dark pages
SOURCES = {"own": "own", "mean": "mean", "other": "another's"}


@dataclass(frozen=True)
class Strip:
    """An image and its maps, side by side in one picture.

    Attributes:
        line: of the image in ``predictions.csv``.
        path: of the image.
        picture: as a ``data:`` URL.
        label: true class; "" where it is not known.
        guess: class the model predicts.
        maps: number of maps: of the predicted class, and of the true one if it is another.
    """

    line: int
    path: str
    picture: str
    label: str
    guess: str
    maps: int


def section(run: RunPage) -> Section | None:
    """Return the section; None without predictions, or where nothing is explained."""
    table = run.predictions
    if not run.options.explanations or table is None:
        return None
    values: dict[str, object] = dict.fromkeys(("strips", "words", "domain", "layers"), "")
    values |= {"problem": "", "images": run.options.images, "missing": ""}
    try:
        if run.checkpoint is None:
            raise UserError(f"{run.checkpoint_problem} Nor can the features.")
        values["checkpoint"] = run.checkpoint.name
        model, rows = model_of(run, table), evenly_chosen(table, MOST)
        batch = tensor_of(model, images_of(run, table, rows))
        labels = torch.from_numpy(table.labels[rows])
        missing: list[str] = []
        values |= {
            "of": f"{len(rows)} of the {counted(len(table.paths), 'image')}",
            "is_part": len(rows) < len(table.paths),
            "is_certain": run.results.epochs is not None,
            "words": _or_missing(lambda: _words(model, batch), missing),
            "domain": _or_missing(lambda: _domain(model, batch, labels), missing),
            "layers": _or_missing(lambda: _layers(model, batch), missing),
            "missing": missing,
        }
        if run.options.images:
            values["strips"] = _or_missing(lambda: _strips(run, model, table), missing)
    except UserError as error:
        values["problem"] = problem_of(error)
    return Section("What the model uses", "explanations", fill("explanations.html", **values))


def _or_missing(make: Callable[[], object], missing: list[str]) -> object:
    """Return what is made; "" where the method has nothing to show, which `missing` then says."""
    try:
        return make()
    except UserError as error:
        missing.append(str(error))
        return ""


def _words(model: CLIPModel, images: Tensor) -> Markup:
    found = nearest_words(model, images, k=WORDS)
    rows = [
        (
            *([token.classname] if token.classname else []),
            token.position + 1,
            ", ".join(f"{near.word} ({near.euclidean:.2f})" for near in token.words),
            decimal(token.words[0].cosine, 2),
            *([decimal(token.spread, 2)] if _depends(found.tokens) else []),
        )
        for token in found.tokens
    ]
    more = "" if len(rows) <= TOKENS else f" The first {TOKENS} of {len(rows):,} tokens."
    headings = [
        *(["class"] if found.tokens[0].classname else []),
        "token",
        f"{WORDS} nearest words (Euclidean distance)",
        "cosine distance of the first",
        *(["spread over images"] if _depends(found.tokens) else []),
    ]
    labels = 3 if found.tokens[0].classname else 2
    return table_of(
        f"Words of CLIP's vocabulary nearest to each learned context token.{more} For scale: the "
        f"median distance of a word to its nearest other word is {found.typical:.2f}.",
        headings,
        rows[:TOKENS],
        labels=labels,
    )


def _depends(tokens: list[TokenWords]) -> bool:
    """Return whether the context depends on the image."""
    return any(token.spread > 0 for token in tokens)


def _domain(model: CLIPModel, images: Tensor, labels: Tensor) -> Markup:
    found = domain_effect(model, images, labels)
    return table_of(
        "With the image's own domain feature, the mean of these images', and another image's. For "
        "scale: the logits of an image spread over the classes with a standard deviation of "
        f"{found.logit_spread:.2f}.",
        ("feature", "accuracy (%)", "logit change", "changed predictions (%)"),
        [
            (
                SOURCES[row.source],
                percent(row.accuracy),
                decimal(row.logit_change),
                percent(row.changed),
            )
            for row in found.rows
        ],
    )


def _layers(model: CLIPModel, images: Tensor) -> Markup | str:
    found = layer_effects(model, images)
    if not found:
        return ""
    return table_of(
        "Cosine distance of the features with and without the prompts of one layer.",
        ("layer", "image feature", "changed predictions (%)", "text features"),
        [
            (
                effect.layer + 1,
                _distance(effect.image),
                percent(effect.changed),
                _distance(effect.text),
            )
            for effect in found
        ],
    )


def _distance(value: float | None) -> str:
    """Return a distance that may be tiny: two digits of it."""
    return "-" if value is None else f"{value:.2g}"


def _strips(run: RunPage, model: CLIPModel, table: PredictionTable) -> list[Strip]:
    """Return images with their maps: the most certain mistakes, then hits."""
    mistakes = most_certain_mistakes(table)[:MAPS].tolist()
    right = [r for r in evenly_chosen(table, len(table.paths)) if r not in mistakes]
    hits = [row for row in right if table.labels[row] == table.predictions[row]][:MAPS]
    rows = [*mistakes, *(hits or right[:MAPS])]
    images = tensor_of(model, images_of(run, table, rows))
    with torch.no_grad():
        guess = model(images).argmax(dim=1)
    labels = torch.from_numpy(table.labels[rows])
    wrong = (labels >= 0) & (labels != guess)
    maps = attention_map(model, images, guess).numpy()
    true = attention_map(model, images, torch.where(wrong, labels, guess)).numpy()
    pixels = pixels_of(model, images)
    strips = []
    for i, row in enumerate(rows):
        parts = [pixels[i], overlay(pixels[i], maps[i])]
        if wrong[i]:
            parts.append(overlay(pixels[i], true[i]))
        label = int(labels[i])
        strips.append(
            Strip(
                line=row + 2,
                path=table.paths[row],
                picture=picture_url(_side_by_side(parts)),
                label=table.classes[label] if label >= 0 else "",
                guess=table.classes[int(guess[i])],
                maps=len(parts) - 1,
            )
        )
    return strips


def overlay(pixels: NDArray[np.float32], shown: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pixels (H, W, 3) in grey, with a map (H, W), 0 to 1, in colour over them."""
    from matplotlib import colormaps

    grey = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    colours = colormaps["inferno"](shown)[..., :3]
    strength = 0.25 + 0.5 * shown[..., None]
    return ((1 - strength) * grey + strength * colours).astype(np.float32)


def _side_by_side(parts: list[NDArray[np.float32]]) -> Image.Image:
    """Return pictures as one, three places wide, with a gap between them."""
    gap = 2
    strip = Image.new("RGB", (len(parts) * EDGE + (len(parts) - 1) * gap, EDGE), GAP)
    for place, part in enumerate(parts):
        image = Image.fromarray((part.clip(0, 1) * 255 + 0.5).astype(np.uint8))
        strip.paste(image.resize((EDGE, EDGE), Image.Resampling.BICUBIC), (place * (EDGE + gap), 0))
    return strip
