"""Resume file: what an interrupted training continues from, bit for bit, after its last epoch.

The file of the epoch before is kept: should the last one be damaged, one epoch is repeated. The
functions take a `PromptTrainer`, which imports them.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from torch import Tensor

from dplq.errors import UserError
from dplq.images.settings import ReadSettings, changed_settings
from dplq.io import checkpoint
from dplq.io.atomic import write_bytes_atomically
from dplq.io.checkpoint import DamagedFile
from dplq.io.files import bytes_digest
from dplq.io.runs.files import PREVIOUS_RESUME_FILE, RESUME_FILE
from dplq.io.runs.results import Percent
from dplq.io.validation.schema import Count, InvalidContent, convert
from dplq.training.distributed import is_main, wait_for_all
from dplq.training.seeding import BY_NAME, BY_POSITION

ANEW = "To begin a new run choose another --output-dir, or add --overwrite."
AboveZero = Annotated[float, Meta(gt=0)]


class ScalerState(msgspec.Struct):
    """State of a `torch.amp.GradScaler`."""

    scale: AboveZero
    growth_factor: Annotated[float, Meta(gt=1)]
    backoff_factor: Annotated[float, Meta(gt=0, lt=1)]
    growth_interval: Annotated[int, Meta(ge=1)]
    growth_tracker: Count = msgspec.field(name="_growth_tracker")


class ResumeHeader(msgspec.Struct):
    """What a resume file holds beside its tensors.

    Attributes:
        epoch: number of finished epochs.
        run_seed: that all generators of the run are made from.
        optimizer: index and plain values of every parameter's state.
        scaler: state of the loss scaler; None without one.
        best_result: best validation accuracy so far; None before the first.
        train_seconds: spent in steps.
        train_steps: number of steps.
        cached_batches: steps whose frozen features were read from the cache.
        validated: number of epochs that were validated; None in files older than the key.
        settings: what must be the same for the run to be resumed.
        draw: how the few-shot images were drawn; version 0.1.0 did not write it.
        start_accuracy: on the training images before the first step; None where not measured.
    """

    epoch: Annotated[int, Meta(ge=1, le=2**31)]
    run_seed: Annotated[int, Meta(ge=0, lt=2**32)]
    optimizer: list[tuple[Count, dict[str, Any]]]
    scaler: ScalerState | None
    best_result: float | None
    train_seconds: Annotated[float, Meta(ge=0)]
    train_steps: Count
    settings: dict[str, Any]
    draw: Literal[BY_NAME, BY_POSITION] = BY_POSITION  # type: ignore[valid-type]
    start_accuracy: Percent | None = None
    cached_batches: Count = 0
    validated: Count | None = None


def state_file(folder: Path) -> Path:
    """Return the resume file of a run; the previous one if a kill left no other."""
    last, previous = folder / RESUME_FILE, folder / PREVIOUS_RESUME_FILE
    return previous if previous.is_file() and not last.is_file() else last


def state_tensors(trainer: Any) -> dict[str, Tensor]:
    """Return the tensors of a trainer's resume file: weights, optimiser, what else it keeps."""
    parts = {
        "learner": trainer.model.prompt_learner.state_dict(),
        "optimizer": checkpoint.flatten_optimizer(trainer.optim)[0],
        "extra": trainer.extra_state(),
    }
    return {
        f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()
    }


def write_state(trainer: Any) -> None:
    """Save what a resumed run needs after the epoch that was just finished."""
    tensors, rest = state_tensors(trainer), checkpoint.flatten_optimizer(trainer.optim)[1]
    best = float(trainer.best_result)
    header = {
        "epoch": trainer.epoch + 1,
        "run_seed": trainer.run_seed,
        "optimizer": rest,
        "scaler": trainer.scaler.state_dict() if trainer.scaler else None,
        "best_result": best if math.isfinite(best) else None,
        "train_seconds": trainer.train_seconds,
        "train_steps": trainer.train_steps,
        "cached_batches": trainer.cached_batches,
        "draw": trainer.draw,
        "start_accuracy": trainer.start_accuracy,
        "validated": trainer.validated_epochs,
        "settings": settings(trainer),
    }
    path = trainer.model_dir(trainer.output_dir) / RESUME_FILE
    if path.is_file():
        os.replace(path, path.with_name(PREVIOUS_RESUME_FILE))
    checkpoint.save(path, tensors, header)


def recorded_draw(folder: Path) -> str:
    """Return how the run whose checkpoints are in `folder`, if any, drew its few-shot images."""
    path = state_file(folder)
    if not path.is_file():
        return BY_NAME
    try:
        return _checked(checkpoint.read_header(path), path).draw
    except UserError:  # reported when it is to be used
        return BY_NAME


