"""Engines by name: places where the runs of a plan are carried out.

A module of an engine has `Settings`, a `msgspec.Struct` of its options with their defaults, and
`open_engine(settings)`. It is imported when it is wanted. Where types do not say all, `Settings`
has a method `check`, which raises UserError.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import msgspec

from dplq.errors import UserError, few, suggest
from dplq.experiments.engines.base import Ended, Engine, Job
from dplq.io.validation.schema import in_words

__all__ = [
    "ENGINES",
    "LOCAL",
    "Ended",
    "Engine",
    "Job",
    "engine_settings",
    "open_engine",
    "option_names",
]

ENGINES = {  # name -> module
    "local": "dplq.experiments.engines.local",
    "ray": "dplq.experiments.engines.ray",
    "slurm": "dplq.experiments.engines.slurm",
}
LOCAL = "local"  # where no other is named


def open_engine(name: str, options: Mapping[str, Any]) -> Engine:
    """Return an engine with its options.

    Args:
        name: one of `ENGINES`.
        options: of the engine; text is converted to an option's type.

    Raises:
        UserError: unknown engine or option, a value of another type, or a missing extra.
    """
    settings = engine_settings(name, options)
    engine: Engine = importlib.import_module(ENGINES[name]).open_engine(settings)
    return engine


def engine_settings(name: str, options: Mapping[str, Any]) -> msgspec.Struct:
    """Return the `Settings` of an engine, which is not opened.

    Raises:
        UserError: unknown engine or option, or a value that it cannot have.
    """
    known = option_names(name)
    module = importlib.import_module(ENGINES[name])
    if unknown := [key for key in options if key not in known]:
        raise UserError(
            f"The engine {name} has no option {few(unknown)}.{suggest(unknown[0], known)}"
        )
    try:
        settings: msgspec.Struct = msgspec.convert(dict(options), module.Settings, strict=False)
    except msgspec.ValidationError as error:
        said = in_words(error)
        if "bool" in said:
            said += "; write true or false"
        raise UserError(f"Options of the engine {name}: {said}.") from error
    if check := getattr(settings, "check", None):
        check()
    return settings


def option_names(name: str) -> tuple[str, ...]:
    """Return the names of an engine's options.

    Raises:
        UserError: unknown engine.
    """
    if name not in ENGINES:
        raise UserError(f"--engine {name} is unknown.{suggest(name, ENGINES)}")
    names: tuple[str, ...] = importlib.import_module(ENGINES[name]).Settings.__struct_fields__
    return names
