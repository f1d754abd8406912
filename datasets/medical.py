"""The medical sets of DPLQ other than BTMRI.

The authors' split files are not public: every class is split 50/20/30. Sets of the same name in
BiomedCoOp are in `biomed.py`.
"""

from ._engine.base import FolderDataset, declare

KAGGLE = "https://www.kaggle.com/datasets/"


class MedicalDataset(FolderDataset):
    """What DPLQ's medical sets share."""

    domain = "medical"
    reference_template = "a photo of {}."


@declare
class CCBTM(MedicalDataset):
    """21,672 brain MRI slices in 4 classes ("Crystal Clean: Brain Tumors MRI Dataset").

    * Layout: `CCBTM/CCBTM/<class>/` (the peers'), `CCBTM/<class>/` or `CCBTM/Data/<class>/`.
    * Order: `Normal` comes first, as capitals do: it is a base class.
    * Which set the authors used is concluded from the folder names; the counts are those of a
      third party, who also reports that most images are augmented copies (about 7 of each): then
      a random split leaks.
    """

    dataset_dir = "CCBTM"
    class_table = (
        ("normal brain", "Normal"),
        ("glioma", "glioma_tumor"),
        ("meningioma", "meningioma_tumor"),
        ("pituitary tumor", "pituitary_tumor"),
    )
    image_roots = ("Data", "images")
    reference_prompts = {
        "Normal": "normal",
        "glioma_tumor": "glioma tumor",
        "meningioma_tumor": "meningioma tumor",
    }
    v2_name = "CCBTMv2"
    modality = "brain MRI"
    template = "an MRI scan of the brain showing {}."
    images_per_class = (3066, 6307, 6391, 5908)
    total_images = 21672
    image_size = (224, 224)
    homepage = KAGGLE + "mohammadhossein77/brain-tumors-dataset"


@declare
class CHMNIST(MedicalDataset):
    """5,000 tiles of colorectal-cancer histology (H&E), 625 in each of 8 kinds of tissue.

    * Layout: `CHMNIST/CHMNIST/<class>/` (the peers'), `CHMNIST/<class>/`, or the archive as it is,
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
    reference_prompts = {
        folder: f"{folder.lower()} tissue" for _, folder, *_ in class_table if folder != "ADIPOSE"
    }
    v2_name = "CHMNISTv2"
    modality = "histology, colorectal"
    template = "a histology image of {}."
    images_per_class = 625
    total_images = 5000
    image_size = (150, 150)
    homepage = KAGGLE + "kmader/colorectal-histology-mnist"


@declare
class Kvasir(MedicalDataset):
    """Gastrointestinal endoscopy: 8 classes of landmarks, findings and treated polyps.

    * Layout: `Kvasir/Kvasir/<class>/` (the peers') or `Kvasir/<class>/`.
    * Which version of Kvasir the authors used, and so the number of images, is unknown
      (BiomedCoOp's, `BiomedKvasir`, has 4,000, 500 in each class).
    """

    dataset_dir = "Kvasir"
    class_table = (
        ("dyed lifted polyps", "dyed-lifted-polyps"),
        ("dyed resection margins", "dyed-resection-margins"),
        ("esophagitis",),
        ("normal cecum", "normal-cecum"),
        ("normal pylorus", "normal-pylorus"),
        ("normal z-line", "normal-z-line"),
        ("polyps",),
        ("ulcerative colitis", "ulcerative-colitis"),
    )
    split_files = ("split_cao_Kvasir.json",)
    modality = "gastrointestinal endoscopy"
    template = "an endoscopy image of {}."
    total_images = None
    homepage = KAGGLE + "abdallahwagih/kvasir-dataset-for-classification-and-segmentation"


@declare
class COVID19(MedicalDataset):
    """21,165 chest X-rays in 4 classes ("COVID-19 Radiography Database").

    * Layout: `COVID19/COVID19/<class>/` (the peers') or `COVID19/<class>/`; where a class holds
      `images/` beside `masks/`, only the images are read. How the archive lies is unknown.
    * The counts are those of BiomedCoOp's split of what is taken to be the same set (`COVID_19`).
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
    reference_prompts = {
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


@declare
class MEMNIST(MedicalDataset):
    """58,954 small images of 6 body parts and modalities ("Medical MNIST"; it is not MedMNIST).

    * Layout: `MEMNIST/MEMNIST/<class>/` (the peers') or `MEMNIST/<class>/`.
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
    reference_prompts = {
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


TMR17_FINDINGS = {
    "Glioma": "glioma",
    "Meningioma": "meningioma",
    "NORMAL": "normal brain",  # capitals first: before Neurocitoma
    "Neurocitoma": "neurocytoma",
    "Outros": "other lesion",
    "Schwannoma": "schwannoma",
}
TMR17_SEQUENCES = {
    "T1": "T1-weighted MRI",
    "T1C+": "contrast-enhanced T1-weighted MRI",
    "T2": "T2-weighted MRI",
}
TMR17_CLASSES = [
    (finding, sequence)
    for finding in TMR17_FINDINGS
    for sequence in TMR17_SEQUENCES
    if (finding, sequence) != ("NORMAL", "T1C+")
]


@declare
class TMR17(MedicalDataset):
    """4,448 brain MRI slices in 17 classes: a finding and the sequence it is seen on.

    * Layout: `TMR17/TMR17/<class>/` (the peers') or `TMR17/<class>/`. How the archive spells its
      folders is unknown; which set the authors used is concluded from the 17 classes.
    * Prompts: the Portuguese words of the folders (Neurocitoma, Outros) in English, the sequence
      spelled out. The official ones are the folder's words, e.g. "Outros T1 C+".
    """

    dataset_dir = "TMR17"
    class_table = tuple(
        (f"{TMR17_FINDINGS[finding]} on {TMR17_SEQUENCES[sequence]}", finding + sequence)
        for finding, sequence in TMR17_CLASSES
    )
    reference_prompts = {
        finding + sequence: f"{finding.capitalize()} {sequence.replace('C+', ' C+')}"
        for finding, sequence in TMR17_CLASSES
    }
    modality = "brain MRI (T1, contrast-enhanced T1, T2)"
    template = "a brain scan showing {}."
    total_images = 4448
    homepage = KAGGLE + "fernando2rad/brain-tumor-mri-images-17-classes"
