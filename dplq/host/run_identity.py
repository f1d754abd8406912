"""Identity of a run, from its config, and its claim on `OUTPUT_DIR`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from dplq.errors import UserError, few
from dplq.host.checks import reads_domain
from dplq.host.config import all_keys
from dplq.host.dassl import find_trainer
from dplq.io import checkpoint
from dplq.io.nodes import flatten
from dplq.io.runs.files import MODEL_FOLDER, RESULTS_FILE
from dplq.io.runs.folder import TEST, TRAIN, Identity, Kind, RunFolder, hold
from dplq.io.runs.results import Results, read_results
from dplq.io.runs.settings import INDIFFERENT, plain_value
from dplq.io.validation.paths import is_same_folder

# Keys, and sections of keys, that decide what is learned, but not how it is tested.
OF_TRAINING = (
    *("OPTIM.", "TRAIN.", "DATALOADER.TRAIN_X.", "DATALOADER.TRAIN_U.", "DATALOADER.NUM_WORKERS"),
    "TEST.FINAL_MODEL",
)
# Keys that an `Identity` has as fields of their own.
NAMED = ("TRAINER.NAME", "DATASET.NAME", "DATASET.SUBSAMPLE_CLASSES", "DATASET.NUM_SHOTS", "SEED")
FROM_SCRIPTS = "DPLQ_SETTINGS"  # environment variable with the content of settings.txt


def run_identity(
    cfg: Any,
    kind: Kind,
    *,
    split: str | None = None,
    model: str | None = None,
    weights: dict[str, str] | None = None,
    data: str | None = None,
    labels: dict[str, str] | None = None,
) -> Identity:
    """Return the identity of a run.

    Args:
        cfg: its config.
        kind: "train", or "test" of a model that lies elsewhere.
        split: hash of the split, where the dataset has been read.
        model: of a test: digest of the checkpoint, where it has been found.
        weights: digests of the files with the frozen weights, where they have been read.
        data: digest of labels and image files, where the dataset has been read.
        labels: digests of the files with labels, where the dataset has been read.
    """
    node = cfg.DATASET
    return Identity(
        kind=kind,
        trainer=cfg.TRAINER.NAME,
        dataset=node.NAME,
        subsample=getattr(node, "SUBSAMPLE_CLASSES", "all"),
        shots=node.NUM_SHOTS,
        seed=cfg.SEED,
        settings=_deciding(dict(flatten(cfg)), cfg.TRAINER.NAME, kind),
        split=split,
        model=model,
        weights=weights,
        data=data,
        labels=labels,
    )


def claim_run(cfg: Any, kind: Kind, *, resumed: bool = False, **known: Any) -> RunFolder:
    """Hold the folder `cfg.OUTPUT_DIR` for a run.

    Args:
        cfg: as for `run_identity`.
        kind: as for `run_identity`.
        resumed: the resume file in the folder is known to be of this run.
        **known: as for `run_identity`.

    Raises:
        UserError: another process writes there, or it is another run's.
    """
    folder = hold(cfg.OUTPUT_DIR)
    identity = run_identity(cfg, kind, **known)
    earlier, is_certain = None, True
    if kind == TRAIN and not folder.recorded():  # which model an earlier test was of is not known
        earlier = _from_results(folder.path, identity)
        continues = not cfg.RESUME or is_same_folder(cfg.RESUME, folder.path)
        if earlier is None and continues and has_resume_file(folder.path):
            earlier, is_certain = _from_checkpoints(folder.path, identity), resumed
    folder.claim(
        identity,
        earlier,
        defaults=default_values(),
        settings=os.environ.get(FROM_SCRIPTS, ""),
        record=is_certain,
    )
    return folder


def claim_test(
    cfg: Any,
    model_dir: str,
    epoch: int | None,
    **known: Any,
) -> Path:
    """Hold the folder `cfg.OUTPUT_DIR` for the test of a trained model.

    In a folder of its own a test owns ``results.json``. In that of the training run it writes a
    file named by what is tested.

    Args:
        cfg: the config of the test.
        model_dir: folder of the training run.
        epoch: that was chosen; None: the best or last.
        **known: as for `run_identity`.

    Returns:
        The file for the results.

    Raises:
        UserError: another process writes there, or what is there is another run's.
    """
    folder = hold(cfg.OUTPUT_DIR)
    now = run_identity(cfg, TEST, **known)
    there = (
        folder.recorded() or _from_results(folder.path, now) or _from_checkpoints(folder.path, now)
    )
    if there is None or there.kind == TEST or not folder.work():
        return claim_run(cfg, TEST, **known).path / RESULTS_FILE
    if not is_same_folder(model_dir, folder.path) or there.trainer != now.trainer:
        raise UserError(
            f"{folder.path} holds a training run of {there.trainer}, and what is to be tested is "
            f"the model of {now.trainer} in {model_dir or 'no folder'}. Give another --output-dir."
        )
    if cfg.TEST.COMPUTE_CMAT:
        raise UserError(
            f"TEST.COMPUTE_CMAT True would replace the confusion matrix of the run in "
            f"{folder.path}. Give another --output-dir."
        )
    chosen = f"-epoch{epoch}" if epoch is not None else ""
    name = f"results-{now.dataset}-{now.subsample}-{cfg.TEST.SPLIT}{chosen}.json"
    _refuse_other_test(folder.path / name, now)
    return folder.path / name


def _refuse_other_test(path: Path, now: Identity) -> None:
    """Refuse to replace the results of a test that was made with other settings."""
    if not path.is_file():
        return
    there = _identity_of(read_results(path), TEST)
    if differences := there.differences(now, default_values()):
        raise UserError(
            f"{path} holds the results of another test: {few(differences, 6, '; ')}. Give another "
            "--output-dir, or delete that file."
        )


def _deciding(flat: Mapping[str, Any], trainer: str, kind: str) -> dict[str, Any]:
    """Return the keys of a flat config that decide the result of a trainer, JSON-able."""
    cls, node = find_trainer(trainer), node_of(trainer)
    learns = kind == TRAIN and getattr(cls, "fixed_epochs", None) != 0
    model = getattr(cls, "model_class", None)
    uses_domain = model is None or reads_domain(cls, flat)  # not known of others' trainers
    kept = {
        key: plain_value(key, value)
        for key, value in flat.items()
        if key not in (*INDIFFERENT, *NAMED)
        and (learns or not key.startswith(OF_TRAINING))
        and (key.startswith(node) or not key.startswith("TRAINER."))
        and (uses_domain or not key.startswith("DOMAIN."))
    }
    if kept.get("DATALOADER.IMAGE_CACHE") == "decoded":  # the same pixels as without
        kept["DATALOADER.IMAGE_CACHE"] = ""
    return kept


def node_of(trainer: str) -> str:
    """Return the section of a config with a trainer's own keys, such as "TRAINER.COOP."."""
    return f"TRAINER.{getattr(find_trainer(trainer), 'node', trainer.upper())}."


