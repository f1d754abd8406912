"""CCBTM: brain tumours in magnetic-resonance slices, mostly augmented."""

from typing import ClassVar

from ._engine.families import KAGGLE, MedicalDataset
from ._engine.registration import declare


@declare
class CCBTM(MedicalDataset):
    """21,672 brain MRI slices in 4 classes ("Crystal Clean: Brain Tumors MRI Dataset").

    * Layout: `CCBTM/CCBTM/<class>/` (DPLQ's), `CCBTM/<class>/` or `CCBTM/Data/<class>/`.
    * Order: `Normal` comes first, as capitals do: it is a base class.
    * Which dataset the authors used is concluded from the folder names; the counts are those of a
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
    reference_prompts: ClassVar = {
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
