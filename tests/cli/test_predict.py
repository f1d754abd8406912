"""`dplq predict`: inputs, output files, continuing, refusals."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from threading import Thread
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load as safetensors_load
from safetensors.torch import load_file

import dplq
from dplq.cli.predict import main
from dplq.cli.prediction import output, progress
from dplq.cli.prediction.identity import writing_alone
from dplq.cli.prediction.inputs import ClassFinder, InputImage, unused_labels
from dplq.evaluation.prediction_table import PredictionTable
from dplq.io.runs import results
from tests.cli.conftest import NAMES
from tests.runner import PROJECT


def test_the_file_has_the_models_own_predictions(run, folder, tmp_path):
    out = tmp_path / "a.csv"
    code, said, _ = run("images", "--out", out)
    assert (code, said) == (0, f"written to {out}\n")
    table = PredictionTable.read(out)
    assert table.classes == NAMES
    assert len(table.paths) == 12
    assert table.paths == sorted(table.paths)
    assert table.paths[-1].startswith("images/more/")
    assert set(table.labels.tolist()) == {-1}
    expected = dplq.load("0.safetensors").predict(table.paths, batch_size=3)
    assert [NAMES[k] for k in table.predictions] == [one.label for one in expected]
    for row, one in zip(table.probabilities, expected, strict=True):
        assert dict(zip(NAMES, row.tolist(), strict=True)) == dict(one.top)


def test_workers_give_the_same_file(run, tmp_path):
    run("images", "--out", tmp_path / "a.csv")
    run("images", "--out", tmp_path / "b.csv", "--workers", 2)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_the_best_classes_to_a_file_and_to_the_terminal(run, tmp_path):
    out = tmp_path / "a.csv"
    assert run("images/1.jpg", "--topk", 2, "--out", out)[0] == 0
    (row,) = csv.DictReader(io.StringIO(out.read_text()))
    (one,) = dplq.load("0.safetensors").predict("images/1.jpg", topk=2)
    assert list(row) == [
        *("path", "label", "prediction_1", "probability_1", "prediction_2", "probability_2")
    ]
    numbers = torch.tensor([float(row["probability_1"]), float(row["probability_2"])])
    assert [row["prediction_1"], row["prediction_2"]] == [name for name, _ in one.top]
    assert numbers.tolist() == [share for _, share in one.top]  # read back as the same float32
    code, said, _ = run("images/1.jpg", "--topk", 2)
    cells = [f"{name:<13}  {share:.3f}" for name, share in one.top]
    assert (code, said) == (0, "  ".join(["images/1.jpg", *cells]) + "\n")


def test_patterns_and_repeated_images(run):
    code, said, err = run("images/*.jpg", "images/**/[19]*.jpg", "./images/1.jpg")
    assert code == 0
    assert len(said.splitlines()) == 12
    assert "2 images are given more than once, and done once: images/1.jpg, images/1.jpg" in err


def test_other_classes_without_training(run, tmp_path):
    names = ["lake", "desert, with dunes"]
    (tmp_path / "names.txt").write_text("lake\n\n desert, with dunes \n", encoding="utf-8")
    out = tmp_path / "a.csv"
    assert run("images", "--classes", f"@{tmp_path / 'names.txt'}", "--out", out)[0] == 0
    table = PredictionTable.read(out)
    expected = dplq.load("0.safetensors", names).predict(table.paths, batch_size=3)
    assert table.classes == names
    assert [names[k] for k in table.predictions] == [one.label for one in expected]
    code, _, err = run("images", "--classes", "lake, desert", model="probe.safetensors")
    assert code == 2
    assert "It cannot tell others apart (now: lake, desert)" in err


def test_labels_of_a_table_are_copied_and_counted(run, folder, tmp_path):
    labels = ["forest", "parking lot", "Storage_Tank", "swamp"]  # the last is no class
    labels[2] = "storage, tank"
    rows = [[f"{k}.jpg", label, f"p{k}"] for k, label in enumerate(labels, start=1)]
    table = folder / "images/labels.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "dx", "patient"], *rows])
    try:
        code, said, err = run(table, "--out", tmp_path / "a.csv")
    finally:
        table.unlink()
    found = PredictionTable.read(tmp_path / "a.csv")
    assert code == 0
    assert found.labels.tolist() == [0, 2, 3, -1]
    assert found.groups == ["p1", "p2", "p3", "p4"]
    hits = int((found.labels == found.predictions).sum())
    assert f"accuracy: {100 * hits / 3:.2f} % ({hits} of 3 images)\n" in said
    assert "1 image has a label that is no class of the model; it is left empty: swamp" in err


def test_labels_of_classes_that_are_spelled_alike():
    """An exact name is its class; a spelling of several is none of them."""
    names = ["parking_lot", "crane", "Parking lot", "crane"]
    images = [InputImage("a.png", label) for label in ("parking_lot", "Parking lot", "PARKING-LOT")]
    images += [InputImage("a.png", label) for label in ("crane", "crane (2)", "Crane", "swamp", "")]
    find = ClassFinder(names)
    assert [find(image) for image in images] == [0, 2, -1, 1, 3, 1, -1, -1]
    assert unused_labels(images, names) == ({"swamp": 1}, {"PARKING-LOT": 1})


def test_an_output_is_read_as_a_table(run, folder, tmp_path):
    """Its group column is empty where no image has a group."""
    first, second = folder / "images/first.csv", tmp_path / "second.csv"
    try:
        first.write_text("path,label,prediction,group\n1.jpg,river,forest,\n", encoding="utf-8")
        assert run(first, "--out", second)[0] == 0
        known = PredictionTable.read(second)
        rows = "1.jpg,river,\n2.jpg,,p1\n3.jpg,NA,p2\n"
        first.write_text(f"path,label,group\n{rows}", encoding="utf-8")
        code, _, err = run(first, "--out", second, "--overwrite")
    finally:
        first.unlink()
    assert (known.labels.tolist(), known.groups) == ([1], [""])
    found = PredictionTable.read(second)
    assert (code, found.labels.tolist(), found.groups) == (0, [1, -1, -1], ["", "p1", "p2"])
    assert f"{first}: 1 of 3 rows has no label\n" in err
    assert f"{first}: 1 of 3 rows has no group\n" in err
    assert "1 image has a label that is no class of the model; it is left empty: NA\n" in err


def test_a_table_may_name_images_elsewhere(run, folder, tmp_path):
    """By their paths, absolute or from the table's folder; also in hidden folders."""
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "table").mkdir()
    shutil.copy(folder / "images/1.jpg", tmp_path / ".hidden/a.jpg")
    table = tmp_path / "table/t.csv"
    table.write_text(f"{folder / 'images/2.jpg'}\n../.hidden/a.jpg\n", encoding="utf-8")
    code, said, err = run(table)
    assert (code, len(said.splitlines())) == (0, 2), err
    table.write_text("path\n../.hidden/a.jpg\n../.hidden/b.jpg\n", encoding="utf-8")
    code, _, err = run(table)
    assert (code, "1 of 2 images are not in" in err) == (2, True), err


