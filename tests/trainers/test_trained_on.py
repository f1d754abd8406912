"""Images that a model was trained on are not tested in silence."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
from yacs.config import CfgNode

import dplq.plugin  # noqa: F401 (finds Dassl)
from dplq.errors import UserError
from dplq.trainers._engine import trained_on


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


def make_run(tmp_path, split="1"):
    """Return a trainer with two training and two test images; its record is written."""
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.png").write_bytes(name.encode() * 9)
    (tmp_path / "copy.png").write_bytes(b"a" * 9)

    def items(*names):
        return [SimpleNamespace(impath=str(tmp_path / f"{name}.png")) for name in names]

    dataset = SimpleNamespace(
        train_x=items("a", "b"), val=[], test=items("c", "d"), split_hash=split, test_only=False
    )
    if split is None:  # of a host's tree
        del dataset.split_hash, dataset.test_only
    else:
        dataset.image_dir = str(tmp_path)
    trainer = SimpleNamespace(
        dm=SimpleNamespace(dataset=dataset),
        cfg=CfgNode(
            {
                "DATASET": {"NAME": "Mine", "ROOT": str(tmp_path)},
                "OUTPUT_DIR": str(tmp_path / "out"),
                "TEST": {"SPLIT": "test", "ALLOW_TRAIN_IMAGES": False},
            }
        ),
        output_dir=str(tmp_path / "out"),
        recorded_in="",
        model_dir=lambda folder: tmp_path / "out/prompt_learner",
        items=items,
    )
    trained_on.write_train_images(trainer)
    return trainer


def other_split(run, *names):
    run.dm.dataset.test, run.dm.dataset.split_hash = run.items(*names), "2"


def test_the_record_has_names_sizes_and_digests(run):
    record = json.loads((run.model_dir("") / "train_images.json").read_text())
    assert (record["format"], record["dataset"], record["split"]) == (1, "Mine", "1")
    assert {name: size for name, (size, _) in record["train"].items()} == {"a.png": 9, "b.png": 9}


def test_the_same_split_is_tested_without_a_word(run, caplog):
    trained_on.check_tested_images(run, run.output_dir)
    assert not caplog.records


def test_files_that_were_renumbered_since_are_compared(run, tmp_path):
    """The split knows their names alone, and these are as they were."""
    (tmp_path / "c.png").write_bytes(b"a" * 9)
    (tmp_path / "a.png").write_bytes(b"c" * 9)
    with pytest.raises(UserError, match=r"1 of the 2 images to test .*: a\.png = .*c\.png"):
        trained_on.check_tested_images(run, run.output_dir)


@pytest.mark.parametrize("output", ["elsewhere", "out"])
def test_training_images_are_refused_by_content(run, tmp_path, output):
    """Also where the test writes into the folder of the training run."""
    run.cfg.OUTPUT_DIR = str(tmp_path / output)
    other_split(run, "copy", "c")
    with pytest.raises(UserError) as caught:
        trained_on.check_tested_images(run, run.output_dir)
    assert str(caught.value) == (
        "1 of the 2 images to test are among the 2 that the model in "
        f"{run.output_dir} was trained on: a.png = {tmp_path / 'copy.png'}. Test other images, or "
        "with the split of the training; TEST.ALLOW_TRAIN_IMAGES True tests them all the same."
    )


def test_the_run_itself_loads_its_best_epoch(run):
    """Whatever a host's dataset, which has no hash, holds twice."""
    other_split(run, "a")
    run.recorded_in = run.output_dir
    trained_on.check_tested_images(run, run.output_dir)


@pytest.mark.parametrize("how", ["asked", "test only"])
def test_training_images_are_tested_where_they_are_asked_for(run, caplog, how):
    other_split(run, "a", "c")
    run.cfg.TEST.ALLOW_TRAIN_IMAGES = how == "asked"
    run.dm.dataset.test_only = how == "test only"
    trained_on.check_tested_images(run, run.output_dir)
    assert "another split of Mine (hash 1) than this one (hash 2)" in caplog.text
    assert "They are tested, too: the accuracy is too high." in caplog.text


