"""What a declaration may say about its layout and its split, one idea at a time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dplq.datasets import FolderDataset
from dplq.datasets._engine.layout.folders import ClassTable
from dplq.datasets._engine.layout.layouts import (
    Layout,
    best_layout,
    declared_layouts,
    find_groups,
    match_groups,
)
from dplq.errors import UserError

from .lookalikes import make_classes, make_config, parts, write_image

TABLE = ClassTable([("Dense Residential Area", "DenseResidential"), ("Forest",), ("Port", "port")])
FOLDERS = ("DenseResidential", "Forest", "port")


class Toy(FolderDataset):
    """Three classes."""

    dataset_dir = "toy"
    class_table = tuple(TABLE.rows)
    homepage = "https://example.org"


def toy(root: Path, keys=None, **declared):
    """Declare and load; `keys` are those of `cfg.DATASET`."""
    return type("Toy", (Toy,), declared)(make_config(root, CHECK_IMAGES=False, **(keys or {})))


def make(root: Path, *patterns: str, count: int = 4) -> None:
    """Write images at `toy/<pattern>` with `{c}` and `{i}` replaced, for every class."""
    for pattern in patterns:
        for name in FOLDERS:
            for i in range(count):
                write_image(root / "toy" / pattern.format(c=name, i=i))


@pytest.mark.parametrize(
    ("on_disk", "root", "image_dir"),
    [
        ("deep/er/{c}/{i}.jpg", "deep/er", "deep/er"),
        ("group/{c}/{i}.jpg", "*/{class}/*", ""),
        ("in/group/{c}/{i}.jpg", "in/*/{class}/*", "in"),
        ("{c}/images/{i}.png", "{class}/images/*", ""),
        ("tiles/07_{c}/{i}.tif", "tiles/??_{class}/*", "tiles"),
        ("tiles/{c}/{i}.tif", "tiles/??_{class}/*", "tiles"),
        ("flat/{c}_{i}.jpg", "flat/{class}_*", "flat"),
        ("{c}_{i}.jpg", "{class}_*", ""),
        ("flat/2019-{c}-{i}.jpg", "flat/????-{class}-*", "flat"),
    ],
)
def test_patterns(tmp_path, on_disk, root, image_dir):
    make(tmp_path, on_disk)
    dataset = toy(tmp_path, image_roots=(root,))
    assert dataset.classnames == TABLE.prompts
    assert dataset.image_dir == str(tmp_path / "toy" / image_dir).rstrip("/")
    assert [len(items) for items in parts(dataset).values()] == [6, 3, 3]
    for path, label, _ in parts(dataset)["train"]:
        assert FOLDERS[label] in path


def test_spellings_in_file_names_and_the_longest_prefix(tmp_path):
    for file in ("dense_residential_1.jpg", "Dense-Residential_2.jpg", "port_10.JPG", "7.jpg"):
        write_image(tmp_path / file)
    groups = find_groups(str(tmp_path), "{class}_*")
    found = {TABLE.label_of(group.name): group.images("") for group in groups}
    assert found == {
        0: ["Dense-Residential_2.jpg", "dense_residential_1.jpg"],
        2: ["port_10.JPG"],
        None: ["7.jpg"],
    }


def test_two_spellings_in_one_flat_folder_are_one_class(tmp_path):
    for file in ("Dense Residential Area_1.jpg", "DenseResidential_2.jpg"):
        write_image(tmp_path / file)
    groups = find_groups(str(tmp_path), "{class}_*")
    found, extra = match_groups(str(tmp_path), groups, TABLE)
    assert len(groups) == 2
    assert len(found[0].images("")) == 2
    assert not extra


def test_declared_layouts_in_order():
    got = declared_layouts("/d", ("toy", "", ("a", "b"), "x/*/{class}/*", ""), ("train", "", "val"))
    assert got == [
        Layout("/d/toy", ("train", "val"), kept=True),
        Layout("/d/toy"),
        Layout("/d", ("train", "val"), kept=True),
        Layout("/d"),
        Layout("/d", ("a", "b")),
        Layout("/d/x", ("train", "val"), "*/{class}/*", kept=True),
        Layout("/d/x", pattern="*/{class}/*"),
    ]


def test_the_layout_with_most_classes_that_have_images(tmp_path):
    layouts = [Layout(str(tmp_path / name)) for name in ("a", "b", "c", "d")]
    assert best_layout(layouts, TABLE) is None
    make_classes(tmp_path / "a", dict.fromkeys(FOLDERS, 0))
    make_classes(tmp_path / "b", {"Forest": 2, "port": 1})
    assert best_layout(layouts, TABLE) == layouts[1]
    for name in "cd":
        make_classes(tmp_path / name, dict.fromkeys(FOLDERS, 1))
    make_classes(tmp_path / "d", ["Port"], 1)  # 'port' and 'Port': does not matter after c
    assert best_layout(layouts, TABLE) == layouts[2]


def test_strays_are_named_with_the_nearest_class(tmp_path, caplog):
    make(tmp_path, "{c}/{i}.jpg")
    for name in ("Forrest", "qqq", *(f"z{i}" for i in range(6))):
        write_image(tmp_path / "toy" / name / "1.jpg")
    assert toy(tmp_path).num_classes == 3
    assert "ignored: Forrest (nearest class: 'Forest'), qqq, z0, z1, z2 and 3 more" in caplog.text


def test_a_misspelt_class_folder_is_pointed_at(tmp_path):
    make(tmp_path, "{c}/{i}.jpg")
    (tmp_path / "toy" / "port").rename(tmp_path / "toy" / "porrt")
    text = r"no folder for class 'Port' \(port/\) .* Rename 'porrt' to 'port'\?$"
    with pytest.raises(UserError, match=text):
        toy(tmp_path)


def test_files_without_a_class_are_left_out_and_counted(tmp_path, caplog):
    make(tmp_path, "flat/{c}_{i}.jpg")
    for i in range(8):
        write_image(tmp_path / "toy" / "flat" / f"{i}.jpg")
    assert sum(map(len, parts(toy(tmp_path, image_roots=("flat/{class}_*",))).values())) == 12
    assert "not a class of Toy, ignored: 0, 1, 2, 3, 4 and 3 more" in caplog.text


def test_official_folders_are_kept(tmp_path):
    make(tmp_path, "train/{c}/a{i}.jpg", "val/{c}/b{i}.jpg")
    make(tmp_path, "test/{c}/c{i}.jpg", count=2)
    split = parts(toy(tmp_path, split_folders=("train", "val", "test")))
    assert [len(items) for items in split.values()] == [12, 12, 6]
    assert {(part, path.split("/")[0]) for part, items in split.items() for path, *_ in items} == {
        (part, part) for part in split
    }
    merged = toy(tmp_path, image_roots=(("train", "val", "test"),), file_name="Merged")
    assert [len(items) for items in parts(merged).values()] == [15, 6, 9]
    assert len(toy(tmp_path, split_folders=("train", "val", "test"), test_only=True).test) == 30


def test_official_folders_that_are_absent(tmp_path):
    make(tmp_path, "train/{c}/a{i}.jpg")
    with pytest.raises(UserError, match=r"Toy: .*toy has no folder 'test', but has 'train'"):
        toy(tmp_path, split_folders=("train", "", "test"))
    make(tmp_path, "plain/{c}/a{i}.jpg", count=5)
    (tmp_path / "toy/train").rename(tmp_path / "elsewhere")
    dataset = toy(tmp_path, split_folders=("train", "", "test"), image_roots=("plain",))
    assert [len(items) for items in parts(dataset).values()] == [6, 3, 6]


@pytest.mark.parametrize(
    ("source", "sizes"), [("train", [24, 6, 12]), ("half", [30, 6, 6]), ("test", [30, 12, 12])]
)
def test_what_val_is_made_of(tmp_path, source, sizes, caplog):
    make(tmp_path, "train/{c}/a{i}.jpg", count=10)
    make(tmp_path, "test/{c}/c{i}.jpg", count=4)
    declared = {"split_folders": ("train", "", "test"), "val_from": source}
    first = parts(toy(tmp_path, **declared))
    assert [len(items) for items in first.values()] == sizes
    assert parts(toy(tmp_path, **declared)) == first
    assert (first["val"] == first["test"]) == (source == "test")
    assert "also in train or val" not in caplog.text


LISTS = {
    "list_files": ("train.txt", "", "test.txt"),
    "list_line": r"/(?P<file>\w/(?P<class>.+)/[^/]+) \d",
    "list_image": "pictures/{file}",
}


def make_lists(root: Path, extra: str = "") -> None:
    make(root, "pictures/x/{c}/{i}.jpg")
    for file, numbers in (("train.txt", (0, 1)), ("test.txt", (2, 3))):
        lines = [f"/x/{name}/{i}.jpg {i}\n" for name in FOLDERS for i in numbers]
        (root / "toy" / file).write_text("".join(lines) + extra)


def test_lists_of_files_are_kept(tmp_path):
    make_lists(tmp_path)
    dataset = toy(tmp_path, **LISTS)
    assert dataset.classnames == TABLE.prompts
    assert dataset.image_dir == str(tmp_path / "toy")
    assert [len(items) for items in parts(dataset).values()] == [3, 3, 6]
    assert parts(dataset)["test"][0] == ("pictures/x/DenseResidential/2.jpg", 0, TABLE.prompts[0])
    by_folder = toy(
        tmp_path,
        **{
            **LISTS,
            "list_line": r"/x/(?P<class>.+)/(?P<i>\d)",
            **{"list_image": "pictures/x/{folder}/{i}.jpg"},
            "file_name": "Other",
        },
    )
    assert parts(by_folder)["test"] == parts(dataset)["test"]


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ("/x/Forrest/1.jpg 1\n", "train.txt, line 7: '.*' names no known class. Nearest: 'Forest'"),
        ("what is this\n", r"train.txt, line 7: 'what is this' names .* Expected: /\("),
    ],
)
def test_lists_with_mistakes(tmp_path, extra, text):
    make_lists(tmp_path, extra)
    with pytest.raises(UserError, match=text):
        toy(tmp_path, **LISTS)
    (tmp_path / "toy" / "train.txt").unlink()
    with pytest.raises(
        UserError, match=r"train\.txt cannot be used: No such file .* It lists images"
    ):
        toy(tmp_path, **LISTS)


def test_class_file_names_orders_and_numbers(tmp_path):
    names = tmp_path / "toy" / "classnames.txt"
    with pytest.raises(UserError, match=r"no class is known without classnames\.txt in .*toy"):
        toy(tmp_path, class_file=names.name, class_table=())
    make_classes(tmp_path / "toy", ["n02", "n01", "2"], 4)
    names.write_text("n02 red fox\nn01 crane\n\nn03 crane\n")
    dataset = toy(tmp_path, class_file=names.name)
    assert dataset.classnames == ["red fox", "crane", "crane"]
    assert {(i.impath.split("/")[-2], i.label) for i in dataset.test} == {
        ("n02", 0),
        ("n01", 1),
        ("2", 2),
    }
    names.write_text("n02\n")
    with pytest.raises(
        UserError, match=r"classnames\.txt cannot be read: .*one line 'folder prompt"
    ):
        toy(tmp_path, class_file=names.name)


@pytest.mark.parametrize("partial", [True, ("Forest",)])
def test_classes_that_may_be_absent(tmp_path, partial):
    make_classes(tmp_path / "toy", ["DenseResidential", "port"], 4)
    dataset = toy(tmp_path, partial=partial)
    assert dataset.classnames == ["Dense Residential Area", "Port"]
    assert {item.label for item in dataset.test} == {0, 1}
    assert parts(toy(tmp_path, partial=partial)) == parts(dataset)
    with pytest.raises(UserError, match="no folder for class 'Forest'"):
        toy(tmp_path, partial=("Port",))


def test_published_split_files(tmp_path, caplog):
    make(tmp_path, "{c}/{i}.jpg")
    url = "https://example.org/split.json"
    own = Path(toy(tmp_path, split_url=url).split_path)
    files = "split_cao_Toy.json or split_zhou_Toy.json or split_Toy.json"
    assert f"toy has no {files}. Get it from {url}; a split of our own" in caplog.text
    declared = {"split_files": ("theirs.json",), "needs_split": True, "split_url": url}
    with pytest.raises(UserError, match=f"has no theirs.json. Get it from {url}; without it"):
        toy(tmp_path, **declared)
    own.rename(own.with_name("theirs.json"))
    assert toy(tmp_path, **declared).split_path.endswith("toy/theirs.json")
    unnamed = toy(tmp_path, class_table=(), **declared)
    assert unnamed.classnames == TABLE.prompts
    assert "its classes differ" not in caplog.text


REFERENCE = {"reference_prompts": {"DenseResidential": "DenseResidential", "Forest": "Wood"}}


def test_reference_protocol_has_the_original_prompts(tmp_path):
    make(tmp_path, "{c}/{i}.jpg")
    ours, theirs = toy(tmp_path, **REFERENCE), toy(tmp_path, {"PROTOCOL": "reference"}, **REFERENCE)
    assert ours.classnames == TABLE.prompts
    assert theirs.classnames == ["DenseResidential", "Wood", "Port"]
    assert [i.impath for i in theirs.train_x] == [i.impath for i in ours.train_x]
    assert toy(tmp_path, **REFERENCE).split_path == theirs.split_path
    (tmp_path / "toy" / "Forest").rename(tmp_path / "toy" / "forest")
    Path(ours.split_path).unlink()
    renamed = toy(tmp_path, {"PROTOCOL": "reference"}, **REFERENCE)
    assert renamed.classnames == ["DenseResidential", "Forest", "Port"]
    with pytest.raises(UserError, match=r"'referense' is unknown\. Did you mean 'reference'"):
        toy(tmp_path, {"PROTOCOL": "referense"})


def test_reference_protocol_keeps_the_names_of_a_published_split(tmp_path):
    make(tmp_path, "{c}/{i}.jpg")
    own = Path(toy(tmp_path).split_path)
    text = own.read_text().replace('"Dense Residential Area"', '"dense_residential"')
    own.with_name("split_Toy.json").write_text(text)
    assert toy(tmp_path).classnames == TABLE.prompts
    theirs = toy(tmp_path, {"PROTOCOL": "reference"}, **REFERENCE)
    assert theirs.classnames == ["dense_residential", "Forest", "Port"]


def test_reference_template(tmp_path):
    make(tmp_path, "{c}/{i}.jpg")
    declared = {"template": "a radar image of {}.", "reference_template": "a photo of {}."}
    assert toy(tmp_path, **declared).template == "a radar image of {}."
    assert toy(tmp_path, {"PROTOCOL": "reference"}, **declared).template == "a photo of {}."


def test_at_reads_nothing(tmp_path):
    data = Toy.at(str(tmp_path))
    assert data.table.prompts == TABLE.prompts
    expected = f"  {tmp_path}/toy/\n    DenseResidential/\n      *.jpg\n    Forest/\n    port/\n"
    assert data.expected_layout() == expected + "    ... (3 class folders)"
    assert not list(tmp_path.iterdir())
    tree = type("Toy", (Toy,), {"split_folders": ("train", "", "val")}).at("/d").expected_layout()
    assert re.search(r"/d/toy/\n    train/\n      Dense.*/\n        \*.jpg\n(.*\n)+    val/", tree)
