"""MLRSNet: remote-sensing scenes of forty-six kinds."""

from typing import ClassVar

from ._engine.base import FolderDataset
from ._engine.registration import declare


@declare
class MLRSNet(FolderDataset):
    """109,161 optical aerial and satellite scenes, 256x256 RGB, in 46 classes (third-party count).

    * Layout: `MLRSNet/MLRSNet/<class>/` (DPLQ's), `MLRSNet/Images/<class>/` (the Kaggle copy)
      or `MLRSNet/<class>/`. Every public loader spells one folder `swimmimg_pool`.
    * Split: 50/20/30 in every class; the authors' `split_cao_MLRSNet.json` is not public.
    * A multi-label dataset; only its 46 scene folders are used.
    * The original prompts read "swimmig pool" and "bareland".
    """

    dataset_dir = "MLRSNet"
    class_table = (
        ("airplane",),
        ("airport",),
        ("bare land", "bareland"),
        ("baseball diamond", "baseball_diamond"),
        ("basketball court", "basketball_court"),
        ("beach",),
        ("bridge",),
        ("chaparral",),
        ("cloud",),
        ("commercial area", "commercial_area"),
        ("dense residential area", "dense_residential_area"),
        ("desert",),
        ("eroded farmland", "eroded_farmland"),
        ("farmland",),
        ("forest",),
        ("freeway",),
        ("golf course", "golf_course"),
        ("ground track field", "ground_track_field"),
        ("harbor and port", "harbor&port"),
        ("industrial area", "industrial_area"),
        ("intersection",),
        ("island",),
        ("lake",),
        ("meadow",),
        ("mobile home park", "mobile_home_park"),
        ("mountain",),
        ("overpass",),
        ("park",),
        ("parking lot", "parking_lot"),
        ("parkway",),
        ("railway",),
        ("railway station", "railway_station"),
        ("river",),
        ("roundabout",),
        ("shipping yard", "shipping_yard"),
        ("snowberg",),
        ("sparse residential area", "sparse_residential_area"),
        ("stadium",),
        ("storage tank", "storage_tank"),
        ("swimming pool", "swimmimg_pool"),
        ("tennis court", "tennis_court"),
        ("terrace",),
        ("transmission tower", "transmission_tower"),
        ("vegetable greenhouse", "vegetable_greenhouse"),
        ("wetland",),
        ("wind turbine", "wind_turbine"),
    )
    v2_name = "MLRSNetv2"
    reference_prompts: ClassVar = {
        "bareland": "bareland",
        "swimmimg_pool": "swimmig pool",
        "swimming_pool": "swimming_pool",
    }
    domain = "remote sensing"
    modality = "optical aerial and satellite RGB"
    total_images = 109_161
    image_size = (256, 256)
    homepage = "https://github.com/cugbrs/MLRSNet"
    citation = "Qi et al.: MLRSNet. ISPRS J. Photogramm. Remote Sens. 169, 2020, 337-350"
