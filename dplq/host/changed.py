"""Config keys of a run that differ from their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dplq.host.run_identity import default_values, node_of
from dplq.io.nodes import flatten
from dplq.io.runs.settings import plain_value


def changed_settings(config: Mapping[str, Any], trainer: str) -> dict[str, Any]:
    """Return the keys of a run's config that are not at their defaults, with their values.

    Keys of other trainers are left out; so are those that have no default, of another project.

    Args:
        config: nested, as ``results.json`` has it.
        trainer: name of the run's trainer.
    """
    defaults, own = default_values(), node_of(trainer)
    found = {key: plain_value(key, value) for key, value in flatten(config)}
    return {
        key: value
        for key, value in sorted(found.items())
        if key in defaults
        and value != defaults[key]
        and (key.startswith(own) or not key.startswith("TRAINER."))
    }
