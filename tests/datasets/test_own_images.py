"""Any folder of images."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dplq.datasets import OwnImages
from dplq.errors import UserError

from .lookalikes import edit_json, make_classes, make_config, parts


def load(root: Path, **keys):
    return OwnImages(make_config(root, **keys))


@pytest.mark.parametrize("inside", ["own_images", "."])
def test_folder_of_class_folders(tmp_path, inside):
    make_classes(tmp_path / inside, ["river_lake", "DenseResidential", "forest"])
    dataset = load(tmp_path)
    assert dataset.classnames == ["Dense Residential", "forest", "river lake"]
    assert [len(items) for items in parts(dataset).values()] == [15, 6, 9]
    assert Path(dataset.split_path) == tmp_path / inside / "split_dplq_OwnImages.json"
    assert parts(load(tmp_path)) == parts(dataset)


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "testing")])
def test_given_parts_are_kept(tmp_path, names):
    for name, count in zip(names, (5, 2, 3), strict=True):
        make_classes(tmp_path / name, ["cat", "dog"], count)
    got = parts(load(tmp_path))
    assert [len(items) for items in got.values()] == [10, 4, 6]
    for part, name in zip(got, names, strict=True):
        assert {path.split("/")[0] for path, *_ in got[part]} == {name}


def test_val_is_drawn_from_train_where_absent(tmp_path):
    make_classes(tmp_path / "train", {"cat": 10, "dog": 2})
    make_classes(tmp_path / "test", ["cat", "dog"], 1)
    got = parts(load(tmp_path))
    assert [[label for _, label, _ in got[part]] for part in ("train", "val")] == [
        [0] * 8 + [1],
        [0] * 2 + [1],
    ]
    assert not {p for p, *_ in got["train"]} & {p for p, *_ in got["val"]}
    assert parts(load(tmp_path)) == got


def test_parts_with_mistakes(tmp_path):
    make_classes(tmp_path / "train", {"cat": 4, "dog": 1})
    with pytest.raises(UserError, match=r"has 'train' but no test folder\. Add test/<class>"):
        load(tmp_path)
    make_classes(tmp_path / "test", ["cat"], 2)
    with pytest.raises(UserError, match=r"no folder for class 'dog' .*test; found there: cat"):
        load(tmp_path)
    make_classes(tmp_path / "test", ["dog"], 2)
    with pytest.raises(UserError, match="class 'dog' has one training image and there is no val"):
        load(tmp_path)


def test_accents_may_be_written_in_two_ways(tmp_path):
    """As macOS and archives made there write them, and everyone else."""
    make_classes(tmp_path, ["cafe\u0301", "bar"])
    names = {"caf\u00e9": "a coffee house", "bar": "a bar"}
    (tmp_path / "classes.json").write_text(json.dumps(names), encoding="utf-8")
    assert load(tmp_path).classnames == ["a coffee house", "a bar"]


def test_a_class_may_be_called_train(tmp_path):
    make_classes(tmp_path, ["train", "car"])
    assert load(tmp_path).classnames == ["car", "train"]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"forest": "a dense forest", "DenseResidential": "houses"}, ["a dense forest", "houses"]),
        (["forest", "dense residential"], ["forest", "dense residential"]),
    ],
)
def test_classes_json_names_and_orders(tmp_path, content, names, caplog):
    make_classes(tmp_path, ["DenseResidential", "forest", "other"])
    load(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps(content))
    dataset = load(tmp_path)  # takes effect although a split file is there
    assert dataset.classnames == names
    assert "the classes have changed since" in caplog.text
    assert "not a class of OwnImages, ignored: other" in caplog.text
    assert load(tmp_path, SUBSAMPLE_CLASSES="new").classnames == names[1:]
    assert {Path(item.impath).parent.name for item in dataset.test if item.label == 0} == {"forest"}


def test_new_prompts_leave_the_split_as_it_is(tmp_path):
    make_classes(tmp_path, ["a", "b"])
    before = parts(load(tmp_path))
    (tmp_path / "classes.json").write_text('{"a": "apple", "b": "bear"}')
    after = parts(load(tmp_path))
    for part in before:
        assert [item[:2] for item in before[part]] == [item[:2] for item in after[part]]


@pytest.mark.parametrize("content", ['{"a": 3}', "3", "[1, 2]", '["", "b"]', "{"])
def test_bad_classes_json(tmp_path, content):
    make_classes(tmp_path, ["a", "b"])
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "classes.json"))):
        load(tmp_path)


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    make_classes(tmp_path, ["a", "b"])
    (tmp_path / "classes.json").write_text('{"a": "apple", "b": "bear", "a": "ant"}')
    with pytest.raises(UserError, match=r"the key 'a' is there twice\).*Repair it"):
        load(tmp_path)


def test_classes_json_may_begin_with_a_byte_order_mark(tmp_path):
    make_classes(tmp_path, ["a", "b"])
    (tmp_path / "classes.json").write_text('["b", "a"]', encoding="utf-8-sig")
    assert load(tmp_path).classnames == ["b", "a"]


def test_a_table_of_test_rows_is_tested_as_a_whole(tmp_path):
    make_classes(tmp_path / "pictures", ["a", "b"], 3)
    rows = [
        f"{path.relative_to(tmp_path)},{path.parent.name},test"
        for path in sorted(tmp_path.glob("pictures/*/*"))
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    dataset = load(tmp_path)
    assert dataset.test_only
    assert [len(items) for items in parts(dataset).values()] == [6, 0, 6]
    assert dataset.classnames == ["a", "b"]


@pytest.mark.parametrize("name", ["labels.txt", "labels.xlsx", "labels"])
def test_a_split_file_of_another_kind_is_refused(tmp_path, name):
    make_classes(tmp_path, ["a", "b"])
    (tmp_path / name).write_text("path,label\n")
    with pytest.raises(
        UserError, match=rf"'{name}', but must end in \.csv or \.tsv \(a table\) or"
    ):
        load(tmp_path, SPLIT_FILE=name)


def test_classes_json_that_names_an_absent_folder(tmp_path):
    make_classes(tmp_path, ["a", "b"])
    (tmp_path / "classes.json").write_text('["a", "b", "c"]')
    with pytest.raises(UserError, match="no folder for class 'c'"):
        load(tmp_path)
    (tmp_path / "classes.json").write_text('["c", "d"]')
    with pytest.raises(UserError, match=r"no folder for class 'c' .* 'd' .* found there: a, b"):
        load(tmp_path)


def test_no_images(tmp_path):
    with pytest.raises(UserError, match=r"has 0 classes; at least 2 .*\n.*<class>/\*\.jpg"):
        load(tmp_path)
    with pytest.raises(UserError, match="is absent; at least 2 classes are needed"):
        load(tmp_path / "nowhere")
    make_classes(tmp_path, ["only"])
    with pytest.raises(UserError, match="has 1 class;"):
        load(tmp_path)


def test_a_folder_around_the_class_folders_is_found(tmp_path):
    make_classes(tmp_path / "archive" / "images", ["a", "b"])
    with pytest.raises(UserError, match=r"needed\. Is 'images' the folder of the class folders"):
        load(tmp_path / "archive")
    (tmp_path / "flat").mkdir()
    for path in (tmp_path / "archive" / "images" / "a").iterdir():
        path.rename(tmp_path / "flat" / path.name)
    with pytest.raises(UserError, match="10 images are in it, but in no class folder"):
        load(tmp_path / "flat")


def test_a_spreadsheet_is_named(tmp_path):
    make_classes(tmp_path, ["images"])
    (tmp_path / "labels.xlsx").touch()
    with pytest.raises(UserError, match=r"labels\.xlsx is not read: save it as 'CSV UTF-8'"):
        load(tmp_path)


def test_folders_of_datasets_that_are_taken_for_classes_are_named(tmp_path, caplog):
    for dataset in ("RSSCN7", "WHURS19"):
        make_classes(tmp_path / "data" / dataset, ["a", "b"], 4)
    load(tmp_path / "data")
    said = "holds folders of datasets (RSSCN7, WHURS19), which are taken for classes"
    assert said in caplog.text
    caplog.clear()
    make_classes(tmp_path / "flat", ["RSSCN7", "WHURS19"], 4)  # no folders in them
    load(tmp_path / "flat")
    assert "folders of datasets" not in caplog.text


def test_folders_beside_the_parts_are_said(tmp_path, caplog):
    for part in ("train", "test"):
        make_classes(tmp_path / part, ["a", "b"], 4)
    make_classes(tmp_path, ["c"], 4)
    load(tmp_path)
    assert f"OwnImages: {tmp_path}: the images in c are in no part, so they are not" in caplog.text


def test_a_class_that_is_called_like_masks_is_said(tmp_path, caplog):
    make_classes(tmp_path, ["images", "masks"])
    assert load(tmp_path).classnames == ["images", "masks"]
    assert "'masks' is a class here, but is called like a folder of segm" in caplog.text
    caplog.clear()
    (tmp_path / "classes.json").write_text('["images", "masks"]')
    load(tmp_path)
    assert "segmentation" not in caplog.text


def test_a_table_that_overrules_class_folders_is_said(tmp_path, caplog):
    make_classes(tmp_path, ["ash", "birch", "cedar"], 4)
    rows = {c: [f"{c}/{c[0]}{i:02d}.jpg" for i in range(4)] for c in ("ash", "birch", "cedar")}
    lines = [f"{path},{'soft' if c == 'cedar' else 'hard'}" for c in rows for path in rows[c]]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    assert load(tmp_path).classnames == ["hard", "soft"]
    assert (
        f"the classes are the labels of {tmp_path / 'labels.csv'} (hard, soft), not the folders "
        "(ash, birch, cedar)" in caplog.text
    )
    caplog.clear()
    load(tmp_path, SPLIT_FILE="labels.csv")
    (tmp_path / "split_dplq_OwnImages_labels.json").unlink()
    lines = [f"{path},{c.title()}" for c in rows for path in rows[c]]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    load(tmp_path)
    assert "not the folders" not in caplog.text
    (tmp_path / "classes.json").write_text('["x", "y"]')
    with pytest.raises(UserError, match="label 'Ash' is no class of OwnImages, which has 'x', 'y'"):
        load(tmp_path)


def test_broken_links_are_said(tmp_path, caplog):
    make_classes(tmp_path, ["a", "b"])
    (tmp_path / "a" / "lost.png").symlink_to("/nowhere/lost.png")
    assert sum(map(len, parts(load(tmp_path)).values())) == 20
    assert "OwnImages: left out: 1 link leads to no file: a/lost.png" in caplog.text


def test_folders_that_differ_in_case_alone(tmp_path):
    make_classes(tmp_path, ["river_lake", "river lake"])
    with pytest.raises(UserError, match="share the spelling"):
        load(tmp_path)


STORED = "split_dplq_OwnImages.json"


def by_name(dataset) -> dict[str, set[str]]:
    return {part: {Path(p).name for p, *_ in items} for part, items in parts(dataset).items()}


def test_exchanged_folders_are_known_by_their_content(tmp_path, caplog):
    make_classes(tmp_path, ["alder", "ash"])  # the files of both are called a00.jpg to a09.jpg
    for path in (tmp_path / "ash").iterdir():
        path.write_bytes(path.read_bytes() + b"ash")
    before = {part: [p for p, *_ in items] for part, items in parts(load(tmp_path)).items()}
    for old, new in (("alder", "x"), ("ash", "alder"), ("x", "ash")):
        (tmp_path / old).rename(tmp_path / new)
    after = {part: [p for p, *_ in items] for part, items in parts(load(tmp_path)).items()}
    turned = {"alder": "ash", "ash": "alder"}
    for part in before:
        assert (
            sorted(f"{turned[p.split('/')[0]]}/{p.split('/')[1]}" for p in before[part])
            == (after[part])
        )
    assert (
        f"{tmp_path / STORED}: images have changed since it was drawn: 20 moved or renamed, "
        "20 of another class"
    ) in caplog.messages


def test_an_image_of_another_class_stays_in_its_part(tmp_path, caplog):
    make_classes(tmp_path, ["oak", "pine"])
    path, *_ = parts(load(tmp_path))["train"][0]
    (tmp_path / path).rename(tmp_path / "pine" / "was_oak.jpg")
    after = parts(load(tmp_path))
    assert ("pine/was_oak.jpg", 1, "pine") in after["train"]
    assert [len(items) for items in after.values()] == [10, 4, 6]
    assert "since it was drawn: 1 moved or renamed, 1 of another class" in caplog.text


def test_labels_corrected_in_a_table_are_used(tmp_path, caplog):
    make_classes(tmp_path, ["images"], 12)
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    rows = {name: "oak" if i < 6 else "pine" for i, name in enumerate(names)}

    def write():
        lines = ["path,label", *(f"{name},{label}" for name, label in rows.items())]
        (tmp_path / "labels.csv").write_text("\n".join(lines))

    write()
    before = by_name(load(tmp_path))
    rows[names[0]] = "pine"
    del rows[names[11]]
    write()
    dataset = load(tmp_path)
    assert by_name(dataset) == {part: found - {names[11]} for part, found in before.items()}
    labels = {Path(p).name: c for items in parts(dataset).values() for p, _, c in items}
    assert labels == rows
    assert "since it was drawn: 1 of another class" in caplog.text
    assert f"1 images are gone or left out: images/{names[11]}" in caplog.text
    rows[names[11]] = "pine"
    write()
    assert by_name(load(tmp_path)) == before  # it comes back to where it was


def test_an_edited_image_stays_in_its_part(tmp_path):
    make_classes(tmp_path, ["oak", "pine"])
    before = parts(load(tmp_path))
    for path in tmp_path.rglob("*.jpg"):
        path.write_bytes(path.read_bytes() + b"edited")
    (tmp_path / "classes.json").write_text('["pine", "oak"]')
    after = parts(load(tmp_path))
    for part, items in before.items():
        assert {path for path, *_ in after[part]} == {path for path, *_ in items}


def test_a_converted_image_stays_in_its_part(tmp_path, caplog):
    make_classes(tmp_path, ["oak", "pine"])
    before = by_name(load(tmp_path))
    make_classes(tmp_path, ["elm"], 4)  # another class, and files of another kind
    for path in (tmp_path / "oak").iterdir():
        path.write_bytes(path.read_bytes() + b"converted")
        path.rename(path.with_suffix(".jpeg"))
    after = by_name(load(tmp_path))
    for part, names in before.items():
        now = {name.replace(".jpeg", ".jpg") for name in after[part] if name[0] != "e"}
        assert now == names
    assert "since it was drawn: 10 moved or renamed" in caplog.text


@pytest.mark.parametrize("size", [1, 2, 5])
def test_groups_found_later_come_together_in_train(tmp_path, caplog, size):
    names = [f"{c}/{c[0]}{i:02d}.jpg" for c in ("oak", "pine") for i in range(40)]
    make_classes(tmp_path, ["oak", "pine"], 40)
    group = {n[-7:]: f"{n[:3]}{int(n[-6:-4]) // size}" for n in names}
    group |= {n[-7:]: n for n in names if size == 2 and int(n[-6:-4]) >= 20}  # of one image
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label", *(f"{n},{n[:-8]}" for n in names)]))
    before = by_name(load(tmp_path))
    rows = (f"{n},{n[:-8]},{group[n[-7:]]}" for n in names)
    table.write_text("\n".join(["path,label,patient", *rows]))
    if size == 5:  # no patient is without a training image
        with pytest.raises(UserError, match="was drawn without today's groups: 16 of them are in"):
            load(tmp_path)
        return
    after = by_name(load(tmp_path))
    assert before["train"] <= after["train"]
    train, val, test = ({group[name] for name in names} for names in after.values())
    assert not train & (val | test)
    assert not val & test
    assert ("in the part of their group" in caplog.text) == (size > 1)


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("contents", ["oak/o00.jpg"], "contents: expected `object`, got `array`"),
        ("contents", {"oak/o00.jpg": 3}, "contents[...]: expected `str`, got `int`"),
        ("earlier", {"elm/e.jpg": "train"}, "earlier: expected `array`, got `object`"),
        ("earlier", [["elm/e.jpg", "drawn", ""]], "earlier[0][1]: invalid enum value 'drawn'"),
        ("earlier", [["elm/e.jpg", "train"]], "earlier[0]: expected `array` of length 3, got 2"),
    ],
)
def test_damaged_memory_of_a_split(tmp_path, entry, value, said):
    make_classes(tmp_path, ["oak", "pine"])
    load(tmp_path)
    edit_json(tmp_path / STORED, **{entry: value})
    with pytest.raises(UserError, match=f"{STORED} cannot be used: {re.escape(said)}.*entry"):
        load(tmp_path)


def test_a_stored_split_without_marks_is_brought_up_to_date_by_names(tmp_path):
    make_classes(tmp_path, ["oak", "pine"])
    before = by_name(load(tmp_path))
    stored = json.loads((tmp_path / STORED).read_text())
    del stored["contents"]
    (tmp_path / STORED).write_text(json.dumps(stored))
    (tmp_path / "oak").rename(tmp_path / "elm")
    assert by_name(load(tmp_path)) == before
    assert len(json.loads((tmp_path / STORED).read_text())["contents"]) == 20