def test_a_table_needs_no_labels(run, folder, tmp_path):
    table = folder / "images/list.csv"
    table.write_text("path,patient\n2.jpg,a\nmore/12.jpg,b\n", encoding="utf-8")
    try:
        assert run(table, "--out", tmp_path / "a.csv")[0] == 0
        table.write_text("2.jpg\n3.jpg\n", encoding="utf-8")
        code, said, _ = run(table)
    finally:
        table.unlink()
    found = PredictionTable.read(tmp_path / "a.csv")
    assert [os.path.basename(path) for path in found.paths] == ["2.jpg", "12.jpg"]
    assert (found.groups, found.labels.tolist()) == (["a", "b"], [-1, -1])
    assert (code, len(said.splitlines())) == (0, 2)


def test_unreadable_images_are_listed_and_the_others_done(run, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(tmp_path / "good.png")
    out = tmp_path / "out/a.csv"
    code, _, err = run(tmp_path, "--out", out)
    assert code == 1
    assert PredictionTable.read(out).paths == [str(tmp_path / "good.png")]
    assert "2 images cannot be read:\n" in err
    assert f"  {tmp_path / 'empty.png'}: is empty (0 bytes); get the file again." in err
    Image.new("RGB", (9, 9)).save(tmp_path / "empty.png")
    code, said, _ = run(tmp_path, "--out", out)  # those that failed are tried again
    assert code == 1
    assert f"{out} is continued: 1 image is done, 2 are left." in said
    assert len(PredictionTable.read(out).paths) == 2


def cells(path):
    """The cells of a CSV file: the texts row by row, and all numbers."""
    texts, numbers = [], []
    for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8"))):
        texts.append([cell for cell in row if not cell.startswith("0.")])
        numbers += [float(cell) for cell in row if cell.startswith("0.")]
    return texts, torch.tensor(numbers)


@pytest.mark.parametrize("topk", [[], ["--topk", 2]], ids=["all", "topk"])
def test_an_interrupted_command_is_continued(run, tmp_path, monkeypatch, topk):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = ["images", *topk]
    for place in (whole, cut):
        place.mkdir()
    files = ("--out", "a.csv", "--features", "a.safetensors")
    run(*arguments, *(whole / f if f[0] != "-" else f for f in files))
    kind = output.TopClasses if topk else output.AllClasses
    own, calls = kind.add, []

    def stop(self, *batch):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        own(self, *batch)

    given = [*arguments, *(cut / f if f[0] != "-" else f for f in files)]
    with monkeypatch.context() as patch:
        patch.setattr(kind, "add", stop)
        code, _, err = run(*given)
    assert code == 130
    assert err.splitlines() == ["Interrupted. The same command resumes where it can."]
    assert not (cut / "a.safetensors").exists()
    with open(cut / "a.csv", "ab") as file:
        file.truncate(os.path.getsize(cut / "a.csv") - 5)  # as after a power cut
    code, said, _ = run(*given)
    assert code == 0
    assert "is continued: 5 images are done, 7 are left." in said
    assert (cut / "a.csv.json").read_bytes() == (whole / "a.csv.json").read_bytes()
    (texts, numbers), (other_texts, others) = (cells(place / "a.csv") for place in (whole, cut))
    assert texts == other_texts
    torch.testing.assert_close(numbers, others, rtol=0, atol=1e-6)  # of other batches
    first, second = (load_file(place / "a.safetensors")["features"] for place in (whole, cut))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    code, said, _ = run(*given)
    assert (code, "12 images are done, 0 are left" in said) == (0, True)
    assert torch.equal(load_file(cut / "a.safetensors")["features"], second)


def test_features_stay_with_the_rows_of_their_images(run, tmp_path):
    """A row that was deleted, or rows in another order, would move all features after them."""
    out, features = tmp_path / "a.csv", tmp_path / "a.safetensors"
    given = ("images", "--out", out, "--features", features)
    run(*given)
    whole, lines = features.read_bytes(), out.read_text(encoding="utf-8").splitlines(True)
    for changed, said in (
        ([*lines[:3], *lines[4:]], "the features of 12 images, but the CSV file has 11 rows"),
        ([lines[0], *reversed(lines[1:])], "the features of other images than the rows of the CSV"),
    ):
        out.write_text("".join(changed), encoding="utf-8")
        code, _, err = run(*given)
        assert (code, said in err) == (2, True), err
        assert features.read_bytes() == whole
    part = features.with_name("a.safetensors.part")
    os.replace(features, part)  # as of a command that was cut, which may have more than the rows
    out.write_text("".join([*lines[:3], *lines[4:]]), encoding="utf-8")
    code, _, err = run(*given)
    assert (code, "the features of other images than the rows" in err) == (2, True), err
    out.write_text("".join(lines[:-2]), encoding="utf-8")
    assert run(*given)[0] == 0
    torch.testing.assert_close(
        load_file(features)["features"], safetensors_load(whole)["features"], rtol=0, atol=1e-6
    )


def test_nothing_but_a_file_is_replaced(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for flags in (
        ["--out", tmp_path / "pipe"],
        ["--out", "a.csv", "--features", tmp_path / "pipe"],
    ):
        code, _, err = run("images", *flags, "--overwrite")
        assert (code, "is a pipe or device, not a file" in err) == (2, True), err
        assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


def test_an_image_is_the_same_from_another_folder_and_by_another_path(
    run, folder, tmp_path, monkeypatch
):
    out = tmp_path / "a.csv"
    run("images/1.jpg", "images/2.jpg", "--out", out)
    code, said, _ = run(folder / "images/1.jpg", folder / "images/3.jpg", "--out", out)
    assert (code, "1 image is done, 1 is left" in said) == (0, True)
    paths = ["images/1.jpg", "images/2.jpg", str(folder / "images/3.jpg")]
    assert PredictionTable.read(out).paths == paths  # as given
    other = tmp_path / "other"
    shutil.copytree(folder / "images", other / "images")
    monkeypatch.chdir(other)  # other images, with the same relative names
    before = out.read_bytes()
    model = str(folder / "0.safetensors")
    assert main([model, "images/1.jpg", "--out", str(out)]) == 2
    assert out.read_bytes() == before
    assert main([model, str(other / "images/1.jpg"), "--out", str(out)]) == 0
    assert PredictionTable.read(out).paths == [*paths, str(other / "images/1.jpg")]
    os.symlink(other, tmp_path / "link")
    assert main([model, str(tmp_path / "link/images/1.jpg"), "--out", str(out)]) == 0
    assert len(PredictionTable.read(out).paths) == 4


@pytest.mark.parametrize("row", ["1.jpg,river,p1", "1.jpg,swamp,p1", "1.jpg,forest,p2"])
def test_labels_that_were_corrected_are_no_continuation(run, folder, tmp_path, row):
    out, table = tmp_path / "a.csv", folder / "images/labels.csv"
    try:
        table.write_text("path,label,patient\n1.jpg,forest,p1\n", encoding="utf-8")
        run(table, "--out", out)
        assert run("images/1.jpg", "--out", out)[0] == 0  # a folder has no labels to compare
        table.write_text(f"path,label,patient\n{row}\n", encoding="utf-8")
        code, _, err = run(table, "--out", out)
    finally:
        table.unlink()
    said = f"1 of 1 images in {out} have another label or group now: {folder / 'images/1.jpg'}. "
    assert (code, said in err) == (2, True), err


def test_the_frozen_parts_belong_to_the_identity(run, folder, tmp_path):
    """A public checkpoint is one file for any CLIP that is given."""
    out = tmp_path / "a.csv"
    run("images/1.jpg", "--out", out)
    record = json.loads((tmp_path / "a.csv.json").read_text(encoding="utf-8"))
    model = dplq.load("0.safetensors")
    assert record["backbone"] == json.loads(json.dumps(model.clip.spec.identity()))
    assert record["domain"] is None
    record["backbone"]["weights_sha256"] = "0" * 64
    (tmp_path / "a.csv.json").write_text(json.dumps(record), encoding="utf-8")
    code, _, err = run("images/1.jpg", "--out", out)
    assert (code, "backbone: there " in err) == (2, True), err


@pytest.mark.parametrize("temperature", [1.5, None])
def test_a_temperature_of_the_run_is_said(run, folder, tmp_path, monkeypatch, temperature):
    (tmp_path / "prompt_learner").mkdir()
    shutil.copy(folder / "0.safetensors", tmp_path / "prompt_learner/model-1.safetensors")
    (tmp_path / "results.json").write_text("{}")
    scaling = {"value": temperature} if temperature else None
    found = SimpleNamespace(metrics={"temperature": scaling})
    monkeypatch.setattr(results, "read_results", lambda path: found)
    _, _, err = run("images/1.jpg", "--weights", folder / "clip", model=str(tmp_path))
    assert ("are scaled by the temperature 1.500" in err) == bool(temperature)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("", "line 3: it has 0 cells, and the header 4"),
        ("a.jpg,", "line 3: it has 2 cells, and the header 4"),
        ("a.jpg,swamp,forest,0.5", "line 3: the label 'swamp' is no class"),
        ("a.jpg,,swamp,0.5", "line 3: the prediction_1 'swamp' is no class"),
    ],
)
def test_a_damaged_file_of_the_best_classes_is_refused(run, tmp_path, row, said):
    out = tmp_path / "a.csv"
    run("images/1.jpg", "--topk", 1, "--out", out)
    with open(out, "a", encoding="utf-8") as file:
        file.write(f"{row}\n")
    before = out.read_bytes()
    code, _, err = run("images/1.jpg", "--topk", 1, "--out", out)
    assert (code, said in err) == (2, True), err
    assert out.read_bytes() == before


