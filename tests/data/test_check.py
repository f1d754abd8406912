"""`check` finds what is wrong and says what to do about it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from dplq.data.catalogue import registered
from dplq.data.check import check as look_over
from dplq.data.duplicates import equal_files
from tests.datasets.lookalikes import make_classes, make_lookalike

from .lookalike import by_part, check, noisy, run, write_split


def test_check_of_good_data(capsys, root):
    code, text = check(capsys, root)
    assert code == 0, text
    assert "No problems found." in text
    assert "split: not made yet, the first run does it (train 21, val 7, test 14)" in text
    assert "0 base Field bField 6 6 3 1 2" in text
    assert "6 new River or Lake dRiverLake 6 6 3 1 2" in text
    assert not list(root.rglob("split_*")), "no split is made"
    assert check(capsys, root, "--quick")[0] == 0


def test_check_of_the_variant_has_no_parts(capsys, root):
    code, text = run(capsys, "check", "RSSCN7v2", "--root", root)
    assert code == 0, text
    assert "split: none (test 42)" in text


def test_missing_class(capsys, root):
    shutil.rmtree(root / "RSSCN7" / "eForest")
    code, text = check(capsys, root)
    assert code == 1
    assert "1 class(es) missing in" in text
    assert "'Forest' (eForest/). -> Add the folders; all classes are needed." in text
    assert "36 images, 42 expected: 'Forest' 0 instead of 6. -> Too few" in text
    assert "split: none, as long as there are problems" in text


def test_empty_class(capsys, root):
    for path in (root / "RSSCN7" / "eForest").iterdir():
        path.rename(path.with_suffix(".txt"))
    code, text = check(capsys, root)
    assert code == 1
    assert "No image in the folder of class Forest. -> Images end in .jpg" in text
    assert "no images, ignored: eForest/e00.txt" in text


def test_truncated_image(capsys, root):
    path = root / "RSSCN7" / "aGrass" / "a02.jpg"
    path.write_bytes(path.read_bytes()[:300])
    code, text = check(capsys, root)
    assert code == 1
    assert "1 image(s) in" in text
    assert "cannot be read: aGrass/a02.jpg: " in text
    assert "-> Do what it says, repair or replace them, or set DATASET.SKIP_BROKEN True" in text
    assert check(capsys, root, "--quick")[0] == 0, "opens no image"


def test_duplicate_across_train_and_test(capsys, root):
    write_split(root, *by_part(root))
    folder = root / "RSSCN7" / "aGrass"
    shutil.copy(folder / "a00.jpg", folder / "a05.jpg")
    code, text = check(capsys, root)
    assert code == 1
    assert (
        "1 duplicate(s) across train, val and test (equal bytes): "
        "aGrass/a00.jpg (train) = aGrass/a05.jpg (test). -> They inflate the test accuracy. "
        "split_cao_RSSCN7.json is published: keep it"
    ) in text
    assert "split_cao_RSSCN7.json (train 21, val 7, test 14)" in text


def test_everything_at_once(capsys, root):
    write_split(root, *by_part(root))
    folder = root / "RSSCN7"
    shutil.copy(folder / "aGrass/a00.jpg", folder / "aGrass/a05.jpg")
    (folder / "bField/b00.jpg").write_bytes((folder / "bField/b00.jpg").read_bytes()[:300])
    shutil.rmtree(folder / "eForest")
    (folder / "cIndustry").rename(folder / "cIndsutry")
    make_classes(folder, ["results"], 2)
    code, text = check(capsys, root)
    assert code == 1
    for part in (
        "aGrass/a00.jpg (train) = aGrass/a05.jpg (test)",
        "cannot be read: bField/b00.jpg: ",
        "1 class(es) missing in",
        "Misspelt? Rename 'cIndsutry' to 'cIndustry'",
        "the folder 'results' is no class",
        "(every run would refuse it as it is)",
        "6 problems found.",
    ):
        assert part in text
    (folder / "split_cao_RSSCN7.json").unlink()
    text = check(capsys, root)[1]
    assert "1 duplicate(s) (equal bytes), and no split to say where: aGrass/a00.jpg" in text


def test_duplicates_within_a_part_and_in_two_classes(capsys, root):
    write_split(root, *by_part(root))
    shutil.copy(root / "RSSCN7/aGrass/a00.jpg", root / "RSSCN7/aGrass/a01.jpg")
    code, text = check(capsys, root)
    assert code == 0
    assert "note: 1 duplicate(s) within one part: aGrass/a00.jpg (train) = aGrass/a01.jpg" in text
    shutil.copy(root / "RSSCN7/aGrass/a00.jpg", root / "RSSCN7/bField/b01.jpg")
    code, text = check(capsys, root)
    assert code == 1
    assert "1 image(s) in two classes (equal bytes): aGrass/a00.jpg" in text
    split = root / "RSSCN7" / "split_cao_RSSCN7.json"
    split.rename(split.with_name("split_dplq_RSSCN7.json"))
    shutil.copy(root / "RSSCN7/aGrass/a00.jpg", root / "RSSCN7/aGrass/a05.jpg")
    text = check(capsys, root)[1]
    assert "Delete all but one of each, and" in text
    assert "split_dplq_RSSCN7.json to have a new split made." in text


def test_one_image_in_train_and_in_test(capsys, root):
    train, val, test = by_part(root)
    write_split(root, train, val, [*test, train[0]])
    code, text = check(capsys, root)
    assert code == 1
    assert "1 image(s) are in train and in test: bField/b00.jpg. -> Delete the file" in text


def test_split_that_does_not_fit(capsys, root):
    train, val, test = by_part(root)
    write_split(root, train, val, [*test, (0, "bField/gone.jpg")])
    code, text = check(capsys, root)
    assert code == 1
    assert "names 1 image(s) (of 43) that do not exist" in text
    assert "-> No run starts before this is fixed. note: " in text
    assert text.endswith("1 problem found.")


def test_stray_folder_and_files(capsys, root):
    make_classes(root / "RSSCN7", ["results"], 3)
    (root / "RSSCN7" / "README.md").write_text("a stray file")
    (root / "RSSCN7" / "aGrass" / "notes.txt").write_text("another")
    code, text = check(capsys, root)
    assert code == 1
    assert "the folder 'results' is no class (3 images). -> Stray: move it away." in text
    assert "1 problem found" in text
    assert "note:" in text
    assert "no images, ignored: README.md, aGrass/notes.txt." in text


def test_broken_images_are_a_note_where_they_are_left_out(capsys, root):
    path = root / "RSSCN7" / "aGrass" / "a02.jpg"
    path.write_bytes(path.read_bytes()[:300])
    code, text = check(capsys, root, "DATASET.SKIP_BROKEN", "True")
    assert code == 0, text
    assert "They are left out: DATASET.SKIP_BROKEN is True." in text


def test_dicom_without_an_ending_is_named(capsys, root):
    """slice_0 and 1.2.840 are names that archives give; a text of such a name is none."""
    folder = root / "RSSCN7" / "aGrass"
    for name in ("slice_0", "1.2.840.7"):
        (folder / name).write_bytes(bytes(128) + b"DICM" + bytes(50))
    (folder / "notes").write_text("no DICOM")
    code, text = check(capsys, root)
    assert code == 1
    assert "2 DICOM without an ending are not read: aGrass/1.2.840.7, aGrass/slice_0. -> " in text
    assert "-> Rename them to end in .dcm." in text
    assert "files of a kind that is not read" not in text
    assert "no images, ignored: aGrass/notes." in text


def test_the_table_in_use_is_no_stray_file(capsys, tmp_path):
    for folder in ("cat", "dog"):
        make_classes(tmp_path, [folder], 8)
    rows = [f"{p.parent.name}/{p.name},{p.parent.name},{p.stem}" for p in tmp_path.glob("*/*.jpg")]
    (tmp_path / "labels.csv").write_text("path,label,patient\n" + "\n".join(rows) + "\n")
    (tmp_path / "old.xlsx").write_text("x")
    _, text = run(capsys, "check", "OwnImages", "--root", tmp_path)
    assert "16 images are in 16 groups, those of column 'patient'" in text
    assert "tables that are not read: old.xlsx. One that lists the images, with labels or" in text
    assert "labels.csv" not in text.split("tables that are not read")[1]
    (tmp_path / "labels.csv").rename(tmp_path / "metadata.csv")
    (tmp_path / "old.xlsx").unlink()
    _, text = run(capsys, "check", "OwnImages", "--root", tmp_path)
    assert "tables that are not read: metadata.csv. One that lists" in text


def test_files_of_operating_systems_are_noted(capsys, root):
    (root / "RSSCN7" / "__MACOSX" / "aGrass").mkdir(parents=True)
    for name in ("__MACOSX/aGrass/._a00.jpg", "aGrass/._a01.jpg", "bField/Thumbs.db"):
        (root / "RSSCN7" / name).write_bytes(b"x")
    code, text = check(capsys, root)
    assert code == 0, text
    assert (
        "3 file(s) or folder(s) of an operating system, ignored: __MACOSX, aGrass/._a01.jpg, "
        "bField/Thumbs.db."
    ) in text


def test_misspelt_folder(capsys, root):
    (root / "RSSCN7" / "cIndustry").rename(root / "RSSCN7" / "cIndsutry")
    code, text = check(capsys, root)
    assert code == 1
    assert (
        "the folder 'cIndsutry' is no class (6 images); the nearest class is 'Industrial Area'. "
        "-> Misspelt? Rename 'cIndsutry' to 'cIndustry', the class that is missing."
    ) in text
    assert "class(es) missing" not in text, "told once"


def test_two_folders_for_one_class(capsys, root):
    noisy(root / "RSSCN7", ["Grass"])
    code, text = check(capsys, root)
    assert code == 1
    assert (
        "'Grass' and 'aGrass' are both class 'Grass'. Merge them or move one away. -> Fix" in text
    )


def test_a_table_that_is_wrong_is_the_only_problem(capsys, tmp_path):
    make_classes(tmp_path, ["pictures"], 8)
    rows = [f"p{i:02d}.jpg,{'ab'[i % 2]},one" for i in range(8)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,patient", *rows]))
    code, text = run(capsys, "check", "OwnImages", "--root", tmp_path)
    assert code == 1
    assert f"problem 1: {tmp_path}/labels.csv: class 'a' has images of one group only (one)" in text
    assert text.endswith("-> Fix this first, then check again. 1 problem found.")


def test_a_link_that_leads_to_no_file(capsys, tmp_path):
    noisy(tmp_path, ["a", "b"])
    (tmp_path / "a" / "lost.png").symlink_to("/nowhere/lost.png")
    code, text = run(capsys, "check", "OwnImages", "--root", tmp_path)
    assert code == 1
    assert f"{tmp_path}: 1 link(s) lead to no file: a/lost.png. -> They are left out." in text


def test_no_data_at_all(capsys, tmp_path):
    code, text = check(capsys, tmp_path)
    assert code == 1
    assert f"{tmp_path}/RSSCN7 does not exist" in text
    assert f"-> `python -m dplq.data get RSSCN7 --root {tmp_path}` gets the data" in text


def test_equal_files_reads_only_equal_sizes(tmp_path, monkeypatch):
    for name, content in {"a": "11", "b": "12", "c": "11", "d": "111"}.items():
        (tmp_path / name).write_text(content)
    read = []
    digest = hashlib.sha256

    def spy(path):
        read.append(Path(path).name)
        return digest(Path(path).read_bytes()).hexdigest()

    monkeypatch.setattr("dplq.data.duplicates.file_digest", spy)
    assert equal_files(str(tmp_path), "abcd") == [["a", "c"]]
    assert sorted(read) == ["a", "b", "c"]


DECLARED = registered()
NAMES = sorted(name for name, cls in DECLARED.items() if cls.homepage.startswith(("http", "unk")))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_numbers_is_wrong_with_any_look_alike(name, tmp_path, monkeypatch):
    cls = DECLARED[name]
    layouts = [None] if cls.list_files else cls.at(str(tmp_path)).layouts()
    make_lookalike(cls, tmp_path, layouts[-1])
    report = look_over(cls, str(tmp_path), quick=True)
    assert [f for f in report.findings if " expected" not in f.what] == []
    assert all(report.images)
    assert len(report.images) == len(cls.class_table or report.prompts)
    assert {path for paths in report.parts.values() for path in paths} == {
        path for paths in report.images for path in paths
    }
