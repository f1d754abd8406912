"""BTMRI: brain tumours in magnetic-resonance slices."""

from typing import ClassVar

from ._engine.families import KAGGLE, MedicalDataset
from ._engine.registration import declare


@declare
class BTMRI(MedicalDataset):
    """7,023 brain MRI slices (5,712 Training, 1,311 Testing) in 4 classes of tumour or none.

    * Layout: `BTMRI/BTMRI/<class>/` (DPLQ's), `BTMRI/<class>/`, or the archive as it is,
      `BTMRI/Training/<class>/` and `BTMRI/Testing/<class>/`, which are merged. The number of
      images is that of a third party; whether the authors used both archive folders is unknown.
    * Split: 50/20/30 in every class; the authors' `split_cao_BTMRI.json` is not public.
    * Not `BiomedBTMRI`: that one is BiomedCoOp's dataset of this name, with 5,712 images, another
      order of classes and a fixed split. Its `split_BTMRI.json` is not read here.
    * Prompts: the official one of the last class is "pituitary", which is the gland.
    * Related collections hold exact duplicates; a random split leaks where these do.
    """

    dataset_dir = "BTMRI"
    class_table = (
        ("glioma", "glioma", "glioma_tumor"),
        ("meningioma", "meningioma", "meningioma_tumor"),
        ("no brain tumor", "notumor", "no_tumor", "normal_brain"),
        ("pituitary tumor", "pituitary", "pituitary_tumor"),
    )
    image_roots = (("Training", "Testing"), "images")
    split_files = ("split_cao_BTMRI.json",)
    reference_prompts: ClassVar = {"pituitary": "pituitary"}
    v2_name = "BTMRIv2"
    modality = "brain MRI"
    template = "an MRI scan of the brain showing {}."
    total_images = 7023
    homepage = KAGGLE + "masoudnickparvar/brain-tumor-mri-dataset"
