"""Base-to-new generalisation: train on the base classes, test on base and new ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dplq.experiments.plan import Plan, Run
from dplq.experiments.protocols import has_property


def base2new(
    dataset: str,
    trainer: str,
    config: str,
    *,
    seeds: Iterable[int],
    out: Path,
    shots: int = 16,
    data: Path | None = None,
    options: Iterable[tuple[str, str]] = (),
) -> Plan:
    """Return the plan of ``scripts/base2new.sh``, with its folders.

    Args:
        dataset: a file of ``configs/datasets``, without its ending.
        trainer: a folder of ``configs/trainers``.
        config: a file in it, without its ending.
        seeds: of the runs.
        out: folder of all results.
        shots: training images per class; -1 for all.
        data: folder of the datasets; None for a built-in one.
        options: config keys and values.
    """
    place = Path(dataset) / f"shots_{shots}" / trainer / config
    parts = [out / "base2new" / part / place for part in ("train_base", "test_new")]
    if not has_property(trainer, "any_classes"):
        del parts[1:]
    runs = [
        Run(
            folder=part / f"seed{seed}",
            dataset=dataset,
            trainer=trainer,
            config=config,
            seed=seed,
            shots=shots,
            classes=classes,
            data=data,
            model=None if classes == "base" else parts[0] / f"seed{seed}",
            options=tuple(options),
        )
        for seed in dict.fromkeys(seeds)
        for part, classes in zip(parts, ("base", "new"), strict=False)
    ]
    return Plan(runs, parts)
