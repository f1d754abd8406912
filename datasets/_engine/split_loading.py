"""The split of a dataset: from a file, a table, folders, or drawn."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from dplq.errors import UserError, few
from dplq.io.files import bytes_digest
from dplq.io.validation.paths import is_file, user_path

from .drawing.draft import Draft, draw, groups_of, warn_of_groups, warn_of_numbers
from .drawing.stored import read_or_store
from .entries import repeated_names
from .layout.folders import CLASSES_FILE
from .located import LocatedDataset
from .official import (
    drawn_parts,
    fill_val,
    labelled,
    require_parts,
    split_from_folders,
    split_from_lists,
)
from .protocol import Item, Split, all_as_test, by_place, check_split, split_digest
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
from .tables import Table, is_table, read_table, table_warnings

logger = logging.getLogger(__name__)


class SplitDataset(LocatedDataset):
    """Dataset whose split is known once `load_split` has run.

    Attributes:
        image_dir: folder that the paths of the split are relative to.
        split_hash: of the parts before shots and classes are selected (`split_digest`).
        split_path: split file in use, "" if folders give the split or every image is test.
    """

    image_dir: str
    split_hash: str
    split_path: str
    _table_read: tuple[Path, Table] | None = None

    def draft_split(self) -> Draft:
        """Return the official split, or a new one."""
        if not self.table.rows:
            raise UserError(
                f"{self.name}: no class is known without {self.class_file or 'the class names'} in "
                f"{self.dataset_dir}. Expected:",
                *self.expected_layout().splitlines(),
                f"Get the data from {self.homepage}",
            )
        if self.list_files:
            lists = (self.list_files, self.list_line, self.list_image)
            split = split_from_lists(self.dataset_dir, *lists, self.table)
            self._find_groups(self.dataset_dir, [item for part in split for item in part])
            return self._given(self.dataset_dir, split)
        layout = self.find_layout()
        if layout.kept and not self.test_only:
            require_parts(layout, self.split_folders, self.name)
        listing = self.used_listing(layout)
        items = labelled(listing.images, self.table.prompts)
        if self.test_only:
            return Draft(layout.image_dir, all_as_test(items), ())
        self._find_groups(layout.image_dir, items)
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

    def _find_groups(self, image_dir: str, items: Sequence[Item]) -> None:
        """Set the groups that `DATASET.GROUP` finds in the paths, or in DICOM files."""
        paths = [item.path for item in items]
        self.groups = groups_of(image_dir, paths, self.options.group)
        self.group_source = f"DATASET.GROUP {self.options.group}"

    def given_split_file(self) -> Path | None:
        """Return the split file or table that the config names or another project left, if any.

        Raises:
            UserError: the config names one that does not exist.
        """
        if not self.options.split_file:
            return find_foreign_split(self.dataset_dir, self.name, self.split_files)
        given = user_path(self.options.split_file, "DATASET.SPLIT_FILE")
        places = (Path(self.dataset_dir, given), given)
        found = next(filter(is_file, places), None)
        if found is None:
            raise UserError(
                f"DATASET.SPLIT_FILE is '{self.options.split_file}', but there is no "
                f"{places[0]}. Give a path relative to the data folder, or an absolute one."
            )
        return found

    def label_files(self) -> list[Path]:
        """Return the files that say which class and part images are of, where there are any."""
        given = None if type(self).test_only else self.given_split_file()
        names = Path(self.dataset_dir, CLASSES_FILE)
        return [path for path in (given, names) if path is not None and is_file(path)]

    def reads_table(self) -> bool:
        """Return whether the images and their classes are those of a table."""
        return not type(self).test_only and is_table(self.given_split_file())

    def load_split(self) -> Split:
        """Return the split, read or made; sets `image_dir`, `split_path` and `split_hash`."""
        path = None if type(self).test_only else self.given_split_file()
        has_table = is_table(path)
        for text in self.options.unused(has_table=has_table, all_tested=type(self).test_only):
            logger.warning("%s: %s", self.name, text)
        if path and has_table:
            path, split = self._split_from_table(path)
        elif path:
            self.is_given = True
            dirs = [layout.image_dir for layout in self.layouts()]
            same = repeated_names(self.table.prompts)
            split = read_split(path, self.split_remedy(), same)
            split = with_folders_on_disk(split, dirs, self.table)
            self.image_dir = find_image_dir(split, path, dirs, self.split_remedy())
            self._find_groups(self.image_dir, [item for part in split for item in part])
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
            if self.groups:
                logger.info("%s: %s", self.name, self.groups_in_words())
            pattern = self.options.group
            warn_of_groups(self.name, self.image_dir, split, self.groups, pattern, wanted)
        return split

    def groups_in_words(self) -> str:
        """Return how many groups there are, and where they are from."""
        count = len(set(self.groups.values()))
        return f"{len(self.groups)} images are in {count} groups, those of {self.group_source}"

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
            self._find_groups_in_table(list(chain(*given)), table)
            self.test_only = self.test_only or not given.train
            if self.test_only:
                draft = Draft(table.image_dir, all_as_test(chain(*given)), ())
            else:
                draft = self._given(table.image_dir, given)
        else:
            items = sorted(parts[""], key=by_place)
            self._find_groups_in_table(items, table)
            if self.test_only:
                draft = Draft(table.image_dir, all_as_test(items), ())
            else:
                split = draw(items, self.groups, str(path), self.fractions)
                draft = Draft(table.image_dir, split, Split._fields)
        stored, split = self._read_or_make_split(draft, f"_{path.stem}")
        return stored or path, split

    def _find_groups_in_table(self, items: Sequence[Item], table: Table) -> None:
        """Set the groups: those of `DATASET.GROUP`, else those of the table's column."""
        self._find_groups(table.image_dir, items)
        if not self.options.group:
            self.groups, self.group_source = dict(table.groups), table.group_column

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
            split = all_as_test(chain(*split))
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