def read_state(trainer: Any, directory: str) -> int:
    """Restore a trainer from a resume file; return the number of finished epochs.

    Raises:
        UserError: what lies there is damaged or was trained with other settings, or RESUME names a
            folder without such a file.
    """
    folder = trainer.model_dir(directory)
    path = state_file(folder)
    if not path.is_file():
        if trainer.cfg.RESUME:
            raise UserError(f"RESUME is {directory}, but there is no {path}.")
        print("No checkpoint found, train from scratch")
        return 0
    try:
        done = _restore(trainer, path)
    except DamagedFile as error:
        raise UserError(f"{path} {error.problem}. {_way_out(path)}") from error
    if is_main():
        _copy_checkpoints(folder, trainer.model_dir(trainer.output_dir))
    wait_for_all()
    if path.name == PREVIOUS_RESUME_FILE:
        print(f"{folder / RESUME_FILE} is not there: the run goes on from {PREVIOUS_RESUME_FILE}")
    print(f"Found checkpoint at {directory} (will resume after epoch {done})")
    _check_best_model(trainer, done)
    if done == trainer.max_epoch:
        _restore_last_model(trainer)
    return done


def _check_best_model(trainer: Any, done: int) -> None:
    """Refuse to go on without the model that the run will test, where one was saved."""
    path = trainer.model_dir(trainer.output_dir) / checkpoint.BEST
    cfg, is_known = trainer.cfg, math.isfinite(trainer.best_result)
    if cfg.TEST.FINAL_MODEL != "best_val":
        return
    if trainer.validated_epochs < done and not cfg.TEST.NO_TEST:
        raise UserError(
            f"TEST.FINAL_MODEL best_val: of the {done} epochs of {trainer.output_dir} "
            f"{done - trainer.validated_epochs} were trained with TEST.NO_TEST True, so they were "
            "not validated and cannot be compared. Train again (train.py --overwrite)."
        )
    if is_known and not path.is_file():
        raise UserError(
            f"{path} is not there, the model that TEST.FINAL_MODEL best_val tests. Restore it from "
            "a copy, or train again (train.py --overwrite)."
        )


def _restore_last_model(trainer: Any) -> None:
    """Save the model of a run whose epochs are all done once more, if it is lost or damaged."""
    name = checkpoint.NUMBERED.replace("*", str(trainer.max_epoch))
    if not checkpoint.is_good(trainer.model_dir(trainer.output_dir) / name):
        trainer.save_model(trainer.max_epoch - 1, trainer.output_dir)


def _restore(trainer: Any, path: Path) -> int:
    """Restore a trainer from a resume file; return the number of finished epochs.

    Raises:
        DamagedFile: it is not whole, or holds what no run has written.
        UserError: it is of a run with other settings.
    """
    tensors, content = checkpoint.read(path)
    header = _checked(content, path)
    expected = {"settings": json.loads(json.dumps(settings(trainer)))}
    checkpoint.check_header(content, expected, path, ANEW)
    _check_run(trainer, header, path)
    parts: dict[str, dict[str, Tensor]] = {"learner": {}, "optimizer": {}, "extra": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise DamagedFile(path, f"is damaged: it has a tensor {name}")
        parts[part][rest] = tensor
    checkpoint.load_strictly(trainer.model.prompt_learner, parts["learner"], path)
    trainer.load_extra_state(parts["extra"])
    try:
        checkpoint.restore_optimizer(trainer.optim, parts["optimizer"], header.optimizer)
    except ValueError as error:
        raise DamagedFile(path, f"is damaged: in its optimizer, {error}") from error
    if trainer.scaler:
        trainer.scaler.load_state_dict(content["scaler"])
    trainer.run_seed = header.run_seed
    trainer.start_accuracy = header.start_accuracy
    trainer.train_seconds, trainer.train_steps = header.train_seconds, header.train_steps
    trainer.cached_batches = header.cached_batches
    if header.best_result is not None:
        trainer.best_result = header.best_result
    unrecorded = header.epoch if math.isfinite(trainer.best_result) else 0
    trainer.validated_epochs = unrecorded if header.validated is None else header.validated
    return header.epoch


def _checked(content: dict[str, Any], path: Path) -> ResumeHeader:
    try:
        return convert(content, ResumeHeader, where="the header")
    except InvalidContent as error:
        raise DamagedFile(path, f"is damaged: in its header, {error.problem}") from error


def _check_run(trainer: Any, header: ResumeHeader, path: Path) -> None:
    """Refuse a header that contradicts the run's settings, which are known to agree."""
    seed = trainer.cfg.SEED if trainer.cfg.SEED >= 0 else header.run_seed
    wrong = {
        "epoch": header.epoch > trainer.max_epoch,
        "run_seed": header.run_seed != seed,
        "scaler": (header.scaler is None) != (trainer.scaler is None),
    }
    for key in (key for key, is_wrong in wrong.items() if is_wrong):
        value = getattr(header, key)
        raise DamagedFile(path, f"is damaged: in its header, {key} {value} is not this run's")


def _way_out(path: Path) -> str:
    """Return what to do with a damaged resume file: the last good epoch, and how to go on."""
    previous = path.with_name(PREVIOUS_RESUME_FILE)
    good = checkpoint.good_epochs(path.parent)
    kept = f" Good models beside it: epoch {', '.join(good)} (--load-epoch)." if good else ""
    try:
        if path == previous:
            raise DamagedFile(path, "")
        epoch = _checked(checkpoint.read(previous)[1], previous).epoch
    except UserError:
        return f"Delete it to train from the first epoch on.{kept} {ANEW}"
    return f"Delete it to go on from {PREVIOUS_RESUME_FILE}, after epoch {epoch}.{kept} {ANEW}"


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
