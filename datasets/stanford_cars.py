"""StanfordCars: models of cars."""

from ._engine.families import CoOpDataset
from ._engine.registration import declare


@declare
class StanfordCars(CoOpDataset):
    """16,185 photographs of 196 models of cars; train / val / test 6,509 / 1,635 / 8,041.

    Layout: `stanford_cars/cars_train/*.jpg` and `stanford_cars/cars_test/*.jpg`. The original
    server no longer hands it out.
    """

    dataset_dir = "stanford_cars"
    image_roots = ()
    split_id = "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"
    total_images = 16185
    homepage = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html"
    citation = "Krause, Stark, Deng, Fei-Fei: ICCV Workshops 2013"