def test_without_a_record_the_log_says_so(run, caplog):
    caplog.set_level(logging.INFO)
    (run.model_dir("") / "train_images.json").unlink()
    trained_on.check_tested_images(run, run.output_dir)
    assert "whether training images are tested is not known" in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "it is not valid JSON"),
        ("[]", "expected `object`, got `array`"),
        ('{"format": 2}', "format: invalid enum value 2"),
        (
            '{"format": 1, "dataset": "Mine", "split": null, "train": {"a": 1}}',
            r"train\[\.\.\.\]: expected `array`, got `int`",
        ),
        (
            '{"format": 1, "dataset": "Mine", "split": null, "train": {"a": [-1, "b"]}}',
            r"train\[\.\.\.\]\[0\]: expected `int` >= 0",
        ),
    ],
)
def test_a_damaged_record_is_refused(run, content, said):
    (run.model_dir("") / "train_images.json").write_text(content)
    with pytest.raises(UserError, match=f"train_images.json cannot be used: {said}.* record of"):
        trained_on.check_tested_images(run, run.output_dir)


@pytest.mark.parametrize(
    ("which", "now", "split", "expected"),
    [
        ("new", ["river", "park"], "1", "refused"),
        ("new", ["forest", "river_bank"], "1", "refused"),  # "river bank" was trained
        ("new", ["forest", "lake"], "1", ""),
        ("new", ["park"], "1", "no new ones"),  # trained on all three
        ("new", ["river", "park"], "2", ""),  # another dataset has classes of these names
        ("base", ["river", "park", "river bank"], "1", ""),
        ("base", ["park", "lake"], "1", "warned"),
        ("all", ["river", "park", "river bank", "lake"], "1", ""),
    ],
)
def test_trained_classes_are_no_new_ones(run, caplog, which, now, split, expected):
    run.cfg.DATASET.SUBSAMPLE_CLASSES = which
    run.dm.dataset.classnames, run.dm.dataset.split_hash = now, split
    header = {"split": "1", "classnames": ["river", "park", "river bank"]}
    if expected == "refused":
        with pytest.raises(UserError, match=r"trained on \d of these 2 classes .*the order of"):
            trained_on.check_tested_classes(run, header, run.output_dir)
        run.cfg.TEST.ALLOW_TRAIN_IMAGES = True
        trained_on.check_tested_classes(run, header, run.output_dir)
        assert "They are tested all the same." in caplog.text
        return
    trained_on.check_tested_classes(run, header, run.output_dir)
    if expected == "no new ones":
        assert "trained on all classes: this is no accuracy on new ones" in caplog.text
        return
    assert ("not trained on 1 of these 2 classes (lake)" in caplog.text) is (expected == "warned")
    assert bool(caplog.text) is (expected == "warned")


def test_a_run_tests_the_new_classes_that_it_trains(run, caplog):
    run.cfg.DATASET.SUBSAMPLE_CLASSES = "new"
    run.dm.dataset.classnames, run.recorded_in = ["river", "park"], run.output_dir
    header = {"split": "1", "classnames": ["river", "park"]}
    trained_on.check_tested_classes(run, header, run.output_dir)
    assert not caplog.text


@pytest.mark.parametrize(
    ("names", "said"), [("cd", ""), (("copy", "c"), "warned"), ("bc", "refused")]
)
def test_a_hosts_dataset_is_known_by_its_images(tmp_path, caplog, names, said):
    """It has no split hash and no folder of images; it may hold an image twice."""
    run = make_run(tmp_path, split=None)
    (tmp_path / "sub").mkdir()
    record = json.loads((run.model_dir("") / "train_images.json").read_text())
    assert list(record["train"]) == ["a.png", "b.png"]
    run.dm.dataset.test = run.items(*names)
    if said == "refused":
        with pytest.raises(UserError, match=r"1 of the 2 images to test .*: b\.png = "):
            trained_on.check_tested_images(run, run.output_dir)
    else:
        trained_on.check_tested_images(run, run.output_dir)
    assert ("a.png = " in caplog.text and "accuracy is too high" in caplog.text) is (
        said == "warned"
    )
    assert "hash" not in caplog.text


def test_an_image_that_was_trained_on_twice_is_refused(tmp_path):
    """The record knows it by the name of either copy."""
    run = make_run(tmp_path, split=None)
    run.dm.dataset.train_x = run.items("a", "copy")
    trained_on.write_train_images(run)
    for name in ("a", "copy"):
        run.dm.dataset.test = run.items(name, "c")
        with pytest.raises(UserError, match="1 of the 2 images to test are among"):
            trained_on.check_tested_images(run, run.output_dir)


def test_images_of_a_hosts_dataset_have_paths_below_the_root(tmp_path):
    """Names alone would be one for 0.png of every class."""
    run = make_run(tmp_path, split=None)
    for folder in ("cat", "dog"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(folder.encode())
    run.dm.dataset.train_x = run.items("cat/a", "dog/a")
    trained_on.write_train_images(run)
    record = json.loads((run.model_dir("") / "train_images.json").read_text())
    assert list(record["train"]) == ["cat/a.png", "dog/a.png"]
