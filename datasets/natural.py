"""CoOp's sets of natural images other than ImageNet: the targets of cross-dataset transfer.

Names, folders and templates are CoOp's. The split files of its `DATASETS.md` are needed: the
published numbers belong to them, and classes, their order and their names come from them. Counts
are those of the splits. FGVCAircraft has no split file: lists in the data say what is what.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from ._engine.base import FolderDataset, declare
from ._engine.folders import ClassTable
from ._engine.splits import classes_of, read_split

DRIVE = "https://drive.google.com/uc?export=download&id="
VGG = "https://www.robots.ox.ac.uk/~vgg/data/"


class CoOpDataset(FolderDataset):
    """What the sets with a published split file share.

    Attributes:
        split_id: of the split file on Google Drive.
        archives: (URL, MD5, file name) of images that may be fetched without asking, as
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
        """Those of the split file in its order, without `_`; none as long as it is absent."""
        path = Path(self.dataset_dir, self.split_files[0])
        names = classes_of(read_split(path)) if path.is_file() else []
        return ClassTable([(name.replace("_", " "), name) for name in names])


@declare
class Caltech101(CoOpDataset):
    """8,242 pictures of objects in 100 classes; train / val / test 4,128 / 1,649 / 2,465.

    Layout: `caltech-101/101_ObjectCategories/<class>/`. CoOp leaves out the background class and
    `Faces_easy`.
    """

    dataset_dir = "caltech-101"
    image_roots = ("101_ObjectCategories", "caltech101/101_ObjectCategories")
    split_id = "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"
    archives = (("torchvision:Caltech101", "", ""),)
    total_images = 8242
    homepage = "https://data.caltech.edu/records/mzrjq-6wc02"
    licence = "CC BY 4.0"
    citation = "Fei-Fei, Fergus, Perona: CVPR Workshops 2004"


@declare
class OxfordPets(CoOpDataset):
    """7,349 photographs of 37 breeds of cats and dogs; train / val / test 2,944 / 736 / 3,669.

    Layout: `oxford_pets/images/*.jpg`, flat.
    """

    dataset_dir = "oxford_pets"
    image_roots = ("images",)
    split_id = "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"
    archives = ((f"{VGG}pets/data/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c", ""),)
    template = "a photo of a {}, a type of pet."
    total_images = 7349
    homepage = f"{VGG}pets/"
    licence = "CC BY-SA 4.0"
    citation = "Parkhi, Vedaldi, Zisserman, Jawahar: Cats and Dogs. CVPR 2012"


@declare
class StanfordCars(CoOpDataset):
    """16,185 photographs of 196 models of cars; train / val / test 6,509 / 1,635 / 8,041.

    Layout: `stanford_cars/cars_train/*.jpg` and `stanford_cars/cars_test/*.jpg`. The original
    server no longer hands it out.
    """

    dataset_dir = "stanford_cars"
    image_roots = ()
    split_id = "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"
    total_images = 16185
    homepage = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html"
    citation = "Krause, Stark, Deng, Fei-Fei: ICCV Workshops 2013"


@declare
class OxfordFlowers(CoOpDataset):
    """8,189 photographs of 102 kinds of flowers; train / val / test 4,093 / 1,633 / 2,463.

    Layout: `oxford_flowers/jpg/*.jpg`, flat.
    """

    dataset_dir = "oxford_flowers"
    image_roots = ("jpg",)
    split_id = "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"
    archives = ((f"{VGG}flowers/102/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", ""),)
    template = "a photo of a {}, a type of flower."
    total_images = 8189
    homepage = f"{VGG}flowers/102/"
    citation = "Nilsback, Zisserman: ICVGIP 2008"


@declare
class Food101(CoOpDataset):
    """101,000 photographs of 101 dishes; train / val / test 50,500 / 20,200 / 30,300.

    Layout: `food-101/images/<class>/`.
    """

    dataset_dir = "food-101"
    image_roots = ("images",)
    split_id = "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"
    archives = (
        (
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "85eeb15f3717b99a5da872d97d918f87",
            "",
        ),
    )
    template = "a photo of {}, a type of food."
    images_per_class = 1000
    total_images = 101000
    homepage = "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/"
    citation = "Bossard, Guillaumin, Van Gool: ECCV 2014"


