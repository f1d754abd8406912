"""Base classes of the datasets of one publication: DPLQ's medical, CoOp's natural, the demo's."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from dplq.io.validation.paths import is_file

from .base import FolderDataset
from .layout.folders import ClassTable
from .splits import classes_of, read_split

DEMO = "dplq.demo"  # imported by name only: the library does not depend on the demo
DRIVE = "https://drive.google.com/uc?export=download&id="
KAGGLE = "https://www.kaggle.com/datasets/"
VGG = "https://www.robots.ox.ac.uk/~vgg/data/"


class MedicalDataset(FolderDataset):
    """Base class of DPLQ's medical datasets.

    The authors' split files are not public: every class is split 50/20/30. Datasets of the same
    name in BiomedCoOp are declared in `biomedcoop.py`.
    """

    domain = "medical"
    reference_template = "a photo of {}."


class CoOpDataset(FolderDataset):
    """Base class of CoOp's natural datasets with a published split file.

    Names, folders and templates are CoOp's. The split files of its `DATASETS.md` are needed: the
    published numbers belong to them, and classes, their order and their names come from them.
    Image counts are those of the splits.

    Attributes:
        split_id: of the split file on Google Drive.
        archives: (URL, MD5, file name) of images that may be downloaded without consent, as
            torchvision has them; the split file is added.
    """

    needs_split = True
    domain = "natural"
    modality = "photographs"
    template = "a photo of a {}."
    split_id: ClassVar[str] = ""
    archives: ClassVar[tuple[tuple[str, str, str], ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        file = f"split_zhou_{cls.__name__}.json"
        cls.split_files = (file,)
        cls.split_url = DRIVE + cls.split_id
        cls.download = (*cls.archives, (cls.split_url, "", file)) if cls.archives else ()

    def find_classes(self) -> ClassTable:
        """Return the classes of the split file in its order, without `_`; none if it is absent."""
        path = Path(self.dataset_dir, self.split_files[0])
        names = classes_of(read_split(path, self.split_remedy())) if is_file(path) else []
        return ClassTable([(name.replace("_", " "), name) for name in names])


class DemoDataset(FolderDataset):
    """Base class of the demo datasets, drawn into a cache folder on first use.

    `DATASET.ROOT` is not needed.
    """

    homepage = "drawn by dplq.demo"
    licence = "MIT"
    citation = "none"
    template = "a photo of a {}."

    def find_dataset_dir(self, root: str) -> str:
        """Return the cache folder, whatever `root` is."""
        gallery = import_module(f"{DEMO}.gallery").gallery
        return str(gallery(type(self).dataset_dir, tuple(row[0] for row in self.class_table)))


def demo_classes(name: str) -> tuple[tuple[str], ...]:
    """Return the class table made from a tuple of class names in `dplq.demo`."""
    return tuple((classname,) for classname in getattr(import_module(DEMO), name))
