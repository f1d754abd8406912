"""MEMNIST: small images of body parts (Medical MNIST)."""

from typing import ClassVar

from ._engine.families import KAGGLE, MedicalDataset
from ._engine.registration import declare


@declare
class MEMNIST(MedicalDataset):
    """58,954 small images of 6 body parts and modalities ("Medical MNIST"; it is not MedMNIST).

    * Layout: `MEMNIST/MEMNIST/<class>/` (DPLQ's) or `MEMNIST/<class>/`.
    * Order: capitals first, so `CXR` comes before `ChestCT`.
    * Prompts: the official one for `Hand` is "Hand CT". The folder does not say so and it has not
      been verified, so ours leaves the modality open.
    """

    dataset_dir = "MEMNIST"
    class_table = (
        ("abdominal CT", "AbdomenCT"),
        ("breast MRI", "BreastMRI"),
        ("chest X-ray", "CXR"),
        ("chest CT", "ChestCT"),
        ("hand scan", "Hand"),
        ("head CT", "HeadCT"),
    )
    reference_prompts: ClassVar = {
        "AbdomenCT": "Abdomen CT",
        "BreastMRI": "Breast MRI",
        "CXR": "Chest X-Ray",
        "ChestCT": "Chest CT",
        "Hand": "Hand CT",
        "HeadCT": "Head CT",
    }
    modality = "CT, MRI and X-ray"
    template = "a medical image, {}."
    total_images = 58954
    image_size = (64, 64)
    homepage = KAGGLE + "andrewmvd/medical-mnist"
