"""The configs of a plan's runs, checked before anything is started.

A run checks its own; in a sweep of hundreds, or in a queue, that is late.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from dplq.errors import UserError, few
from dplq.experiments.plan import Run, is_own_python
from dplq.io.imports import import_modules
from dplq.io.protocols import CONFIGS

logger = logging.getLogger(__name__)


def check_configs(runs: Sequence[Run], *, here: bool = True) -> None:
    """Check what a user wrote of the configs: keys and values, config files, imported modules.

    Runs that are finished, and those without anything of a user's own, are not looked at.

    Args:
        runs: of a plan.
        here: they are made on this machine. Elsewhere a module may be imported that cannot be here;
            a warning then says that nothing was checked.

    Raises:
        UserError: a line for the first mistake of each run, with the number of runs that have it.
    """
    own = [run for run in runs if _has_own(run) and not run.is_finished]
    if not own or not is_own_python():  # another Python may have another Dassl
        return
    import dplq.plugin  # noqa: F401  (registers trainers and datasets)

    try:
        _import(dict.fromkeys(name for run in own for name in run.imports))
    except UserError as error:
        if here:
            raise
        logger.warning("The settings of the runs are not checked here: %s", error)
        return
    known: dict[object, str] = {}
    mistakes: dict[str, list[Run]] = {}
    for run in own:
        key = (run.config_files, run.trainer, *run.keys)
        if key not in known:
            known[key] = _mistake(run)
        if known[key]:
            mistakes.setdefault(known[key], []).append(run)
    if mistakes:
        raise UserError(
            "Nothing was started: settings cannot be used.",
            *(f"{text} ({_of(wrong)})" for text, wrong in mistakes.items()),
        )


def _import(names: Iterable[str]) -> None:
    """Import modules of a user's own, which must not end this process."""
    for name in names:
        try:
            import_modules([name])
        except SystemExit as error:
            raise UserError(f"--import {name}: it cannot be imported, it exits.") from error


def _has_own(run: Run) -> bool:
    """Return whether a user wrote something of a run's config."""
    return bool(run.options or run.imports) or any(
        not path.is_relative_to(CONFIGS) for path in run.config_files
    )


def _mistake(run: Run) -> str:
    """Return what a run would refuse of its config; "" if there is nothing wrong."""
    from dplq.host.checks import check_config
    from dplq.host.run_config import check_names, run_config

    try:
        cfg = run_config(run.config_files, {"TRAINER.NAME": run.trainer}, run.keys)
        check_names(cfg, f"{run.config_files[0]}: ")
        check_config(cfg)
    except UserError as error:
        return " ".join(map(str, error.args))
    return ""


def _of(runs: Sequence[Run]) -> str:
    """Return how many runs there are, and of which trainers."""
    count = "1 run" if len(runs) == 1 else f"{len(runs):,} runs"
    return f"{count} of {few(dict.fromkeys(run.trainer for run in runs), 3)}"
