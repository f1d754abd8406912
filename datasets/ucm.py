"""UCM: the UC Merced land-use scenes."""

from ._engine.base import FolderDataset
from ._engine.registration import declare


@declare
class UCM(FolderDataset):
    """2,100 optical aerial scenes, 0.3 m, 256x256 RGB (TIFF), 100 in each of 21 classes.

    * Layout: `UCM/UCM/<class>/` (DPLQ's) or, as the archive unpacks,
      `UCM/UCMerced_LandUse/Images/<class>/`. A few images are a little smaller than 256x256.
    * Split: 50/20/30 in every class; the authors' `split_cao_UCM.json` is not public.
    """

    dataset_dir = "UCM"
    class_table = (
        ("agricultural land", "agricultural"),
        ("airplane",),
        ("baseball diamond", "baseballdiamond"),
        ("beach",),
        ("buildings",),
        ("chaparral",),
        ("dense residential area", "denseresidential"),
        ("forest",),
        ("freeway",),
        ("golf course", "golfcourse"),
        ("harbor",),
        ("intersection",),
        ("medium residential area", "mediumresidential"),
        ("mobile home park", "mobilehomepark"),
        ("overpass",),
        ("parking lot", "parkinglot"),
        ("river",),
        ("runway",),
        ("sparse residential area", "sparseresidential"),
        ("storage tanks", "storagetanks"),
        ("tennis court", "tenniscourt"),
    )
    image_roots = ("Images", "UCMerced_LandUse/Images")
    v2_name = "UCMv2"
    domain = "remote sensing"
    modality = "optical aerial RGB"
    total_images = 2_100
    images_per_class = 100
    image_size = (256, 256)
    homepage = "http://weegee.vision.ucmerced.edu/datasets/landuse.html"
    licence = "public domain (torchgeo)"
    citation = "Yang, Newsam: Bag-of-visual-words for land-use classification. ACM GIS 2010"
    download = (
        (
            "https://hf.co/datasets/torchgeo/ucmerced/resolve/"
            "7c5ef3454d9b1cccfa7ccde0c01fc8f00a45909a/UCMerced_LandUse.zip",
            "5b7ec56793786b6dc8a908e8854ac0e4",
            "UCMerced_LandUse.zip",
        ),
    )