@declare
class FGVCAircraft(FolderDataset):
    """10,000 photographs of 100 variants of aircraft; train / val / test 3,334 / 3,333 / 3,333.

    * Layout: `fgvc_aircraft/images/*.jpg`, flat, with `variants.txt` (the classes in order) and
      the lists `images_variant_{train,val,test}.txt` beside it; or the archive as it is, in
      `fgvc_aircraft/fgvc-aircraft-2013b/data/`.
    """

    dataset_dir = "fgvc_aircraft"
    class_file = "variants.txt"
    image_roots = ("images",)
    split_files = ()
    list_files = tuple(f"images_variant_{part}.txt" for part in ("train", "val", "test"))
    list_line = r"(?P<file>\d+) (?P<class>.+)"
    list_image = "images/{file}.jpg"
    domain = "natural"
    modality = "photographs"
    template = "a photo of a {}, a type of aircraft."
    images_per_class = 100
    total_images = 10000
    homepage = f"{VGG}fgvc-aircraft/"
    licence = "non-commercial research"
    citation = "Maji, Rahtu, Kannala, Blaschko, Vedaldi: arXiv 1306.5151, 2013"
    download = ((f"{VGG}fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", "", ""),)

    def find_dataset_dir(self, root: str) -> str:
        """The unpacked archive's inner folder if it is there."""
        folder = super().find_dataset_dir(root)
        inside = os.path.join(folder, "fgvc-aircraft-2013b", "data")
        return inside if os.path.isdir(inside) else folder

    def find_classes(self) -> ClassTable:
        """The lines of `variants.txt`, names alone; none as long as it is absent."""
        path = Path(self.dataset_dir, self.class_file)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return ClassTable([(line.strip(),) for line in lines if line.strip()])


@declare
class SUN397(CoOpDataset):
    """39,700 photographs of 397 scenes; train / val / test 15,880 / 3,970 / 19,850.

    Layout: `sun397/SUN397/<letter>/<class>/`. The archive (37 GB) holds 108,754 images; CoOp uses
    the first of the official partitions.
    """

    dataset_dir = "sun397"
    image_roots = ("SUN397",)
    split_id = "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"
    archives = (
        (
            "http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
            "8ca2778205c41d23104230ba66911c7a",
            "",
        ),
    )
    total_images = 39700
    homepage = "https://vision.princeton.edu/projects/2010/SUN/"
    citation = "Xiao, Hays, Ehinger, Oliva, Torralba: CVPR 2010"


@declare
class DescribableTextures(CoOpDataset):
    """5,640 pictures of 47 textures, 120 of each; train / val / test 2,820 / 1,128 / 1,692.

    Layout: `dtd/images/<class>/`.
    """

    dataset_dir = "dtd"
    image_roots = ("images",)
    split_id = "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"
    archives = ((f"{VGG}dtd/download/dtd-r1.0.1.tar.gz", "fff73e5086ae6bdbea199a49dfb8a4c1", ""),)
    template = "{} texture."
    images_per_class = 120
    total_images = 5640
    homepage = f"{VGG}dtd/"
    licence = "research"
    citation = "Cimpoi, Maji, Kokkinos, Mohamed, Vedaldi: CVPR 2014"


@declare
class UCF101(CoOpDataset):
    """13,320 middle frames of videos of 101 actions; train / val / test 7,639 / 1,898 / 3,783.

    Layout: `ucf101/UCF-101-midframes/<class>/`, which CoOp's `DATASETS.md` links to. The official
    archive holds the videos, not the frames.
    """

    dataset_dir = "ucf101"
    image_roots = ("UCF-101-midframes",)
    split_id = "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"
    modality = "video frames"
    template = "a photo of a person doing {}."
    total_images = 13320
    homepage = "https://drive.google.com/file/d/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O/view"
    citation = "Soomro, Zamir, Shah: arXiv 1212.0402, 2012"
