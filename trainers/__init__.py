"""Registered Dassl trainers, one thin file each; every module of this package is imported here.

A new one costs its method (`dplq/methods/`), a file like `coop.py` and a YAML in
`configs/trainers/<Trainer>/` (docs/extending.md).
"""

from importlib import import_module
from pkgutil import iter_modules

if __name__ != "dplq.trainers":  # a second name would make second classes
    raise ImportError("This is dplq.trainers: import it under that name.")

from dplq.host.dassl import ensure_dassl, register_trainer

ensure_dassl()

from ._engine.base import PromptTrainer  # noqa: E402
from ._engine.deltas import DeltaTrainer  # noqa: E402
from ._engine.domain import DomainTrainer  # noqa: E402
from ._engine.frozen import FrozenTrainer  # noqa: E402
from ._engine.heads import HeadTrainer, TrainedHeadTrainer  # noqa: E402

__all__ = [
    "DeltaTrainer",
    "DomainTrainer",
    "FrozenTrainer",
    "HeadTrainer",
    "PromptTrainer",
    "TrainedHeadTrainer",
    "register_trainer",
]
for _module in sorted(found.name for found in iter_modules(__path__)):
    import_module(f".{_module}", __name__)
