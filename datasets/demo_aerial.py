"""DemoAerial: the demo's aerial scenes."""

from ._engine.families import DemoDataset, demo_classes
from ._engine.registration import declare


@declare
class DemoAerial(DemoDataset):
    """2,000 aerial scenes of 20 classes, 64x64, as a false-colour infrared sensor sees them.

    * Classes: AERIAL_CLASSES of `dplq.demo`; the first ten are base, the others new.
    * Split: 50/20/30 in every class.
    """

    dataset_dir = "demo_aerial"
    domain = "remote sensing"
    total_images = 2000
    v2_name = "DemoAerialv2"
    class_table = demo_classes("AERIAL_CLASSES")
