"""``results.json``, the record of a finished test: schema and reader."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from dplq.errors import printable
from dplq.io.validation.paths import name_problem
from dplq.io.validation.schema import Count, InvalidContent, Name, parse_json, read_text

FORMAT = 1
Subset = Literal["base", "new", "all"]  # DATASET.SUBSAMPLE_CLASSES
SUBSETS: tuple[str, ...] = get_args(Subset)
Percent = Annotated[float, Meta(ge=0, le=100)]
Hits = Annotated[str, Meta(pattern="^([0-9a-f]{2})*$")]
Amount = Annotated[float, Meta(ge=0)]
Seed = Annotated[int, Meta(ge=0, lt=2**32)]
Shots = Annotated[int, Meta(ge=-1, le=2**53)]  # -1, as 0: all


class Seconds(msgspec.Struct):
    """Durations in seconds; None where there was nothing to time.

    Attributes:
        train: of all steps, or of features and fit.
        test: of the test.
        step: mean of a step.
        cached_batches: so many training batches took frozen features from the cache, in less time.
    """

    train: Amount | None = None
    test: Amount | None = None
    step: Amount | None = None
    cached_batches: Count = 0


class Halves(msgspec.Struct):
    """Accuracies of a generalised test (dplq/evaluation/halves.py)."""

    base: Percent
    new: Percent


class TrainAccuracy(msgspec.Struct):
    """Accuracy on the training images; `start` is None in runs that an earlier version began."""

    end: Percent
    start: Percent | None = None


class Results(msgspec.Struct):
    """What a ``results.json`` says; keys that are not named here are not read.

    Attributes:
        format: of the file.
        trainer: its registered name.
        dataset: its registered name.
        subsample: classes that were tested.
        shots: training images per class; below 1 all.
        seed: of the run.
        accuracy: top-1 accuracy in percent.
        split: part that was tested.
        split_hash: of the split; None for a host's datasets, "" in files of version 0.1.0.
        learnable_parameters: how many the model has.
        checkpoint_bytes: size of the last checkpoint.
        seconds: durations.
        macro_f1: mean F1 over the classes that were tested, in percent.
        per_class_accuracy: in percent, of the classes that were tested.
        epochs: finished epochs of the model that was tested.
        versions: of Python and packages.
        peak_memory_mib: of the device.
        precision: of the computation.
        device: name of the device.
        config: the run's, as nested dicts and lists.
        total: number of tested images; None in files of other projects.
        hits: which were right (dplq/evaluation/hits.py); "" in files of earlier versions.
        generalised: accuracies of a test of all classes, of a model of the base half; else None.
        train_accuracy: of a training by gradient steps on few images; else None.
        zero_shot: the trainer uses no training image; None in files of earlier versions.
        any_classes: it can name classes that it was not trained on; None as for `zero_shot`.
        metrics: of the probabilities (docs/metrics.md); None without, and in earlier versions.
    """

    format: Literal[1]
    trainer: Name
    dataset: Name
    subsample: Subset
    shots: Shots
    seed: Annotated[int, Meta(ge=-1, lt=2**32)]  # -1 in host trees: none
    accuracy: Percent
    split: Literal["train", "val", "test"] = "test"
    split_hash: str | None = ""
    learnable_parameters: Count | None = None
    checkpoint_bytes: Count | None = None
    seconds: Seconds = msgspec.field(default_factory=Seconds)
    macro_f1: Percent | None = None
    per_class_accuracy: dict[str, Percent] = msgspec.field(default_factory=dict)
    epochs: Count | None = None
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    peak_memory_mib: Amount | None = None
    precision: str | None = None
    device: str | None = None
    config: dict[str, Any] = msgspec.field(default_factory=dict)
    total: Count | None = None
    hits: Hits = ""
    generalised: Halves | None = None
    train_accuracy: TrainAccuracy | None = None
    zero_shot: bool | None = None
    any_classes: bool | None = None
    metrics: dict[str, Any] | None = None


_FROM_JSON = msgspec.json.Decoder(Results)
_ANY_JSON = msgspec.json.Decoder()
_KEY = re.compile(r'"\s*:')  # or a text that begins with a colon: then `parse_json` decides


def read_results(path: str | os.PathLike[str]) -> Results:
    """Return the content of a ``results.json``, checked whole.

    Raises:
        UserError: it cannot be read, or a value is missing or none that a run can have; file and
            key are named.
    """
    remedy = "Delete it, and test again: the same command, or --eval-only with --model-dir."
    text = read_text(path, remedy=remedy, max_bytes=1 << 24)
    results = _decoded(text) or parse_json(text, Results, where=printable(str(path)), remedy=remedy)
    for key in ("trainer", "dataset", "device", "precision"):  # which tables show
        if (text := getattr(results, key)) and (problem := name_problem(text)):
            raise InvalidContent(str(path), f"{key}: '{printable(text)}' {problem}", remedy)
    return results


def _decoded(text: str) -> Results | None:
    """Return a file that is surely valid, several times as fast as `parse_json`.

    None for any other, as one with a key twice: `parse_json` says why. msgspec takes the last value
    of such a key in silence, so the keys in the text are counted.
    """
    if "\\" in text:  # a text may hold an escaped quote, behind which a colon begins no value
        return None
    try:
        content = _ANY_JSON.decode(text)
        if len(_KEY.findall(text)) != _count_keys(content):
            return None
        return _FROM_JSON.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None


def _count_keys(content: Any) -> int:
    """Return how many keys all objects of a JSON content have."""
    keys, values = 0, [content]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            keys += len(value)
            values += value.values()
        elif isinstance(value, list):
            values += value
    return keys
