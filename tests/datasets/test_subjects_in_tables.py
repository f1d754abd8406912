"""Tables of images: patients in folders and by DATASET.GROUP, labels that are corrected."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from dplq.datasets.own_images import OwnImages
from dplq.io.files import file_digest
from dplq.io.runs.folder import recorded_identity
from dplq.plugin import extend_cfg
from tests.runner import make_project, train


def write_images(folder, paths):
    random = np.random.default_rng(0)
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / path)


def write_table(folder, rows, columns=("path", "label")):
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def split_of(folder, **keys):
    """Return the dataset of a folder, as a run reads it."""
    from dassl.config import get_cfg_default  # found once the plug-in has been imported

    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.DATASET.ROOT, cfg.DATASET.NAME, cfg.DATASET.NUM_SHOTS = str(folder), "OwnImages", -1
    for key, value in keys.items():
        cfg.DATASET[key] = value
    return OwnImages(cfg)


def test_folders_of_patients_in_a_table_without_groups_are_said(tmp_path, caplog):
    """As CheXpert's: images/patient00001/study0/view1_frontal.png."""
    paths = [f"images/patient{p:05}/study0/view{v}_x.png" for p in range(20) for v in range(3)]
    write_images(tmp_path, paths)
    write_table(tmp_path, [(path, "ab"[number // 3 % 2]) for number, path in enumerate(paths)])
    split_of(tmp_path)
    (said,) = (text for text in caplog.messages if "several images of one subject" in text)
    assert said.startswith("OwnImages: folders look like several images of one subject, and ")
    pattern = said.partition("set DATASET.GROUP '")[2].partition("'")[0]
    caplog.clear()
    (tmp_path / "labels.csv").rename(tmp_path / "more.csv")
    dataset = split_of(tmp_path, GROUP=pattern, SPLIT_FILE="more.csv")
    assert len(set(dataset.groups.values())) == 20
    parts = {}
    for part in ("train_x", "val", "test"):
        for item in getattr(dataset, part):
            parts.setdefault(str(item.impath).split("/")[-3], set()).add(part)
    assert all(len(found) == 1 for found in parts.values())


@pytest.mark.parametrize("names", [("2019", "2020", "2021"), ("siteA", "siteB", "siteC", "siteD")])
def test_folders_of_years_and_sites_are_no_subjects(tmp_path, caplog, names):
    paths = [f"images/{name}/{number}.png" for name in names for number in range(12)]
    write_images(tmp_path, paths)
    write_table(tmp_path, [(path, "ab"[number % 2]) for number, path in enumerate(paths)])
    split_of(tmp_path)
    assert "one subject" not in caplog.text


def test_groups_by_pattern_where_the_table_has_a_split(tmp_path, caplog):
    """They were left out, so that val was drawn image by image."""
    paths = [f"p{patient}_{number}.png" for patient in range(20) for number in range(4)]
    write_images(tmp_path, paths)
    rows = [
        (path, "ab"[number // 4 % 2], "test" if number >= 56 else "train")
        for number, path in enumerate(paths)
    ]
    write_table(tmp_path, rows, ("path", "label", "split"))
    dataset = split_of(tmp_path, GROUP=r"(p\d+)_")
    assert len(set(dataset.groups.values())) == 20
    train, val = (
        {str(item.impath).rpartition("/")[2].partition("_")[0] for item in part}
        for part in (dataset.train_x, dataset.val)
    )
    assert val
    assert not train & val
    assert "one subject" not in caplog.text


def test_patients_in_train_and_val_of_a_given_split_are_said(tmp_path, caplog):
    paths = [f"p{patient}_{number}.png" for patient in range(6) for number in range(4)]
    write_images(tmp_path, paths)
    parts = ["train", "train", "val", "val"]
    rows = [
        (path, "ab"[number // 4 % 2], "test" if number >= 16 else parts[number % 4], path[:2])
        for number, path in enumerate(paths)
    ]
    write_table(tmp_path, rows, ("path", "label", "split", "patient"))
    split_of(tmp_path)
    assert "4 groups are in train and in val: p0, p1, p2" in caplog.text


def test_corrected_labels_and_replaced_images_are_another_run(tmp_path):
    """Which images are in which part is the same, and so is the split's hash."""
    flags = make_project(tmp_path / "project")
    data = tmp_path / "images"
    names = [f"{number}.png" for number in range(24)]
    write_images(data, names)
    rows = [(name, "ab"[i % 2], "test" if i >= 16 else "train") for i, name in enumerate(names)]
    write_table(data, rows, ("path", "label", "split"))
    out = tmp_path / "out"
    words = [*flags, "--root", str(data), "--output-dir", str(out), "OPTIM.MAX_EPOCH", "1"]
    assert train(tmp_path / "first", words).code == 0
    hash_before = json.loads((out / "results.json").read_text())["split_hash"]
    again = train(tmp_path / "again", words)
    assert (again.code, "finished" in again.out.lower()) == (0, True)
    digest = file_digest(data / "labels.csv", "blake2b-128")
    assert recorded_identity(out).labels == {"labels.csv": digest}
    table = (data / "labels.csv").read_text()
    (data / "labels.csv").write_text(table + "\n")  # of the same labels
    same = train(tmp_path / "same", words)
    assert (same.code, "finished" in same.out.lower()) == (0, True)
    assert recorded_identity(out).labels != {"labels.csv": digest}
    write_table(
        data,
        [(rows[1][0], "a", "train"), (rows[0][0], "b", "train"), *rows[2:]],
        ("path", "label", "split"),
    )
    changed = train(tmp_path / "labels", words)
    assert changed.code == 2
    assert "labels or image files have changed since" in changed.err
    write_table(data, rows, ("path", "label", "split"))
    assert train(tmp_path / "back", words).code == 0
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(data / names[-1])
    replaced = train(tmp_path / "image", words)
    assert (replaced.code, "image files have changed" in replaced.err) == (2, True)
    assert json.loads((out / "results.json").read_text())["split_hash"] == hash_before
