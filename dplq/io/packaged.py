"""Models whose weights are part of this package, found by name only.

The library imports no such model: a module of this table is imported when its name is requested.
`dplq.clip.sources` and `dplq.domain.load` share the table, hence a module of its own.
"""

from __future__ import annotations

import importlib
from types import ModuleType

PACKAGED_MODELS = {"demo": "dplq.demo.models"}


def packaged_model(name: str) -> ModuleType | None:
    """Return the module that describes a packaged model.

    Args:
        name: a model name as in a config, such as ``demo``.

    Returns:
        The module, or None if no packaged model has that name.
    """
    module = PACKAGED_MODELS.get(name)
    return None if module is None else importlib.import_module(module)
