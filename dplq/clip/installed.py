"""The installed open_clip, also where a host tree has a folder of the same name.

BiomedCoOp's tree, for one, has a folder `open_clip/` at its root, which comes before the installed
package on the path of its ``train.py``. There the installed package is imported from where it is
installed, under a name of its own; the tree keeps the name `open_clip`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

from dplq.errors import UserError

logger = logging.getLogger(__name__)
NAME, DISTRIBUTION, ALIAS = "open_clip", "open_clip_torch", "dplq_open_clip"
MARK = "pretrained.py"  # a module that every open_clip has
TABLES = "dplq_open_clip_tables"
ARCHITECTURE = {"embed_dim", "vision_cfg", "text_cfg"}  # keys that open_clip asks of a config


def open_clip(submodule: str = "") -> Any:
    """Return the module `open_clip`, or one of its submodules, importing it on first use.

    Args:
        submodule: such as "pretrained"; "" for the package.

    Raises:
        UserError: it is not installed, or a folder of that name hides it and it is not found.
    """
    package = _package_name()
    return importlib.import_module(f"{package}.{submodule}" if submodule else package)


def pretrained_tables() -> Any:
    """Return open_clip's module of pretrained tags, without the package where it is not imported.

    The import of the package takes more than a second, with transformers two; a name or a missing
    file is to be reported before that.

    Raises:
        UserError: as `open_clip`.
    """
    package = _package_name()
    if package in sys.modules:
        return importlib.import_module(f"{package}.pretrained")
    if TABLES not in sys.modules:
        bare = ModuleType(TABLES)
        bare.__path__ = [str(_folder())]
        sys.modules[TABLES] = bare
    return importlib.import_module(f"{TABLES}.pretrained")


def architectures() -> list[str]:
    """Return the names of open_clip's architectures, those that a program added included."""
    package = _package_name()
    if package in sys.modules:
        names: list[str] = sys.modules[package].list_models()
        return names
    return sorted(_architecture_files())


def architecture(name: str) -> dict[str, Any]:
    """Return open_clip's config of one of `architectures`, a new copy."""
    package = _package_name()
    if package in sys.modules:
        config: dict[str, Any] = sys.modules[package].get_model_config(name)
        return config
    return dict(json.loads(_architecture_files()[name]))


@cache
def _architecture_files() -> dict[str, str]:
    """Return the content of the installed files of architectures, by name."""
    contents = {
        path.stem: path.read_text(encoding="utf-8")
        for path in (_folder() / "model_configs").glob("*.json")
    }
    return {name: text for name, text in contents.items() if set(json.loads(text)) >= ARCHITECTURE}


def _folder() -> Path:
    """Return the folder of the package that `_package_name` names."""
    package = _package_name()
    found = sys.modules.get(package) or importlib.util.find_spec(package)
    places = getattr(found, "__path__", None) or getattr(found, "submodule_search_locations", None)
    return next(Path(place) for place in places or () if (Path(place) / MARK).is_file())


def transformers(what: str) -> Any:
    """Return the module `transformers`, importing it on first use.

    Args:
        what: that needs it, for the message.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            f"{what} needs the package transformers, which is not installed: "
            "pip install transformers"
        ) from error


@cache
def _package_name() -> str:
    """Return the name under which open_clip can be imported; import it where it is hidden."""
    spec = importlib.util.find_spec(NAME)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if any((Path(place) / MARK).is_file() for place in places):
        return NAME
    try:
        folder = Path(str(distribution(DISTRIBUTION).locate_file(NAME)))
    except PackageNotFoundError:
        folder = Path()
    if not (folder / MARK).is_file():
        hidden = f"{places[0]} is another package of that name" if places else "there is none"
        raise UserError(
            f"The package {NAME} cannot be imported: {hidden}. Install {DISTRIBUTION}, or rename "
            "the folder that hides it."
        )
    logger.warning(
        "%s hides the installed %s: dplq uses %s.", places[0] if places else NAME, NAME, folder
    )
    init = folder / "__init__.py"
    found = importlib.util.spec_from_file_location(
        ALIAS, init, submodule_search_locations=[str(folder)]
    )
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[ALIAS] = module
    found.loader.exec_module(module)
    return ALIAS
