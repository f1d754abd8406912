"""OxfordFlowers: kinds of flowers."""

from ._engine.families import VGG, CoOpDataset
from ._engine.registration import declare


@declare
class OxfordFlowers(CoOpDataset):
    """8,189 photographs of 102 kinds of flowers; train / val / test 4,093 / 1,633 / 2,463.

    Layout: `oxford_flowers/jpg/*.jpg`, flat.
    """

    dataset_dir = "oxford_flowers"
    image_roots = ("jpg",)
    split_id = "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"
    archives = ((f"{VGG}flowers/102/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", ""),)
    template = "a photo of a {}, a type of flower."
    total_images = 8189
    homepage = f"{VGG}flowers/102/"
    citation = "Nilsback, Zisserman: ICVGIP 2008"
