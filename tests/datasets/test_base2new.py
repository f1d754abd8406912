"""Every dataset runs base-to-new on a look-alike, with the demo backbone, one shot, one epoch.

`python -m pytest -m slow tests/datasets/test_base2new.py` runs all of them (minutes); three run
always.
"""

from __future__ import annotations

import json

import pytest
import yaml

from dplq.datasets import DECLARED
from dplq.experiments.requests.names import find_dataset
from tests.runner import PROJECT, train

from .lookalikes import make_classes, make_lookalike

FILES = {
    yaml.safe_load(path.read_text())["DATASET"]["NAME"]: path
    for path in (PROJECT / "configs/datasets").glob("*.yaml")
}
ALWAYS = ("RSSCN7", "BiomedKvasir", "OxfordPets")  # class folders; split file; neither
SPLIT = sorted(name for name, declared in DECLARED.items() if not declared.test_only)
WHOLE = sorted(name for name, declared in DECLARED.items() if declared.test_only)
OWN = ("red fox", "barn owl", "river otter", "tree frog")
DRAWN = ("DemoAerial", "DemoTissue")  # come with their own images


def run(name, root, out, subset, *more):
    """What scripts/base2new.sh asks train.py to do."""
    flags = [
        *("--root", str(root), "--seed", "1", "--trainer", "QuaternionPrompt"),
        *("--dataset-config-file", str(FILES[name])),
        *("--config-file", str(PROJECT / "configs/trainers/QuaternionPrompt/demo.yaml")),
        *("--output-dir", str(out), *more, "DATASET.NUM_SHOTS", "1"),
        *("DATASET.SUBSAMPLE_CLASSES", subset, "OPTIM.MAX_EPOCH", "1"),
    ]
    return train(out.with_suffix(".log"), flags)


def make_data(name, root):
    """A look-alike of a dataset; the names of its classes in the order of their labels."""
    if name in DRAWN:
        return [row[0] for row in DECLARED[name].class_table]
    if name == "OwnImages":  # the folder itself holds the class folders
        make_classes(root, OWN)
        return sorted(OWN)
    return make_lookalike(DECLARED[name], root, per_class=10)[1]


def base_and_new(name, tmp_path):
    """Train on the base classes and test on the new; each half is what it should be."""
    prompts = make_data(name, tmp_path / "data")
    half = -(-len(prompts) // 2)
    for subset, expected in (("base", prompts[:half]), ("new", prompts[half:])):
        model = ["--model-dir", str(tmp_path / "base"), "--eval-only"] if subset == "new" else []
        done = run(name, tmp_path / "data", tmp_path / subset, subset, *model)
        assert done.code == 0, done.err
        result = json.loads((tmp_path / subset / "results.json").read_text())
        assert (result["dataset"], result["subsample"], result["shots"]) == (name, subset, 1)
        assert list(result["per_class_accuracy"]) == expected


@pytest.mark.parametrize("name", ALWAYS)
def test_base_to_new(name, tmp_path):
    base_and_new(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SPLIT if name not in ALWAYS])
def test_base_to_new_of_the_others(name, tmp_path):
    base_and_new(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_an_all_test_dataset_says_that_it_has_no_halves(name, tmp_path):
    make_data(name, tmp_path / "data")
    done = run(name, tmp_path / "data", tmp_path / "base", "base")
    assert done.code == 2
    assert f"error: {name} is tested as a whole: it has no base and new classes" in done.err


def test_scripts_take_registered_names_and_file_names():
    names = [*FILES, *(path.stem for path in FILES.values())]
    assert list(map(find_dataset, names)) == [path.stem for path in FILES.values()] * 2
