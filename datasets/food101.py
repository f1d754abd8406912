"""Food101: photographs of dishes."""

from ._engine.families import CoOpDataset
from ._engine.registration import declare


@declare
class Food101(CoOpDataset):
    """101,000 photographs of 101 dishes; train / val / test 50,500 / 20,200 / 30,300.

    Layout: `food-101/images/<class>/`.
    """

    dataset_dir = "food-101"
    image_roots = ("images",)
    split_id = "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"
    archives = (
        (
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "85eeb15f3717b99a5da872d97d918f87",
            "",
        ),
    )
    template = "a photo of {}, a type of food."
    images_per_class = 1000
    total_images = 101000
    homepage = "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/"
    citation = "Bossard, Guillaumin, Van Gool: ECCV 2014"
