"""The folder of a run: a trainer claims it before it writes there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dplq.errors import UserError
from dplq.host.run_identity import claim_run, claim_test
from dplq.io.files import RECORDED, file_digest
from dplq.io.runs.files import RESULTS_FILE
from dplq.io.runs.folder import TRAIN, hold
from dplq.io.runs.lock import JOB_VARIABLE
from dplq.io.runs.results import read_results

from .trained_on import data_digest, label_digests, split_hash


def claim_for_training(trainer: Any, resumed: bool = False) -> Path:
    """Claim the folder of a trainer that trains, or has nothing to train.

    Args:
        trainer: a `FrozenTrainer`.
        resumed: it has been restored from the resume file in its folder.

    Returns:
        The file for the results.

    Raises:
        UserError: it is in use, or another run's.
    """
    trainer.run_folder = claim_run(
        trainer.cfg,
        TRAIN,
        resumed=resumed,
        split=split_hash(trainer),
        weights=weight_digests(trainer.model),
        data=data_digest(trainer),
        labels=label_digests(trainer),
    )
    return trainer.run_folder.path / RESULTS_FILE


def claim_for_test(trainer: Any) -> Path:
    """Claim the folder of a trainer that tests a model that was loaded.

    Returns:
        The file for the results.

    Raises:
        UserError: it is in use, or another run's.
    """
    directory, epoch, path, _ = trainer.loaded
    digest = file_digest(path, RECORDED) if path else None
    results = claim_test(
        trainer.cfg,
        directory,
        epoch,
        split=split_hash(trainer),
        model=digest,
        data=data_digest(trainer),
        labels=label_digests(trainer),
    )
    trainer.run_folder = hold(results.parent)
    return results


def weight_digests(model: Any) -> dict[str, str] | None:
    """Return the digests of the local files with a model's frozen weights; None without a file.

    A config names a file without its folder: another one may have the same name.
    """
    parts = {"backbone": model.clip, "domain": model.domain}
    found = {name: part.spec.sha256[:16] for name, part in parts.items() if part is not None}
    return {name: digest for name, digest in found.items() if digest} or None


def accuracy_of_planned(results: Path) -> float | None:
    """Return the accuracy of a test that another job of the plan has made, which is printed.

    A job that waits in a cluster's queue may have a second one beside it. None without a plan:
    whoever gives the command of a test wants it to be made.
    """
    if os.environ.get(JOB_VARIABLE) and report_finished(results):
        return read_results(results).accuracy
    return None


def report_finished(results: Path) -> bool:
    """Return whether a run has its results already; print them."""
    try:
        accuracy = read_results(results).accuracy
    except UserError:  # none yet, or damaged: they are made (again)
        return False
    print(f"Already finished: {results} (accuracy: {accuracy:.1f}%)")
    return True
