"""MSTAR: radar images of military vehicles."""

from typing import ClassVar

from ._engine.base import FolderDataset
from ._engine.registration import declare


@declare
class MSTAR(FolderDataset):
    """Synthetic-aperture radar chips of 10 kinds of vehicle; which release of them is not known.

    * Layout: `MSTAR/MSTAR/<class>/` (DPLQ's) or `MSTAR/<class>/`; the archive was not examined.
    * Prompts: the originals call all ten a tank, also the bulldozer and the truck.
    * Split: 50/20/30 in every class; the authors' `split_cao_MSTAR.json` is not public.
    """

    dataset_dir = "MSTAR"
    class_table = (
        ("2S1 self-propelled howitzer", "2S1"),
        ("BMP2 infantry fighting vehicle", "BMP2"),
        ("BRDM-2 scout car", "BRDM_2"),
        ("BTR60 armored personnel carrier", "BTR60"),
        ("BTR70 armored personnel carrier", "BTR70"),
        ("D7 bulldozer", "D7"),
        ("T62 tank", "T62"),
        ("T72 tank", "T72"),
        ("ZIL131 truck", "ZIL131"),
        ("ZSU-23-4 anti-aircraft gun", "ZSU_23_4"),
    )
    reference_prompts: ClassVar = {
        "2S1": "2S1 tank",
        "BMP2": "BMP2 tank",
        "BRDM_2": "BRDM_2 tank",
        "BTR60": "BTR60 tank",
        "BTR70": "BTR70 tank",
        "D7": "D7 tank",
        "ZIL131": "ZIL131 tank",
        "ZSU_23_4": "ZSU_23_4 tank",
    }
    template = "a synthetic aperture radar image of {}."
    reference_template = "a photo of {}."
    domain = "SAR"
    modality = "synthetic-aperture radar, ground vehicles"
