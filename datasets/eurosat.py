"""EuroSAT: land use and land cover seen by Sentinel-2."""

from ._engine.base import FolderDataset
from ._engine.registration import declare


@declare
class EuroSAT(FolderDataset):
    """27,000 Sentinel-2 patches, 64x64 RGB, in 10 classes.

    * Layout: `eurosat/2750/<class>/` (CoOp's, and as the archive unpacks). Not the 13-band set.
    * Split: CoOp's `split_zhou_EuroSAT.json`, to be fetched by hand; else 50/20/30 in every class,
      which gives other numbers than the published.
    """

    dataset_dir = "eurosat"
    class_table = (
        ("Annual Crop Land", "AnnualCrop"),
        ("Forest",),
        ("Herbaceous Vegetation Land", "HerbaceousVegetation"),
        ("Highway or Road", "Highway"),
        ("Industrial Buildings", "Industrial"),
        ("Pasture Land", "Pasture"),
        ("Permanent Crop Land", "PermanentCrop"),
        ("Residential Buildings", "Residential"),
        ("River",),
        ("Sea or Lake", "SeaLake"),
    )
    image_roots = ("2750", "images")
    split_url = "https://drive.google.com/file/d/1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o/view"
    domain = "remote sensing"
    modality = "Sentinel-2 RGB"
    template = "a centered satellite photo of {}."
    total_images = 27_000
    image_size = (64, 64)
    homepage = "https://github.com/phelber/EuroSAT"
    licence = "MIT (torchgeo)"
    citation = "Helber, Bischke, Dengel, Borth: EuroSAT. IEEE JSTARS, 2019"
    download = (
        (  # as in torchvision.datasets.EuroSAT
            "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
            "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            "c8fa014336c82ac7804f0398fcb19387",
            "EuroSAT.zip",
        ),
    )
