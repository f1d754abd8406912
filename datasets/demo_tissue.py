"""DemoTissue: the demo's tissue patterns."""

from ._engine.families import DemoDataset, demo_classes
from ._engine.registration import declare


@declare
class DemoTissue(DemoDataset):
    """800 tissue patterns of 8 classes, 64x64, grey and speckled like ultrasound.

    * Classes: TISSUE_CLASSES of `dplq.demo`; the first four are base, the others new.
    * Split: 50/20/30 in every class.
    """

    dataset_dir = "demo_tissue"
    domain = "medical"
    total_images = 800
    v2_name = "DemoTissuev2"
    class_table = demo_classes("TISSUE_CLASSES")
