"""COVID19: chest X-rays (COVID-19 Radiography Database)."""

from typing import ClassVar

from ._engine.families import KAGGLE, MedicalDataset
from ._engine.registration import declare


@declare
class COVID19(MedicalDataset):
    """21,165 chest X-rays in 4 classes ("COVID-19 Radiography Database").

    * Layout: `COVID19/COVID19/<class>/` (DPLQ's) or `COVID19/<class>/`; where a class holds
      `images/` beside `masks/`, only the images are read. The archive's own layout is unknown.
    * The counts are those of BiomedCoOp's split of `COVID_19`, presumably the same dataset.
    """

    dataset_dir = "COVID19"
    class_table = (
        ("COVID-19", "COVID"),
        ("lung opacity", "Lung_Opacity"),
        ("normal lungs", "Normal"),
        ("viral pneumonia", "Viral Pneumonia"),
    )
    image_roots = (
        "{class}/images/*",
        "COVID19/{class}/images/*",
        "COVID-19_Radiography_Dataset/{class}/images/*",
    )
    reference_prompts: ClassVar = {
        "COVID": "Coronavirus Disease",
        "Lung_Opacity": "Lung Opacity",
        "Normal": "Normal",
        "Viral Pneumonia": "Viral Pneumonia",
    }
    modality = "chest X-ray"
    template = "a chest X-ray showing {}."
    images_per_class = (3616, 6012, 10192, 1345)
    total_images = 21165
    homepage = KAGGLE + "tawsifurrahman/covid19-radiography-database"
