"""Which Dassl is in use, and registration that never crashes a host tree.

Names that a host tree and this project both register are the host's, whichever of the two is
imported first; a warning says which they are.

An installed Dassl always wins; without one our own small implementation
(`dplq/_fallback/dassl`) is appended to `sys.path`. The environment variable
`DPLQ_DASSL=real|fallback` forces one of them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from dplq.errors import UserError, one_line
from dplq.images.reader import ImageFile, read_image

logger = logging.getLogger(__name__)
FALLBACK = Path(__file__).resolve().parents[1] / "_fallback"
T = TypeVar("T", bound=type)
Clash = tuple[type, type]  # of one name: the class that is in use, and the one that is not
_clashes: list[Clash] = []  # not yet reported
_trainers: list[type] = []


def ensure_dassl() -> str:
    """Make `import dassl` work and say which one it is.

    Returns:
        ``"real"`` or ``"fallback"``.

    Raises:
        UserError: `DPLQ_DASSL` has another value, requires a real Dassl that is not installed,
            or an installed Dassl cannot be imported.
    """
    if "dassl" not in sys.modules:
        _import_dassl()
    if which_dassl() == "real":
        _read_our_files()
    # Importing the real Dassl silences all warnings of the process; ours must be seen.
    logging.disable(logging.NOTSET)
    return which_dassl()


def _import_dassl() -> None:
    choice = os.environ.get("DPLQ_DASSL", "")
    if choice not in ("", "real", "fallback"):
        raise UserError(f"DPLQ_DASSL is '{choice}'; it must be 'real', 'fallback' or not set.")
    if choice == "fallback":
        sys.path.insert(0, str(FALLBACK))
    elif not _is_installed():
        if choice == "real":
            raise UserError("DPLQ_DASSL=real, but no Dassl is installed. Install it or unset it.")
        sys.path.append(str(FALLBACK))
    try:
        importlib.import_module("dassl.engine")
    except Exception as error:
        ours = str(FALLBACK) in sys.path
        raise UserError(
            f"{'The Dassl that comes with dplq' if ours else 'The installed Dassl'} cannot be "
            f"imported ({one_line(error)}). "
            + (
                "Install what is missing."
                if ours
                else "Repair it, or set DPLQ_DASSL=fallback to use the one that comes with dplq."
            )
        ) from error


def _is_installed() -> bool:
    """Return whether there is a Dassl; a folder of that name without modules is none."""
    found = importlib.util.find_spec("dassl")
    return found is not None and found.origin is not None


def _read_our_files() -> None:
    """Have Dassl's loaders read each `ImageFile` by our reader; other paths are read as before."""
    module: Any = importlib.import_module("dassl.data.data_manager")
    original = module.read_image
    if getattr(original, "reads_image_files", False):
        return

    @wraps(original)
    def read(path: Any) -> Any:
        return read_image(path) if isinstance(path, ImageFile) else original(path)

    read.reads_image_files = True  # type: ignore[attr-defined]
    module.read_image = read


def prepare_worker(index: int) -> None:
    """Import Dassl as the parent did, in a worker process that is started, not forked.

    Args:
        index: of the worker; not used.
    """
    ensure_dassl()


def which_dassl() -> str:
    """Return which Dassl is imported: ``"real"`` or ``"fallback"``."""
    package = Path(sys.modules["dassl"].__path__[0]).resolve()
    return "fallback" if package.parent == FALLBACK else "real"


def user_error_types() -> tuple[type[Exception], ...]:
    """Return the exception classes for user errors: ours, and the fallback Dassl's."""
    ours = getattr(sys.modules.get("dassl.utils"), "InputError", UserError)
    return (UserError, ours)


def describe_dassl() -> str:
    """Return the log line that names the Dassl in use."""
    version = getattr(sys.modules["dassl"], "__version__", "of unknown version")
    return f"Dassl in use: {which_dassl()}, {version}"


