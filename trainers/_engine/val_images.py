"""Choices that need val images of their own: what is chosen on tested images tests too well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dplq.errors import UserError

from .trained_on import tested_items


def tested_too(val: Iterable[Any], tested: Iterable[Any]) -> int:
    """Return how many of the val items are of tested images."""
    paths = {str(item.impath) for item in tested}
    return sum(str(item.impath) in paths for item in val)


def check_val_images(trainer: Any, tested: Iterable[Any], use: str, harm: str, cure: str) -> None:
    """Refuse (UserError) a choice on val where there are no val images, or they are tested, too.

    Args:
        trainer: its loaders are built.
        tested: Dassl's items of the tested images.
        use: what is chosen, to begin the message with.
        harm: what a choice on tested images leads to.
        cure: what to do.
    """
    cfg, data = trainer.cfg, trainer.dm.dataset
    if trainer.val_loader is None:
        raise UserError(f"{use}: {cfg.DATASET.NAME} has no val images here. {cure}")
    if shared := tested_too(data.val, tested):
        raise UserError(
            f"{use}: {shared} of the {len(data.val)} val images are tested, too: {harm}. {cure}"
        )


def check_best_val(trainer: Any) -> None:
    """Refuse (UserError) TEST.FINAL_MODEL best_val where it would choose the epoch on test images.

    Without val images Dassl's engine takes the test images in their place.
    """
    cfg = trainer.cfg
    if cfg.TEST.FINAL_MODEL == "best_val" and not cfg.TEST.NO_TEST:
        check_val_images(
            trainer,
            tested_items(trainer),
            "TEST.FINAL_MODEL best_val",
            "an epoch that is chosen on them looks too good",
            "Set TEST.FINAL_MODEL last_step, or train with a split that has val images of its own.",
        )
