"""Caltech101: pictures of objects."""

from ._engine.families import CoOpDataset
from ._engine.registration import declare


@declare
class Caltech101(CoOpDataset):
    """8,242 pictures of objects in 100 classes; train / val / test 4,128 / 1,649 / 2,465.

    Layout: `caltech-101/101_ObjectCategories/<class>/`. CoOp leaves out the background class and
    `Faces_easy`.
    """

    dataset_dir = "caltech-101"
    image_roots = ("101_ObjectCategories", "caltech101/101_ObjectCategories")
    split_id = "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"
    archives = (("torchvision:Caltech101", "", ""),)
    total_images = 8242
    homepage = "https://data.caltech.edu/records/mzrjq-6wc02"
    licence = "CC BY 4.0"
    citation = "Fei-Fei, Fergus, Perona: CVPR Workshops 2004"
