"""NWPU: remote-sensing scenes of forty-five kinds (NWPU-RESISC45)."""

from ._engine.base import FolderDataset
from ._engine.registration import declare


@declare
class NWPU(FolderDataset):
    """31,500 optical scenes (Google Earth, 0.2 to 30 m), 256x256 RGB, 700 in each of 45 classes.

    * Layout: `nwpu/nwpu/<class>/` (DPLQ's) or, as the archive unpacks,
      `nwpu/NWPU-RESISC45/<class>/`.
    * Names: DPLQ registers it as `nwpu`, and `nwpuv2`; both work here too.
    * Split: 50/20/30 in every class; the authors' `split_cao_NWPU.json` is not public. APPLeNet's
      RESISC45 has another label order.
    """

    dataset_dir = "nwpu"
    class_table = (
        ("airplane",),
        ("airport",),
        ("baseball diamond", "baseball_diamond"),
        ("basketball court", "basketball_court"),
        ("beach",),
        ("bridge",),
        ("chaparral",),
        ("church",),
        ("circular farmland", "circular_farmland"),
        ("cloud",),
        ("commercial area", "commercial_area"),
        ("dense residential area", "dense_residential"),
        ("desert",),
        ("forest",),
        ("freeway",),
        ("golf course", "golf_course"),
        ("ground track field", "ground_track_field"),
        ("harbor",),
        ("industrial area", "industrial_area"),
        ("intersection",),
        ("island",),
        ("lake",),
        ("meadow",),
        ("medium residential area", "medium_residential"),
        ("mobile home park", "mobile_home_park"),
        ("mountain",),
        ("overpass",),
        ("palace",),
        ("parking lot", "parking_lot"),
        ("railway",),
        ("railway station", "railway_station"),
        ("rectangular farmland", "rectangular_farmland"),
        ("river",),
        ("roundabout",),
        ("runway",),
        ("sea ice", "sea_ice"),
        ("ship",),
        ("snowberg",),
        ("sparse residential area", "sparse_residential"),
        ("stadium",),
        ("storage tank", "storage_tank"),
        ("tennis court", "tennis_court"),
        ("terrace",),
        ("thermal power station", "thermal_power_station"),
        ("wetland",),
    )
    image_roots = ("NWPU-RESISC45", "images")
    also_called = ("nwpu",)
    v2_name = "NWPUv2"
    domain = "remote sensing"
    modality = "optical RGB"
    total_images = 31_500
    images_per_class = 700
    image_size = (256, 256)
    homepage = "https://doi.org/10.1109/jproc.2017.2675998"
    licence = "CC-BY-NC-4.0 (torchgeo); a third-party card says CC-BY-SA"
    citation = "Cheng, Han, Lu: Remote sensing image scene classification. Proc. IEEE, 2017"
    download = (
        (
            "https://hf.co/datasets/isaaccorley/resisc45/resolve/"
            "883edc0eee77b2c84225472f10f126e3ed83fa6e/NWPU-RESISC45.zip",
            "75206b2e16446591afa88e2628744886",
            "NWPU-RESISC45.zip",
        ),
    )
