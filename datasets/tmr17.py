"""TMR17: brain tumours by finding and MRI sequence."""

from typing import ClassVar

from ._engine.families import KAGGLE, MedicalDataset
from ._engine.registration import declare

FINDINGS = {
    "Glioma": "glioma",
    "Meningioma": "meningioma",
    "NORMAL": "normal brain",  # capitals first: before Neurocitoma
    "Neurocitoma": "neurocytoma",
    "Outros": "other lesion",
    "Schwannoma": "schwannoma",
}
SEQUENCES = {
    "T1": "T1-weighted MRI",
    "T1C+": "contrast-enhanced T1-weighted MRI",
    "T2": "T2-weighted MRI",
}
CLASSES = [
    (finding, sequence)
    for finding in FINDINGS
    for sequence in SEQUENCES
    if (finding, sequence) != ("NORMAL", "T1C+")
]


@declare
class TMR17(MedicalDataset):
    """4,448 brain MRI slices in 17 classes: a finding and the sequence it is seen on.

    * Layout: `TMR17/TMR17/<class>/` (DPLQ's) or `TMR17/<class>/`. How the archive spells its
      folders is unknown; which dataset the authors used is concluded from the 17 classes.
    * Prompts: the Portuguese words of the folders (Neurocitoma, Outros) in English, the sequence
      spelled out. The official ones are the folder's words, e.g. "Outros T1 C+".
    """

    dataset_dir = "TMR17"
    class_table = tuple(
        (f"{FINDINGS[finding]} on {SEQUENCES[sequence]}", finding + sequence)
        for finding, sequence in CLASSES
    )
    reference_prompts: ClassVar = {
        finding + sequence: f"{finding.capitalize()} {sequence.replace('C+', ' C+')}"
        for finding, sequence in CLASSES
    }
    modality = "brain MRI (T1, contrast-enhanced T1, T2)"
    template = "a brain scan showing {}."
    total_images = 4448
    homepage = KAGGLE + "fernando2rad/brain-tumor-mri-images-17-classes"
