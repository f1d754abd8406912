"""The command line on links to themselves, pipes, and names that cannot be written: one line."""

from __future__ import annotations

import os
import shutil

import pytest

from dplq.data import targets
from dplq.data.__main__ import main
from tests.oddities import KINDS, make_odd

from .lookalike import check, run

PATHS = {
    "unknown user": "~nobody-has-this-name/x",
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "too long": "a" * 300,
    "NUL": "a\0b",
}


@pytest.mark.parametrize("kind", [*PATHS, *KINDS])
@pytest.mark.parametrize("action", ["check", "sheet", "get", "targets"])
def test_a_root_that_is_no_folder(capsys, tmp_path, kind, action):
    root = PATHS.get(kind) or str(tmp_path / "odd")
    if kind == "folder":
        (tmp_path / "odd").touch()
    elif kind in KINDS:
        make_odd(tmp_path / "odd", kind)
    if action == "targets":
        code = targets.main(["rsscn7", "--root", root])
    else:
        code = main([action, "RSSCN7", "--root", root])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.startswith("error: --root ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("kind", PATHS)
def test_other_paths(capsys, root, kind):
    text = PATHS[kind]
    assert main(["sheet", "RSSCN7", "--root", str(root), "--out", text]) == 2
    assert capsys.readouterr().err.startswith("error: --out is ")
    assert main(["get", "RSSCN7v2", "--root", str(root / "new"), "--archive", text]) == 2
    assert capsys.readouterr().err.startswith("error: --archive is ")
    code, said = check(capsys, root, "DATASET.SPLIT_FILE", f"{text}.json")
    assert code in (1, 2)  # found in the folder, or refused as a value
    assert "DATASET.SPLIT_FILE is " in said


def test_names_that_cannot_be_written_are_named(capsys, root):
    image = next((root / "RSSCN7" / "aGrass").iterdir())
    shutil.copy(image, root / "RSSCN7" / "aGrass" / os.fsdecode(b"caf\xe9.jpg"))
    code, said = check(capsys, root)
    assert code == 1
    assert r"aGrass/caf\xe9.jpg: this name is not UTF-8. Rename it." in said
    code, said = run(capsys, "check", "RSSCN7v2", "--root", root)
    assert r"aGrass/caf\xe9.jpg: this name is not UTF-8. Rename it." in said


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("link to itself", "cannot be used: Too many levels"),
        ("link to nothing", "is a link that leads to nothing"),
    ],
)
def test_a_data_folder_that_is_a_link_to_nowhere(capsys, tmp_path, kind, problem):
    make_odd(tmp_path / "RSSCN7", kind)
    code, said = run(capsys, "check", "RSSCN7", "--root", tmp_path)
    assert code == 1
    assert f"RSSCN7: the data folder {tmp_path / 'RSSCN7'} {problem}" in said


def test_odd_files_beside_images_are_findings(capsys, root):
    for kind in ("link to itself", "link to nothing", "pipe"):
        make_odd(root / "RSSCN7" / "aGrass" / f"z {kind}.jpg", kind)
    code, said = check(capsys, root)
    assert code == 1
    assert "2 link(s) lead to no file: aGrass/z link to itself.jpg, aGrass/z link to" in said
    assert "1 are called like images, but are pipes or devices: aGrass/z pipe.jpg" in said
    assert "No image" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_what_only_has_the_name_of_a_stored_split(capsys, root, kind):
    make_odd(root / "RSSCN7" / "split_dplq_RSSCN7.json", kind)
    code, said = check(capsys, root)
    assert code == 1
    assert "split_dplq_RSSCN7.json " in said
    assert "Put a file there, or remove it." in said
