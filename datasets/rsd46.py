"""RSD46: remote-sensing scenes of forty-six kinds (RSD46-WHU)."""

from typing import ClassVar

from ._engine.base import FolderDataset
from ._engine.registration import declare


@declare
class RSD46(FolderDataset):
    """About 117,000 optical scenes (Google Earth, Tianditu) in 46 classes (third-party, rounded).

    * Layout: `RSD46/RSD46/train/<class>/` and `val/<class>/` (DPLQ's), or both in `RSD46/`.
      The spelling of several folders is uncertain; DPLQ's and the correct one are accepted.
    * Split: all of train; val and test are the halves of the val folder. The originals read
      the train folder twice, so their val and test images are training images: `reference`.
      The authors' `split_cao_RSD46.json` is not public.
    * A third-party list also has a folder `Lrregular farmland`: rename it.
    """

    dataset_dir = "RSD46"
    class_table = (
        ("Airplane",),
        ("Airport",),
        ("Artificial dense forest land", "Aritificial dense forest land"),
        ("Artificial sparse forest land", "Aritificial sparse forest land"),
        ("Bare land",),
        ("Basketball court",),
        ("Blue structured factory building",),
        ("Building",),
        ("Construction site",),
        ("Cross river bridge",),
        ("Crossroads",),
        ("Dense tall building",),
        ("Dock",),
        ("Fish pond",),
        ("Footbridge",),
        ("Graff",),
        ("Grassland",),
        ("Irregular farmland",),
        ("Low scattered building", "Low scatterd building"),
        ("Medium density scattered building",),
        ("Medium density structured building",),
        ("Natural dense forest land",),
        ("Natural sparse forest land",),
        ("Oil tank", "Oiltank"),
        ("Overpass",),
        ("Parking lot", "Parking_lot"),
        ("Plastic greenhouse", "Plasticgreenhouse"),
        ("Playground",),
        ("Railway",),
        ("Red structured factory building",),
        ("Refinery",),
        ("Regular farmland",),
        ("Scattered blue roof factory building", "Scattered blue root factory building"),
        ("Scattered red roof factory building", "Scattered red root factory building"),
        ("Sewage plant type one", "Sewage plant-type-one"),
        ("Sewage plant type two", "Sewage plant-type-two"),
        ("Ship",),
        ("Solar power station",),
        ("Sparse residential area",),
        ("Square",),
        ("Steel smelter", "Steelsmelter"),
        ("Storage land",),
        ("Tennis court",),
        ("Thermal power plant",),
        ("Vegetable plot",),
        ("Water",),
    )
    split_folders = ("train", "", "val")
    val_from = "half"
    reference_split_folders = ("train", "", "train")
    reference_prompts: ClassVar = {
        "Aritificial dense forest land": "Aritificial dense forest land",
        "Aritificial sparse forest land": "Aritificial sparse forest land",
        "Low scatterd building": "Low scatterd building",
        "Oiltank": "Oiltank",
        "Scattered blue root factory building": "Scattered blue root factory building",
        "Scattered red root factory building": "Scattered red root factory building",
    }
    domain = "remote sensing"
    modality = "optical RGB"
    homepage = "https://github.com/RSIA-LIESMARS-WHU/RSD46-WHU"
    citation = "Long et al.: Accurate Object Localization. IEEE TGRS 55(5), 2017, 2486-2498"
