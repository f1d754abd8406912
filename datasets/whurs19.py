"""WHURS19: remote-sensing scenes of nineteen kinds."""

from typing import ClassVar

from ._engine.base import FolderDataset
from ._engine.registration import declare


@declare
class WHURS19(FolderDataset):
    """1,005 optical satellite scenes (Google Earth), 600x600 RGB, 50 to 61 in each of 19 classes.

    * Layout: `WHURS19/WHURS19/<class>/` (DPLQ's), `WHURS19/<class>/`, or the flat copy of
      RS-TransCLIP, `WHURS19/images/<class>_<number>.jpg`. Four images have another size.
    * Order: capitals first, so `footballField` and `railwayStation` are last: new classes.
    * Split: 50/20/30 in every class; the authors' `split_cao_WHURS19.json` is not public.
    * The original prompt of `Commercial` is the folder name, that of `Commerical` has its typo.
    """

    dataset_dir = "WHURS19"
    class_table = (
        ("Airport",),
        ("Beach",),
        ("Bridge",),
        ("Commercial Area", "Commercial", "Commerical"),
        ("Desert",),
        ("Farmland",),
        ("Forest",),
        ("Industrial Area", "Industrial"),
        ("Meadow",),
        ("Mountain",),
        ("Park",),
        ("Parking",),
        ("Pond",),
        ("Port",),
        ("Residential Area", "Residential"),
        ("River",),
        ("Viaduct",),
        ("Football Field", "footballField"),
        ("Railway Station", "railwayStation"),
    )
    image_roots = ("images", "images/{class}_*")
    v2_name = "WHURS19v2"
    reference_prompts: ClassVar = {"Commercial": "Commercial", "Commerical": "Commerical Area"}
    domain = "remote sensing"
    modality = "optical RGB"
    total_images = 1_005
    image_size = (600, 600)
    homepage = "https://captain-whu.github.io/BED4RS/"
    licence = "not stated"
    citation = "unknown: the peers' key is whurs19"
