"""BiomedCoOp's eleven medical datasets, with the split files that its authors publish.

They are declared in one file because they form one release: one archive, one repository of split
files and one rule for folder and file names, so that a declaration is little more than a class
table. Three of its names stand for other data in DPLQ: BTMRI, CHMNIST and Kvasir. Here they are
`BiomedBTMRI`, `BiomedCHMNIST` and `BiomedKvasir`; the other eight keep their names. Folders and
split files keep theirs everywhere: `BTMRI/BTMRI/<class>/` and `BTMRI/split_BTMRI.json`.

Each dataset is searched for in `ROOT/BiomedCoOp/<name>/`, then in `ROOT/<name>/`, BiomedCoOp's own
layout; the first folder with the split file is used. Where one ROOT serves both families, put
BiomedCoOp's data into the folder `BiomedCoOp`. Each family reads its own split files only.

The split files are needed: the published numbers belong to them, and most have another order of
classes (which decides base and new) than the folders have. They are in BiomedCoOp's repository; the
images are where its README says, licence not stated. `DATASET.PROTOCOL: reference` keeps the class
names of the split file.
"""

import os
import re
from typing import Any

from ._engine.base import FolderDataset
from ._engine.families import KAGGLE
from ._engine.registration import declare
from .kvasir import Kvasir

IMAGES = "https://huggingface.co/datasets/TahaKoleilat/BiomedCoOp/resolve/main/"
SPLITS = (
    "https://raw.githubusercontent.com/HealthX-Lab/BiomedCoOp/"
    "7ceb5a89ce4c2ff110b11605f858ab2ca0c8573e/data/"
)
SPLIT_MD5 = {  # that of OCTMNIST is unknown
    "BTMRI": "d0da1c687935a3a9a593aae6feb624c1",
    "BUSI": "fd3caa66a3e2563a732ff3afb02ecf82",
    "CHMNIST": "97efb40cff98e468651d72da67e882d2",
    "COVID_19": "00edc8c52418e1a15b8a08c7005b68eb",
    "CTKidney": "0c1ccff45e39d56d6d97c1df315462f2",
    "DermaMNIST": "515028e148f20d886d5ad10c6c9debe0",
    "KneeXray": "a05299dc3812fd410e78952ecf8c90e5",
    "Kvasir": "1b283d9295fabf31fad3d7b1f6e11d46",
    "LungColon": "a3bf9c5caf3d650919d3e9c0dddda5a2",
    "RETINA": "d0e1c9c07491fac58cb000be4b1341ad",
}


class BiomedCoOpDataset(FolderDataset):
    """Base class of the eleven. File names follow from the last part of `dataset_dir`.

    A row of the table that has a prompt name alone stands for the folder with `_` between words.
    The number of images is that of the classes.
    """

    needs_split = True
    domain = "medical"
    reference_template = "a photo of a {}."
    licence = "not stated"
    citation = "koleilat2025biomedcoop"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        name = os.path.basename(cls.dataset_dir)
        split = f"split_{name}.json"
        rows = [
            row if len(row) > 1 else (*row, re.sub("[ -]", "_", row[0])) for row in cls.class_table
        ]
        cls.class_table = tuple(rows)
        per_class = cls.images_per_class
        if per_class:
            per_class = (per_class,) * len(rows) if isinstance(per_class, int) else per_class
            cls.total_images = sum(per_class)
        cls.split_files = (split,)
        cls.split_url = f"{SPLITS}{name}/{split}"
        cls.download = (
            (f"{IMAGES}{name}.zip", "", f"{name}.zip"),
            (cls.split_url, SPLIT_MD5.get(name, ""), split),
        )

    def find_dataset_dir(self, root: str) -> str:
        """Return the first of the two folders that holds the split file, else the declared one."""
        declared = type(self).dataset_dir
        name = os.path.basename(declared)
        places = (os.path.join(root, "BiomedCoOp", name), os.path.join(root, name))
        split = self.split_files[0]
        holding = (place for place in places if os.path.isfile(os.path.join(place, split)))
        return next(holding, os.path.join(root, declared))


