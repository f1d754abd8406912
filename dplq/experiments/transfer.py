"""Cross-dataset tests and domain generalisation: train on one dataset, test on others."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from dplq.errors import UserError
from dplq.experiments.plan import Plan, Run
from dplq.experiments.series import Series
from dplq.io.imports import import_words
from dplq.io.protocols import CONFIGS, config_files, config_folders

logger = logging.getLogger(__name__)

CROSS, WHOLE = "cross", "whole"  # kinds of targets: their test split; all of their images


def transfer(series: Series, targets: Sequence[str]) -> Plan:
    """Return the plan of ``scripts/cross_dataset.sh`` for a series.

    Args:
        series: on the source.
        targets: files of ``configs/datasets``, without their ending; the source is none.
    """
    targets = [target for target in targets if target != series.dataset]
    if not series.names_any_class:
        targets = []
    name = f"{series.config_folder}_{series.shots}shots"
    tests = {
        target: series.out / "evaluation" / series.dataset / series.trainer / name / target
        for target in targets
    }
    runs = list(_runs(series, tests))
    notes = list(series.notes)
    if targets and series.own_keys:
        notes.append(f"of {series.dataset} alone, not of its targets: {', '.join(series.own_keys)}")
    return Plan(runs, [series.out / series.place, *tests.values()], notes=notes)


def _runs(series: Series, tests: dict[str, Path]) -> Iterator[Run]:
    for seed in series.seeds:
        trained = series.train(series.out / series.place, seed, "all")
        yield trained
        for target, folder in tests.items():
            yield series.test(folder, trained, "all", target)


def default_targets(
    sources: Sequence[str], data: Path, kind: str, imports: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Return the other datasets of each source's domain that are there.

    This asks another process: the declarations of datasets import torch.

    Args:
        sources: files of ``configs/datasets``, without their ending.
        data: folder of the datasets.
        kind: `CROSS`, or `WHOLE`: those of which every image is test.
        imports: modules that declare datasets, besides.

    Raises:
        UserError: a domain is not known, or none is there.
    """
    arguments = [*sources, "--root", str(data), "--kind", kind]
    arguments += import_words(imports)
    own = (folder for folder in config_folders() if folder != CONFIGS)
    arguments += [word for folder in own for word in ("--config-folder", str(folder))]
    done = subprocess.run(
        [sys.executable, "-m", "dplq.data.targets", *arguments],
        cwd=Path(__file__).resolve().parents[2],  # `-m` finds this package there
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stderr.rstrip("\n")
    if done.returncode:
        raise UserError(said.rpartition("\n")[2].removeprefix("error: "))
    if said:
        logger.warning("%s", said)
    return dict(zip(sources, map(str.split, done.stdout.splitlines()), strict=True))


def warnings_of(source: str, targets: Sequence[str], kind: str = CROSS) -> list[str]:
    """Return a line where one of the targets is the source, or holds its training images.

    Of the kind `WHOLE` also one for each target of which only a part is tested.
    """
    variant = f"{source}v2"
    own = f"{source} is the source, and no target of its own: its accuracy is in the table anyway"
    same = f"warning: {variant} holds the training images of {source}"
    known = config_files("datasets") if kind == WHOLE else {}
    parts = [
        f"{target} is tested on its test images alone; {target}v2 is all of them"
        for target in targets
        if f"{target}v2" in known and target != source
    ]
    return [own] * (source in targets) + [same] * (variant in targets) + parts
