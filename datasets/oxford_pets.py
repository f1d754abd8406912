"""OxfordPets: breeds of cats and dogs."""

from ._engine.families import VGG, CoOpDataset
from ._engine.registration import declare


@declare
class OxfordPets(CoOpDataset):
    """7,349 photographs of 37 breeds of cats and dogs; train / val / test 2,944 / 736 / 3,669.

    Layout: `oxford_pets/images/*.jpg`, flat.
    """

    dataset_dir = "oxford_pets"
    image_roots = ("images",)
    split_id = "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"
    archives = ((f"{VGG}pets/data/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c", ""),)
    template = "a photo of a {}, a type of pet."
    total_images = 7349
    homepage = f"{VGG}pets/"
    licence = "CC BY-SA 4.0"
    citation = "Parkhi, Vedaldi, Zisserman, Jawahar: Cats and Dogs. CVPR 2012"
