"""Registered Dassl datasets: declarations on one base class.

A new dataset is a file like `rsscn7.py` and a two-line YAML in `configs/datasets/`; every module of
this package is imported here.
"""

from importlib import import_module
from pkgutil import iter_modules

if __name__ != "dplq.datasets":  # a second name would make second classes
    raise ImportError("This is dplq.datasets: import it under that name.")

from ._engine.base import FolderDataset
from ._engine.registration import DECLARED, declare

for _module in sorted(found.name for found in iter_modules(__path__)):
    import_module(f".{_module}", __name__)

globals().update(DECLARED)
__all__ = ["DECLARED", "FolderDataset", "declare", *sorted(DECLARED)]
