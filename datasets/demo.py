"""The built-in demo datasets: procedural pictures in the look of another sensor."""

from dplq.demo import AERIAL_CLASSES, TISSUE_CLASSES
from dplq.demo.gallery import gallery

from ._engine.base import FolderDataset, declare


class DrawnDataset(FolderDataset):
    """A dataset that is drawn into a cache folder on first use; `DATASET.ROOT` is not needed."""

    homepage = "drawn by dplq.demo"
    licence = "MIT"
    citation = "none"
    template = "a photo of a {}."

    def find_dataset_dir(self, root: str) -> str:
        """The cache folder, whatever `root` is."""
        return str(gallery(type(self).dataset_dir, tuple(row[0] for row in self.class_table)))


@declare
class DemoAerial(DrawnDataset):
    """2,000 aerial scenes of 20 classes, 64x64, as a false-colour infrared sensor sees them.

    * Classes: AERIAL_CLASSES of `dplq.demo`; the first ten are base, the others new.
    * Split: 50/20/30 in every class.
    """

    dataset_dir = "demo_aerial"
    domain = "remote sensing"
    total_images = 2000
    v2_name = "DemoAerialv2"
    class_table = tuple((name,) for name in AERIAL_CLASSES)


@declare
class DemoTissue(DrawnDataset):
    """800 tissue patterns of 8 classes, 64x64, grey and speckled like ultrasound.

    * Classes: TISSUE_CLASSES of `dplq.demo`; the first four are base, the others new.
    * Split: 50/20/30 in every class.
    """

    dataset_dir = "demo_tissue"
    domain = "medical"
    total_images = 800
    v2_name = "DemoTissuev2"
    class_table = tuple((name,) for name in TISSUE_CLASSES)
