"""The numbers of a test, the most important first."""

from __future__ import annotations

from statistics import harmonic_mean
from typing import Any, NamedTuple

from dplq.io.runs.files import MOST_NUMBERS
from dplq.report.numbers import counted, decimal, interval, percent
from dplq.report.run_page import RunPage, predictions_of
from dplq.report.section import Section
from dplq.report.tables import table
from dplq.report.templating import fill


class Metric(NamedTuple):
    """A metric of `summarise`: its key there, its name, how it is shown, what it means."""

    key: str
    name: str
    is_percent: bool = True
    has_interval: bool = True
    meaning: str = ""


TILES = (
    Metric("accuracy", "Accuracy"),
    Metric("balanced_accuracy", "Balanced accuracy"),
    Metric("macro_f1", "Macro-F1"),
    Metric(
        "macro_auroc",
        "Macro AUROC",
        is_percent=False,
        meaning="mean over classes of the chance that an image of the class gets a higher "
        "probability of it than another image; 0.5: by chance, 1: always",
    ),
    Metric(
        "ece",
        "Calibration error (ECE)",
        is_percent=False,
        has_interval=False,  # a percentile bootstrap of a statistic that is biased upward
        meaning="expected calibration error, the mean distance of confidence and accuracy; "
        "0: probabilities are what they say",
    ),
)
OTHERS = (
    Metric(
        "macro_average_precision",
        "Macro average precision",
        is_percent=False,
        meaning="mean over classes of the area under the precision-recall curve; 1 is best",
    ),
    Metric(
        "brier",
        "Brier score",
        is_percent=False,
        meaning="mean squared error of the probabilities, summed over classes; 0 is best, 2 worst",
    ),
    Metric(
        "log_loss",
        "Log loss",
        is_percent=False,
        meaning="mean of -ln of the true class's probability; 0 is best",
    ),
)


class Shown(NamedTuple):
    """A number of the page: text, unit, interval; empty strings for nothing."""

    name: str
    value: str
    unit: str
    interval: str


def section(run: RunPage) -> Section:
    """Return the section; every run has it."""
    metrics = run.metrics
    if metrics is None:
        body = fill(
            "numbers.html",
            tiles=_of_results(run),
            table="",
            meanings=(),
            missing=_missing(run),
            over="",
        )
    else:
        rows = [shown(metrics, metric) for metric in (*TILES, *OTHERS)]
        body = fill(
            "numbers.html",
            tiles=rows[: len(TILES)],
            table=table(
                "Macro: mean over classes.",
                ("metric", "value", "95 % interval"),
                [
                    (row.name, f"{row.value} {row.unit}".strip(), row.interval or "-")
                    for row in (*rows, *_halves(run))
                ],
            ),
            meanings=[(m.name, m.meaning) for m in (*TILES, *OTHERS) if m.meaning],
            missing=_missing(run),
            over=_over(metrics),
        )
    return Section("Results", "results", body)


def shown(metrics: dict[str, Any], metric: Metric) -> Shown:
    """Return a metric as the page shows it."""
    value = metrics[metric.key]
    text = percent(value) if metric.is_percent else decimal(value)
    pair = (metrics["intervals"] or {}).get(metric.key) if metric.has_interval else None
    unit = "%" if metric.is_percent and value is not None else ""
    return Shown(metric.name, text, unit, interval(pair, metric.is_percent))


def _halves(run: RunPage) -> list[Shown]:
    """Return the numbers of a generalised test (`dplq.evaluation.halves`); none of another."""
    found = run.results.generalised
    if found is None:
        return []
    both = found.base, found.new
    return [
        Shown(f"Generalised: {name}", f"{value:.1f}", "%", "")
        for name, value in (
            ("accuracy on images of base classes", found.base),
            ("accuracy on images of new classes", found.new),
            ("harmonic mean of both", harmonic_mean(both)),
        )
    ]


def _of_results(run: RunPage) -> list[Shown]:
    """Return what ``results.json`` alone has."""
    results = run.results
    found = [("Accuracy", results.accuracy), ("Macro-F1", results.macro_f1)]
    return [Shown(name, f"{value:.1f}", "%", "") for name, value in found if value is not None]


def _over(metrics: dict[str, Any]) -> str:
    """Return a sentence on what the numbers are of."""
    said = f"Of {counted(metrics['images'], 'image')}"
    if metrics["unlabelled"]:
        said += f" ({metrics['unlabelled']:,} more have no label and are not counted)"
    drawn = metrics["intervals"]
    if drawn:
        over = f"over the {drawn['units']:,} {drawn['over']}"
        known = [metric.key for metric in TILES if metric.has_interval and drawn.get(metric.key)]
        if known == ["accuracy"]:  # of images that are all right, or all wrong
            said += f". Interval of the accuracy: 95 %, exact (Clopper and Pearson), {over}"
        elif known:
            said += f". Intervals: 95 %, bootstrap {over}, {drawn['draws']:,} draws"
        else:
            said += f". No intervals: a bootstrap {over} tells too little"
    if certain := metrics.get("certain"):
        said += (
            f". Of {counted(certain, 'image')} a class has the probability 1 to the last digit: "
            "areas under curves count these as equally likely"
        )
    empty = metrics["classes_without_images"]
    if empty:
        said += f". Classes without a test image: {', '.join(empty[:10])}"
        said += f" and {len(empty) - 10} more" * (len(empty) > 10)
    return f"{said}."


def _missing(run: RunPage) -> str:
    """Return what the page of a test lacks, and how to get it; "" where it lacks nothing."""
    if run.predictions is not None:
        return "" if run.metrics else "No image has a label, so there are no metrics."
    if run.metrics is not None:
        return (
            f"There is no {predictions_of(run.file).name}, so ROC curves, pictures and what the "
            f"model uses are missing; the metrics are those of {run.file.name}. A test writes none "
            f"above {MOST_NUMBERS:,} probabilities (images x classes)."
        )
    results = run.results
    name = f"results-{results.dataset}-{results.subsample}-{results.split}.json"
    return (
        "The run has no predictions.csv (of an earlier version, or TEST.PREDICTIONS False): "
        "intervals, confusion matrix, ROC curves, calibration and pictures are missing. The "
        f"command of the training with --eval-only --model-dir {run.folder.name} (its folder) "
        f"tests again and writes them; then give dplq report {name}, or the folder of that test."
    )
