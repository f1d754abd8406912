"""The installed open_clip, also where a host tree has a folder of the same name.

BiomedCoOp's tree, for one, has a folder `open_clip/` at its root, which comes before the installed
package on the path of its ``train.py``. There the installed package is imported from where it is
installed, under a name of its own; the tree keeps the name `open_clip`.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from dplq.errors import UserError

logger = logging.getLogger(__name__)
NAME, DISTRIBUTION, ALIAS = "open_clip", "open_clip_torch", "dplq_open_clip"
MARK = "pretrained.py"  # a module that every open_clip has


def open_clip(submodule: str = "") -> Any:
    """Return the module `open_clip`, or one of its submodules, importing it on first use.

    Args:
        submodule: such as "pretrained"; "" for the package.

    Raises:
        UserError: it is not installed, or a folder of that name hides it and it is not found.
    """
    package = _package_name()
    return importlib.import_module(f"{package}.{submodule}" if submodule else package)


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
            "pip install 'quaternion-prompt[hf]'"
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
