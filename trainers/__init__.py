"""Registered Dassl trainers, one thin file each; every module of this package is imported here.

A new one costs its method (`dplq/methods/`), a file like `coop.py` and a YAML in
`configs/trainers/<Trainer>/`.
"""

from importlib import import_module
from pkgutil import iter_modules

from dplq.host.dassl import ensure_dassl

ensure_dassl()

for _module in sorted(found.name for found in iter_modules(__path__)):
    import_module(f".{_module}", __name__)
