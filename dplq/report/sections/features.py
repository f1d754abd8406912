"""The features of the test images in the plane: the model's beside CLIP's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from torch import Tensor

from dplq.errors import UserError
from dplq.evaluation.prediction_table import PredictionTable
from dplq.explain.features import FEWEST, Embedding, embed
from dplq.report.explained import evenly_chosen, images_of, model_of, problem_of, tensor_of
from dplq.report.figures import INK, SOFT, drawing, new_chart, svg_figure
from dplq.report.labels import labels_of
from dplq.report.numbers import counted, decimal, percent
from dplq.report.run_page import RunPage
from dplq.report.section import Section
from dplq.report.tables import table as table_of
from dplq.report.templating import fill

MOST = 300  # images
BATCH = 50  # images of a forward pass
# Of middle brightness, so that they are seen on light and on dark; with the marks, 30 classes.
COLOURS = (
    *("#3b82c4", "#d9772b", "#3f9b57", "#c9484f", "#8a6fc0"),
    *("#93695c", "#cf70ad", "#85888d", "#a5a32f", "#2ea5b5"),
)
MARKS = ("o", "^", "s")


def section(run: RunPage) -> Section | None:
    """Return the section; None without predictions, or where nothing is explained."""
    predictions = run.predictions
    if not run.options.explanations or predictions is None or run.checkpoint is None:
        return None
    rows = evenly_chosen(predictions, MOST)
    if len(rows) < FEWEST:
        return None
    try:
        adapted, plain = _features(run, predictions, rows)
    except UserError as error:
        body = fill("features.html", problem=problem_of(error), figure="", numbers="")
        return Section("Features", "features", body)
    labels = predictions.labels[rows]
    found = {"Model": embed(adapted, labels), "CLIP alone": embed(plain, labels)}
    same = adapted.shape == plain.shape and bool(torch.allclose(adapted, plain, atol=1e-6))
    body = fill(
        "features.html",
        problem="",
        figure=_figure(found, labels, predictions.classes),
        numbers=_numbers(found),
        images=len(rows),
        counted=counted(len(predictions.paths), "image"),
        same=same,
    )
    return Section("Features", "features", body)


def _features(run: RunPage, table: PredictionTable, rows: list[int]) -> tuple[Tensor, Tensor]:
    """Return the model's features and CLIP's, (N, d) each."""
    model = model_of(run, table)
    adapted, plain = [], []
    for start in range(0, len(rows), BATCH):
        batch = tensor_of(model, images_of(run, table, rows[start : start + BATCH]))
        with torch.no_grad():
            adapted.append(model.image_features(batch).float())
            plain.append(model.image_features(batch, adapted=False).float())
    return torch.cat(adapted), torch.cat(plain)


def _numbers(found: dict[str, Embedding]) -> Markup:
    return table_of(
        "How well the features separate the classes, in all their dimensions.",
        ("features", "5 nearest images agree (%)", "silhouette"),
        [(name, percent(e.neighbours), decimal(e.silhouette)) for name, e in found.items()],
    )


def _figure(found: dict[str, Embedding], labels: NDArray[np.int64], names: list[str]) -> Markup:
    many = len(names) > len(COLOURS) * len(MARKS)
    columns = 0 if many else (len(names) - 1) // 10 + 1
    with drawing():
        figure = new_chart(9, 4.3 + 0.2 * (0 if many else -(-len(names) // 5)))
        panels = figure.subplots(1, len(found))
        for axes, (name, embedding) in zip(panels, found.items(), strict=True):
            _scatter(axes, embedding.points, labels, names, many)
            axes.set(title=name, xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        if columns:
            handles, texts = panels[0].get_legend_handles_labels()
            figure.legend(
                handles, texts, loc="outside lower center", ncols=5, fontsize=8, labelcolor=INK
            )
        return svg_figure(
            figure,
            "features-plane",
            f"Two scatter plots of the features of {len(labels)} images by t-SNE, the model's and "
            "CLIP's own. The table has how well each separates the classes.",
            _caption(found, many),
            wide=560,
        )


def _scatter(
    axes: Any, points: NDArray[Any], labels: NDArray[np.int64], names: list[str], many: bool
) -> None:
    unknown = labels < 0
    if unknown.any():
        axes.scatter(*points[unknown].T, s=8, color=SOFT, linewidths=0, label="no label")
    if many:
        axes.scatter(*points[~unknown].T, s=8, color=COLOURS[0], linewidths=0)
        return
    for index, name in enumerate(labels_of(names).values()):
        own = labels == index
        if own.any():
            colour, mark = COLOURS[index % len(COLOURS)], MARKS[index // len(COLOURS)]
            axes.scatter(*points[own].T, s=14, color=colour, marker=mark, linewidths=0, label=name)


def _caption(found: dict[str, Embedding], many: bool) -> str:
    perplexity = next(iter(found.values())).perplexity
    shown = "With so many classes all have one colour. " if many else ""
    return (
        f"{shown}t-SNE (perplexity {perplexity:.3g}, fixed seed): which images are neighbours "
        "means something; distances between clusters, and their sizes, do not."
    )
