"""OwnImages: the user's own folder of class folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from dplq.errors import UserError

from ._engine.base import FolderDataset
from ._engine.folders import (
    CLASSES_FILE,
    NOT_CLASSES,
    ClassTable,
    in_words,
    list_folders,
    list_images,
)
from ._engine.layouts import Layout
from ._engine.official import fill_val, split_from_folders
from ._engine.protocol import Split
from ._engine.registration import declare
from ._engine.store import read_json

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


@declare
class OwnImages(FolderDataset):
    """Your images. `DATASET.ROOT` is the folder itself, or holds it under the name `own_images`.

    * Layout: `<class>/*.jpg`, split 50/20/30 in every class; or `train/<class>/`,
      `val/<class>/`, `test/<class>/` (also `training`, `valid`, `validation`, `testing`), kept as
      they are. Without a val folder a fifth of train becomes val.
    * Class names: the folder names as words (`DenseResidential`, `dense_residential` ->
      "Dense Residential", "dense residential"), sorted by folder name. To name or order them
      otherwise put a `classes.json` in the folder: ``{"folder": "prompt name", ...}`` or
      ``["prompt name or folder", ...]``. Its order is the label order and so decides the base and
      new classes; folders that it does not list are left out.
    """

    dataset_dir = "own_images"
    homepage = "your own collection"
    licence = "yours"

    def find_dataset_dir(self, root: str) -> str:
        """Return `root`/own_images if it exists, else `root`."""
        inside = super().find_dataset_dir(root)
        return inside if os.path.isdir(inside) else root

    def layouts(self) -> list[Layout]:
        """Return the one layout: class folders in the folder itself, or in its train folder."""
        return [Layout(self.dataset_dir, (self._parts().train,))]

    def find_layout(self) -> Layout:
        """Return the only layout; missing classes are reported when it is listed."""
        return self.layouts()[0]

    def find_classes(self) -> ClassTable:
        """Return the classes of `classes.json`, else one per folder that has an image."""
        path = Path(self.dataset_dir, CLASSES_FILE)
        if path.is_file():
            rows = _rows(read_json(path), path)
        else:
            rows = [(in_words(name), name) for name in self._image_folders(self._parts().train)]
        if len(rows) < 2:
            where = path if path.is_file() else self.dataset_dir
            state = f"has {len(rows)} classes" if Path(self.dataset_dir).is_dir() else "is absent"
            raise UserError(
                f"OwnImages: {where} {state}; at least 2 classes are needed.\n"
                f"{self.expected_layout()}"
            )
        return ClassTable(rows)

    def expected_layout(self) -> str:
        """Return both layouts as text."""
        return (
            f"Expected: {self.dataset_dir}/<class>/*.jpg, or train/<class>/*.jpg and "
            "test/<class>/*.jpg in it (DATASET.ROOT, --root, is that folder or holds it as "
            f"'{type(self).dataset_dir}')."
        )

    def list_split(self) -> tuple[str, Split]:
        """Return the folder, and the split by train, val and test folders or a new one."""
        parts = self._parts()
        if not parts.train:
            return super().list_split()
        if not parts.test:
            raise UserError(
                f"OwnImages: {self.dataset_dir} has '{parts.train}' but no test folder. Add "
                "test/<class>/*.jpg, or put the class folders directly into it to have them split."
            )
        split = split_from_folders(self.find_layout(), parts, self.table, self.name)
        return self.dataset_dir, fill_val(split, self.val_from, self.name)

    def _image_folders(self, part: str) -> list[str]:
        folder = os.path.join(self.dataset_dir, part)
        names = [name for name in list_folders(folder) if name not in NOT_CLASSES]
        return [name for name in names if list_images(os.path.join(folder, name))]

    def _parts(self) -> Parts:
        folders = {name.lower(): name for name in list_folders(self.dataset_dir)}
        found = Parts(
            *(
                next((folders[name] for name in names if name in folders), "")
                for names in PART_FOLDERS.values()
            )
        )
        # a class may be called "train": only a folder of class folders is a part
        return found if found.train and self._image_folders(found.train) else Parts("", "", "")


def _rows(raw: object, path: Path) -> list[tuple[str, str]]:
    names = list(raw.values()) if isinstance(raw, dict) else raw
    if isinstance(names, list) and all(isinstance(n, str) and n.strip() for n in names):
        if isinstance(raw, dict):
            return [(prompt, folder) for folder, prompt in raw.items()]
        return [(in_words(name), name) for name in names]
    raise UserError(
        f'{path} must be {{"folder": "prompt name", ...}} or ["prompt name or folder", ...], '
        "in label order."
    )
