"""Names of folders and files."""

from __future__ import annotations

import os

import pytest

from dplq import datasets
from dplq.datasets._engine.layout.folders import (
    ClassTable,
    has_image,
    in_words,
    list_files,
    list_folders,
    list_images,
)
from dplq.datasets._engine.layout.layouts import Layout, find_groups, match_groups
from dplq.datasets._engine.layout.listing import list_layout
from dplq.errors import UserError

from .lookalikes import make_classes


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("DenseResidential", "Dense Residential"),
        ("dense_residential", "dense residential"),
        ("footballField", "football Field"),
        ("MRIScan", "MRI Scan"),
        ("forest", "forest"),
        ("T-shirt", "T-shirt"),
        ("_a__b ", "a b"),
    ],
)
def test_folder_names_become_words(folder, words):
    assert in_words(folder) == words


def test_every_spelling_finds_its_class():
    table = ClassTable([("River or Lake", "dRiverLake", "RiverLake"), ("Field", "bField")])
    for name in ("dRiverLake", "RIVERLAKE", "river_lake", "River-Lake", "River or Lake"):
        assert table.label_of(name) == 0
    assert table.label_of("field") == 1
    assert table.label_of("Fields") is None
    assert table.folder_of(0) == "dRiverLake"


def test_one_spelling_for_two_classes_is_refused():
    with pytest.raises(UserError, match="'river lake' and 'lake' share the spelling 'River_Lake'"):
        ClassTable([("river lake",), ("lake", "River_Lake")])


@pytest.mark.parametrize("name", ["RSSCN7", "WHURS19", "BTMRI"])
def test_declared_tables_are_sound(name):
    dataset = getattr(datasets, name)
    table = ClassTable(dataset.class_table)
    assert len(table.rows) == {"RSSCN7": 7, "WHURS19": 19, "BTMRI": 4}[name]
    assert dataset.dataset_dir == name
    assert dataset.homepage.startswith("https://")
    assert dataset.__doc__
    assert "{}" in dataset.template


def test_images_by_extension_sorted_without_hidden_and_folders(tmp_path):
    for name in [
        "b.JPG",
        "a.jpeg",
        "Z.png",
        "c.bmp",
        "d.tif",
        "e.TIFF",
        "f.gif",
        "g.webp",
        ".h.jpg",
        "i.txt",
        "j.json",
    ]:
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    expected = ["Z.png", "a.jpeg", "b.JPG", "c.bmp", "d.tif", "e.TIFF", "f.gif", "g.webp"]
    assert list_images(str(tmp_path)) == expected


def test_links_are_followed_and_cycles_end(tmp_path):
    make_classes(tmp_path / "root", ["oak", "pine"], 1)
    make_classes(tmp_path, ["elsewhere"], 1)
    oak, pine = tmp_path / "root" / "oak", tmp_path / "root" / "pine"
    (oak / "up").symlink_to("..")
    (oak / "here").symlink_to(".")
    (oak / "itself.jpg").symlink_to("itself.jpg")
    (oak / "other").symlink_to(pine)
    (pine / "other").symlink_to(oak)
    (oak / "linked").symlink_to(tmp_path / "elsewhere")
    (oak / "e.jpg").symlink_to(tmp_path / "elsewhere" / "e00.jpg")
    files = list_files(str(oak), nested=True)
    assert files.images == ("e.jpg", "linked/e00.jpg", "o00.jpg", "other/p00.jpg")
    assert files.others == ("itself.jpg",)
    (tmp_path / "root" / "whole").symlink_to(".")
    assert list_folders(str(tmp_path / "root")) == ["oak", "pine"]
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "up").symlink_to(".")
    assert not has_image(str(tmp_path / "bare"), nested=True)


def test_two_folders_of_one_class_are_refused(tmp_path):
    make_classes(tmp_path, ["aGrass", "Grass"], 1)
    with pytest.raises(UserError, match="'Grass' and 'aGrass' are both class 'Grass'"):
        match_groups("here", find_groups(str(tmp_path)), ClassTable([("Grass", "aGrass")]))


def test_parts_are_merged_by_class(tmp_path):
    make_classes(tmp_path / "Training", ["glioma", "notumor"], 2)
    make_classes(tmp_path / "Testing", ["glioma_tumor", "notumor"], 1)
    table = ClassTable([("glioma", "glioma_tumor"), ("none", "notumor")])
    images = list_layout(Layout(str(tmp_path), ("Training", "Testing")), table).images
    assert images[0] == [
        "Testing/glioma_tumor/g00.jpg",
        "Training/glioma/g00.jpg",
        "Training/glioma/g01.jpg",
    ]
    assert len(images[1]) == 3


def test_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"Cannot list .*: Permission denied"):
        list_images(str(tmp_path))
