"""RSSCN7: remote-sensing scenes of seven kinds."""

from dplq.dassl_compat import register_dataset

from .base import FolderDataset


@register_dataset
class RSSCN7(FolderDataset):
    """2,800 optical aerial scenes (Google Earth), 400x400 RGB, 400 in each of 7 classes.

    * Layout: `RSSCN7/RSSCN7/<class>/` (the peers') or `RSSCN7/<class>/` (the repository as it is).
    * Folders: the repository puts a letter before each name (`aGrass`); the official order is that
      of the names without it, and decides the base (first 4) and new (last 3) classes.
    * Split: 50/20/30 in every class; the authors' `split_cao_RSSCN7.json` is not public.
    * Zou, Ni, Zhang, Wang: Deep Learning Based Feature Selection for Remote Sensing Scene
      Classification. IEEE GRSL 12, 2015.
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
    citation = "zou2015deep"
    homepage = "https://github.com/palewithout/RSSCN7"
    licence = "not stated; a third-party card says 'for research and academic purposes'"
