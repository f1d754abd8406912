"""The base class of the data sets: a declaration in, few-shot Dassl data out.

A data set is a folder of class folders and a table of classes. What happens, in order
(`cfg.DATASET` keys in capitals):

1. find the data under `ROOT`;                                          (`folders.py`)
2. read a split file, or make one, 50/20/30 in every class;             (`splits.py`)
3. draw `NUM_SHOTS` images per class with `cfg.SEED`;                   (`protocol.py`)
4. keep `all`, `base` or `new` classes (`SUBSAMPLE_CLASSES`);           (`protocol.py`)
5. decode the images that are left (`CHECK_IMAGES`, `SKIP_BROKEN`).     (`images.py`)

The few-shot sample is a pure function of split and seed, so it is not cached; pickles that other
projects left in `split_fewshot/` are not read.
"""

from __future__ import annotations

import glob
import logging
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from dplq.dassl_compat import ensure_dassl
from dplq.errors import UserError

from .folders import ClassTable, Layout, class_folders, first_layout, images_by_class
from .images import ImageCheck
from .protocol import Item, Split, check_split, few_shot, split_classes, take_subset
from .splits import (
    OWN_NAME,
    classes_of,
    find_foreign_split,
    find_image_dir,
    read_split,
    with_our_prompts,
)
from .store import Store

ensure_dassl()

from dassl.data.datasets import DatasetBase, Datum  # noqa: E402

logger = logging.getLogger(__name__)


