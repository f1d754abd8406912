"""scripts/base2new.sh with the real train.py and a tiny CLIP."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.interpreter import stand_in
from tests.runner import make_project
from tests.sandbox import OURS, PROJECT, interrupt


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of this project with a tiny CLIP and config, beside a small dataset."""
    folder = tmp_path_factory.mktemp("real")
    make_project(folder, images=6)
    tree = folder / "tree"
    shutil.copytree(PROJECT / "scripts", tree / "scripts")
    for name in ("dplq", "trainers", "datasets"):
        shutil.copytree(PROJECT / name, tree / name)
    shutil.copy(PROJECT / "train.py", tree)
    for source, target in (
        ("dataset.yaml", "datasets/own_images.yaml"),
        ("trainer.yaml", "trainers/QuaternionPrompt/tiny.yaml"),
    ):
        (tree / "configs" / target).parent.mkdir(parents=True)
        shutil.copy(folder / source, tree / "configs" / target)
    return tree


@pytest.fixture
def real(tree):
    """The command for the tree and its environment, apart from OUT."""
    env = {k: v for k, v in os.environ.items() if k not in ("DPLQ_DASSL", *OURS)}
    env |= {"PYTHON": sys.executable, "CFG": "tiny", "DATA": "../data", "OMP_NUM_THREADS": "1"}
    return ["bash", "scripts/base2new.sh", "own_images", "1"], {"cwd": tree, "env": env}


def test_the_real_train_py_from_training_to_table(tree, real):
    command, given = real
    given["env"] |= {"GENERALISED": "yes"}
    with stand_in(tree) as program:
        given["env"] |= {"PYTHON": str(program)}
        runs = [
            subprocess.run(command, **given, capture_output=True, text=True, timeout=300)
            for _ in range(2)
        ]
    for done in runs:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    seed = "own_images/shots_16/QuaternionPrompt/tiny/seed1/results.json"
    row = "QuaternionPrompt +tiny +16 +OwnImages +1"
    for kind, classes in (
        ("train_base", ["forest", "parking lot"]),
        ("test_new", ["river", "storage tank"]),
    ):
        result = json.loads((tree / "output/base2new" / kind / seed).read_text())
        assert list(result["per_class_accuracy"]) == classes
        row += rf" +{result['accuracy']:.2f} \+- -"
    result = json.loads((tree / "output/base2new/test_all" / seed).read_text())
    classes = result["per_class_accuracy"]
    assert list(classes) == ["forest", "parking lot", "river", "storage tank"]
    # as many images in each class
    for half, names in (("base", list(classes)[:2]), ("new", list(classes)[2:])):
        accuracy = sum(classes[name] for name in names) / 2
        assert result["generalised"][half] == pytest.approx(accuracy)
    row += rf" +\d+.\d+ \+- - +{result['generalised']['base']:.2f} \+- -"
    assert all(re.search(row, done.stdout) for done in runs)
    assert "epoch [3/3]" in runs[0].stdout
    assert "epoch [" not in runs[1].stdout
    assert "already finished" not in runs[0].stdout
    assert runs[1].stdout.count("already finished: ") == 3


def test_interrupting_the_real_train_py(tree, real):
    """In the real Python."""
    command, given = real
    seed = "own_images/shots_16/QuaternionPrompt/tiny/seed1"
    log = tree / "stopped/base2new/train_base" / seed / "log.txt"
    code, stderr = interrupt(
        [*command, "--", "OPTIM.MAX_EPOCH", "500"],
        when=lambda: log.exists() and "epoch [1/" in log.read_text(),
        cwd=given["cwd"],
        env={**given["env"], "OUT": "stopped"},
    )
    assert code == 130, stderr
    assert "Traceback" not in stderr, stderr
    assert "stopped; to go on, give the same command again" in stderr
    assert "epoch [499/" not in log.read_text()
    assert not (log.parent / "results.json").exists()