@declare
class BiomedBTMRI(BiomedCoOpDataset):
    """5,712 brain MRI slices in 4 classes; train / val / test 2,854 / 1,141 / 1,717.

    The normal brain comes last: a new class. See `BTMRI` for DPLQ's dataset of this name.
    """

    dataset_dir = "BiomedCoOp/BTMRI"
    class_table = (
        ("glioma tumor",),
        ("meningioma tumor",),
        ("pituitary tumor",),
        ("normal brain",),
    )
    modality = "brain MRI"
    template = "an MRI scan showing {}."
    images_per_class = (1321, 1339, 1457, 1595)
    homepage = KAGGLE + "masoudnickparvar/brain-tumor-mri-dataset"


@declare
class BUSI(BiomedCoOpDataset):
    """780 breast ultrasound images in 3 classes; train / val / test 389 / 155 / 236.

    * Layout: `BUSI/BUSI/<class>/` (BiomedCoOp's, `benign_tumor` and so on) or the archive as it is,
      `BUSI/Dataset_BUSI_with_GT/` with `benign`, `malignant` and `normal`, where the masks
      `*_mask.png`, `*_mask_1.png` lie beside the images.
    * BiomedCoOp has no base-to-new run on it: its new half is a single class.
    """

    dataset_dir = "BUSI"
    class_table = (
        ("benign breast tumor", "benign_tumor", "benign"),
        ("malignant breast tumor", "malignant_tumor", "malignant"),
        ("normal breast tissue", "normal_scan", "normal"),
    )
    image_roots = ("Dataset_BUSI_with_GT", "images")
    mask_files = ("*_mask.png", "*_mask_*.png")
    modality = "breast ultrasound"
    template = "an ultrasound image of {}."
    images_per_class = (437, 210, 133)
    homepage = KAGGLE + "aryashah2k/breast-ultrasound-images-dataset"


@declare
class BiomedCHMNIST(BiomedCoOpDataset):
    """5,000 tiles of colorectal histology in 8 classes; train / val / test 2,496 / 1,000 / 1,504.

    See `CHMNIST` for DPLQ's dataset of this name.
    """

    dataset_dir = "BiomedCoOp/CHMNIST"
    class_table = (
        ("adipose tissue",),
        ("complex stroma",),
        ("debris",),
        ("empty background",),
        ("immune cells",),
        ("normal mucosal glands",),
        ("simple stroma",),
        ("tumor epithelium", "tumour_epithelium"),
    )
    modality = "histopathology, colorectal"
    template = "a histology image of {}."
    images_per_class = 625
    homepage = KAGGLE + "kmader/colorectal-histology-mnist"


@declare
class COVID_19(BiomedCoOpDataset):
    """21,165 chest X-rays in 4 classes; train / val / test 10,582 / 4,232 / 6,351.

    Its authors also call it COVID-QU-Ex. Normal lungs come last: a new class.
    """

    dataset_dir = "COVID_19"
    class_table = (
        ("lungs with COVID-19", "covid_lungs"),
        ("lungs with opacities", "lung_opacity_lungs"),
        ("lungs with viral pneumonia", "viral_pneumonia_lungs"),
        ("normal lungs",),
    )
    modality = "chest X-ray"
    template = "a chest X-ray of {}."
    images_per_class = (3616, 6012, 1345, 10192)
    homepage = KAGGLE + "tawsifurrahman/covid19-radiography-database"


@declare
class CTKidney(BiomedCoOpDataset):
    """12,446 CT slices of kidneys in 4 classes; train / val / test 6,221 / 2,487 / 3,738."""

    dataset_dir = "CTKidney"
    class_table = (
        ("kidney cyst", "cyst_kidney"),
        ("kidney stone",),
        ("kidney tumor",),
        ("normal kidney",),
    )
    modality = "CT, kidney"
    template = "a CT scan showing a {}."
    images_per_class = (3709, 1377, 2283, 5077)
    homepage = KAGGLE + "nazmul0087/ct-kidney-dataset-normal-cyst-tumor-and-stone"


