"""BTMRI: brain tumours in magnetic-resonance slices."""

from dplq.dassl_compat import register_dataset

from .base import FolderDataset


@register_dataset
class BTMRI(FolderDataset):
    """7,023 brain MRI slices (5,712 Training, 1,311 Testing) in 4 classes of tumour or none.

    * Layout: `BTMRI/BTMRI/<class>/` (the peers'), `BTMRI/<class>/`, or the archive as it is,
      `BTMRI/Training/<class>/` and `BTMRI/Testing/<class>/`, which are merged.
    * Split: 50/20/30 in every class; the authors' `split_cao_BTMRI.json` is not public, and
      whether they used both archive folders is not known. BiomedCoOp's data set of this name has
      other images, prompts and label order; its `split_BTMRI.json` is honoured.
    * Related collections hold exact duplicates; a random split leaks where these do.
    """

    dataset_dir = "BTMRI"
    class_table = (
        ("glioma", "glioma", "glioma_tumor"),
        ("meningioma", "meningioma", "meningioma_tumor"),
        ("no brain tumor", "notumor", "no_tumor", "normal_brain"),
        ("pituitary", "pituitary", "pituitary_tumor"),
    )
    image_roots = (("Training", "Testing"), "images")
    homepage = "https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset"
