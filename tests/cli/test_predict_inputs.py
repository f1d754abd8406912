"""`dplq predict`: what it says of the images, and the keys after them."""

from __future__ import annotations

import json
import logging
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import dplq
from dplq.cli.predict import main
from dplq.cli.prediction.accuracy import Accuracy
from dplq.cli.prediction.inputs import find_inputs
from dplq.errors import UserError
from dplq.evaluation.prediction_table import PredictionTable
from dplq.io.runs.trained_images import (
    TrainedImages,
    mark_of,
    write_trained_images,
)

WINDOW = ("INPUT.WINDOW", "[0, 4095]")
NARROW = (
    "The 16-bit grey images use only the values 0 to 4095 of 0 to 65535, so they would be nearly "
    'uniform: set INPUT.WINDOW "[0, 4095]" or percentile'
)


@pytest.fixture
def deep(tmp_path):
    """A folder with five 16-bit images of 12-bit values, and the same ones over 16 bits."""
    folder, wide = tmp_path / "deep", tmp_path / "wide"
    folder.mkdir()
    wide.mkdir()
    random = np.random.default_rng(0)
    for k in range(5):
        values = random.integers(0, 4096, (40, 40))
        values.flat[:2] = 0, 4095
        Image.fromarray(values.astype(np.uint16)).save(folder / f"{k}.png")
        scaled = np.round(values * 65535 / 4095)
        Image.fromarray(scaled.astype(np.uint16)).save(wide / f"{k}.png")
    return folder


def test_values_of_a_small_part_of_their_range_are_said_once(run, deep, tmp_path):
    """With a window they are the images that use the whole range."""
    out = tmp_path / "a.csv"
    code, _, err = run(deep, "--out", out)
    assert (code, err.count("warning: "), NARROW in err) == (0, 1, True), err
    assert "The model was trained without a window: give one only if" in err
    assert "images: 5 16-bit grey; 5 x 16-bit values scaled from [0, 65535] to 8 bits\n" in err
    before = out.read_bytes()
    code, _, err = run(deep, "--out", out, *WINDOW)
    assert (code, "(reading: there none, now WINDOW [0.0, 4095.0])" in err) == (2, True), err
    assert out.read_bytes() == before
    code, _, err = run(deep, "--out", tmp_path / "b.csv", *WINDOW)
    assert (code, "warning: " in err, "5 x window [0, 4095] applied" in err) == (0, False, True)
    code, _, err = run(deep.parent / "wide", "--out", tmp_path / "c.csv")
    assert (code, "warning: " in err) == (0, False), err
    windowed, wide = (PredictionTable.read(tmp_path / name) for name in ("b.csv", "c.csv"))
    assert np.abs(windowed.probabilities - wide.probabilities).max() < 1e-3
    full = PredictionTable.read(out)
    assert np.abs(full.probabilities - wide.probabilities).max() > 1e-2


def test_a_few_dark_images_among_others_are_no_problem(run, deep, tmp_path):
    """Whichever come first."""
    shutil.copytree(deep, tmp_path / "all/a")
    shutil.copytree(deep.parent / "wide", tmp_path / "all/b")
    shutil.copytree(deep.parent / "wide", tmp_path / "all/c")
    code, _, err = run(tmp_path / "all")
    assert (code, "warning: " in err) == (0, False), err
    code, _, err = run(deep / "0.png")
    assert "give one only if these images are stored otherwise than those of the training." in err


def test_a_window_of_12_bits_on_images_of_16_is_warned_of(run, deep):
    code, _, err = run(deep.parent / "wide", "INPUT.WINDOW", "[0, 4095]")
    assert (code, err.count("warning: ")) == (0, 1), err
    assert 'INPUT.WINDOW "[0, 4095]" makes all above 4095 white: set one that fits' in err
    assert "give one only if these images are stored otherwise" in err


def test_the_library_warns_too(folder, deep, monkeypatch, caplog):
    monkeypatch.chdir(folder)
    model = dplq.load("0.safetensors")
    with caplog.at_level(logging.WARNING):
        model.predict(sorted(deep.iterdir()))
    (said,) = [record.message for record in caplog.records if "16-bit" in record.message]
    assert said.startswith(NARROW)
    caplog.clear()
    model.predict(sorted((deep.parent / "wide").iterdir()))
    assert "16-bit" not in caplog.text