@declare
class DermaMNIST(BiomedCoOpDataset):
    """10,014 dermatoscopic images in 7 classes; train / val / test 7,006 / 1,003 / 2,005.

    The split follows MedMNIST's; BiomedCoOp's README counts one training image more than its file.
    """

    dataset_dir = "DermaMNIST"
    class_table = (
        ("actinic keratosis",),
        ("basal cell carcinoma",),
        ("benign keratosis",),
        ("dermatofibroma",),
        ("melanoma",),
        ("melanocytic nevus",),
        ("vascular lesion",),
    )
    modality = "dermatoscopy"
    template = "a dermatoscopic image of {}."
    images_per_class = (326, 514, 1099, 115, 1113, 6705, 142)
    homepage = "https://medmnist.com/"
    licence = "not stated; a third-party card of MedMNIST says CC BY 4.0"


@declare
class KneeXray(BiomedCoOpDataset):
    """8,260 X-rays of knees by grade of osteoarthritis; train / val / test 5,778 / 826 / 1,656."""

    dataset_dir = "KneeXray"
    class_table = (
        ("healthy knee",),
        ("doubtful knee osteoarthritis", "doubtful_osteoarthritis"),
        ("minimal knee osteoarthritis", "minimal_osteoarthritis"),
        ("moderate knee osteoarthritis", "moderate_osteoarthritis"),
        ("severe knee osteoarthritis", "severe_osteoarthritis"),
    )
    modality = "X-ray, knee"
    template = "an X-ray image of {}."
    images_per_class = (3253, 1495, 2175, 1086, 251)
    homepage = KAGGLE + "shashwatwork/knee-osteoarthritis-dataset-with-severity"


@declare
class BiomedKvasir(BiomedCoOpDataset):
    """4,000 endoscopy images, 500 in each of 8 classes; train / val / test 2,000 / 800 / 1,200.

    See `Kvasir` for DPLQ's dataset of this name; folders here have `_` where those have `-`.
    """

    dataset_dir = "BiomedCoOp/Kvasir"
    class_table = tuple(row[:1] for row in Kvasir.class_table)
    modality = "gastrointestinal endoscopy"
    template = "an endoscopy image of {}."
    images_per_class = 500
    homepage = KAGGLE + "abdallahwagih/kvasir-dataset-for-classification-and-segmentation"


@declare
class LungColon(BiomedCoOpDataset):
    """LC25000: 25,000 histology images, 5,000 in each of 5 classes; 12,500 / 5,000 / 7,500."""

    dataset_dir = "LungColon"
    class_table = (
        ("colon adenocarcinoma",),
        ("benign colon tissue", "colon_benign_tissue"),
        ("lung adenocarcinoma",),
        ("benign lung tissue", "lung_benign_tissue"),
        ("lung squamous cell carcinoma",),
    )
    modality = "histopathology, lung and colon"
    template = "a histology image of {}."
    images_per_class = 5000
    homepage = KAGGLE + "andrewmvd/lung-and-colon-cancer-histopathological-images"


@declare
class OCTMNIST(BiomedCoOpDataset):
    """109,309 OCT scans of the retina in 4 classes; train / val / test 97,477 / 10,832 / 1,000.

    The counts are those of BiomedCoOp's README. Its split file decides the order of the classes and
    the folders; it was too large to examine, so the order below is MedMNIST's.
    """

    dataset_dir = "OCTMNIST"
    class_table = (
        ("choroidal neovascularization",),
        ("diabetic macular edema",),
        ("drusen",),
        ("normal retina", "normal_oct_scan", "normal"),
    )
    modality = "optical coherence tomography, retina"
    template = "an OCT scan showing {}."
    total_images = 109309
    homepage = "https://medmnist.com/"
    licence = "not stated; a third-party card of MedMNIST says CC BY 4.0"


@declare
class RETINA(BiomedCoOpDataset):
    """4,217 fundus photographs in 4 classes; train / val / test 2,108 / 841 / 1,268.

    The folder of the last class is `normal` in the archive, `normal_retina` in the split file.
    """

    dataset_dir = "RETINA"
    class_table = (
        ("diabetic retinopathy",),
        ("glaucoma",),
        ("cataract",),
        ("normal retina", "normal_retina", "normal"),
    )
    image_roots = ("dataset", "images")
    modality = "fundus photography"
    template = "a fundus photograph showing {}."
    images_per_class = (1098, 1007, 1038, 1074)
    homepage = KAGGLE + "gunavenkatdoddi/eye-diseases-classification"
