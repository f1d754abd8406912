"""Resume file: what an interrupted training continues from, bit for bit, after its last epoch.

The functions take a `PromptTrainer`, which imports them.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from dplq.errors import UserError
from dplq.images.settings import ReadSettings, changed_settings
from dplq.io import checkpoint
from dplq.io.atomic import write_bytes_atomically
from dplq.io.files import bytes_digest
from dplq.training.seeding import BY_NAME, BY_POSITION

RESUME_FILE = "resume.safetensors"
ADVICE = "To begin a new run choose another --output-dir, or delete that folder."


def write_state(trainer: Any) -> None:
    """Save what a resumed run needs after the epoch that was just finished."""
    momentum, rest = checkpoint.flatten_optimizer(trainer.optim)
    parts = {
        "learner": trainer.model.prompt_learner.state_dict(),
        "optimizer": momentum,
        "extra": trainer.extra_state(),
    }
    tensors = {
        f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()
    }
    best = float(trainer.best_result)
    header = {
        "epoch": trainer.epoch + 1,
        "run_seed": trainer.run_seed,
        "optimizer": rest,
        "scaler": trainer.scaler.state_dict() if trainer.scaler else None,
        "best_result": best if math.isfinite(best) else None,
        "train_seconds": trainer.train_seconds,
        "train_steps": trainer.train_steps,
        "draw": trainer.draw,
        "settings": settings(trainer),
    }
    checkpoint.save(trainer.model_dir(trainer.output_dir) / RESUME_FILE, tensors, header)


def recorded_draw(folder: Path) -> str:
    """Return how the run whose checkpoints are in `folder`, if any, drew its few-shot images."""
    path = folder / RESUME_FILE
    if not path.is_file():
        return BY_NAME
    try:
        _, header = checkpoint.read(path)
    except UserError:  # reported when it is to be used
        return BY_NAME
    return header.get("draw", BY_POSITION)  # version 0.1.0 did not write it


def read_state(trainer: Any, directory: str) -> int:
    """Restore a trainer from a resume file; return the number of finished epochs.

    Raises:
        UserError: what lies there was trained with other settings, or RESUME names a folder
            without such a file.
    """
    folder = trainer.model_dir(directory)
    path = folder / RESUME_FILE
    if not path.is_file():
        if trainer.cfg.RESUME:
            raise UserError(f"RESUME is {directory}, but there is no {path}.")
        print("No checkpoint found, train from scratch")
        return 0
    tensors, header = checkpoint.read(path)
    expected = {"settings": json.loads(json.dumps(settings(trainer)))}
    checkpoint.check_header(header, expected, path, ADVICE)
    parts: dict[str, dict[str, Tensor]] = {"learner": {}, "optimizer": {}, "extra": {}}
    for name, tensor in tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = tensor
    checkpoint.load_strictly(trainer.model.prompt_learner, parts["learner"], path)
    checkpoint.restore_optimizer(trainer.optim, parts["optimizer"], header["optimizer"])
    trainer.load_extra_state(parts["extra"])
    if trainer.scaler and header["scaler"]:
        trainer.scaler.load_state_dict(header["scaler"])
    trainer.run_seed = header["run_seed"]
    trainer.train_seconds, trainer.train_steps = header["train_seconds"], header["train_steps"]
    if header["best_result"] is not None:
        trainer.best_result = header["best_result"]
    _copy_checkpoints(folder, trainer.model_dir(trainer.output_dir))
    print(f"Found checkpoint at {directory} (will resume after epoch {header['epoch']})")
    return header["epoch"]


def _copy_checkpoints(source: Path, target: Path) -> None:
    """Copy the checkpoints of a run that is continued in another folder."""
    if target.resolve() != source.resolve():
        for path in source.glob(checkpoint.NUMBERED):
            write_bytes_atomically(target / path.name, path.read_bytes())


def _input(node: Any) -> dict[str, Any]:
    """Return `cfg.INPUT`, of the reader's keys only what is not the default.

    Versions before the reader wrote none of them.
    """
    keys = {field.name.upper() for field in fields(ReadSettings)}
    return {k: v for k, v in node.items() if k not in keys} | changed_settings(node)


def settings(trainer: Any) -> dict[str, Any]:
    """Return what must be the same for a run to be resumed."""
    cfg = trainer.cfg
    images = [(item.label, Path(item.impath).name) for item in trainer.dm.dataset.train_x]
    return {
        "model": {k: v for k, v in trainer.model.header().items() if k != "classnames"},
        "classnames": list(trainer.dm.dataset.classnames),
        "optim": dict(cfg.OPTIM),
        "input": _input(cfg.INPUT),
        "train_loader": dict(cfg.DATALOADER.TRAIN_X),
        "resized_images": cfg.DATALOADER.IMAGE_CACHE == "resized",
        "workers": cfg.DATALOADER.NUM_WORKERS,
        "images": bytes_digest(repr(images).encode()),
        # none in files that are older than the key
        "class_weights": cfg.TRAIN.CLASS_WEIGHTS or None,
        "final_model": cfg.TEST.FINAL_MODEL,
        "seed": cfg.SEED,
        "precision": trainer.precision.name,
    }
