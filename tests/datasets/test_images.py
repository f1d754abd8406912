"""The check of images before a run: its cache, the summary, data that need a window."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image
from yacs.config import CfgNode

from dplq.datasets._engine import images as images_module
from dplq.datasets._engine.images import ImageCheck, describe_problems, report_images
from dplq.datasets._engine.store import Store
from dplq.datasets.own_images import OwnImages
from dplq.errors import UserError
from dplq.images.reader import ImageFile, read_image
from dplq.images.settings import ReadSettings

from .lookalikes import make_config

WINDOW = ReadSettings(window=(0, 4095))


@pytest.fixture
def folder(tmp_path):
    """Two classes of six 12-bit X-rays in 16-bit PNG."""
    for label, name in enumerate(("chest", "hand")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            values = np.random.default_rng(10 * label + i).integers(0, 4096, (12, 16))
            values[0, :2] = 0, 4095
            Image.fromarray(values.astype(np.uint16)).save(tmp_path / f"data/{name}/{i}.png")
    return tmp_path / "data"


@pytest.fixture
def decoded(monkeypatch):
    """Paths of the images that have been decoded."""
    paths = []
    real = images_module.examine

    def examine(path, settings):
        paths.append(os.path.basename(path))
        return real(path, settings)

    monkeypatch.setattr(images_module, "examine", examine)
    return paths


def config(root, **keys):
    cfg = make_config(root, **keys.pop("dataset", {}))
    cfg.INPUT = CfgNode(keys)
    return cfg


def check(folder, settings=WINDOW):
    return ImageCheck(str(folder), Store(str(folder), "X"), settings)


def test_facts_are_kept_with_the_good_images(folder, decoded):
    names = ["hand/1.png", "hand/2.png"]
    first, second = check(folder), check(folder)
    assert first.broken(names) == {}
    assert len(decoded) == 2
    again = check(folder)
    assert again.broken(names) == {}
    assert len(decoded) == 2
    assert again.facts == first.facts
    assert again.facts["hand/1.png"].kind == "16-bit grey"
    assert again.facts["hand/1.png"].high == 4095
    assert again.facts["hand/1.png"].steps == ("window [0, 4095] applied",)
    assert second.facts == {}


def test_other_settings_and_older_caches_decode_again(folder, decoded):
    check(folder).broken(["hand/1.png"])
    check(folder, ReadSettings(window="percentile")).broken(["hand/1.png"])
    assert len(decoded) == 2
    path = folder / "images_checked.json"
    status = os.stat(folder / "hand/1.png")
    stamp = [status.st_size, status.st_mtime_ns]  # what version 0.1.0 wrote
    key = json.loads(path.read_text())["images"]["hand/1.png"][2]
    for number, entry in enumerate((stamp, [*stamp, key, [1, 2]], [*stamp, key, None], 7, None)):
        entries = {"hand/1.png": entry}
        path.write_text(
            json.dumps({"checksum": images_module._checksum(entries), "images": entries})
        )
        assert check(folder).broken(["hand/1.png"]) == {}
        assert len(decoded) == 3 + number


def test_a_damaged_entry_is_checked_again(folder, decoded, caplog):
    check(folder).broken(["hand/1.png", "hand/2.png"])
    path = folder / "images_checked.json"
    text = path.read_text()
    for old, new in (("hand/1", "hand/3"), ("16-bit", "17-bit"), ('"images"', '"imagez"')):
        path.write_text(text.replace(old, new))
        caplog.clear()
        before = len(decoded)
        check(folder).broken(["hand/1.png", "hand/2.png"])
        assert len(decoded) == before + 2
        assert f"{path} is damaged, or of an earlier version" in caplog.text


def test_problems_of_one_kind_are_told_once():
    problems = dict.fromkeys(["a.tif", "b.tif", "c.tif", "d.tif"], "has 13 bands; set X")
    text = describe_problems(problems | {"e.png": "is empty"})
    assert text == "a.tif, b.tif, c.tif and 1 more: has 13 bands; set X; e.png: is empty"


def test_the_summary_counts_kinds_and_steps(folder, caplog):
    Image.new("RGBA", (9, 9), (1, 2, 3, 4)).save(folder / "hand/7.png")
    checked = check(folder)
    checked.broken(["hand/1.png", "hand/2.png", "hand/7.png"])
    expected = {
        "images": 3,
        "kinds": {"16-bit grey": 2, "8-bit RGB with alpha": 1},
        "steps": {
            "window [0, 4095] applied": 2,
            "INPUT.WINDOW not used for 8 bits": 1,
            "alpha composited on the background (0, 0, 0)": 1,
        },
        "most_frames": 1,
    }
    assert report_images("X", checked, WINDOW) == expected
    assert (
        "X: images: 2 16-bit grey; 1 8-bit RGB with alpha; 2 x window [0, 4095] applied"
    ) in caplog.text


def test_a_run_on_a_small_part_of_the_range_is_refused(folder):
    with pytest.raises(UserError) as caught:
        OwnImages(config(folder))
    assert str(caught.value) == (
        "OwnImages: The 16-bit grey images use only the values 0 to 4095 of 0 to 65535, so they "
        'would be nearly uniform: set INPUT.WINDOW "[0, 4095]" or percentile; INPUT.WINDOW '
        '"[0, 65535]" keeps the full range.'
    )
    dataset = OwnImages(config(folder, WINDOW=[0, 4095]))
    assert dataset.image_summary["kinds"] == {"16-bit grey": 12}
    image = dataset.train_x[0].impath
    assert isinstance(image, ImageFile)
    assert np.asarray(read_image(image)).max() == 255
    assert np.asarray(read_image(str(image))).max() == 16


def test_without_the_check_nothing_is_known_of_conversions(folder, caplog):
    dataset = OwnImages(config(folder, dataset={"CHECK_IMAGES": False}))
    assert dataset.image_summary is None
    assert "conversions of images (depth, alpha, orientation, frames) are not rep" in caplog.text


def test_a_bad_key_is_refused(folder):
    with pytest.raises(UserError, match=r"INPUT\.BANDS is \[1, 2\]; it must be three bands"):
        OwnImages(config(folder, BANDS=[1, 2]))


def test_floats_that_need_a_window_get_one_for_all(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for i, values in enumerate(([[3.0, 40.0]], [[-2.0, 7.0]], [[5.0, np.nan]])):
        tifffile.imwrite(tmp_path / f"{i}.tif", np.array(values, np.float32))
    (tmp_path / "3.tif").write_bytes(b"")
    problems = check(tmp_path, ReadSettings()).broken(f"{i}.tif" for i in range(4))
    assert describe_problems(problems) == (
        "0.tif, 1.tif, 2.tif: is a 32-bit float grey image with values from -2 to 40, and some "
        'that are not finite; set INPUT.WINDOW "[-2, 40]", the values that become black and white, '
        "or percentile; 3.tif: is empty (0 bytes); get the file again"
    )
    assert describe_problems({"1.tif": pickle.loads(pickle.dumps(problems["1.tif"]))}) == (
        f"1.tif: {problems['1.tif']}"
    )


def test_floats_that_are_all_missing_have_no_range(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for i in range(2):
        tifffile.imwrite(tmp_path / f"{i}.tif", np.full((2, 2), np.nan, np.float32))
    problems = check(tmp_path, ReadSettings()).broken(["0.tif", "1.tif"])
    assert (
        'values from nan to nan, and some that are not finite; set INPUT.WINDOW "[low, high]"'
        in (describe_problems(problems))
    )
