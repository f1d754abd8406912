"""DescribableTextures: textures (DTD)."""

from ._engine.families import VGG, CoOpDataset
from ._engine.registration import declare


@declare
class DescribableTextures(CoOpDataset):
    """5,640 pictures of 47 textures, 120 of each; train / val / test 2,820 / 1,128 / 1,692.

    Layout: `dtd/images/<class>/`.
    """

    dataset_dir = "dtd"
    image_roots = ("images",)
    split_id = "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"
    archives = ((f"{VGG}dtd/download/dtd-r1.0.1.tar.gz", "fff73e5086ae6bdbea199a49dfb8a4c1", ""),)
    template = "{} texture."
    images_per_class = 120
    total_images = 5640
    homepage = f"{VGG}dtd/"
    licence = "research"
    citation = "Cimpoi, Maji, Kokkinos, Mohamed, Vedaldi: CVPR 2014"
