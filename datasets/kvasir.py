"""Kvasir: gastrointestinal endoscopy."""

from ._engine.families import KAGGLE, MedicalDataset
from ._engine.registration import declare


@declare
class Kvasir(MedicalDataset):
    """Gastrointestinal endoscopy: 8 classes of landmarks, findings and treated polyps.

    * Layout: `Kvasir/Kvasir/<class>/` (DPLQ's) or `Kvasir/<class>/`.
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
