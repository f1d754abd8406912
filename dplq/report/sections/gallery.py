"""Pictures: the most certain mistakes and the least certain hits."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dplq.errors import UserError
from dplq.evaluation.prediction_table import PredictionTable
from dplq.report.figures import picture_url
from dplq.report.numbers import percent
from dplq.report.run_page import RunPage
from dplq.report.section import Section
from dplq.report.templating import fill

MOST = 12  # pictures of a kind
EDGE = 192  # pixels of the longer side of a thumbnail


@dataclass(frozen=True)
class Card:
    """One picture.

    Attributes:
        line: of the image in ``predictions.csv``, from 2 (the header is the first).
        path: of the image; "" where the page names none.
        label: true class.
        guess: predicted class.
        certainty: probability of the predicted class, in percent.
        truth: probability of the true class, in percent.
        picture: as a ``data:`` URL; "" where there is none.
    """

    line: int
    path: str
    label: str
    guess: str
    certainty: str
    truth: str
    picture: str


def section(run: RunPage) -> Section | None:
    """Return the section; None without predictions or known labels."""
    table = run.predictions
    if table is None or not (table.labels >= 0).any():
        return None
    mistakes, hits = most_certain_mistakes(table), least_certain_hits(table)
    problems: dict[str, str] = {}
    body = fill(
        "gallery.html",
        mistakes=_cards(run, table, mistakes, problems),
        hits=_cards(run, table, hits, problems),
        images=run.options.images,
        problem=next(iter(problems.values()), ""),
        missing=len(problems),
        moves=not all(map(os.path.isabs, problems)),
        stays=any(map(os.path.isabs, problems)),
        count=len(mistakes) + len(hits),
    )
    return Section("Mistakes and uncertain hits", "images", body)


def most_certain_mistakes(table: PredictionTable) -> NDArray[np.int64]:
    """Return the wrong predictions with the highest probability, highest first."""
    wrong = np.flatnonzero((table.labels >= 0) & (table.labels != table.predictions))
    return wrong[np.argsort(-_certainty(table)[wrong], kind="stable")][:MOST]


def least_certain_hits(table: PredictionTable) -> NDArray[np.int64]:
    """Return the right predictions with the lowest probability, lowest first."""
    right = np.flatnonzero(table.labels == table.predictions)
    return right[np.argsort(_certainty(table)[right], kind="stable")][:MOST]


def _certainty(table: PredictionTable) -> NDArray[np.float32]:
    return table.probabilities[np.arange(len(table.paths)), table.predictions]


def _cards(
    run: RunPage, table: PredictionTable, rows: NDArray[np.int64], problems: dict[str, str]
) -> list[Card]:
    """Return the cards of some images; why one has no picture is added to `problems`, by path."""
    cards = []
    for row in rows.tolist():
        label, guess = int(table.labels[row]), int(table.predictions[row])
        probabilities = table.probabilities[row]
        path = table.paths[row]
        picture = ""
        if run.options.images:
            try:
                image = run.image(path, edge=EDGE)
                image.thumbnail((EDGE, EDGE))
                picture = picture_url(image)
            except UserError as error:
                problems[path] = str(error)
        cards.append(
            Card(
                line=row + 2,
                path=path if run.options.images else "",
                label=table.classes[label],
                guess=table.classes[guess],
                certainty=percent(float(probabilities[guess])),
                truth=percent(float(probabilities[label])),
                picture=picture,
            )
        )
    return cards