def test_a_spreadsheet_is_to_be_saved_as_csv(run, tmp_path):
    (tmp_path / "images.XLSX").write_text("x")
    code, _, err = run(tmp_path / "images.XLSX")
    assert code == 2
    assert "images.XLSX: save the table as CSV (UTF-8) first." in err


def test_files_that_are_left_out_are_said(run, folder, tmp_path):
    for name in ("1.jpg", "2.jpg"):
        shutil.copy(folder / "images" / name, tmp_path / name)
    shutil.copy(folder / "images/1.jpg", tmp_path / "1_mask.jpg")
    for name in ("a.heic", "b.nii.gz", "notes.txt", "labels.csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "slice_0").write_bytes(bytes(128) + b"DICM")
    os.symlink(tmp_path / "gone.jpg", tmp_path / "link.jpg")
    code, said, err = run(tmp_path)
    assert (code, len(said.splitlines())) == (0, 2)
    for line in (
        "left out: files of a kind that is not read: 1 .heic, 1 .nii.gz",
        "left out: 1 DICOM without an ending (slice_0): rename them to .dcm",
        "left out: 1 link leads to no file: link.jpg",
        "left out: 1 mask: 1_mask.jpg",
        "not read as tables, give one in place of the folder if it lists the images: labels.csv",
    ):
        assert f"{tmp_path}: {line}\n" in err
    assert "notes.txt" not in err
    assert run(tmp_path / "1_mask.jpg")[0] == 0  # by its name it is an image like any other
    for name in ("1.jpg", "2.jpg", "1_mask.jpg", "link.jpg"):
        (tmp_path / name).unlink()
    code, _, err = run(tmp_path)
    assert (code, "There is no image in" in err, "1 .heic" in err) == (2, True, True)


def test_keys_say_what_the_columns_of_a_table_are(run, folder, tmp_path):
    table = folder / "images/t.csv"
    table.write_text("scan,truth,dx\n1.jpg,forest,x\n2.jpg,river,y\n", encoding="utf-8")
    out = tmp_path / "a.csv"
    keys = ("DATASET.COLUMNS.PATH", "scan", "DATASET.COLUMNS.LABEL", "truth")
    try:
        assert run(table, "--out", out, *keys)[0] == 0
        assert PredictionTable.read(out).labels.tolist() == [0, 1]
        code, _, err = run(table, "DATASET.COLUMNS.LABEL", "truht")
        assert (code, "Did you mean 'truth'?" in err) == (2, True), err
    finally:
        table.unlink()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["INPUT.WINDOW"],
            "IMAGES come first, then KEY VALUE pairs, in which each",
        ),
        (["INPUT.WINDOW", "none", "images"], "IMAGES come first, then KEY VALUE pairs"),
        (["INPUT.WINDOW", "[9, 3]"], "INPUT.WINDOW is [9, 3]; it must be two numbers, low < high"),
        (
            ["INPUT.SIZE", "[9, 9]"],
            "INPUT.SIZE cannot be set here; how tables and images",
        ),
        (["DATASET.COLUMNS.LABL", "dx"], "DATASET.COLUMNS.LABL cannot be set here; how tables and"),
        (
            ["DATASET.COLUMNS.LABEL", "dx"],
            "DATASET.COLUMNS is for tables, and none of",
        ),
    ],
)
def test_keys_and_values_that_cannot_be_are_refused(run, tmp_path, words, said):
    code, _, err = run("images", "--out", tmp_path / "a.csv", *words)
    assert (code, said in err) == (2, True), err
    assert not (tmp_path / "a.csv").exists()


