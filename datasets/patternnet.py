"""PatternNet: remote-sensing scenes of thirty-eight kinds."""

from typing import ClassVar

from ._engine.base import FolderDataset
from ._engine.registration import declare


@declare
class PatternNet(FolderDataset):
    """30,400 optical scenes (Google Earth, 0.06 to 5 m), 256x256 RGB, 800 in each of 38 classes.

    * Layout: `PatternNet/PatternNet/<class>/` (DPLQ's) or, as the archive unpacks,
      `PatternNet/images/<class>/` or `PatternNet/PatternNet/images/<class>/`.
    * Split: 50/20/30 in every class; the authors' `split_cao_PatternNet.json` is not public.
      APPLeNet's datasets of this name and of the name PatternNetv2 are others.
    * The original prompts read "inter section" (v2: "intersection") and "swimming_pool".
    """

    dataset_dir = "PatternNet"
    class_table = (
        ("airplane",),
        ("baseball field", "baseball_field"),
        ("basketball court", "basketball_court"),
        ("beach",),
        ("bridge",),
        ("cemetery",),
        ("chaparral",),
        ("christmas tree farm", "christmas_tree_farm"),
        ("closed road", "closed_road"),
        ("coastal mansion", "coastal_mansion"),
        ("crosswalk",),
        ("dense residential area", "dense_residential"),
        ("ferry terminal", "ferry_terminal"),
        ("football field", "football_field"),
        ("forest",),
        ("freeway",),
        ("golf course", "golf_course"),
        ("harbor",),
        ("intersection",),
        ("mobile home park", "mobile_home_park"),
        ("nursing home", "nursing_home"),
        ("oil gas field", "oil_gas_field"),
        ("oil well", "oil_well"),
        ("overpass",),
        ("parking lot", "parking_lot"),
        ("parking space", "parking_space"),
        ("railway",),
        ("river",),
        ("runway",),
        ("runway marking", "runway_marking"),
        ("shipping yard", "shipping_yard"),
        ("solar panel", "solar_panel"),
        ("sparse residential area", "sparse_residential"),
        ("storage tank", "storage_tank"),
        ("swimming pool", "swimming_pool", "swimmimg_pool"),
        ("tennis court", "tennis_court"),
        ("transformer station", "transformer_station"),
        ("wastewater treatment plant", "wastewater_treatment_plant"),
    )
    image_roots = ("images", "PatternNet/images")
    v2_name = "PatternNetv2"
    reference_v2_prompts: ClassVar = {
        "swimming_pool": "swimming_pool",
        "swimmimg_pool": "swimmig pool",
    }
    reference_prompts: ClassVar = {"intersection": "inter section", **reference_v2_prompts}
    domain = "remote sensing"
    modality = "optical RGB"
    total_images = 30_400
    images_per_class = 800
    image_size = (256, 256)
    homepage = "https://sites.google.com/view/zhouwx/dataset"
    licence = "CC-BY-4.0 (torchgeo); a third-party card says 'for research purposes'"
    citation = "Zhou, Newsam, Li, Shao: PatternNet. ISPRS J. 145, 2018, 197-209"
    download = (
        (
            "https://hf.co/datasets/torchgeo/PatternNet/resolve/"
            "2dbd901b00e301967a5c5146b25454f5d3455ad0/PatternNet.zip",
            "96d54b3224c5350a98d55d5a7e6984ad",
            "PatternNet.zip",
        ),
    )
