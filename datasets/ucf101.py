"""UCF101: middle frames of videos of actions."""

from ._engine.families import CoOpDataset
from ._engine.registration import declare


@declare
class UCF101(CoOpDataset):
    """13,320 middle frames of videos of 101 actions; train / val / test 7,639 / 1,898 / 3,783.

    Layout: `ucf101/UCF-101-midframes/<class>/`, which CoOp's `DATASETS.md` links to. The official
    archive holds the videos, not the frames.
    """

    dataset_dir = "ucf101"
    image_roots = ("UCF-101-midframes",)
    split_id = "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"
    modality = "video frames"
    template = "a photo of a person doing {}."
    total_images = 13320
    homepage = "https://drive.google.com/file/d/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O/view"
    citation = "Soomro, Zamir, Shah: arXiv 1212.0402, 2012"