def default_values() -> dict[str, Any]:
    """Return the default of every config key, Dassl's and this project's, JSON-able."""
    from dassl.config import get_cfg_default

    theirs = dict(flatten(get_cfg_default()))
    both = theirs | {key: default for key, default, _ in all_keys()}
    return {key: plain_value(key, value) for key, value in both.items()}


def _from_results(folder: Path, now: Identity) -> Identity | None:
    """Return the identity of the run whose results lie in a folder without ``run.json``, if any.

    Version 0.1.0 wrote none.
    """
    try:
        found = read_results(folder / RESULTS_FILE)
    except UserError:  # none, or damaged
        return None
    return _identity_of(found, TRAIN if _checkpoints(folder) else now.kind)


def has_resume_file(folder: str | Path) -> bool:
    """Return whether a run can be resumed from what lies in its folder."""
    return any((Path(folder) / MODEL_FOLDER).glob("resume*.safetensors"))


def _identity_of(found: Results, kind: Kind) -> Identity:
    config, shots = dict(flatten(found.config)), found.shots
    if kind == TEST:  # whose results have those of the training
        shots = config.get("DATASET.NUM_SHOTS", shots)
    return Identity(
        kind=kind,
        trainer=found.trainer,
        dataset=found.dataset,
        subsample=found.subsample,
        shots=shots,
        seed=found.seed,
        settings=_deciding(config, found.trainer, kind),
        split=found.split_hash or None,
    )


def _checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / MODEL_FOLDER).glob("*.safetensors"))


def _method_of_resume_file(header: dict[str, Any]) -> Any:
    """Return the method in a resume file's header, None where it is damaged."""
    for key in ("settings", "model"):
        header = header.get(key) or {}
        if not isinstance(header, dict):
            return None
    return header.get("method")


def _from_checkpoints(folder: Path, now: Identity) -> Identity | None:
    """Return the identity of the run whose checkpoints lie in a folder, if known.

    They tell the trainer; the rest is taken from the run that comes now, and resuming compares it.
    """
    try:
        headers = [checkpoint.read_header(path) for path in _checkpoints(folder)]
    except UserError:  # damaged: whose it is, is not known
        return None
    if not headers:
        return None
    model = getattr(find_trainer(now.trainer), "model_class", None)
    now = msgspec.structs.replace(now, kind=TRAIN)
    for header in headers:
        trainer = header.get("trainer")
        method = header.get("method") or _method_of_resume_file(header)
        if trainer is None and model is not None and method == model.method:
            trainer = now.trainer
        if trainer != now.trainer:
            return msgspec.structs.replace(now, trainer=trainer or f"of method {method}")
    return now