def test_rows_of_images_that_were_replaced_are_refused(run, folder, tmp_path):
    """Every time, until there is a decision."""
    shutil.copytree(folder / "images", tmp_path / "images")
    out = tmp_path / "a.csv"
    run(tmp_path / "images/1.jpg", tmp_path / "images/3.jpg", "--out", out)
    assert run(tmp_path / "images", "--out", out)[0] == 0
    before = out.read_bytes()
    later = os.path.getmtime(out) + 5
    os.utime(tmp_path / "images/3.jpg", (later, later))
    for _ in range(2):
        code, _, err = run(tmp_path / "images", "--out", out)
        said = f"1 of the images are newer than {out}, which has rows of what they were: "
        assert (code, f"{said}{tmp_path / 'images/3.jpg'}. Give" in err) == (2, True), err
        assert out.read_bytes() == before
    assert run(tmp_path / "images/1.jpg", "--out", out)[0] == 0  # another one
    os.utime(out, (later, later))
    assert run(tmp_path / "images", "--out", out)[0] == 0
    later += 5
    os.utime(tmp_path / "images/3.jpg", (later, later))
    assert run(tmp_path / "images", "--out", out, "--overwrite")[0] == 0


def test_the_accuracy_over_training_images_is_said(run, folder, tmp_path):
    """In a continued file, too; known by their content, whatever they are called."""
    learner = tmp_path / "prompt_learner"
    learner.mkdir()
    shutil.copy(folder / "0.safetensors", learner / "model-1.safetensors")
    shutil.copytree(folder / "clip", tmp_path / "clip")
    trained = {f"a/{k}.jpg": mark_of(str(folder / f"images/{k}.jpg")) for k in (1, 2)}
    write_trained_images(
        learner / "train_images.json", TrainedImages(1, "Mine", None, dict(trained))
    )
    guesses = dplq.load(folder / "0.safetensors").predict(
        [folder / f"images/{k}.jpg" for k in (1, 2, 3, 4)]
    )
    wrong = next(name for name in ("forest", "river") if name != guesses[3].label)
    labels = [guesses[0].label, guesses[1].label, guesses[2].label, wrong]
    table, out = folder / "images/t.csv", tmp_path / "a.csv"

    def tested(*rows):
        lines = "".join(f'{k}.jpg,"{labels[k - 1]}"\n' for k in rows)
        table.write_text("path,label\n" + lines, encoding="utf-8")
        try:
            return run(table, "--out", out, model=str(tmp_path))[1]
        finally:
            table.unlink()

    said = tested(1)
    assert "accuracy: 100.00 % (1 of 1 image)\n" in said
    assert "1 of them is an image that the model was trained on" in said
    assert said.splitlines()[1].endswith("so this accuracy may be too high.")
    said = tested(1, 2, 3, 4)
    assert "accuracy: 75.00 % (3 of 4 images)\n" in said
    assert (
        "2 of them are images that the model was trained on, so this accuracy may be too high; of "
        "the others: 50.00 % (1 of 2 images)\n"
    ) in said


def test_labels_are_counted_without_a_file(run, folder):
    table = folder / "images/t.csv"
    table.write_text("path,label\n1.jpg,forest\n2.jpg,\n", encoding="utf-8")
    try:
        code, said, err = run(table)
    finally:
        table.unlink()
    assert (code, len(said.splitlines())) == (0, 2)  # the table alone
    assert ("accuracy: 100.00 % (1 of 1 image)" in err) == ("forest" in said.splitlines()[0])


def test_of_images_that_are_gone_it_is_not_known(tmp_path):
    (tmp_path / "a.png").write_bytes(b"aa")
    record = TrainedImages(1, "Mine", None, {"a.png": mark_of(str(tmp_path / "a.png"))})
    write_trained_images(tmp_path / "train_images.json", record)
    accuracy = Accuracy(tmp_path / "train_images.json")
    paths = [str(tmp_path / name) for name in ("gone.png", "a.png", "b")]
    accuracy.add(paths, [1, 1, -1], [1, 0, 0])
    counts = (accuracy.every, accuracy.trained, accuracy.unseen)
    assert [(one.labelled, one.right) for one in counts] == [(2, 1), (1, 0), (0, 0)]
    assert Accuracy(tmp_path / "none.json").lines() == []


def test_a_damaged_record_of_training_images_stops_nothing(run, folder, tmp_path, caplog):
    (tmp_path / "prompt_learner").mkdir()
    shutil.copy(folder / "0.safetensors", tmp_path / "prompt_learner/model-1.safetensors")
    shutil.copytree(folder / "clip", tmp_path / "clip")
    (tmp_path / "prompt_learner/train_images.json").write_text(json.dumps({"format": 1}))
    table = folder / "images/t.csv"
    try:
        assert run("images/1.jpg", model=str(tmp_path))[0] == 0
        assert "train_images.json" not in caplog.text  # without labels it is not read
        table.write_text("path,label\n1.jpg,forest\n", encoding="utf-8")
        assert run(table, model=str(tmp_path))[0] == 0
    finally:
        table.unlink()
    assert "train_images.json" in caplog.text
    assert "Which images were trained on is not known." in caplog.text


