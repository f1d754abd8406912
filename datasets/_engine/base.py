"""The base class of the datasets: from a declaration to few-shot Dassl data.

A dataset is a folder of images and a table of classes. What happens, in order (`cfg.DATASET` keys
in capitals):

1. find the data under `ROOT`;                                (`located.py`, `layout/`)
2. read a split file or table, use the official split of the data,
   or make one, 50/20/30 in every class, by group where there are groups;
           (`split_loading.py`, `splits.py`, `tables/`, `official.py`, `drawing/`)
3. draw `NUM_SHOTS` images per class with `cfg.SEED`;                     (`protocol.py`)
4. keep `all`, `base` or `new` classes (`SUBSAMPLE_CLASSES`);             (`protocol.py`)
5. decode the images that are left (`CHECK_IMAGES`, `SKIP_BROKEN`).         (`images.py`)

The few-shot sample is a pure function of split and seed, so it is not cached; pickles that other
projects left in `split_fewshot/` are not read.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dplq.errors import UserError
from dplq.host.dassl import ensure_dassl
from dplq.images.reader import ImageFile

from .images import ImageCheck, describe_problems, report_images
from .layout.folders import FEWSHOT_DIR
from .options import Options
from .protocol import Item, Split, check_split, few_shot, take_subset
from .split_loading import SplitDataset

ensure_dassl()

from dassl.data.datasets import DatasetBase, Datum  # noqa: E402

__all__ = ["FolderDataset"]
logger = logging.getLogger(__name__)


class FolderDataset(SplitDataset, DatasetBase):
    """Base class of a dataset on disk; subclasses are declarations without code.

    Attributes:
        image_summary: kinds of image and what was done to how many; None: not looked at.
    """

    image_summary: dict[str, Any] | None = None

    def __init__(self, cfg: Any) -> None:
        """Load the dataset.

        Args:
            cfg: Dassl config with `DATASET.ROOT`; the other keys may be absent (`options.py`).

        Raises:
            UserError: the data or a part of it is missing or damaged, or a key has a bad value.
        """
        self._locate(cfg.DATASET.ROOT, Options.of(cfg))
        split = self._select_images(self.load_split())
        train, val, test = (self._as_data(part) for part in split)
        super().__init__(train_x=train, val=val, test=test)

    def select(self, split: Split, leave_out: Collection[str] = ()) -> Split:
        """Return the shots, and the images of the classes, that the config asks for.

        Args:
            split: the whole split.
            leave_out: paths of images that cannot be decoded.

        Raises:
            UserError: there are no such classes, or a class is left without images.
        """
        options = self.options
        if self.test_only and options.subset != "all":
            raise UserError(
                f"{self.name} is tested as a whole: it has no base and new classes. Set "
                f"DATASET.SUBSAMPLE_CLASSES all, not {options.subset}."
            )
        shots = -1 if self.test_only else options.shots
        sample = few_shot(split, shots, options.seed, leave_out)
        if leave_out:
            # before the halves are taken: a class that is gone would move their border
            check_split(sample, f"{self.name} without the images that cannot be decoded", split)
        return take_subset(sample, options.subset)

    def _select_images(self, split: Split) -> Split:
        options = self.options
        if options.shots >= 1 and options.seed < 0 and not self.test_only:
            self.options = options = replace(options, seed=random.SystemRandom().getrandbits(31))
            logger.info(
                "SEED is not set: the %d shots are drawn with seed %d", options.shots, options.seed
            )
        if any(Path(self.dataset_dir, FEWSHOT_DIR).glob("shot_*.pkl")):
            logger.info("%s: the pickles in %s/ are ignored", self.dataset_dir, FEWSHOT_DIR)
        check = None
        if options.check_images:
            check = ImageCheck(self.image_dir, self.store, options.reading)
        skipped: dict[str, str] = {}
        while True:
            chosen = self.select(split, skipped)
            broken = check.broken(i.path for part in chosen for i in part) if check else {}
            if not broken:
                self.image_summary = report_images(self.name, check, options.reading)
                return chosen
            skipped |= broken
            self._report_broken(broken, options.skip_broken)

    def _report_broken(self, broken: dict[str, str], skip: bool) -> None:
        message = (
            f"{self.image_dir}: {len(broken)} image(s) cannot be read: {describe_problems(broken)}."
        )
        if not skip:
            raise UserError(f"{message} Or set DATASET.SKIP_BROKEN True to leave them out.")
        logger.warning("%s Skipped.", message)

    def _as_data(self, items: Sequence[Item]) -> list[Datum]:
        return [
            Datum(
                impath=ImageFile(os.path.join(self.image_dir, item.path), self.options.reading),
                label=item.label,
                classname=item.classname,
            )
            for item in items
        ]
