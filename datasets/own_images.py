"""OwnImages: the user's own folder of class folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from dplq.errors import UserError, few
from dplq.io.spelling import spelling
from dplq.io.table_files import SPREADSHEETS
from dplq.io.validation.paths import is_file
from dplq.io.validation.schema import Name, read_json

from ._engine.base import FolderDataset
from ._engine.drawing.draft import Draft
from ._engine.drawing.subfolders import groups_from_subfolders
from ._engine.entries import check_class_names, check_names
from ._engine.layout.folders import (
    CLASSES_FILE,
    MASK_FOLDERS,
    NOT_CLASSES,
    ClassTable,
    has_image,
    in_words,
    list_folders,
    list_images,
)
from ._engine.layout.layouts import Layout, Reading
from ._engine.layout.names import in_order
from ._engine.options import Options
from ._engine.protocol import Item, Split
from ._engine.registration import declare
from ._engine.splits import classes_of, read_split
from ._engine.tables import find_table, is_table

logger = logging.getLogger(__name__)
PART_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


class Parts(NamedTuple):
    """Names of the train, val and test folders, "" where one is absent."""

    train: str
    val: str
    test: str


NO_PARTS = Parts("", "", "")


@declare
class OwnImages(FolderDataset):
    """Your images. `DATASET.ROOT` is the folder itself, or holds it under the name `own_images`.

    * Layout: `<class>/*.jpg`, split 50/20/30 in every class; or `train/<class>/`,
      `val/<class>/`, `test/<class>/` (also `training`, `valid`, `validation`, `testing`), kept as
      they are. Without a val folder a fifth of train becomes val; with a test folder alone, all
      images are test images.
    * Sub-folders of a class folder (`<class>/<patient>/*.png`) are read, too. Each is a group that
      is never on both sides of a split; `DATASET.GROUP` finds groups in the paths instead.
    * A table `labels.csv` or `split.csv`, or the only CSV file where there are no class folders,
      is read in place of the folders (`DATASET.SPLIT_FILE` names another, or a split in JSON).
    * Class names: the folder names as words (`DenseResidential`, `dense_residential` ->
      "Dense Residential", "dense residential"), sorted by folder name, numbers as numbers. To name
      or order them otherwise put a `classes.json` in the folder: ``{"folder": "prompt name", ...}``
      or ``["prompt name or folder", ...]``. Its order is the label order and so decides the base
      and new classes; folders that it does not list are left out.
    """

    dataset_dir = "own_images"
    homepage = "your own collection"
    licence = "yours"

    def _locate(self, root: str, options: Options) -> None:
        super()._locate(root, options)
        parts = self._parts
        self.split_folders = parts if any(parts) else ()
        # a new site's images: there is nothing to train on
        self.test_only = self.test_only or bool(parts.test and not parts.train)

    def find_dataset_dir(self, root: str) -> str:
        """Return `root`/own_images if it exists, else `root`."""
        inside = super().find_dataset_dir(root)
        return inside if os.path.isdir(inside) else root

    def layouts(self) -> list[Layout]:
        """Return the one layout: class folders in the folder itself, or in its part folders."""
        parts = tuple(filter(None, self._parts))
        return [Layout(self.dataset_dir, parts or ("",), kept=bool(parts))]

    def find_layout(self) -> Layout:
        """Return the only layout; missing classes are reported when it is listed."""
        return self.layouts()[0]

    def reading(self) -> Reading:
        """Return how class folders are read: with their sub-folders, without masks."""
        return Reading(nested=True, find_masks=True)

    def given_split_file(self) -> Path | None:
        """Return the split file that is named or found; else a table in the folder, if any."""
        found = super().given_split_file()
        if found or not os.path.isdir(self.dataset_dir):
            return found
        return find_table(self.dataset_dir, alone=len(self._class_folders()) < 2)

    def find_classes(self) -> ClassTable:
        """Return the classes of `classes.json`, the table, or the folders."""
        path = Path(self.dataset_dir, CLASSES_FILE)
        is_named = is_file(path)
        rows = _rows(path) if is_named else self._found_classes()
        if len(rows) < 2:
            where = path if is_named else self.dataset_dir
            state = (
                f"has {len(rows)} class{'es' * (len(rows) != 1)}"
                if Path(self.dataset_dir).is_dir()
                else "is absent"
            )
            raise UserError(
                f"OwnImages: {where} {state}; at least 2 classes are needed.{self._near_miss()}",
                *self.expected_layout().splitlines(),
            )
        table = ClassTable(rows)
        source = path if is_named else self.given_split_file() or self.dataset_dir
        check_class_names(table.prompts, str(source))
        return table

    def _near_miss(self) -> str:
        """Return what may be meant by a folder without class folders."""
        for name in list_folders(self.dataset_dir):
            inside = os.path.join(self.dataset_dir, name)
            if (
                sum(has_image(os.path.join(inside, step), True) for step in list_folders(inside))
                > 1
            ):
                return f" Is '{name}' the folder of the class folders? Then set --root {inside}."
        names = os.listdir(self.dataset_dir) if os.path.isdir(self.dataset_dir) else []
        if sheets := [name for name in sorted(names) if name.lower().endswith(SPREADSHEETS)]:
            return f" {sheets[0]} is not read: save it as 'CSV UTF-8' (labels.csv)."
        loose = len(list_images(self.dataset_dir))
        return f" {loose} images are in it, but in no class folder." if loose else ""

    def _found_classes(self) -> list[tuple[str, str]]:
        file = self.given_split_file()
        if file and is_table(file):
            table = self.read_table(file)
            return [(table.prompts[name], name) for name in table.classes]
        folders = [(in_words(name), name) for name in self._class_folders()]
        if len(folders) < 2 and file:
            return [(name, name) for name in classes_of(read_split(file))]
        return folders

    def _split_from_table(self, path: Path) -> tuple[Path | None, Split]:
        folders = self._class_folders()
        classes = self.read_table(path).classes
        is_found = not self.options.split_file  # nobody has asked for it
        if (
            is_found
            and len(folders) > 1
            and set(map(spelling, folders)) != {*map(spelling, classes)}
        ):
            logger.warning(
                "OwnImages: the classes are the labels of %s (%s), not the folders (%s)",
                path,
                few(classes),
                few(folders),
            )
        return super()._split_from_table(path)

    def _class_folders(self) -> list[str]:
        """Return the class folders in all parts; a class may be missing in one of them."""
        names: list[str] = []
        for folder in self.layouts()[0].folders():
            known = set(map(spelling, names))  # one class may be spelled otherwise in each part
            here = (name for name in list_folders(folder) if name not in NOT_CLASSES)
            names += [name for name in here if spelling(name) not in known]
        return in_order(names)

    def expected_layout(self) -> str:
        """Return both layouts as text."""
        return (
            f"Expected: {self.dataset_dir}/<class>/*.jpg, or train/<class>/*.jpg and "
            "test/<class>/*.jpg in it, or a table labels.csv with the columns path and label "
            "(DATASET.ROOT, --root, is that folder or holds it as "
            f"'{type(self).dataset_dir}')."
        )

    def draft_split(self) -> Draft:
        """Return the split by train, val and test folders, or a new one."""
        parts = self._parts
        if parts.train and not parts.test and not self.test_only:
            raise UserError(
                f"OwnImages: {self.dataset_dir} has '{parts.train}' but no test folder. Add "
                "test/<class>/*.jpg, or put the class folders directly into it to have them split."
            )
        self._warn_of_folders(parts)
        self._warn_of_datasets()
        return super().draft_split()

    def _warn_of_folders(self, parts: Parts) -> None:
        """Warn of folders that may be taken for something else than they are."""
        if any(parts):
            beside = (name for name in list_folders(self.dataset_dir) if name not in parts)
            unused = [n for n in beside if has_image(os.path.join(self.dataset_dir, n), True)]
            if unused:
                logger.warning(
                    "OwnImages: %s: the images in %s are in no part, so they are not used",
                    self.dataset_dir,
                    few(unused),
                )
        names = [row[-1] for row in self.table.rows if spelling(row[-1]) in MASK_FOLDERS]
        if names and not Path(self.dataset_dir, CLASSES_FILE).is_file():
            logger.warning(
                "OwnImages: %s is a class here, but is called like a folder of segmentation masks: "
                "if it is one, move it away; else name the classes in classes.json",
                few(f"'{name}'" for name in names),
            )

    def _warn_of_datasets(self) -> None:
        """Warn where the class folders are rather those of whole datasets."""
        from dplq.datasets import DECLARED  # this one is among them

        folders = [row[-1] for row in self.table.rows]
        known = {cls.dataset_dir.split("/")[0] for cls in DECLARED.values()}
        found = [name for name in folders if name in known]
        nested = [name for name in found if list_folders(os.path.join(self.dataset_dir, name))]
        if len(nested) > 1 and 2 * len(nested) >= len(folders):
            logger.warning(
                "OwnImages: %s holds folders of datasets (%s), which are taken for classes. Put "
                "your own images into its folder %s, or give another --root (dplq run: --data).",
                *(self.dataset_dir, few(nested), type(self).dataset_dir),
            )

    def _find_groups(self, image_dir: str, items: Sequence[Item]) -> None:
        super()._find_groups(image_dir, items)
        if self.listing is None or self.options.group:
            return
        depth = 2 if self.listing.is_kept or any(self._parts) else 1
        self.groups, single = groups_from_subfolders(self.listing.images, depth)
        self.group_source = "the sub-folders of class folders"
        if single:
            names = few(self.table.prompts[label] for label in single)
            logger.warning(
                "OwnImages: the images of class %s are in one sub-folder, which is not taken for "
                "a group: they are split one by one",
                names,
            )

    @cached_property
    def _parts(self) -> Parts:
        visible = list_folders(self.dataset_dir)
        folders = {name.lower(): name for name in visible}
        found = Parts(
            *(
                next((folders[name] for name in names if name in folders), "")
                for names in PART_FOLDERS.values()
            )
        )
        # a class may be called "train" or "test": only a folder of class folders is a part
        decisive = found.train or found.test
        if not decisive or not _has_class_folders(os.path.join(self.dataset_dir, decisive)):
            return NO_PARTS
        if not found.train and _class_folders_beside(self.dataset_dir, visible, found):
            return NO_PARTS
        return found


def _has_class_folders(folder: str) -> bool:
    return any(has_image(os.path.join(folder, name), True) for name in list_folders(folder))


def _class_folders_beside(dataset_dir: str, folders: Sequence[str], parts: Parts) -> bool:
    others = (name for name in folders if name not in parts)
    return any(has_image(os.path.join(dataset_dir, name), True) for name in others)


def _rows(path: Path) -> list[tuple[str, str]]:
    """Return prompt and folder of every class in a `classes.json`."""
    remedy = (
        'It must be {"folder": "prompt name", ...} or ["prompt name or folder", ...], in label '
        "order. Repair it, or delete it."
    )
    shape = dict[Name, Name] | list[Name]
    names: dict[str, str] | list[str] = read_json(path, shape, remedy=remedy)
    if isinstance(names, dict):
        check_names(names, str(path))
        return [(prompt, folder) for folder, prompt in names.items()]
    return [(in_words(name), name) for name in names]
