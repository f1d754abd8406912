"""AID: aerial scenes of thirty kinds."""

from typing import ClassVar

from ._engine.base import FolderDataset
from ._engine.registration import declare


@declare
class AID(FolderDataset):
    """10,000 optical aerial scenes (Google Earth) in 30 classes, 220 to 420 in each.

    * Layout: `AID/AID/<class>/` (DPLQ's) or `AID/<class>/`.
    * Split: 50/20/30 in every class; the authors' `split_cao_AID.json` is not public.
    * The original prompt of `DenseResidential` is the folder name, that of `BareLand` in v2 too.
    """

    dataset_dir = "AID"
    class_table = (
        ("Airport",),
        ("Bare Land", "BareLand"),
        ("Baseball Field", "BaseballField"),
        ("Beach",),
        ("Bridge",),
        ("Center Area", "Center"),
        ("Church",),
        ("Commercial Area", "Commercial"),
        ("Dense Residential Area", "DenseResidential"),
        ("Desert",),
        ("Farmland",),
        ("Forest",),
        ("Industrial Area", "Industrial"),
        ("Meadow",),
        ("Medium Residential Area", "MediumResidential"),
        ("Mountain",),
        ("Park",),
        ("Parking",),
        ("Playground",),
        ("Pond",),
        ("Port",),
        ("Railway Station", "RailwayStation"),
        ("Resort",),
        ("River",),
        ("School",),
        ("Sparse Residential Area", "SparseResidential"),
        ("Square",),
        ("Stadium",),
        ("Storage Tanks", "StorageTanks"),
        ("Viaduct",),
    )
    v2_name = "AIDv2"
    reference_prompts: ClassVar = {"DenseResidential": "DenseResidential"}
    reference_v2_prompts: ClassVar = {"BareLand": "BareLand", **reference_prompts}
    domain = "remote sensing"
    modality = "optical RGB"
    total_images = 10_000
    images_per_class = (
        *(360, 310, 220, 400, 360, 260, 240, 350, 410, 300),
        *(370, 250, 390, 280, 290, 340, 350, 390, 370, 420),
        *(380, 260, 290, 410, 300, 300, 330, 290, 360, 420),
    )
    homepage = "http://www.captain-whu.com/project/AID/"
    citation = "Xia et al.: AID. IEEE TGRS 55(7), 2017, 3965-3981, doi 10.1109/TGRS.2017.2685945"
