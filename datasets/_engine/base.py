"""The base class of the datasets: from a declaration to few-shot Dassl data.

A dataset is a folder of images and a table of classes. What happens, in order (`cfg.DATASET` keys
in capitals):

1. find the data under `ROOT`;                              (`layouts.py`, `listing.py`)
2. read a split file or table, use the official split of the data,
   or make one, 50/20/30 in every class, by group where there are groups;
                                      (`splits.py`, `tables/`, `official.py`, `drawing/`)
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
from itertools import chain
from pathlib import Path
from typing import Any

from dplq.errors import UserError, few
from dplq.host.dassl import ensure_dassl
from dplq.images.reader import ImageFile
from dplq.io.files import bytes_digest

from .declaration import Declaration
from .drawing.draft import Draft, draw, groups_of, warn_of_groups, warn_of_numbers
from .drawing.stored import read_or_store
from .folders import FEWSHOT_DIR, ClassTable
from .images import ImageCheck, describe_problems, report_images
from .layouts import (
    Layout,
    Reading,
    best_layout,
    declared_layouts,
    expected_tree,
    find_groups,
)
from .listing import Listing, list_layout, require_complete
from .official import (
    drawn_parts,
    fill_val,
    labelled,
    require_parts,
    split_from_folders,
    split_from_lists,
)
from .options import Options
from .protocol import Item, Split, check_split, few_shot, split_digest, take_subset
from .splits import (
    NEW_SPLIT,
    OWN_NAME,
    classes_of,
    find_foreign_split,
    find_image_dir,
    read_split,
    with_folder_prompts,
    with_folders_on_disk,
    with_our_prompts,
)
from .store import Store
from .tables import SUFFIXES, Table, read_table, table_warnings

ensure_dassl()

from dassl.data.datasets import DatasetBase, Datum  # noqa: E402

__all__ = ["FolderDataset"]
logger = logging.getLogger(__name__)


class FolderDataset(Declaration, DatasetBase):
    """Base class of a dataset on disk; subclasses are declarations without code.

    Attributes:
        dataset_dir: absolute path of the data folder.
        groups: group (patient, scene, site) by path of the split, where there are groups.
        image_dir: folder that the paths of the split are relative to.
        is_given: whether files or folders give the split; False: it was drawn.
        image_summary: kinds of image and what was done to how many; None: not looked at.
        listing: the class folders, if the split was made from them.
        name: of the dataset in messages and file names.
        options: what the config says.
        reference: whether `DATASET.PROTOCOL` is `reference`.
        split_hash: of the parts before shots and classes are selected (`split_digest`).
        split_path: split file in use, "" if folders give the split or every image is test.
        store: storage of the split and the cache of valid images.
        table: the classes.

    The attributes of a declaration are documented in `Declaration`.
    """

    groups: dict[str, str]
    image_dir: str
    image_summary: dict[str, Any] | None = None
    is_given: bool
    listing: Listing | None
    name: str
    options: Options
    reference: bool
    split_hash: str
    split_path: str
    store: Store
    table: ClassTable
    _table_read: tuple[Path, Table] | None = None

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

    @classmethod
    def at(cls, root: str, options: Options | None = None) -> FolderDataset:
        """Return an instance with folder, classes and layouts, without split and images."""
        dataset = cls.__new__(cls)
        dataset._locate(root, options or Options())
        return dataset

    @classmethod
    def without_data(cls, root: str) -> FolderDataset:
        """Return an instance with its declared folder and classes; the data may be absent."""
        dataset = cls.__new__(cls)
        dataset.name = cls.__name__
        dataset.options = Options()
        dataset.dataset_dir = os.path.join(root, cls.dataset_dir)
        dataset.table = ClassTable(cls.class_table)
        return dataset

    def _locate(self, root: str, options: Options) -> None:
        self.options = options
        self.name = self.file_name or type(self).__name__
        self.reference = options.protocol == "reference"
        if self.reference:
            self.split_folders = self.reference_split_folders or self.split_folders
            self.template = self.reference_template or self.template
        self.test_only = type(self).test_only or options.all_test
        self.groups, self.listing, self.is_given = {}, None, False
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

    def reading(self) -> Reading:
        """Return how the files of the class folders are read."""
        return Reading(mask_patterns=tuple(self.mask_files))

    def list_folders(self, layout: Layout) -> Listing:
        """Return what the class folders hold, as a run uses it and as `data check` shows it."""
        roots = (*self.image_roots, os.path.basename(self.dataset_dir), *self.split_folders)
        others = {step for root in roots if isinstance(root, str) for step in root.split("/")[:1]}
        layout = layout._replace(kept=layout.kept and not self.test_only)
        return list_layout(layout, self.table, others, self.reading())

    def used_listing(self, layout: Layout) -> Listing:
        """Return the listing of a run; classes that may be absent leave the table for good.

        Raises:
            UserError: a class is missing or empty.
        """
        listing = self.list_folders(layout)
        if self.partial:
            prompts = self.table.prompts if self.partial is True else self.partial
            may_be = {i for i, prompt in enumerate(self.table.prompts) if prompt in prompts}
            absent = may_be.intersection(*listing.absent().values())
            if absent:
                logger.info("%s: %d classes are not there: left out", self.name, len(absent))
            listing = listing.without(absent)
        left_out = require_complete(listing, self.name, self.options.skip_empty)
        if left_out:
            names = few(listing.table.prompts[label] for label in sorted(left_out))
            logger.warning(
                "%s: %d class(es) without image left out: %s", self.name, len(left_out), names
            )
        listing = listing.without(left_out)
        self.table, self.listing = listing.table, listing
        return listing

    def draft_split(self) -> Draft:
        """Return the official split, or a new one."""
        if not self.table.rows:
            raise UserError(
                f"{self.name}: no class is known without {self.class_file or 'the class names'} in "
                f"{self.dataset_dir}. Expected:\n{self.expected_layout()}\n"
                f"Get the data from {self.homepage}"
            )
        if self.list_files:
            lists = (self.list_files, self.list_line, self.list_image)
            split = split_from_lists(self.dataset_dir, *lists, self.table)
            self._find_groups([item for part in split for item in part])
            return self._given(self.dataset_dir, split)
        layout = self.find_layout()
        if layout.kept and not self.test_only:
            require_parts(layout, self.split_folders, self.name)
        listing = self.used_listing(layout)
        items = labelled(listing.images, self.table.prompts)
        if self.test_only:
            return Draft(layout.image_dir, Split(items, [], items), ())
        self._find_groups(items)
        if layout.kept:
            split = split_from_folders(listing, self.split_folders)
            return self._given(layout.image_dir, split)
        source = f"{self.name} in {' and '.join(layout.folders())}"
        split = draw(items, self.groups, source, self.fractions)
        return Draft(layout.image_dir, split, Split._fields)

    def _given(self, image_dir: str, split: Split) -> Draft:
        """Return a given split, with a val part drawn where it has none."""
        self.is_given = True
        drawn = drawn_parts(split, self.val_from)
        return Draft(image_dir, fill_val(split, self.val_from, self.name, self.groups), drawn)

    def _find_groups(self, items: Sequence[Item]) -> None:
        """Set the groups that `DATASET.GROUP` finds in the paths."""
        self.groups = groups_of([item.path for item in items], self.options.group)

    def given_split_file(self) -> Path | None:
        """Return the split file or table that the config names or another project left, if any.

        Raises:
            UserError: the config names one that does not exist.
        """
        if not self.options.split_file:
            return find_foreign_split(self.dataset_dir, self.name, self.split_files)
        places = (Path(self.dataset_dir, self.options.split_file), Path(self.options.split_file))
        found = next((path for path in places if path.is_file()), None)
        if found is None:
            raise UserError(
                f"DATASET.SPLIT_FILE is '{self.options.split_file}', but there is no "
                f"{places[0]}. Give a path relative to the data folder, or an absolute one."
            )
        return found

    def reads_table(self) -> bool:
        """Return whether the images and their classes are those of a table."""
        path = None if type(self).test_only else self.given_split_file()
        return path is not None and path.suffix.lower() in SUFFIXES

    def load_split(self) -> Split:
        """Return the split, read or made; sets `image_dir`, `split_path` and `split_hash`."""
        path = None if type(self).test_only else self.given_split_file()
        has_table = bool(path and path.suffix.lower() in SUFFIXES)
        for text in self.options.unused(has_table=has_table, all_tested=type(self).test_only):
            logger.warning("%s: %s", self.name, text)
        if path and has_table:
            path, split = self._split_from_table(path)
        elif path:
            self.is_given = True
            dirs = [layout.image_dir for layout in self.layouts()]
            split = with_folders_on_disk(read_split(path, self.split_remedy()), dirs, self.table)
            self.image_dir = find_image_dir(split, path, dirs, self.split_remedy())
            self._find_groups([item for part in split for item in part])
            if not self.reference:
                split = with_our_prompts(split, self.table, path)
        else:
            if not self.test_only:
                self._report_missing_split()
            path, split = self._read_or_make_split(self.draft_split())
            if self.reference:
                split = with_folder_prompts(split, self.reference_prompts)
        split = self._loaded(path, split)
        if not self.test_only:
            wanted = None if self.is_given else self.fractions
            warn_of_groups(self.name, split, self.groups, self.options.group, wanted)
        return split

    def _split_from_table(self, path: Path) -> tuple[Path | None, Split]:
        table = self.read_table(path)
        for text in table_warnings(table):
            logger.warning("%s: %s", path, text)
        labels = {name: self._label_in_table(name, path) for name in table.classes}
        parts: dict[str, list[Item]] = {part: [] for part in (*Split._fields, "")}
        for row in table.rows:
            label = labels[row.label]
            parts[row.split].append(Item(row.path, label, self.table.prompts[label]))
        given = Split(*(sorted(parts[part], key=by_place) for part in Split._fields))
        if table.has_split:
            if not given.test:
                raise UserError(f"{path} has no test row: column split needs train and test.")
            self.groups = dict(table.groups)
            self.test_only = self.test_only or not given.train
            if self.test_only:
                every = sorted(chain(*given), key=by_place)
                draft = Draft(table.image_dir, Split(every, [], every), ())
            else:
                draft = self._given(table.image_dir, given)
        else:
            items = sorted(parts[""], key=by_place)
            self._find_groups(items)
            if not self.options.group:
                self.groups = dict(table.groups)
            draft = Draft(table.image_dir, Split(items, [], items), ())
            if not self.test_only:
                split = draw(items, self.groups, str(path), self.fractions)
                draft = Draft(table.image_dir, split, Split._fields)
        stored, split = self._read_or_make_split(draft, f"_{path.stem}")
        return stored or path, split

    def read_table(self, path: Path) -> Table:
        """Return the content of a table of images; it is read once."""
        if self._table_read is None or self._table_read[0] != path:
            self._table_read = path, read_table(path, self.dataset_dir, self.options.columns)
        return self._table_read[1]

    def _label_in_table(self, name: str, path: Path) -> int:
        label = self.table.label_of(name)
        if label is None:
            near = self.table.nearest(name)
            hint = "" if near is None else f" Nearest: '{self.table.folder_of(near)}'."
            raise UserError(
                f"{path}: label '{name}' is no class of {self.name}, which has "
                f"{few(map(repr, self.table.prompts))}.{hint}"
            )
        return label

    def _loaded(self, path: Path | None, split: Split) -> Split:
        if self.test_only:
            items = sorted({item for part in split for item in part}, key=by_place)
            split = Split(items, [], items)
        self.split_path = str(path or "")
        self.split_hash = split_digest(split)
        sizes = " / ".join(str(len(part)) for part in split)
        where = path or ("(every image is test)" if self.test_only else "given by folders")
        logger.info(
            "%s: split %s, hash %s, train / val / test %s", self.name, where, self.split_hash, sizes
        )
        warn_of_numbers(self.name, classes_of(split))
        return split

    @classmethod
    def split_remedy(cls) -> str:
        """Return what to do with a split file that is no good, as the end of a message."""
        return f"get the split file again from {cls.split_url}" if cls.needs_split else NEW_SPLIT

    def _report_missing_split(self) -> None:
        files = " or ".join(pattern.format(self.name) for pattern in self.split_files)
        text = f"{self.name}: {self.dataset_dir} has no {files}. Get it from {self.split_url}"
        if self.needs_split:
            raise UserError(f"{text}; without it the classes and their order are not known.")
        if self.split_url:
            logger.warning("%s; a split of our own gives other numbers than the published.", text)

    def _read_or_make_split(self, draft: Draft, suffix: str = "") -> tuple[Path | None, Split]:
        """Return the stored split, or the new one, which is stored if any part of it was drawn."""
        self.image_dir, fresh, drawn = draft
        check_split(fresh, f"{self.name} in {self.image_dir}")
        if not drawn:
            return None, fresh
        filename = OWN_NAME.format(self.name + suffix + self._variant())
        return read_or_store(self.store, filename, draft, self.groups)

    def _variant(self) -> str:
        """Return the end of the name of a stored split that another config key decides."""
        variant = "_reference" if self.reference and self.reference_split_folders else ""
        if self.options.group:
            variant += f"_group-{bytes_digest(self.options.group.encode())[:8]}"
        return variant

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


def by_place(item: Item) -> tuple[int, str]:
    """Return the key of the order of a split: label, then path."""
    return item.label, item.path
