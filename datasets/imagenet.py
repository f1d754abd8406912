"""ImageNet, the source of CoOp's cross-dataset runs, and its four test variants.

They are declared in one file because they share their classes and differ in little but the archive.
The names of the 1,000 classes come from CoOp's `classnames.txt` (lines like `n01440764 tench`),
which the user puts into the folder of each dataset; its order is the label order of all of them.
"""

from typing import Any, ClassVar

from ._engine.base import FolderDataset
from ._engine.layout.folders import CLASSNAMES_FILE
from ._engine.registration import declare

CLASS_NAMES = (
    "https://drive.google.com/uc?export=download&id=1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF",
    "",
    CLASSNAMES_FILE,
)


class ImageNetClasses(FolderDataset):
    """Base class of ImageNet and of the datasets of its classes."""

    class_file = CLASSNAMES_FILE
    domain = "natural"
    modality = "photographs"
    template = "a photo of a {}."


class ImageNetVariant(ImageNetClasses):
    """Base class of the variants: every image is test.

    Attributes:
        archive: URL and MD5 ("" if unknown) of the images; the class names are added.
    """

    test_only = True
    licence = "MIT (its repository)"
    archive: ClassVar[tuple[str, str]] = ("", "")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.download = ((*cls.archive, ""), CLASS_NAMES)


@declare
class ImageNet(ImageNetClasses):
    """1,281,167 training and 50,000 validation images in 1,000 classes.

    * Layout: `imagenet/images/train/<n01440764>/` and `imagenet/images/val/<n01440764>/`, with
      `imagenet/classnames.txt` (linked in CoOp's `DATASETS.md`).
    * Split: the validation images are the test set and, as in CoOp, the val set too.
    """

    dataset_dir = "imagenet"
    image_roots = ("images",)
    split_files = ()
    split_folders = ("train", "", "val")
    val_from = "test"
    total_images = 1331167
    homepage = "https://image-net.org/"
    licence = "non-commercial research, by agreement"
    citation = "Deng, Dong, Socher, Li, Li, Fei-Fei: CVPR 2009"


@declare
class ImageNetV2(ImageNetVariant):
    """10,000 new test images, 10 in each of the 1,000 classes (matched frequency).

    Layout: `imagenetv2/imagenetv2-matched-frequency-format-val/<0 to 999>/`; the folder's number
    is the label, that is the line of `classnames.txt`.
    """

    dataset_dir = "imagenetv2"
    image_roots = ("imagenetv2-matched-frequency-format-val",)
    images_per_class = 10
    total_images = 10000
    homepage = "https://github.com/modestyachts/ImageNetV2"
    citation = "Recht, Roelofs, Schmidt, Shankar: ICML 2019"
    archive = (
        "https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-matched-frequency.tar.gz",
        "",
    )


@declare
class ImageNetSketch(ImageNetVariant):
    """50,889 sketches of the 1,000 classes.

    Layout: `imagenet-sketch/images/<n01440764>/`, or `sketch/` in place of `images/`, as in the
    archive.
    """

    dataset_dir = "imagenet-sketch"
    image_roots = ("images", "sketch")
    modality = "sketches"
    total_images = 50889
    homepage = "https://github.com/HaohanWang/ImageNet-Sketch"
    citation = "Wang, Ge, Lipton, Xing: NeurIPS 2019"
    archive = (
        "https://huggingface.co/datasets/songweig/imagenet_sketch/resolve/main/data/"
        "ImageNet-Sketch.zip",
        "",
    )


@declare
class ImageNetA(ImageNetVariant):
    """7,500 photographs that mislead classifiers, in 200 of the 1,000 classes.

    Layout: `imagenet-adversarial/imagenet-a/<n01440764>/`.
    """

    dataset_dir = "imagenet-adversarial"
    image_roots = ("imagenet-a",)
    partial = True
    total_images = 7500
    homepage = "https://github.com/hendrycks/natural-adv-examples"
    citation = "Hendrycks, Zhao, Basart, Steinhardt, Song: CVPR 2021"
    archive = (
        "https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",
        "c3e55429088dc681f30d81f4726b6595",
    )


@declare
class ImageNetR(ImageNetVariant):
    """30,000 paintings, toys, sculptures and other renditions of 200 of the 1,000 classes.

    Layout: `imagenet-rendition/imagenet-r/<n01440764>/`.
    """

    dataset_dir = "imagenet-rendition"
    image_roots = ("imagenet-r",)
    partial = True
    modality = "renditions"
    total_images = 30000
    homepage = "https://github.com/hendrycks/imagenet-r"
    citation = "Hendrycks et al.: The Many Faces of Robustness. ICCV 2021"
    archive = (
        "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
        "a61312130a589d0ca1a8fca1f2bd3337",
    )
