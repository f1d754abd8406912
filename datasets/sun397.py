"""SUN397: photographs of scenes."""

from ._engine.families import CoOpDataset
from ._engine.registration import declare


@declare
class SUN397(CoOpDataset):
    """39,700 photographs of 397 scenes; train / val / test 15,880 / 3,970 / 19,850.

    Layout: `sun397/SUN397/<letter>/<class>/`. The archive (37 GB) holds 108,754 images; CoOp uses
    the first of the official partitions.
    """

    dataset_dir = "sun397"
    image_roots = ("SUN397",)
    split_id = "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"
    archives = (
        (
            "http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
            "8ca2778205c41d23104230ba66911c7a",
            "",
        ),
    )
    total_images = 39700
    homepage = "https://vision.princeton.edu/projects/2010/SUN/"
    citation = "Xiao, Hays, Ehinger, Oliva, Torralba: CVPR 2010"
