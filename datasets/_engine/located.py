"""The data of a dataset on disk: its folder, its classes, its class folders."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TypeVar

from dplq.errors import UserError, few
from dplq.io.validation.paths import is_file, refusal, user_folder

from .declaration import Declaration
from .layout.folders import ClassTable
from .layout.layouts import (
    Layout,
    Reading,
    best_layout,
    declared_layouts,
    expected_tree,
    find_groups,
)
from .layout.listing import Listing, list_layout, require_complete
from .options import Options
from .store import Store

logger = logging.getLogger(__name__)
T = TypeVar("T", bound="LocatedDataset")
ROOT_KEY = "DATASET.ROOT (--root)"


class LocatedDataset(Declaration):
    """Dataset whose folder and classes are known.

    Attributes:
        dataset_dir: absolute path of the data folder.
        groups: group (patient, scene, site) by path of the split, where there are groups.
        group_source: where they are from, in words.
        is_given: whether files or folders give the split; False: it was drawn.
        listing: the class folders, if the split was made from them.
        name: of the dataset in messages and file names.
        options: what the config says.
        reference: whether `DATASET.PROTOCOL` is `reference`.
        store: storage of the split and the cache of valid images.
        table: the classes.

    The attributes of a declaration are documented in `Declaration`.
    """

    groups: dict[str, str]
    group_source: str
    is_given: bool
    listing: Listing | None
    name: str
    options: Options
    reference: bool
    store: Store
    table: ClassTable

    @classmethod
    def at(cls: type[T], root: str, options: Options | None = None) -> T:
        """Return an instance with folder, classes and layouts, without split and images."""
        dataset = cls.__new__(cls)
        dataset._locate(root, options or Options())
        return dataset

    @classmethod
    def without_data(cls: type[T], root: str) -> T:
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
        self.groups, self.group_source = {}, ""
        self.listing, self.is_given = None, False
        self.dataset_dir = self.find_dataset_dir(os.path.abspath(user_folder(root, ROOT_KEY)))
        if problem := refusal(self.dataset_dir):
            raise UserError(
                f"{self.name}: the data folder {self.dataset_dir} {problem}. Put the data there, "
                "or remove it."
            )
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
        if self.class_file and is_file(path):
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
            if self._holds_classes(root):
                state += f", but {root} holds some: DATASET.ROOT must be the folder above"
            raise UserError(
                f"{self.name}: {self.dataset_dir} {state}. Searched: {', '.join(places)}.",
                f"Expected, where DATASET.ROOT (--root) is {root}:",
                *self.expected_layout().splitlines(),
                f"Get the data from {self.homepage}",
            )
        return layout

    def _holds_classes(self, folder: str) -> bool:
        try:
            return any(self.table.label_of(g.name) is not None for g in find_groups(folder))
        except UserError:  # it cannot be listed, which is not what is wrong here
            return False

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
