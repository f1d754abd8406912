"""WHURS19: remote-sensing scenes of nineteen kinds."""

from dplq.dassl_compat import register_dataset

from .base import FolderDataset


@register_dataset
class WHURS19(FolderDataset):
    """1,005 optical satellite scenes (Google Earth), 600x600 RGB, 50 to 61 in each of 19 classes.

    * Layout: `WHURS19/WHURS19/<class>/` (the peers') or `WHURS19/<class>/`.
    * Order: capitals first, so `footballField` and `railwayStation` are last: new classes.
    * Split: 50/20/30 in every class; the authors' `split_cao_WHURS19.json` is not public.
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
    homepage = "https://captain-whu.github.io/BED4RS/"
    licence = "not stated"
