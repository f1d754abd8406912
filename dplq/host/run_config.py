"""The config of a run: defaults, config files, flags, KEY VALUE pairs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dplq.errors import UserError, suggest
from dplq.host.config import extend_cfg, merge_file, merge_options
from dplq.io.nodes import set_key

FLAGS = {"trainer": "--trainer", "dataset": "--dataset-config-file"}


def run_config(
    files: Iterable[str | os.PathLike[str]], flags: Mapping[str, Any], options: Sequence[str]
) -> Any:
    """Return a config, not yet checked as a whole.

    Args:
        files: merged in their order.
        flags: value by key, over those of the files.
        options: KEY VALUE ..., over the flags.

    Raises:
        UserError: unknown file or key, or a value that a key cannot have.
    """
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    extend_cfg(cfg)
    for file in files:
        merge_file(cfg, os.fspath(file))
    for key, value in flags.items():
        set_key(cfg, key, value)
    merge_options(cfg, list(options))
    return cfg


def check_names(cfg: Any, where: str = "") -> None:
    """Refuse a trainer and a dataset that are not registered.

    Args:
        cfg: complete.
        where: start of the message on the dataset, as of `check_name`.

    Raises:
        UserError: with the nearest names.
    """
    check_name("trainer", cfg.TRAINER.NAME)
    check_name("dataset", cfg.DATASET.NAME, where)


def check_name(kind: str, name: str, where: str = "") -> None:
    """Raise a UserError with the nearest names if a dataset or trainer is not registered.

    Args:
        kind: "trainer" or "dataset".
        name: of it.
        where: start of the message: the config file that names it, where there is no flag.
    """
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY

    registry = {"trainer": TRAINER_REGISTRY, "dataset": DATASET_REGISTRY}[kind]
    names = registry.registered_names()
    if not name:
        cure = f"set {kind.upper()}.NAME" if where else f"use {FLAGS[kind]}"
        raise UserError(f"{where}No {kind} was named: {cure}.{suggest('', names)}")
    if name not in names:
        raise UserError(f"{where}The {kind} '{name}' is unknown.{suggest(name, names)}")
