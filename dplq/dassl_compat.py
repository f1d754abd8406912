"""Which Dassl is in use, and registration that never crashes a host tree.

An installed Dassl always wins; without one our own small implementation
(`dplq/_fallback/dassl`) is appended to `sys.path`. The environment variable
`DPLQ_DASSL=real|fallback` forces one of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

from dplq.errors import UserError

logger = logging.getLogger(__name__)
FALLBACK = Path(__file__).resolve().parent / "_fallback"
T = TypeVar("T", bound=type)


def ensure_dassl() -> str:
    """Make `import dassl` work and say which one it is.

    Returns:
        ``"real"`` or ``"fallback"``.

    Raises:
        UserError: `DPLQ_DASSL` has another value, asks for a real Dassl that is not installed,
            or an installed Dassl cannot be imported.
    """
    if "dassl" not in sys.modules:
        _import_dassl()
    # Importing the real Dassl silences all warnings of the process; ours must be seen.
    logging.disable(logging.NOTSET)
    return which_dassl()


def _import_dassl() -> None:
    choice = os.environ.get("DPLQ_DASSL", "")
    if choice not in ("", "real", "fallback"):
        raise UserError(f"DPLQ_DASSL is '{choice}'; it must be 'real', 'fallback' or not set.")
    if choice == "fallback":
        sys.path.insert(0, str(FALLBACK))
    elif importlib.util.find_spec("dassl") is None:
        if choice == "real":
            raise UserError("DPLQ_DASSL=real, but no Dassl is installed. Install it or unset it.")
        sys.path.append(str(FALLBACK))
    try:
        importlib.import_module("dassl.engine")
    except Exception as error:
        ours = str(FALLBACK) in sys.path
        raise UserError(
            f"{'The Dassl that comes with dplq' if ours else 'The installed Dassl'} cannot be "
            f"imported ({type(error).__name__}: {error}). "
            + (
                "Install what is missing."
                if ours
                else "Repair it, or set DPLQ_DASSL=fallback to use the one that comes with dplq."
            )
        ) from error


def which_dassl() -> str:
    """``"fallback"`` if the imported `dassl` is ours, else ``"real"``."""
    home = Path(sys.modules["dassl"].__file__).resolve().parent
    return "fallback" if home.parent == FALLBACK else "real"


def user_mistakes() -> tuple[type[Exception], ...]:
    """The exceptions that stand for a user's mistake: ours, and the fallback Dassl's."""
    ours = getattr(sys.modules.get("dassl.utils"), "InputError", UserError)
    return (UserError, ours)


def describe_dassl() -> str:
    """One line that says which Dassl is in use."""
    version = getattr(sys.modules["dassl"], "__version__", "of unknown version")
    return f"Dassl in use: {which_dassl()}, {version}"


def register_trainer(cls: T) -> T:
    """Class decorator: add a trainer to Dassl's registry; a name clash only warns."""
    from dassl.engine import TRAINER_REGISTRY

    return _register(TRAINER_REGISTRY, cls)


def register_dataset(cls: T) -> T:
    """Class decorator: add a dataset to Dassl's registry; a name clash only warns."""
    from dassl.data.datasets import DATASET_REGISTRY

    return _register(DATASET_REGISTRY, cls)


def _register(registry: Any, cls: T) -> T:
    name = cls.__name__
    if name in registry.registered_names():
        logger.warning(
            "%s is already registered by %s, which stays in use; the one of %s is not registered.",
            name,
            registry.get(name).__module__,
            cls.__module__,
        )
    else:
        registry.register(cls)
    return cls
