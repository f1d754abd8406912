"""ship: radar images of ships."""

from typing import ClassVar

from ._engine.base import FolderDataset
from ._engine.registration import declare


@declare
class ship(FolderDataset):
    """Synthetic-aperture radar chips of 7 kinds of ship.

    DPLQ does not name its source; the classes resemble FUSAR-Ship, which was not verified.

    * Layout: `ship/ship/<class>/` (DPLQ's) or `ship/<class>/`; the archive was not examined.
    * Split: 50/20/30 in every class; the authors' `split_cao_ship.json` is not public.
    """

    dataset_dir = "ship"
    class_table = (
        ("Bulk Carrier", "BulkCarrier"),
        ("Cargo Ship", "CargoShip"),
        ("Container Ship", "ContainerShip"),
        ("Dredger",),
        ("Fishing Vessel", "Fishing"),
        ("General Cargo Ship", "GeneralCargo"),
        ("Tanker",),
    )
    reference_prompts: ClassVar = {"GeneralCargo": "General Cargo"}
    template = "a synthetic aperture radar image of {}."
    reference_template = "a photo of {}."
    domain = "SAR"
    modality = "synthetic-aperture radar, ships"
