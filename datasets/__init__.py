"""Registered Dassl data sets: declarations on one base class.

A new one costs a file like `rsscn7.py`, a line here and a two-line YAML in `configs/datasets/`.
"""

from .base import FolderDataset
from .btmri import BTMRI
from .demo import DemoAerial, DemoTissue
from .own_images import OwnImages
from .rsscn7 import RSSCN7
from .whurs19 import WHURS19

__all__ = [
    "BTMRI",
    "RSSCN7",
    "WHURS19",
    "DemoAerial",
    "DemoTissue",
    "FolderDataset",
    "OwnImages",
]
