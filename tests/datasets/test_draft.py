"""What a dataset says of its groups, and of keys that have no effect."""

from __future__ import annotations

import logging

from dplq.datasets import OwnImages
from dplq.datasets._engine.options import Options
from dplq.datasets._engine.tables import Columns

from .lookalikes import make_config, write_image


def make(root, folders, names):
    for folder in folders:
        for name in names:
            write_image(root / folder / name)


def messages(caplog, root, **keys):
    caplog.clear()
    OwnImages(make_config(root, **keys))
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


SUBJECTS = [f"patient{p}_{i}.png" for p in range(4) for i in range(3)]


def test_names_like_subjects_have_a_cure_where_the_split_is_drawn(tmp_path, caplog):
    make(tmp_path, ["cat", "dog"], SUBJECTS)
    (text,) = messages(caplog, tmp_path)
    assert (
        "the test accuracy may be too high. To keep subjects together set DATASET.GROUP '" in text
    )
    assert not messages(caplog, tmp_path, GROUP="none")
    pattern = text.split("'")[-2]
    assert not [t for t in messages(caplog, tmp_path, GROUP=pattern) if "patient" in t]


def test_a_given_split_is_kept_and_the_message_says_so(tmp_path, caplog):
    folders = ["train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog"]
    make(tmp_path, folders, SUBJECTS)
    (text,) = messages(caplog, tmp_path)
    assert "too high. The split is given, so it is kept; one that is drawn keeps subjects" in text
    (text,) = messages(caplog, tmp_path, GROUP=r"(patient\d+)_")
    assert text.startswith("OwnImages: 4 groups are in test and in train or val: patient0")
    assert text.endswith("; the split is given, so it is kept")


def test_shares_that_groups_do_not_allow_are_a_warning_where_drawn_only(tmp_path, caplog):
    names = ["a_0.png", *(f"b_{i}.png" for i in range(20))]
    make(tmp_path, ["cat", "dog"], names)
    texts = messages(caplog, tmp_path, GROUP="([ab])_")
    assert [text.split(" images")[0] for text in texts] == [
        "OwnImages: class 'cat': train / val / test 20 / 0 / 1",
        "OwnImages: class 'dog': train / val / test 20 / 0 / 1",
        "OwnImages: there are 2 groups only (a, b), each in one part as a whole. If they are no "
        "patients, sites or scenes, set DATASET.COLUMNS.GROUP none (of a table) or DATASET.GROUP "
        "none.",
    ]


def test_classes_whose_groups_leave_no_val_image_are_named(tmp_path, caplog):
    """A fifth is a fifth of one of two patients of `cat`, which stay in train."""
    make(
        tmp_path,
        ["train/cat", "test/cat", "test/dog"],
        [f"a{p}_{i}.png" for p in (1, 2) for i in range(5)],
    )
    make(tmp_path, ["train/dog"], [f"b{p}_0.png" for p in range(10)])
    for folder in ("test/cat", "test/dog"):
        for path in (tmp_path / folder).iterdir():
            path.rename(path.with_name(f"t{path.name}"))
    (text,) = messages(caplog, tmp_path, GROUP=r"(\w+)_")
    assert text == (
        "OwnImages: 1 of 2 classes have no val image (cat): what is chosen on val does not count "
        "them. A val part that is taken from train is of whole groups, so it needs several of each "
        "class."
    )


def test_keys_without_effect_are_named():
    columns, split = Options(columns=Columns(label="dx")), Options(split_file="a.csv")
    assert columns.unused(has_table=True, all_tested=False) == []
    assert columns.unused(has_table=False, all_tested=False) == [
        "DATASET.COLUMNS is not used: no table is read"
    ]
    assert split.unused(has_table=True, all_tested=False) == []
    assert split.unused(has_table=False, all_tested=True) == [
        "DATASET.SPLIT_FILE is not used: every image is tested"
    ]


def test_where_groups_are_from_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    def said(**keys):
        caplog.clear()
        OwnImages(make_config(tmp_path, **keys))
        return [m for r in caplog.records if "groups, those of" in (m := r.getMessage())]

    make(tmp_path, ["cat/a", "cat/b", "dog/a", "dog/c"], ["1.png", "2.png"])
    assert said() == [
        "OwnImages: 8 images are in 3 groups, those of the sub-folders of class folders"
    ]
    assert said(GROUP="/([a-c])/") == [
        "OwnImages: 8 images are in 3 groups, those of DATASET.GROUP /([a-c])/"
    ]
    assert said(GROUP="none") == []
    folders = (("cat", "a"), ("cat", "b"), ("dog", "a"), ("dog", "c"))
    rows = [f"{c}/{g}/{k}.png,{c},{g}{k}" for c, g in folders for k in (1, 2)]
    (tmp_path / "labels.csv").write_text("path,label,Case ID\n" + "\n".join(rows) + "\n")
    assert said() == ["OwnImages: 8 images are in 6 groups, those of column 'Case ID'"]
