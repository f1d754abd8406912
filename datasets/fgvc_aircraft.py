"""FGVCAircraft: variants of aircraft."""

import os
from pathlib import Path

from dplq.io.validation.paths import is_file
from dplq.io.validation.schema import read_text

from ._engine.base import FolderDataset
from ._engine.families import VGG
from ._engine.layout.folders import ClassTable
from ._engine.registration import declare


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
        """Return the unpacked archive's inner folder if it exists."""
        folder = super().find_dataset_dir(root)
        inside = os.path.join(folder, "fgvc-aircraft-2013b", "data")
        return inside if os.path.isdir(inside) else folder

    def find_classes(self) -> ClassTable:
        """Return the classes in `variants.txt`, names alone; none if it is absent."""
        path = Path(self.dataset_dir, self.class_file)
        lines = (
            read_text(path, remedy="It lists the classes: get it again.").splitlines()
            if is_file(path)
            else []
        )
        return ClassTable([(line.strip(),) for line in lines if line.strip()])