class FolderDataset(DatasetBase):
    """A data set of class folders. Subclasses declare; they need no code.

    Attributes:
        dataset_dir: folder under `cfg.DATASET.ROOT`. On an instance: its absolute path.
        class_table: per class in official label order its prompt name, then its folder spellings
            (case, spaces, `_` and `-` do not count).
        image_roots: folders in `dataset_dir` that may hold the class folders, looked at after
            `<dataset_dir>/<dataset_dir>/` (the peers' layout) and `<dataset_dir>/` itself. A tuple
            names folders that are merged.
        fractions: of train and val in a new split; the rest is test.
        template: zero-shot prompt.
        citation, homepage, licence: of the data, "unknown" where it is not known.
    """

    dataset_dir: str = ""
    class_table: ClassVar[Sequence[Sequence[str]]] = ()
    image_roots: ClassVar[Sequence[str | tuple[str, ...]]] = ("images", "Images")
    fractions: ClassVar[tuple[float, float]] = (0.5, 0.2)
    template: ClassVar[str] = "a photo of {}."
    citation: ClassVar[str] = "unknown"
    homepage: ClassVar[str] = "unknown"
    licence: ClassVar[str] = "unknown"

    def __init__(self, cfg: Any) -> None:
        """Load the data set.

        Args:
            cfg: reads `DATASET.{ROOT, NUM_SHOTS, SUBSAMPLE_CLASSES, CHECK_IMAGES, SKIP_BROKEN}`
                and `SEED`; all but ROOT may be absent.

        Raises:
            UserError: the data or a part of it is missing or damaged, or a key has a bad value.
        """
        self.name = type(self).__name__
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = self.find_dataset_dir(root)
        self.table = self.find_classes()
        self.store = Store(self.dataset_dir, self.name)
        split = self._choose_images(self._load_split(), cfg)
        train, val, test = (self._as_data(part) for part in split)
        super().__init__(train_x=train, val=val, test=test)

    def find_dataset_dir(self, root: str) -> str:
        """The data folder under `root`, the absolute `cfg.DATASET.ROOT`."""
        return os.path.join(root, type(self).dataset_dir)

    def find_classes(self) -> ClassTable:
        """The classes of the data set."""
        return ClassTable(self.class_table)

    def layouts(self) -> list[Layout]:
        """Where class folders may be, in order of preference."""
        official = os.path.basename(self.dataset_dir)
        return [
            Layout(self.dataset_dir, root)
            if isinstance(root, tuple)
            else Layout(os.path.join(self.dataset_dir, root) if root else self.dataset_dir)
            for root in (official, "", *self.image_roots)
        ]

    def expected_layout(self) -> str:
        """A small tree: what the data folder should look like."""
        lines = [f"  {self.dataset_dir}/"]
        for label in range(min(3, len(self.table.rows))):
            folder = self.table.folder_of(label)
            lines += [f"    {folder}/", "      *.jpg"] if label == 0 else [f"    {folder}/"]
        return "\n".join([*lines, f"    ... ({len(self.table.rows)} class folders)"])

    def find_layout(self) -> Layout:
        """Where the class folders are.

        Raises:
            UserError: nowhere; the message has the places looked at and the tree expected.
        """
        layout = first_layout(self.layouts(), self.table)
        if layout is None:
            places = dict.fromkeys(f for layout in self.layouts() for f in layout.folders())
            state = "does not exist"
            if os.path.isdir(self.dataset_dir):
                state = "holds no class folder"
            root = os.path.dirname(self.dataset_dir)
            if class_folders(root, self.table)[0]:
                state += f", but {root} holds some: DATASET.ROOT must be the folder above"
            raise UserError(
                f"{self.name}: {self.dataset_dir} {state}. Looked at: {', '.join(places)}.\n"
                f"Expected, where DATASET.ROOT (--root) is {root}:\n"
                f"{self.expected_layout()}\nGet the data from {self.homepage}"
            )
        return layout

    def list_split(self) -> tuple[str, Split]:
        """The image folder, and a new split of what is in it."""
        layout = self.find_layout()
        others = [root for root in self.image_roots if isinstance(root, str)]
        images = images_by_class(layout, self.table, self.name, others)
        source = f"{self.name} in {' and '.join(layout.folders())}"
        return layout.image_dir, split_classes(images, self.table.prompts, source, self.fractions)

    def _load_split(self) -> Split:
        path = find_foreign_split(self.dataset_dir, self.name)
        if path:
            split = read_split(path)
            dirs = (layout.image_dir for layout in self.layouts())
            self.image_dir = find_image_dir(split, path, dirs)
            split = with_our_prompts(split, self.table, path)
        else:
            path, split = self._own_split()
        self.split_path = str(path)
        sizes = " / ".join(str(len(part)) for part in split)
        logger.info("%s: split %s, train / val / test %s", self.name, path, sizes)
        return split

    def _own_split(self) -> tuple[Path, Split]:
        self.image_dir, fresh = self.list_split()
        check_split(fresh, f"{self.name} in {self.image_dir}")
        filename = OWN_NAME.format(self.name)
        path = self.store.find(filename)
        if path is None:
            return self.store.write(filename, fresh._asdict()), fresh
        split = read_split(path)
        if classes_of(split) != self.table.prompts:
            logger.warning("%s: the classes have changed since; the split is made anew", path)
            return self.store.write(filename, fresh._asdict()), fresh
        find_image_dir(split, path, [self.image_dir])
        new = sum(map(len, fresh)) - sum(map(len, split))
        if new > 0:
            logger.warning("%s: %d images are not in it; delete it to use them", path, new)
        return path, split

    def _choose_images(self, split: Split, cfg: Any) -> Split:
        shots, seed = _key(cfg, "NUM_SHOTS", -1), getattr(cfg, "SEED", -1)
        if shots >= 1 and seed < 0:
            seed = random.SystemRandom().getrandbits(31)
            logger.info("SEED is not set: the %d shots are drawn with seed %d", shots, seed)
        if glob.glob(os.path.join(glob.escape(self.dataset_dir), "split_fewshot", "shot_*.pkl")):
            logger.info("%s: the pickles in split_fewshot/ are ignored", self.dataset_dir)
        subset, wanted = _key(cfg, "SUBSAMPLE_CLASSES", "all"), _key(cfg, "CHECK_IMAGES", True)
        check = ImageCheck(self.image_dir, self.store) if wanted else None
        skipped: dict[str, str] = {}
        while True:
            sample = few_shot(split, shots, seed, leave_out=skipped)
            # before the halves are taken: a class that is gone would move their border
            check_split(sample, f"{self.name} without the images that cannot be decoded")
            chosen = take_subset(sample, subset)
            broken = check.broken(i.path for part in chosen for i in part) if check else {}
            if not broken:
                return chosen
            skipped |= broken
            self._report_broken(broken, _key(cfg, "SKIP_BROKEN", False))

    def _report_broken(self, broken: dict[str, str], skip: bool) -> None:
        some = "; ".join(f"{path} ({why})" for path, why in list(broken.items())[:3])
        more = "; ..." if len(broken) > 3 else ""
        message = f"{self.image_dir}: {len(broken)} image(s) cannot be decoded: {some}{more}."
        if not skip:
            raise UserError(f"{message} Replace them, or set DATASET.SKIP_BROKEN True.")
        logger.warning("%s Skipped.", message)

    def _as_data(self, items: Sequence[Item]) -> list[Datum]:
        return [
            Datum(
                impath=os.path.join(self.image_dir, item.path),
                label=item.label,
                classname=item.classname,
            )
            for item in items
        ]


def _key(cfg: Any, key: str, default: Any) -> Any:
    """A `cfg.DATASET` key, or its default in host trees that do not have it."""
    return getattr(cfg.DATASET, key, default)
