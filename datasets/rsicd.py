"""RSICD: the captioned remote-sensing scenes, by scene."""

from typing import ClassVar

from ._engine.base import FolderDataset
from ._engine.registration import declare
from .aid import AID


@declare
class RSICD(FolderDataset):
    """10,921 optical scenes of map services (third-party count), 224x224 RGB, in 31 classes.

    * Layout: `RSICD/RSICD/<class>/` (DPLQ's, class folders of their own making), or the
      archive's flat folder, `RSICD/RSICD_images/<class>_<number>.jpg`. Images without a class in
      their name are left out (APPLeNet counts 10,000 with one).
    * No file name is known with the class Playfields. Without it there are 30 classes and the
      first 15, not 16, are base.
    * Split: 50/20/30 in every class; the authors' `split_cao_RSICD.json` is not public.
    * Overlap with AID was not checked. RSICDv2 of APPLeNet is another dataset.
    """

    dataset_dir = "RSICD"
    class_table = (*AID.class_table[:18], ("Playfields",), *AID.class_table[18:])
    partial = ("Playfields",)
    image_roots = ("images", "RSICD_images/{class}_*", "images/{class}_*", "{class}_*")
    v2_name = "RSICDv2"
    reference_prompts: ClassVar = {"DenseResidential": "DenseResidential"}
    domain = "remote sensing"
    modality = "optical RGB"
    total_images = 10_921
    image_size = (224, 224)
    homepage = "https://github.com/201528014227051/RSICD_optimal"
    citation = "Lu, Wang, Zheng, Li: Exploring Models and Data. IEEE TGRS 56(4), 2018, 2183-2195"