def test_hits_are_those_of_the_whole_file(run, folder, tmp_path):
    table = folder / "images/hits.csv"
    names = [one.label for one in dplq.load("0.safetensors").predict(["images/1.jpg"])]
    counts = []
    for flags in ([], ["--topk", 2]):
        out = tmp_path / f"{len(flags)}.csv"
        for names_of in (["1.jpg"], ["1.jpg", "2.jpg"]):
            rows = "".join(f'{name},"{names[0]}"\n' for name in names_of)
            table.write_text("path,label\n" + rows, encoding="utf-8")
            said = run(table, *flags, "--out", out)[1]
        labelled, right = 0, 0
        for _, label, guess, *_ in list(csv.reader(out.open(encoding="utf-8")))[1:]:
            labelled, right = labelled + 1, right + (label == guess)
        assert f"({right} of {labelled} images)" in said
        counts.append((labelled, right >= 1))
    table.unlink()
    assert counts == [(2, True)] * 2


def test_features_are_the_adapted_ones_in_the_order_of_the_rows(run, tmp_path):
    run("images", "--out", tmp_path / "a.csv", "--features", tmp_path / "a.safetensors")
    model = dplq.load("0.safetensors")
    paths = PredictionTable.read(tmp_path / "a.csv").paths
    images = torch.stack([model.preprocess(Image.open(path)) for path in paths])
    with torch.no_grad():
        expected = torch.cat([model.image_features(part) for part in images.split(3)])
    found = load_file(tmp_path / "a.safetensors")["features"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_rows_of_another_command_are_not_mixed(run, tmp_path):
    out = tmp_path / "a.csv"
    run("images/1.jpg", "--out", out)
    before = out.read_bytes()
    for arguments, model, said in (
        ([], "1.safetensors", "model: there checkpoint "),
        (["--classes", "a,b"], "0.safetensors", "classes: there 4 (forest, river, parking_lot and"),
        (["--topk", 1], "0.safetensors", "topk: there none, now 1"),
        (["--features", tmp_path / "f"], "0.safetensors", "features_file: there none, now f"),
    ):
        code, _, err = run("images/1.jpg", "--out", out, *arguments, model=model)
        assert (code, said in err) == (2, True), err
    assert out.read_bytes() == before
    (tmp_path / "a.csv.json").unlink()
    code, _, err = run("images/1.jpg", "--out", out)
    assert (code, "is no output of `dplq predict`" in err) == (2, True)
    assert run("images/1.jpg", "--out", out, "--overwrite", model="1.safetensors")[0] == 0
    assert out.read_bytes() != before


def test_a_file_that_is_not_its_own_is_never_deleted(run, folder, tmp_path):
    """Whatever lies at --features stays without --overwrite; what is read stays in any case."""
    out, mine = tmp_path / "a.csv", tmp_path / "mine.safetensors"
    mine.write_bytes(b"years of work")
    shutil.copy(folder / "images/1.jpg", tmp_path / "one.jpg")
    (tmp_path / "lab.csv").write_text("path\none.jpg\n", encoding="utf-8")
    shutil.copy(folder / "0.safetensors", tmp_path / "0.safetensors")
    shutil.copytree(folder / "clip", tmp_path / "clip")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    lab, own, given = tmp_path / "lab.csv", tmp_path / "0.safetensors", tmp_path / "one.jpg"
    refused = [
        (given, ["--out", out, "--features", mine], "has no features of this checkpoint"),
        (given, ["--out", out, "--features", own, "--overwrite"], "is the checkpoint"),
        (given, ["--out", own, "--overwrite"], "is the checkpoint"),
        (lab, ["--out", lab, "--overwrite"], "is one of the IMAGES"),
        (lab, ["--out", out, "--features", given, "--overwrite"], "is one of the IMAGES"),
        (given, ["--out", out, "--features", out], "is a file of --out, too"),
        (given, ["--out", out, "--features", f"{out}.json"], "is a file of --out, too"),
    ]
    for images, flags, said in refused:
        code, _, err = run(images, *flags, model=str(own))
        assert (code, said in err) == (2, True), (flags, err)
        now = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        now.pop(tmp_path / ".a.csv.lock", None)
        assert now == before
    assert run(given, "--out", out, "--features", mine, "--overwrite", model=str(own))[0] == 0
    assert load_file(mine)["features"].shape[0] == 1
    other = tmp_path / "b.csv"  # those of another output
    code, _, err = run(given, "--out", other, "--features", mine, model=str(own))
    assert (code, "has no features of this checkpoint for this --out" in err) == (2, True)
    assert not other.exists()


@pytest.mark.parametrize(
    "name", ["results.json", "predictions.csv", "run.json", "prompt_learner/x.csv", "log.txt"]
)
def test_files_of_the_run_are_not_written_to(run, folder, tmp_path, name):
    (tmp_path / "prompt_learner").mkdir()
    shutil.copy(folder / "0.safetensors", tmp_path / "prompt_learner/model-1.safetensors")
    flags = ["--weights", folder / "clip", "--overwrite"]
    (tmp_path / "log.txt").write_text("of the training")
    for model in (tmp_path, tmp_path / "prompt_learner/model-1.safetensors"):
        code, _, err = run("images", "--out", tmp_path / name, *flags, model=str(model))
        assert (code, "is a file of the run" in err) == (2, True), err
    assert (tmp_path / "log.txt").read_text() == "of the training"
    assert run("images/1.jpg", "--out", tmp_path / "mine.csv", *flags, model=str(tmp_path))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["absent.png"],
            "IMAGES: there is no file or folder absent.png. Give image files, folders",
        ),
        (["images/*.bmp"], "IMAGES: no file fits the pattern images/*.bmp"),
        (["images", "--features", "f"], "--features needs --out"),
        (["images", "--classes", "a,b,a"], "--classes names a twice"),
        (["images", "--classes", " , "], "--classes names no class"),
        (["images", "--classes", "@absent"], "--classes: absent cannot be read: No such file"),
        (["images", "--topk", "5"], "--topk is 5, but there are 4 classes"),
        (["images", "--device", "moon"], "--device moon cannot be used here"),
        (["images", "--epoch", "3"], "--epoch 3 is for the folder of a run"),
        (["images", "--weights", "absent.pt"], "absent.pt"),
    ],
)
def test_mistakes_are_one_line(run, arguments, said):
    code, _, err = run(*arguments)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_lines_of_progress_where_there_is_no_terminal(run, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    _, _, err = run("images")
    assert "3 of 12 images, " in err
    assert "12 images in " in err
    assert run("images", "--quiet")[2] == ""


def test_two_commands_do_not_write_one_file_at_once(run, tmp_path):
    out, ended = tmp_path / "a.csv", []
    with writing_alone(out):
        second = Thread(
            target=lambda: ended.append(main(["0.safetensors", "images", "--out", str(out)]))
        )
        second.start()
        second.join(timeout=4)
        assert not out.exists()
    second.join()
    assert ended == [0]
    assert len(PredictionTable.read(out).paths) == 12


def test_a_killed_command_is_continued(folder, tmp_path):
    """SIGKILL while it writes: what is on disk stays, and the rest is added."""
    out = tmp_path / "a.csv"
    images = tmp_path / "images"
    images.mkdir()
    for index in range(120):
        Image.new("RGB", (8, 8), (index % 256, 9, 9)).save(images / f"{index:03}.png")
    command = [
        *(sys.executable, "-m", "dplq", "predict", str(folder / "0.safetensors"), str(images)),
        *("--out", str(out), "--batch-size", "1", "--quiet"),
    ]
    child = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while not (out.exists() and out.stat().st_size > 500):
        assert time.monotonic() < limit
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    rows = out.read_bytes().count(b"\n") - 1
    assert main([*command[4:-1], "--quiet"]) == 0
    paths = PredictionTable.read(out).paths
    assert rows < 120
    assert paths == sorted(map(str, images.iterdir()))
