"""Tracking of a trainer's run: what it sends to its trackers (dplq/training/tracking)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from dplq.errors import few
from dplq.host.run_identity import node_of
from dplq.io.nodes import flatten
from dplq.io.runs.files import EPOCHS_FILE
from dplq.io.runs.settings import plain_value
from dplq.io.validation.local_paths import without_folders
from dplq.training.tracking.base import TrackedRun
from dplq.training.tracking.epochs import read_epochs
from dplq.training.tracking.trackers import Trackers, open_trackers

# Folders of this machine, which are sent to no service.
LOCAL_FOLDERS = ("OUTPUT_DIR", "RESUME", "DATASET.ROOT")
SCALARS = ("accuracy", "macro_f1", "learnable_parameters", "peak_memory_mib", "epochs")
SECTIONS = ("metrics", "generalised", "train_accuracy", "seconds")  # of results.json, with numbers

logger = logging.getLogger(__name__)


def begin_tracking(trainer: Any, *, trains: bool = True) -> Trackers:
    """Return the trackers of a trainer that begins, or goes on.

    Args:
        trainer: a `FrozenTrainer`.
        trains: False for a test of a model that was loaded, which has no epochs of its own.

    Raises:
        UserError: a tracking service has to be set up first.
    """
    cfg = trainer.cfg
    if not trainer.output_dir:
        if cfg.TRAIN.TRACK:
            logger.warning("TRAIN.TRACK is not used: a run without OUTPUT_DIR is not tracked.")
        return Trackers([])
    folder = Path(trainer.output_dir)
    known = read_epochs(Path(cfg.RESUME) if cfg.RESUME else folder)
    if trains:
        lacking = set(range(1, trainer.start_epoch + 1)).difference(known)
        if known and lacking:
            logger.warning(
                "%s lacks the lines of finished epochs (%s); what was learned in them is kept.",
                *(EPOCHS_FILE, few(sorted(lacking))),
            )
        known = {epoch: values for epoch, values in known.items() if epoch <= trainer.start_epoch}
    trackers = open_trackers(cfg.TRAIN.TRACK, with_table=trains)
    trackers.start(
        TrackedRun(
            folder=folder,
            name=f"{group_of(cfg)} seed {cfg.SEED}",
            group=group_of(cfg),
            project=cfg.TRAIN.TRACK_PROJECT,
            settings=tracked_settings(cfg),
            earlier=known,
        )
    )
    return trackers


def group_of(cfg: Any) -> str:
    """Return what runs that differ in their seed are called together."""
    data = cfg.DATASET
    shots = f"{data.NUM_SHOTS} shots" if data.NUM_SHOTS > 0 else "all images"
    return f"{cfg.TRAINER.NAME} {data.NAME} {data.SUBSAMPLE_CLASSES} {shots}"


def tracked_settings(cfg: Any) -> dict[str, Any]:
    """Return the config keys that a service gets: not of other trainers, no folders.

    Of any value that is a local path it is the name of the file alone.
    """
    own = node_of(cfg.TRAINER.NAME)
    settings = {
        key: plain_value(key, value)
        for key, value in flatten(cfg)
        if key not in LOCAL_FOLDERS
        and (key.startswith((own, "TRAINER.NAME")) or not key.startswith("TRAINER."))
    }
    return without_folders(settings)[0]


def track_results(trackers: Trackers, results: Path) -> None:
    """Send the trackers the numbers of a ``results.json``; names begin with the file's stem."""
    content = json.loads(results.read_text(encoding="utf-8"))
    numbers = {name: content.get(name) for name in SCALARS}
    for section in SECTIONS:
        values = content.get(section) or {}
        numbers |= {f"{section}.{name}": value for name, value in values.items()}
    trackers.results(
        {
            f"{results.stem}/{name}": float(value)
            for name, value in numbers.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
    )
