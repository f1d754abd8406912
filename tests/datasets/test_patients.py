"""Groups from the PatientID of DICOM files."""

from __future__ import annotations

import logging
import sys

import pytest

from benchmarks.image_kinds import kinds
from dplq.datasets import OwnImages
from dplq.datasets._engine.drawing.patients import groups_from_patients, repeated_patients
from dplq.datasets._engine.protocol import Item, Split
from dplq.errors import UserError
from dplq.images.dicom import patient_id

from .lookalikes import make_config, write_image

KINDS = {kind.name: kind for kind in kinds()}


def write(path, patient=None):
    """A 12-bit DICOM file."""
    pydicom = pytest.importorskip("pydicom")
    path.parent.mkdir(parents=True, exist_ok=True)
    KINDS["DICOM 12-bit"].write(path)
    data = pydicom.dcmread(path)
    data.pop("PatientID", None)
    if patient is not None:
        data.PatientID = patient
    data.save_as(path)
    return path


def folder(tmp_path, patients=4, each=5):
    """Two classes of patients with several files, whose names say nothing."""
    for label in "ab":
        for patient in range(patients):
            for n in range(each):
                write(tmp_path / label / f"{'xyzuvw'[n]}{'klmn'[patient]}.dcm", f"{label}{patient}")
    return tmp_path


def load(root, **keys):
    return OwnImages(make_config(root, CHECK_IMAGES=False, **keys))


def patients_of(items):
    return {patient_id(item.impath) for item in items}


def test_the_patient_id_of_a_file(tmp_path):
    assert patient_id(write(tmp_path / "a.dcm", " P7 ")) == "P7"
    assert patient_id(write(tmp_path / "b.dcm")) == patient_id(write(tmp_path / "c.dcm", "")) == ""
    (tmp_path / "d.dcm").write_bytes(b"no DICOM")
    (tmp_path / "e.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:140])
    assert patient_id(tmp_path / "d.dcm") == patient_id(tmp_path / "e.dcm") == ""


def test_a_split_by_patient(tmp_path, caplog):
    root = folder(tmp_path)
    dataset = load(root, GROUP="PatientID")
    train, val, test = map(patients_of, (dataset.train_x, dataset.val, dataset.test))
    assert not train & val
    assert not (train | val) & test
    assert len(train | val | test) == 8
    assert len(set(dataset.groups.values())) == 8
    assert not (train | val | test) & set(dataset.groups.values())
    assert "train and in test" not in caplog.text


def test_patients_in_train_and_test_are_named(tmp_path, caplog):
    root = folder(tmp_path)
    load(root)
    (line,) = [line for line in caplog.messages if "PatientID of DICOM files" in line]
    assert "that are in train and in test: at least 8 (" in line
    assert line.endswith(
        "To keep subjects together set DATASET.GROUP 'PatientID'; if they are no patients, set "
        "DATASET.GROUP none."
    )
    caplog.clear()
    load(root, GROUP="none")
    assert "PatientID" not in caplog.text


def test_given_parts_are_kept_and_named(tmp_path, caplog):
    for part, names in (("train", "xyz"), ("test", "uv")):
        for label in "ab":
            for name in names:
                write(tmp_path / part / label / f"{name}.dcm", f"{label}1")
    load(tmp_path)
    assert "in train and in test: at least 2 (" in caplog.text
    assert "All files of a class have one PatientID: if that is no patient's, set" in caplog.text


def test_one_name_for_everybody_names_nobody(tmp_path, caplog):
    for label in "ab":
        for n in range(10):
            write(tmp_path / label / f"{'abcdefghij'[n]}.dcm", "ANON")
    with caplog.at_level(logging.WARNING):
        load(tmp_path)
    assert "PatientID" not in caplog.text


def test_files_without_a_patient_are_refused(tmp_path):
    write(tmp_path / "a.dcm", "P1")
    write(tmp_path / "b.dcm")
    (tmp_path / "c.png").write_bytes(b"no DICOM")
    with pytest.raises(UserError, match=r"2 of 3 images are no DICOM or have none: b.dcm, c.png"):
        groups_from_patients(str(tmp_path), ["a.dcm", "b.dcm", "c.png"])


def test_without_pydicom(tmp_path, monkeypatch):
    write(tmp_path / "a.dcm", "P1")
    split = Split([Item("a.dcm", 0, "a")], [], [Item("a.dcm", 0, "a")])
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert repeated_patients(str(tmp_path), split) is None
    with pytest.raises(UserError, match="pip install pydicom"):
        groups_from_patients(str(tmp_path), ["a.dcm"])


def test_groups_of_another_kind_do_not_silence_patients(tmp_path, caplog):
    """Series of slices in folders, and patients with several series."""
    for label in "ab":
        for patient in range(6):
            for series in range(3):
                folder = tmp_path / label / f"{label}{patient}{series}"
                for n in range(2):
                    write(folder / f"{n}.dcm", f"{label}{patient}")
    with caplog.at_level(logging.INFO):
        load(tmp_path)
    assert "groups, those of the sub-folders of class folders" in caplog.text
    assert "patients (PatientID of DICOM files) that are in train and in test" in caplog.text
    dataset = load(tmp_path, GROUP="PatientID")
    assert not patients_of(dataset.train_x) & patients_of(dataset.test)


def test_groups_of_one_image_do_not_silence_names(tmp_path, caplog):
    rows = ["path,label,series"]
    for label in "ab":
        for name in (f"{label}{patient}_{n}.png" for patient in range(8) for n in range(3)):
            write_image(tmp_path / label / name)
            rows.append(f"{label}/{name},{label},{name}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    load(tmp_path)
    assert "look like several images of one subject" in caplog.text


def test_known_patients_overrule_names(tmp_path, caplog):
    for label in "ab":
        for n in range(20):
            write(tmp_path / label / f"{label}scan{n % 5}_{n}.dcm", f"{label}{n}")
    load(tmp_path)
    assert "look like several images" not in caplog.text


def test_a_patient_in_two_classes_is_one_group(tmp_path):
    for label in "ab":
        for patient in range(6):
            for n in range(3):
                write(tmp_path / label / f"{label}{patient}{n}.dcm", f"P{patient}")
    dataset = load(tmp_path, GROUP="PatientID")
    train, val, test = map(patients_of, (dataset.train_x, dataset.val, dataset.test))
    assert len(train) + len(val) + len(test) == len(train | val | test) == 6
