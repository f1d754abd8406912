"""Architecture, statistics and weights of a published encoder, from the catalogue of models."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from dplq.domain.arguments import Changes
from dplq.domain.pooling import POOLS
from dplq.domain.recipes import RECIPES
from dplq.errors import UserError
from dplq.io.spec import LOCAL_DIR, Spec
from dplq.io.validation.paths import user_path
from dplq.models.catalogue import PublishedModel, catalogue
from dplq.models.weights import models_folder, require_weights, weights_on_disk

logger = logging.getLogger(__name__)
FOLDER = "config.json"  # an architecture that only the file of that name beside the weights has


@dataclass(frozen=True)
class Resolved:
    """What a published encoder's name stands for, as the loader's arguments.

    Attributes:
        architecture: a recipe, a timm name, or ``local-dir:FOLDER``.
        weights: its file; "" for random weights, or those in the folder.
        changes: what differs from the architecture.
    """

    architecture: str
    weights: str
    changes: Changes


def resolve_published(
    name: str,
    model: PublishedModel,
    weights: str,
    changes: Changes,
    *,
    spec: Spec,
    recorded: bool,
) -> Resolved:
    """Return what a published encoder's name stands for.

    Args:
        name: of the catalogue.
        model: its entry.
        weights: the user's own file, or "".
        changes: the user's own; they go before the catalogue's.
        spec: what is asked for.
        recorded: `spec` is that of a checkpoint; how it pooled is not the catalogue's matter.

    Raises:
        UserError: it is known not to load, its weights are not on this machine, or its statistics
            are not known and not given.
    """
    if model.refused:
        raise UserError(f"'{name}' cannot be loaded: {model.refused}")
    native = spec.options["normalize"] == "native"
    file = "" if weights or not spec.pretrained else str(require_weights(name))
    if model.architecture == FOLDER:
        given = user_path(weights, "weights (DOMAIN.WEIGHTS)") if weights else Path(file)
        folder = given.parent if weights or file else _config_folder(name)
        pool = changes.pool or model.pool or ""
        return Resolved(f"{LOCAL_DIR}{folder}", weights, replace(changes, pool=pool))
    if model.architecture in RECIPES:
        return Resolved(model.architecture, weights or file, changes)
    if native and not (model.mean or changes.mean):
        raise UserError(
            f"the mean and std of '{name}' are not known: give mean and std (DOMAIN.MEAN, "
            f"DOMAIN.STD), which {model.page} may say, or normalize (DOMAIN.NORMALIZE) 'clip'"
        )
    args = {**model.args, **changes.args}
    size = changes.image_size or (0 if "img_size" in args else model.image_size or 0)
    statistics = (changes.mean, changes.std) if changes.mean else (model.mean, model.std)
    mean, std = statistics if native else ((), ())
    known_pool = model.pool if model.pool in POOLS and not recorded else None
    pool = changes.pool or known_pool or ""
    found = Changes.checked(mean or (), std or (), size, pool, args)
    return Resolved(model.architecture, weights or file, found)


def _config_folder(name: str) -> Path:
    """Return the folder of a model's config, which random weights need alone."""
    found = weights_on_disk(name)
    folder = models_folder(name) if found is None else found.parent
    if not (folder / FOLDER).is_file():
        raise UserError(
            f"The architecture of '{name}' is in its {FOLDER} alone, which random weights need, "
            f"too: put that file from {catalogue()[name].source} into {folder}"
        )
    return folder
