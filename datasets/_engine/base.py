"""The base class of the datasets: from a declaration to few-shot Dassl data.

A dataset is a folder of images and a table of classes. What happens, in order (`cfg.DATASET` keys
in capitals):

1. find the data under `ROOT`;                              (`layouts.py`, `listing.py`)
2. read a split file, use the official split of the data,
   or make one, 50/20/30 in every class;                      (`splits.py`, `official.py`)
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dplq.errors import UserError, suggest
from dplq.host.dassl import ensure_dassl
from dplq.images.reader import ImageFile
from dplq.images.settings import ReadSettings, read_settings

from .declaration import Declaration
from .folders import FEWSHOT_DIR, ClassTable
from .images import ImageCheck, describe_problems, report_images
from .layouts import (
    Layout,
    best_layout,
    declared_layouts,
    expected_tree,
    find_groups,
    matches,
)
from .listing import images_by_class
from .official import fill_val, labelled, split_from_folders, split_from_lists
from .protocol import Item, Split, check_split, few_shot, split_classes, take_subset
from .splits import (
    OWN_NAME,
    classes_of,
    find_foreign_split,
    find_image_dir,
    read_split,
    with_folder_prompts,
    with_our_prompts,
)
from .store import Store

ensure_dassl()

from dassl.data.datasets import DatasetBase, Datum  # noqa: E402

__all__ = ["FolderDataset"]
logger = logging.getLogger(__name__)
PROTOCOLS = ("ours", "reference")


class FolderDataset(Declaration, DatasetBase):
    """Base class of a dataset on disk; subclasses are declarations without code.

    Attributes:
        dataset_dir: absolute path of the data folder.
        image_dir: folder that the paths of the split are relative to.
        image_summary: kinds of image and what was done to how many; None: not looked at.
        name: of the dataset in messages and file names.
        reference: whether `DATASET.PROTOCOL` is `reference`.
        split_path: split file in use, "" if every image is test.
        store: storage of the split and the cache of valid images.
        table: the classes.

    The attributes of a declaration are documented in `Declaration`.
    """

    image_dir: str
    image_summary: dict[str, Any] | None = None
    name: str
    reference: bool
    split_path: str
    store: Store
    table: ClassTable

    def __init__(self, cfg: Any) -> None:
        """Load the dataset.

        Args:
            cfg: Dassl config with `DATASET.{ROOT, NUM_SHOTS, SUBSAMPLE_CLASSES, PROTOCOL,
                CHECK_IMAGES, SKIP_BROKEN}` and `SEED`; all but ROOT may be absent.

        Raises:
            UserError: the data or a part of it is missing or damaged, or a key has a bad value.
        """
        self._locate(cfg.DATASET.ROOT, _setting(cfg, "PROTOCOL", "ours"))
        split = self._select_images(self.load_split(), cfg)
        settings = read_settings(getattr(cfg, "INPUT", None))
        train, val, test = (self._as_data(part, settings) for part in split)
        super().__init__(train_x=train, val=val, test=test)

    @classmethod
    def at(cls, root: str) -> FolderDataset:
        """Return an instance with folder, classes and layouts, without split and images."""
        dataset = cls.__new__(cls)
        dataset._locate(root)
        return dataset

    @classmethod
    def without_data(cls, root: str) -> FolderDataset:
        """Return an instance with its declared folder and classes; the data may be absent."""
        dataset = cls.__new__(cls)
        dataset.name = cls.__name__
        dataset.dataset_dir = os.path.join(root, cls.dataset_dir)
        dataset.table = ClassTable(cls.class_table)
        return dataset

    def _locate(self, root: str, protocol: str = "ours") -> None:
        if protocol not in PROTOCOLS:
            raise UserError(f"DATASET.PROTOCOL is '{protocol}'.{suggest(str(protocol), PROTOCOLS)}")
        self.name = self.file_name or type(self).__name__
        self.reference = protocol == "reference"
        if self.reference:
            self.split_folders = self.reference_split_folders or self.split_folders
            self.template = self.reference_template or self.template
        self.dataset_dir = self.find_dataset_dir(os.path.abspath(os.path.expanduser(root)))
        self.table = self.find_classes()
        self.store = Store(self.dataset_dir, self.name)

    @classmethod
    def folder_under(cls, root: str) -> str:
        """Return the data folder under `root`; nothing is loaded."""
        return cls.__new__(cls).find_dataset_dir(root)

    def find_dataset_dir(self, root: str) -> str:
        """Return the data folder under `root`, the absolute `cfg.DATASET.ROOT`."""
        return os.path.join(root, type(self).dataset_dir)

    def find_classes(self) -> ClassTable:
        """Return the classes; none as long as the file that names them is absent."""
        path = Path(self.dataset_dir, self.class_file)
        if self.class_file and path.is_file():
            return ClassTable.read(path)
        return ClassTable(self.class_table)

    def layouts(self) -> list[Layout]:
        """Return where class folders may be, in order of preference."""
        official = os.path.basename(self.dataset_dir)
        return declared_layouts(
            self.dataset_dir, (official, "", *self.image_roots), self.split_folders
        )

    def expected_layout(self) -> str:
        """Return the expected folder tree as text."""
        split = self.split_files[:1] if self.needs_split else ()
        files = [name.format(self.name) for name in (*split, self.class_file, *self.list_files)]
        classes = [self.table.folder_of(label) for label in range(len(self.table.rows))]
        return expected_tree(
            self.dataset_dir,
            [] if self.list_files else classes,
            [file for file in files if file],
            self.image_roots,
            self.split_folders,
        )

    def find_layout(self) -> Layout:
        """Return where the class folders are.

        Raises:
            UserError: nowhere; the message has the folders searched and the expected tree.
        """
        layout = best_layout(self.layouts(), self.table)
        if layout is None:
            places = dict.fromkeys(f for layout in self.layouts() for f in layout.folders())
            state = "does not exist"
            if os.path.isdir(self.dataset_dir):
                state = "holds no class folder"
            root = os.path.dirname(self.dataset_dir)
            if any(self.table.label_of(g.name) is not None for g in find_groups(root)):
                state += f", but {root} holds some: DATASET.ROOT must be the folder above"
            raise UserError(
                f"{self.name}: {self.dataset_dir} {state}. Searched: {', '.join(places)}.\n"
                f"Expected, where DATASET.ROOT (--root) is {root}:\n"
                f"{self.expected_layout()}\nGet the data from {self.homepage}"
            )
        return layout

    def list_split(self) -> tuple[str, Split]:
        """Return the image folder, and the official split or a new one."""
        if not self.table.rows:
            raise UserError(
                f"{self.name}: no class is known without {self.class_file or 'the class names'} in "
                f"{self.dataset_dir}. Expected:\n{self.expected_layout()}\n"
                f"Get the data from {self.homepage}"
            )
        if self.list_files:
            lists = (self.list_files, self.list_line, self.list_image)
            split = split_from_lists(self.dataset_dir, *lists, self.table)
            return self.dataset_dir, fill_val(split, self.val_from, self.name)
        layout = self.find_layout()
        if layout.kept and not self.test_only:
            split = split_from_folders(layout, self.split_folders, self.table, self.name)
            return layout.image_dir, fill_val(split, self.val_from, self.name)
        images = self.list_images(layout)
        if self.test_only:
            items = labelled(images, self.table.prompts)
            return layout.image_dir, Split(items, [], items)
        source = f"{self.name} in {' and '.join(layout.folders())}"
        return layout.image_dir, split_classes(images, self.table.prompts, source, self.fractions)

    def list_images(self, layout: Layout) -> list[list[str]]:
        """Return the images per class; absent `partial` classes leave the table for good."""
        if self.partial:
            present = {label for _, found, _ in matches(layout, self.table) for label in found}
            prompts = self.table.prompts if self.partial is True else self.partial
            absent = {i for i, p in enumerate(self.table.prompts) if p in prompts} - present
            if absent:
                logger.info("%s: %d classes are not there: left out", self.name, len(absent))
            self.table = self.table.only(set(range(len(self.table.rows))) - absent)
        roots = (*self.image_roots, os.path.basename(self.dataset_dir))
        others = {step for root in roots if isinstance(root, str) for step in root.split("/")[:1]}
        return images_by_class(layout, self.table, self.name, others | set(self.split_folders))

    def load_split(self) -> Split:
        """Return the split, read or made; sets `image_dir` and `split_path`."""
        path = find_foreign_split(self.dataset_dir, self.name, self.split_files)
        if self.test_only:
            path, (self.image_dir, split) = None, self.list_split()
        elif path:
            split = read_split(path)
            dirs = (layout.image_dir for layout in self.layouts())
            self.image_dir = find_image_dir(split, path, dirs)
            if not self.reference:
                return self._loaded(path, with_our_prompts(split, self.table, path))
            return self._loaded(path, split)
        else:
            self._report_missing_split()
            path, split = self._read_or_make_split()
        if self.reference:
            split = with_folder_prompts(split, self.reference_prompts)
        return self._loaded(path, split)

    def _loaded(self, path: Path | None, split: Split) -> Split:
        self.split_path = str(path or "")
        sizes = " / ".join(str(len(part)) for part in split)
        where = path or "(every image is test)"
        logger.info("%s: split %s, train / val / test %s", self.name, where, sizes)
        return split

    def _report_missing_split(self) -> None:
        files = " or ".join(pattern.format(self.name) for pattern in self.split_files)
        text = f"{self.name}: {self.dataset_dir} has no {files}. Get it from {self.split_url}"
        if self.needs_split:
            raise UserError(f"{text}; without it the classes and their order are not known.")
        if self.split_url:
            logger.warning("%s; a split of our own gives other numbers than the published.", text)

    def _read_or_make_split(self) -> tuple[Path, Split]:
        self.image_dir, fresh = self.list_split()
        check_split(fresh, f"{self.name} in {self.image_dir}")
        other = self.reference and self.reference_split_folders
        filename = OWN_NAME.format(f"{self.name}_reference" if other else self.name)
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

    def _select_images(self, split: Split, cfg: Any) -> Split:
        shots, seed = _setting(cfg, "NUM_SHOTS", -1), getattr(cfg, "SEED", -1)
        subset, wanted = (
            _setting(cfg, "SUBSAMPLE_CLASSES", "all"),
            _setting(cfg, "CHECK_IMAGES", True),
        )
        if self.test_only:
            shots = -1
            if subset != "all":
                raise UserError(
                    f"{self.name} is tested as a whole: it has no base and new classes. Set "
                    f"DATASET.SUBSAMPLE_CLASSES all, not {subset}."
                )
        if shots >= 1 and seed < 0:
            seed = random.SystemRandom().getrandbits(31)
            logger.info("SEED is not set: the %d shots are drawn with seed %d", shots, seed)
        if any(Path(self.dataset_dir, FEWSHOT_DIR).glob("shot_*.pkl")):
            logger.info("%s: the pickles in %s/ are ignored", self.dataset_dir, FEWSHOT_DIR)
        settings = read_settings(getattr(cfg, "INPUT", None))
        check = ImageCheck(self.image_dir, self.store, settings) if wanted else None
        skipped: dict[str, str] = {}
        while True:
            sample = few_shot(split, shots, seed, leave_out=skipped)
            # before the halves are taken: a class that is gone would move their border
            check_split(sample, f"{self.name} without the images that cannot be decoded")
            chosen = take_subset(sample, subset)
            broken = check.broken(i.path for part in chosen for i in part) if check else {}
            if not broken:
                self.image_summary = report_images(self.name, check, settings)
                return chosen
            skipped |= broken
            self._report_broken(broken, _setting(cfg, "SKIP_BROKEN", False))

    def _report_broken(self, broken: dict[str, str], skip: bool) -> None:
        message = (
            f"{self.image_dir}: {len(broken)} image(s) cannot be read: {describe_problems(broken)}."
        )
        if not skip:
            raise UserError(f"{message} Or set DATASET.SKIP_BROKEN True to leave them out.")
        logger.warning("%s Skipped.", message)

    def _as_data(self, items: Sequence[Item], settings: ReadSettings) -> list[Datum]:
        return [
            Datum(
                impath=ImageFile(os.path.join(self.image_dir, item.path), settings),
                label=item.label,
                classname=item.classname,
            )
            for item in items
        ]


def _setting(cfg: Any, key: str, default: Any) -> Any:
    """Return a `cfg.DATASET` key, or its default in host trees that do not have it."""
    return getattr(cfg.DATASET, key, default)
