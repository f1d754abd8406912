"""Architecture, statistics and weights of a published encoder, from the catalogue of models."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from dplq.domain.arguments import Changes
from dplq.domain.pooling import POOLS
from dplq.domain.recipes import RECIPES
from dplq.errors import UserError
from dplq.io.spec import LOCAL_DIR
from dplq.models.catalogue import PublishedModel
from dplq.models.weights import require_weights

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
    pretrained: bool,
    native: bool,
) -> Resolved:
    """Return what a published encoder's name stands for.

    Args:
        name: of the catalogue.
        model: its entry.
        weights: the user's own file, or "".
        changes: the user's own; they go before the catalogue's.
        pretrained: False for random weights.
        native: whether mean and std are used.

    Raises:
        UserError: it is known not to load, its weights are not on this machine, or its statistics
            are not known and not given.
    """
    if model.refused:
        raise UserError(f"'{name}' cannot be loaded: {model.refused}")
    file = "" if weights or not pretrained else str(require_weights(name))
    if model.architecture == FOLDER:
        folder = Path(weights or file or require_weights(name)).parent
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
    pool = changes.pool or (model.pool if model.pool in POOLS else "") or ""
    found = Changes.checked(mean or (), std or (), size, pool, args)
    return Resolved(model.architecture, weights or file, found)
