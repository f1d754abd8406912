"""``results.json``: the record of a finished run."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from dplq.errors import UserError
from dplq.evaluation.halves import base_count, generalised
from dplq.evaluation.hits import encode_hits
from dplq.evaluation.metrics import scores
from dplq.io.atomic import write_bytes_atomically
from dplq.io.checkpoint import NUMBERED
from dplq.io.runs.files import RESULTS_FILE
from dplq.io.runs.folder import recorded_identity
from dplq.io.runs.results import FORMAT, Results, read_results
from dplq.io.validation.paths import is_file

from .environment import device_name, git_commit, peak_memory_mib, versions
from .trained_on import split_hash

# entries of results.json, which no metric of one's own may be called
ENTRIES = frozenset((*Results.__struct_fields__, "correct", "images", "git_commit"))


def write_results(trainer: Any, path: Path, seconds: float, metrics: dict[str, Any] | None) -> None:
    """Write the results of a run, in one step.

    Args:
        trainer: a `FrozenTrainer` that has just tested.
        path: the file, ``results.json`` in most cases.
        seconds: how long the test took.
        metrics: of its probabilities, as `summarise` has them; None without.
    """
    cfg, record = trainer.cfg, trainer.evaluator
    saved = sorted(trainer.model_dir(cfg.OUTPUT_DIR).glob(NUMBERED))
    steps, learnable = trainer.train_steps, trainer.learnable_parameters
    result = {
        "format": FORMAT,
        "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME,
        "subsample": cfg.DATASET.SUBSAMPLE_CLASSES,
        "split": "test" if trainer.val_loader is None else cfg.TEST.SPLIT,
        "split_hash": split_hash(trainer),
        "shots": _shots(trainer),
        "seed": cfg.SEED,
        **scores(record.labels, record.predictions, trainer.lab2cname),
        "metrics": metrics,
        "hits": encode_hits(record.labels, record.predictions),
        "generalised": _generalised(trainer),
        "zero_shot": trainer.fixed_epochs == 0,
        "any_classes": trainer.model.any_classes,
        "train_accuracy": trainer.train_accuracy,
        "learnable_parameters": learnable,
        "checkpoint_bytes": saved[-1].stat().st_size if saved and learnable else None,
        "epochs": trainer.tested_epoch,
        "seconds": {
            "train": trainer.train_seconds or None,
            "test": seconds,
            "step": trainer.train_seconds / steps if steps else None,
            "cached_batches": trainer.cached_batches,
        },
        "peak_memory_mib": peak_memory_mib(trainer.device),
        "images": getattr(trainer.dm.dataset, "image_summary", None),
        "precision": trainer.precision.name,
        "device": device_name(trainer.device),
        "git_commit": git_commit(),
        "versions": versions(),
        "config": plain(cfg),
    }
    write_bytes_atomically(path, _short_lists(json.dumps(result, indent=1)).encode())


def _short_lists(text: str) -> str:
    """Return indented JSON with every list of numbers on one line.

    A line break in JSON is never inside a text, so that no text is changed.
    """
    return re.sub(
        r"\[\n\s*((?:[-+.\deE]+|null)(?:,\s+(?:[-+.\deE]+|null))*)\n\s*\]",
        lambda found: f"[{', '.join(found[1].replace(',', ' ').split())}]",
        text,
    )


def _shots(trainer: Any) -> int:
    """Return the training images per class: of the run whose model is tested, where that is known.

    A test on other data has no training images of its own, and often no DATASET.NUM_SHOTS.
    """
    if trainer.loaded.directory:
        folder = Path(trainer.loaded.directory)
        with contextlib.suppress(UserError):  # a damaged record says so where it is wanted
            if (identity := recorded_identity(folder)) is not None:
                return identity.shots
            if is_file(folder / RESULTS_FILE):  # of an earlier version
                return read_results(folder / RESULTS_FILE).shots
    return int(trainer.cfg.DATASET.NUM_SHOTS)


def _generalised(trainer: Any) -> dict[str, float] | None:
    """Return the accuracies of a generalised test; None for any other.

    It is one of all classes, with a model that was trained on the base half of them, or on none.
    """
    names = list(trainer.dm.dataset.classnames)
    base = base_count(len(names))
    learned = names[:base] if trainer.fixed_epochs == 0 else trainer.loaded.classnames
    is_whole = trainer.cfg.DATASET.SUBSAMPLE_CLASSES == "all" and base < len(names)
    if not is_whole or learned != names[:base]:
        return None
    record = trainer.evaluator
    return generalised(record.labels, record.predictions, base)


def plain(node: Any) -> Any:
    """Return a config as nested dicts and lists, for JSON."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    return list(node) if isinstance(node, (list, tuple)) else node