def register_trainer(cls: T) -> T:
    """Register a trainer class with Dassl (a decorator); a name clash only warns.

    Its config node is its name in capitals, unless it sets another. Trainers without a
    `model_class` of this library have no keys here.
    """
    from dassl.engine import TRAINER_REGISTRY

    trainer: Any = cls
    if hasattr(trainer, "model_class"):
        if "node" not in vars(trainer):
            trainer.node = cls.__name__.upper()
        _trainers.append(cls)
    return _register(TRAINER_REGISTRY, cls)


def registered_trainers() -> list[Any]:
    """Return this project's trainers, those included whose name is the host's."""
    return list(_trainers)


def find_trainer(name: str) -> Any:
    """Return the class that Dassl builds for a trainer's name, None where it is not registered."""
    from dassl.engine import TRAINER_REGISTRY

    known = name in TRAINER_REGISTRY.registered_names()
    return TRAINER_REGISTRY.get(name) if known else None


def register_dataset(cls: T) -> T:
    """Register a dataset class with Dassl (a decorator); a name clash only warns."""
    from dassl.data.datasets import DATASET_REGISTRY

    return _register(DATASET_REGISTRY, cls)


def _register(registry: Any, cls: T) -> T:
    if cls.__name__ in registry.registered_names():
        first = registry.get(cls.__name__)
        _clashes.append((first, cls))
        if not _SharedRegistry.reports_deferred:
            report_clashes()
    else:
        _SharedRegistry.of(registry).add(cls)
    return cls


class _SharedRegistry:
    """Wrapper of a registry in which a host's registration replaces ours.

    It replaces the `register` method of this one registry: Dassl raises KeyError for a name that
    is taken, but a host that registers one of our names must get it.

    Args:
        registry: Dassl's, real or fallback.
    """

    reports_deferred = False  # inside `deferred_clash_report`

    def __init__(self, registry: Any) -> None:
        self.original_register = registry.register
        self.classes: dict[str, type] = {}
        registry.register = self.register

    @classmethod
    def of(cls, registry: Any) -> _SharedRegistry:
        """Return the wrapper of `registry`, made on first use."""
        known = getattr(registry.register, "__self__", None)
        return known if isinstance(known, cls) else cls(registry)

    def add(self, cls: type) -> None:
        """Register a class that one of the host's may replace."""
        self.original_register(cls)
        self.classes[cls.__name__] = cls

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Register a host's class: a decorator without `obj`, else a function."""
        if obj is None:
            return lambda definition: self.register(definition, force) or definition
        replaced = self.classes.pop(obj.__name__, None)
        if replaced is not None:
            _clashes.append((obj, replaced))
        return self.original_register(obj, force=force or replaced is not None)


@contextlib.contextmanager
def deferred_clash_report() -> Iterator[None]:
    """Report the name clashes of the block in one go at its end."""
    _SharedRegistry.reports_deferred = True
    try:
        yield
    finally:
        _SharedRegistry.reports_deferred = False
        report_clashes()


def report_clashes() -> None:
    """Warn of the name clashes since the last report, one line for each of our packages.

    A host that registers a name after us is reported late: its imports go on one by one, so only
    what comes after all of them (`dplq.plugin.extend_cfg`) can name them together.
    """
    names_of: dict[tuple[str, str], list[str]] = {}
    for used, unused in _clashes:
        both = (_package(used), _package(unused))
        names_of.setdefault(both, []).append(unused.__name__)
    _clashes.clear()
    for (used_package, unused_package), names in names_of.items():
        logger.warning(
            "Also registered by %s, whose classes are used, not those of %s: %s",
            used_package,
            unused_package,
            ", ".join(sorted(names)),
        )


def _package(cls: type) -> str:
    """Return the package of a class's module: ``dplq.datasets`` of ``dplq.datasets.eurosat``."""
    return cls.__module__.rpartition(".")[0] or cls.__module__