def test_folders_that_are_called_like_those_of_masks_may_be_of_classes(run, folder, tmp_path):
    for name in ("mask", "masks", "no_mask"):
        shutil.copytree(folder / "images/more", tmp_path / "ppe" / name)
    code, said, _ = run(tmp_path / "ppe")
    assert (code, len(said.splitlines())) == (0, 12)


def test_words_for_no_value_may_be_classes(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    names = ["none", "N/A", "lesion"]
    dplq.create_model("CoOp", dplq.load("0.safetensors").clip, names, n_ctx=2).save(
        tmp_path / "m.safetensors"
    )
    table = folder / "images/t.csv"
    table.write_text("path,label\n1.jpg,none\n2.jpg,N/A\n3.jpg,\n4.jpg,?\n", encoding="utf-8")
    shutil.copytree(folder / "clip", tmp_path / "clip", dirs_exist_ok=True)
    try:
        code = main([str(tmp_path / "m.safetensors"), str(table), "--out", str(tmp_path / "a.csv")])
    finally:
        table.unlink()
    assert (code, PredictionTable.read(tmp_path / "a.csv").labels.tolist()) == (0, [0, 1, -1, -1])
    err = capsys.readouterr().err
    assert "1 of 4 rows has no label" in err
    assert "1 image has a label that is no class of the model; it is left empty: ?" in err


def test_a_table_may_lack_parts_and_prompts(run, folder, tmp_path):
    table = folder / "images/t.csv"
    rows = "1.jpg,0,train,forest\n2.jpg,0,,\n3.jpg,1,someday,river\n"
    table.write_text(f"path,label,split,classname\n{rows}", encoding="utf-8")
    try:
        code, _, err = run(table, "--out", tmp_path / "a.csv")
        assert (code, PredictionTable.read(tmp_path / "a.csv").labels.tolist()) == (0, [0, 0, 1]), (
            err
        )
        code, _, err = run(table, "DATASET.COLUMNS.LABEL", "none", "DATASET.COLUMNS.PROMPT", "none")
    finally:
        table.unlink()
    assert (code, "accuracy" in err) == (0, False), err


def test_its_own_output_is_no_table_of_the_folder(run, folder, tmp_path):
    shutil.copytree(folder / "images", tmp_path / "images")
    for _ in range(2):
        code, _, err = run(tmp_path / "images", "--out", tmp_path / "images/x.csv")
        assert (code, "not read as tables" in err) == (0, False)


def test_files_that_are_called_like_keys(run, folder, tmp_path, monkeypatch):
    for name in ("INPUT.1.jpg", "INPUT.WINDOW"):
        shutil.copy(folder / "images/1.jpg", folder / name)
    try:
        assert run("INPUT.*.jpg", "INPUT.WINDOW")[0] == 0
        code, _, err = run("INPUT.png")
        assert (code, "there is no file or folder INPUT.png" in err) == (2, True)
    finally:
        for name in ("INPUT.1.jpg", "INPUT.WINDOW"):
            (folder / name).unlink()


def test_what_a_table_says_counts_wherever_it_is_given(tmp_path):
    """Of an image that a folder has given before; contradictions are refused."""
    images, first, second = tmp_path / "images", tmp_path / "a.csv", tmp_path / "b.csv"
    images.mkdir()
    Image.new("RGB", (9, 9)).save(images / "1.png")
    first.write_text("path,label,patient\nimages/1.png,sea,p1\n", encoding="utf-8")
    second.write_text("path,label\nimages/1.png,forest\n", encoding="utf-8")
    for given in ([images, first], [first, images]):
        found = find_inputs(list(map(str, given)))
        (image,) = found.images
        assert (image.label, image.group, len(found.repeated)) == ("sea", "p1", 1)
    with pytest.raises(UserError, match="given twice, with the label 'sea' and the label 'fo"):
        find_inputs([str(first), str(second)])
