"""CHMNIST: tiles of colorectal-cancer histology."""

from typing import ClassVar

from ._engine.families import KAGGLE, MedicalDataset
from ._engine.registration import declare


@declare
class CHMNIST(MedicalDataset):
    """5,000 tiles of colorectal-cancer histology (H&E), 625 in each of 8 kinds of tissue.

    * Layout: `CHMNIST/CHMNIST/<class>/` (DPLQ's), `CHMNIST/<class>/`, or the archive as it is,
      `CHMNIST/Kather_texture_2016_image_tiles_5000/NN_<CLASS>/`. Files are .tif.
    * Order: that of the names without the number.
    * Prompts: the terms of the collection; the official ones put "tissue" after each folder name.
    * Not `BiomedCHMNIST`, whose folders, prompts and split differ.
    """

    dataset_dir = "CHMNIST"
    class_table = (
        ("adipose tissue", "ADIPOSE"),
        ("complex stroma", "COMPLEX"),
        ("debris", "DEBRIS"),
        ("empty background", "EMPTY"),
        ("immune cells", "LYMPHO"),
        ("normal mucosa", "MUCOSA", "normal_mucosal_glands"),
        ("simple stroma", "STROMA"),
        ("tumor epithelium", "TUMOR", "tumour_epithelium"),
    )
    image_roots = (
        "Kather_texture_2016_image_tiles_5000/??_{class}/*",
        "CHMNIST/??_{class}/*",
        "??_{class}/*",
    )
    split_files = ("split_cao_CHMNIST.json",)
    reference_prompts: ClassVar = {
        folder: f"{folder.lower()} tissue" for _, folder, *_ in class_table if folder != "ADIPOSE"
    }
    v2_name = "CHMNISTv2"
    modality = "histology, colorectal"
    template = "a histology image of {}."
    images_per_class = 625
    total_images = 5000
    image_size = (150, 150)
    homepage = KAGGLE + "kmader/colorectal-histology-mnist"
