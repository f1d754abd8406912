"""airplane: radar images of airliners."""

from typing import ClassVar

from ._engine.base import FolderDataset
from ._engine.registration import declare


@declare
class airplane(FolderDataset):
    """Synthetic-aperture radar chips of 6 kinds of airliner.

    DPLQ does not name its source; the classes are close to those of SAR-ACD
    (https://github.com/AICyberTeam/SAR-ACD), which was not verified.

    * Layout: `airplane/airplane/<class>/` (DPLQ's) or `airplane/<class>/`; the archive was not
      examined.
    * Split: 50/20/30 in every class; the authors' `split_cao_airplane.json` is not public.
    """

    dataset_dir = "airplane"
    class_table = (
        ("Airbus A220 airplane", "A220"),
        ("Airbus A320 or A321 airplane", "A320321"),
        ("Airbus A330 airplane", "A330"),
        ("COMAC ARJ21 airplane", "ARJ21"),
        ("Boeing 737 airplane", "Boeing737"),
        ("Boeing 787 airplane", "Boeing787"),
    )
    reference_prompts: ClassVar = {
        "A220": "A220 airplane",
        "A320321": "A320321 airplane",
        "A330": "A330 airplane",
        "ARJ21": "ARJ21 airplane",
        "Boeing737": "Boeing737 airplane",
        "Boeing787": "Boeing787 airplane",
    }
    template = "a synthetic aperture radar image of {}."
    reference_template = "a photo of {}."
    domain = "SAR"
    modality = "synthetic-aperture radar, aircraft"
