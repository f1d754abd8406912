"""Names alone: numbers, masks, unsupported formats, files of operating systems."""

from __future__ import annotations

import random

import pytest

from dplq.datasets._engine.layout.names import (
    NO_EXTENSION,
    in_order,
    is_numeric,
    is_system_file,
    mask_of,
    unsupported,
)
from dplq.images.reader import EXTENSIONS


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (["0", "1", "2", "10"], True),
        (["007", "12"], True),
        (["-1", "0", "+1", "0.5", "1,5"], True),
        (["0", "1", "other"], False),
        (["grade 1", "grade 2"], False),
        (["1a", "2b"], False),
        (["1-2", "3-4"], False),
        (["²", "³"], False),
        ([], False),
    ],
)
def test_class_names_that_are_numbers(names, answer):
    assert is_numeric(names) is answer


def test_digits_sort_as_numbers():
    names = [str(i) for i in range(101)]
    mixed = random.Random(0).sample(names, len(names))
    assert in_order(mixed) == names


def test_other_numbers_sort_by_value():
    assert in_order(["0", "-1", "-2", "1.5"]) == ["-2", "-1", "0", "1.5"]


def test_leading_zeros_sort_by_value_then_by_code_point():
    assert in_order(["10", "02", "2", "1"]) == ["1", "02", "2", "10"]


@pytest.mark.parametrize(
    "names",
    [
        ["Zebra", "apple", "grade 10", "grade 2"],
        ["1", "10", "2", "other"],
        ["10 trees", "2 trees", "9"],
        ["²", "10", "9"],
    ],
)
def test_other_names_keep_their_order_by_code_point(names):
    assert in_order(reversed(names)) == sorted(names)


@pytest.mark.parametrize(
    "mask",
    [
        *("x_mask.png", "x-mask.png", "x_mask_1.png", "x_masks.png", "x_seg.png", "x_gt.png"),
        *("x_segmentation.png", "x_mask2.png", "x mask.tif", "x.mask.png", "x_ground_truth.bmp"),
        *("x_groundtruth.png", "x_Mask.PNG", "x_MASK (1).png", "x (mask).png", "mask_x.png"),
    ],
)
@pytest.mark.parametrize("image", ["x.png", "x.jpg", "X.JPG"])
def test_a_mask_lies_beside_its_image(mask, image):
    assert mask_of([image, mask]) == {mask: image}


def test_masks_of_busi():
    names = ["benign (1).png", "benign (1)_mask.png", "benign (1)_mask_1.png", "benign (10).png"]
    assert mask_of(names) == dict.fromkeys(names[1:3], "benign (1).png")


@pytest.mark.parametrize(
    "names",
    [
        ["x_mask.png", "y.png"],
        ["0_mask.png", "1_mask.png"],
        ["x.png", "x_masked.png", "x_unmask.png"],
        ["x.png", "xmask.png"],
        ["x.png", "x_1.png", "x_label.png"],
        ["a/x.png", "b/x_mask.png"],
        ["mask.png", "gt.png", "seg.png"],
    ],
)
def test_images_that_are_no_masks(names):
    assert mask_of(names) == {}


def test_masks_in_paths_belong_to_the_image_in_their_folder():
    names = ["a/x.jpg", "b/x.png", "b/x_seg.png", "a/x_seg.png"]
    assert mask_of(names) == {"b/x_seg.png": "b/x.png", "a/x_seg.png": "a/x.jpg"}


def test_a_mask_of_a_mask_like_name():
    names = ["x.png", "x_mask.png", "x_mask_mask.png", "a_gt_b.png", "a_gt_b_mask.png", "a.png"]
    assert mask_of(names) == {
        "x_mask.png": "x.png",
        "x_mask_mask.png": "x_mask.png",
        "a_gt_b_mask.png": "a_gt_b.png",
    }


def test_unsupported_formats_are_counted():
    names = ["a/1.HEIC", "a/2.heic", "a/3.nii.gz", "b/4.nii", "b/5.npy", "b/6.psd", "7.dng"]
    assert unsupported([*names, "v.1.2.nii.gz"]) == {
        **{".heic": 2, ".nii.gz": 2, ".dng": 1, ".nii": 1, ".npy": 1, ".psd": 1}
    }


@pytest.mark.parametrize(
    "extension",
    [
        *(".heic", ".nii", ".nii.gz", ".npy", ".npz", ".mat", ".svg", ".raw", ".cr2", ".nef"),
        *(".dng", ".h5", ".hdf", ".nc", ".img", ".mhd", ".mha", ".psd", ".pdf", ".exr", ".mp4"),
    ],
)
def test_an_unsupported_format(extension):
    assert unsupported([f"x{extension}", f"a/y{extension.upper()}"]) == {extension: 2}


def test_what_is_not_counted():
    readable = [f"x{extension}" for extension in EXTENSIONS]
    others = ["labels.csv", "readme.txt", "x.json", "LICENSE", "x.xml", "x.pth", "data.zip", "x"]
    system = ["__MACOSX/a/x.heic", "a/._x.nii"]
    assert unsupported([*readable, *others, *system]) == {}


@pytest.mark.parametrize("name", ["IM000001", "a/MR.0007", "1.2.840.113619.2.5.1762583153"])
def test_dicom_files_without_extension(name):
    assert unsupported([name]) == {NO_EXTENSION: 1}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        *((n, True) for n in ("__MACOSX", ".DS_Store", "._x.png", "Thumbs.db", "desktop.ini")),
        ("__MACOSX/a/x.png", True),
        ("a/._x.png", True),
        ("a/b/THUMBS.DB", True),
        ("oak/@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", True),
        ("#recycle/a.png", True),
        *((n, False) for n in ("x.png", "a/x._png", "_x.png", ".hidden", "MACOSX/x.png")),
    ],
)
def test_files_of_operating_systems(name, answer):
    assert is_system_file(name) is answer
