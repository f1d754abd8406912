"""RSSCN7: remote-sensing scenes of seven kinds."""

from typing import ClassVar

from ._engine.base import FolderDataset
from ._engine.registration import declare


@declare
class RSSCN7(FolderDataset):
    """2,800 optical aerial scenes (Google Earth), 400x400 RGB, 400 in each of 7 classes.

    * Layout: `RSSCN7/RSSCN7/<class>/` (DPLQ's) or `RSSCN7/<class>/` (the repository as it is).
    * Folders: the repository puts a letter before each name (`aGrass`); the official order is that
      of the names without it, and decides the base (first 4) and new (last 3) classes.
    * Split: 50/20/30 in every class; the authors' `split_cao_RSSCN7.json` is not public.
    """

    dataset_dir = "RSSCN7"
    class_table = (
        ("Field", "bField"),
        ("Forest", "eForest"),
        ("Grass", "aGrass"),
        ("Industrial Area", "cIndustry", "Industry"),
        ("Parking", "gParking"),
        ("Residential Area", "fResident", "Resident"),
        ("River or Lake", "dRiverLake", "RiverLake"),
    )
    v2_name = "RSSCN7v2"
    reference_v2_prompts: ClassVar = {"RiverLake": "River Lake", "dRiverLake": "River Lake"}
    domain = "remote sensing"
    modality = "optical RGB"
    total_images = 2_800
    images_per_class = 400
    image_size = (400, 400)
    homepage = "https://github.com/palewithout/RSSCN7"
    licence = "not stated; a third-party card says 'for research and academic purposes'"
    citation = "Zou, Ni, Zhang, Wang: Deep Learning Based Feature Selection. IEEE GRSL 12, 2015"
