"""Folders as people have them: what a run makes of them, and what `check` says."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from yacs.config import CfgNode

from dplq.data.check import check
from dplq.data.report import render
from dplq.datasets import OwnImages
from dplq.errors import UserError
from dplq.images.reader import read_image
from tests.datasets.lookalikes import make_config, parts

TREES = ("oak", "pine", "reed")


def scene(seed: int, side: int = 32) -> np.ndarray:
    """Return a grey picture from 0 to 1; no two are alike."""
    noise = np.random.default_rng(seed).normal(size=(side, side))
    return np.clip(np.linspace(0.2, 0.7, side) + 0.1 * noise, 0, 1)


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((scene(seed) * 255).astype(np.uint8)).convert("RGB").save(path)


def make(folder: Path, per_class: int = 8, names: tuple[str, ...] = TREES, end: str = "png"):
    for label, name in enumerate(names):
        for i in range(per_class):
            write(folder / name / f"{name}_{i:02d}.{end}", 100 * label + i)
    return folder


def move_to_parts(folder: Path, per_class: int, train: int) -> None:
    for name in TREES:
        for i in range(per_class):
            part = folder / ("train" if i < train else "test") / name
            part.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / name / f"{name}_{i:02d}.png", part)
        (folder / name).rmdir()


def load(root: Path, shots: int = -1, inputs: dict[str, Any] | None = None, **keys: Any):
    cfg = make_config(root, shots=shots, **keys)
    cfg.INPUT = CfgNode(inputs or {})
    return OwnImages(cfg)


def checked(root: Path) -> tuple[str, list[str]]:
    """Return the report as text, and the problems."""
    report = check(OwnImages, str(root))
    return render(report, OwnImages), [finding.what for finding in report.findings]


def row_of(text: str, name: str) -> list[str]:
    """Return the cells of a class in the table of a report."""
    return next(line.split() for line in text.splitlines() if line.split()[2:3] == [name])


def test_one_file_in_train_and_test_is_no_image_in_two_classes(tmp_path):
    for part in ("train", "test"):
        make(tmp_path / part, 4)
    text, problems = checked(tmp_path)
    assert len(problems) == 1
    assert problems[0].startswith("12 duplicate(s) across train, val and test (equal bytes): ")
    assert "two classes" not in text


def test_the_table_counts_the_images_of_test_folders(tmp_path):
    make(tmp_path, 10)
    move_to_parts(tmp_path, 10, 6)
    text, problems = checked(tmp_path)
    assert problems == []
    assert row_of(text, "oak") == ["0", "base", "oak", "oak", "10", "?", "5", "1", "4"]


def test_the_table_has_the_halves_of_the_split_file(tmp_path):
    make(tmp_path)
    split: dict[str, list[Any]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(("reed", "oak", "pine")):
        for i in range(8):
            part = "train" if i < 4 else "val" if i < 6 else "test"
            split[part].append([f"{name}/{name}_{i:02d}.png", label, name])
    (tmp_path / "split_zhou_OwnImages.json").write_text(json.dumps(split))
    text, _ = checked(tmp_path)
    assert [row_of(text, name)[:2] for name in ("reed", "oak", "pine")] == [
        ["0", "base"],
        ["1", "base"],
        ["2", "new"],
    ]
    assert load(tmp_path, SUBSAMPLE_CLASSES="base").classnames == ["reed", "oak"]


def test_pictures_stored_sideways_are_the_upright_ones(tmp_path, caplog):
    for kind in ("upright", "sideways"):
        for i, name in enumerate(["oak", "pine"] * 4):
            path = tmp_path / kind / name / f"{i}.png"
            write(path, i)
            if kind == "sideways":
                exif = Image.Exif()
                exif[0x0112] = 6
                with Image.open(path) as picture:
                    turned = picture.rotate(90, expand=True)
                turned.save(path, exif=exif)
    caplog.set_level(logging.INFO)
    seen = {
        kind: [np.asarray(read_image(item.impath)) for item in load(tmp_path / kind).test]
        for kind in ("upright", "sideways")
    }
    assert len(seen["upright"]) == 2
    assert all(map(np.array_equal, seen["upright"], seen["sideways"]))
    assert "8 x turned upright by EXIF orientation" in caplog.text


def test_a_picture_that_is_too_large_is_not_called_damaged(tmp_path):
    make(tmp_path, 4)
    Image.new("1", (6000, 5000), 1).save(tmp_path / "oak" / "large.png")
    limit = {"MAX_PIXELS": 20_000_000}
    with pytest.raises(UserError) as caught:
        load(tmp_path, inputs=limit)
    assert "oak/large.png: has 6000 x 5000" in str(caught.value)
    assert "INPUT.MAX_PIXELS 20,000,000; scale it down, or raise INPUT.MAX_PIXELS." in str(
        caught.value
    )
    assert "damaged" not in str(caught.value)
    assert len(load(tmp_path, inputs={"MAX_PIXELS": 30_000_000}).test) == 4


def test_the_table_of_a_medmnist_export(tmp_path):
    """A flat folder, and a table without a header: part, file, label."""
    rows = []
    for label in range(3):
        for i in range(9):
            part = ("TRAIN", "VALIDATION", "TEST")[i % 3]
            name = f"{part.lower()}{len(rows)}_{label}.png"
            write(tmp_path / "dermamnist" / name, len(rows))
            rows.append(f"{part},{name},{label}")
    (tmp_path / "dermamnist.csv").write_text("\n".join(rows))
    got = parts(load(tmp_path))
    assert {part: len(items) for part, items in got.items()} == {"train": 9, "val": 9, "test": 9}
    assert {label for _, label, _ in got["test"]} == {0, 1, 2}
    assert all(path.startswith(part) for part in ("train", "val", "test")
               for path in (p.split("/")[-1] for p, *_ in got[part]))  # fmt: skip
    text, problems = checked(tmp_path)
    assert problems == []
    assert "the class names are numbers (0, 1, 2)" in text


def test_bands_are_named_not_damage(tmp_path):
    for name in ("crop", "water"):
        (tmp_path / name).mkdir()
        for i in range(4):
            bands = np.stack([scene(i, 16) * 3000] * 13, -1).astype(np.uint16)
            path = tmp_path / name / f"{i}.tif"
            tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig")
    with pytest.raises(UserError, match=r"has 13 bands.*INPUT\.BANDS"):
        load(tmp_path)
    _, problems = checked(tmp_path)
    assert len(problems) == 1
    assert "8 image(s)" in problems[0]
    assert "has 13 bands" in problems[0]
    assert len(load(tmp_path, inputs={"BANDS": [4, 3, 2], "WINDOW": [0, 3000]}).test) == 2


def test_one_class_keeps_its_images_in_patient_folders(tmp_path, caplog):
    make(tmp_path)
    for i, path in enumerate(sorted((tmp_path / "reed").iterdir())):
        write(tmp_path / "reed" / f"case{i % 4}" / path.name, 200 + i)
        path.unlink()
    dataset = load(tmp_path)
    assert dataset.classnames == list(TREES)
    cases = [{p.split("/")[1] for p, label, _ in items if label == 2}
             for items in parts(dataset).values()]  # fmt: skip
    assert sum(map(len, cases)) == len(set.union(*cases)) == 4
    text, problems = checked(tmp_path)
    assert problems == []
    assert row_of(text, "reed")[4] == "8"


def test_folders_that_are_numbers(tmp_path, caplog):
    make(tmp_path, names=("0", "1", "2", "10"))
    assert load(tmp_path).classnames == ["0", "1", "2", "10"]
    said = (
        "OwnImages: the class names are numbers (0, 1, 2, 10): 'a photo of a 10.' says nothing to "
        'CLIP. Name the classes in classes.json: {"0": "name in words", ...}.'
    )
    assert said in caplog.messages
    assert f"note: {said}" in checked(tmp_path)[0]


def test_jfif_is_used(tmp_path):
    make(tmp_path, end="jpg")
    for path in sorted((tmp_path / "reed").iterdir())[4:]:
        path.rename(path.with_suffix(".jfif"))
    dataset = load(tmp_path)
    assert len(dataset.train_x) == 12
    every = [*dataset.train_x, *dataset.val, *dataset.test]
    assert sum(str(item.impath).endswith(".jfif") for item in every) == 4
    assert checked(tmp_path)[1] == []


def test_images_added_to_a_test_folder_are_tested(tmp_path):
    make(tmp_path, 9)
    move_to_parts(tmp_path, 9, 6)
    assert len(load(tmp_path).test) == 9
    for label, name in enumerate(TREES):
        write(tmp_path / "test" / name / "later.png", 1000 + label)
    assert len(load(tmp_path).test) == 12
    assert checked(tmp_path)[1] == []


def test_a_test_folder_alone_is_tested_whole(tmp_path):
    make(tmp_path / "test")
    dataset = load(tmp_path, shots=2)
    assert len(dataset.test) == 24
    assert dataset.test_only
    text, problems = checked(tmp_path)
    assert problems == []
    assert "split: none (test 24)" in text


@pytest.mark.parametrize(
    ("kind", "stops"),
    [
        ("8-bit", ""),
        ("12 of 16 bits", 'set INPUT.WINDOW "[0, 4095]" or percentile'),
        ("float", "INPUT.WINDOW"),
        ("truncated", "damaged or truncated"),
    ],
)
def test_pixels_that_stop_a_run_stop_in_check(tmp_path, kind, stops):
    for label, name in enumerate(("hand", "knee")):
        (tmp_path / name).mkdir()
        for i in range(6):
            picture, path = scene(10 * label + i), tmp_path / name / f"{i}.tif"
            picture[0, :2] = 0, 1
            if kind in ("8-bit", "truncated"):
                Image.fromarray((picture * 255).astype(np.uint8)).save(path)
            elif kind == "float":
                tifffile.imwrite(path, (picture * 300).astype(np.float32))
            else:
                tifffile.imwrite(path, (picture * 4095).astype(np.uint16))
            if kind == "truncated" and i == 3:
                path.write_bytes(path.read_bytes()[:700])
    _, problems = checked(tmp_path)
    if not stops:
        assert problems == []
        assert len(load(tmp_path).test) == 4
        return
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    assert stops in str(caught.value)
    assert any(stops in problem for problem in problems)
