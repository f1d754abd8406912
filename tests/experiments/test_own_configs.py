"""A folder of a user's own configs: its names are as those of `configs/`, and precede them."""

from __future__ import annotations

import sys

import pytest

from dplq.cli.run import parse, planned
from dplq.errors import UserError
from dplq.experiments.protocols import default_config, has_property, trainers
from dplq.experiments.requests.names import find_dataset, find_trainers
from dplq.io import protocols
from dplq.io.protocols import CONFIGS, add_configs, config_file, config_files

FILES = {
    "datasets/my_scenes.yaml": 'DATASET:\n  NAME: "MyScenes"\n',
    "datasets/rsscn7.yaml": 'DATASET:\n  NAME: "RSSCN7"\n  NUM_SHOTS: 4\n',
    "trainers/Mine/one.yaml": "",
    "trainers/Mine/two.yaml": "",
    "trainers/CoOp/long.yaml": "OPTIM:\n  MAX_EPOCH: 300\n",
    "protocols.yaml": "Mine: {default: two, any_classes: false}\nCoOp: {default: long}\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder of configs, which is not known yet."""
    monkeypatch.setattr(protocols, "_own", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(text)
    return tmp_path / "mine"


def plan(words, caller):
    return planned(parse([*words, "--seeds", "1"]), [], caller)[0]


def test_names_are_those_of_both(folder):
    before = trainers()
    add_configs(folder)
    assert trainers() == ["Mine", *sorted(before, key=lambda name: name != "CoOp")]
    assert find_trainers(["mine"]) == ("Mine",)
    assert (find_dataset("MyScenes"), find_dataset("eurosat")) == ("my_scenes", "eurosat")
    assert {"long", "vit_b16_ctxv1"} <= config_files("trainers/CoOp").keys()
    assert config_file("trainers/CoOp", "long") == folder / "trainers/CoOp/long.yaml"
    assert config_file("trainers/CoOp", "demo") == CONFIGS / "trainers/CoOp/demo.yaml"
    assert config_file("datasets", "none") == CONFIGS / "datasets/none.yaml"
    assert [default_config(name, "base2new", 16) for name in ("Mine", "CoOp")] == ["two", "long"]
    assert (has_property("Mine", "any_classes"), has_property("CoOp", "any_classes")) == (0, 1)


def test_a_command_uses_them_from_its_folder(folder):
    words = ["base2new", "my_scenes", "rsscn7", "--trainers", "Mine", "CoOp", "--out", "out"]
    words += ["--config-folder", "mine"]
    made = plan(words, folder.parent)
    (first, *_) = made.runs
    given = dict(zip(first.words[:-4:2], first.words[1:-4:2], strict=True))
    assert given["--dataset-config-file"] == str(folder / "datasets/my_scenes.yaml")
    assert given["--config-file"] == str(folder / "trainers/Mine/two.yaml")
    assert first.folder.is_relative_to(folder.parent / "out/base2new/train_base/my_scenes")
    assert [note for note in made.notes if "in place of" in note] == [
        f"{folder}/datasets/rsscn7.yaml is used in place of the project's own "
        "configs/datasets/rsscn7.yaml"
    ]


def test_a_sweep_file_uses_them(folder):
    (folder.parent / "own_module.py").touch()
    (folder.parent / "sweep.yaml").write_text(
        "protocols: base2new\ndatasets: my_scenes\ntrainers: Mine\nimports: own_module\n"
        "config_folder: mine\n"
    )
    args = parse([str(folder.parent / "sweep.yaml")])
    (first, *_) = planned(args, [], folder.parent)[0].runs
    assert first.imports == (f"{folder.parent}/own_module",)
    assert first.words[first.words.index("--import") + 1] == f"{folder.parent}/own_module"


def test_what_is_no_folder_of_configs(folder):
    for name in ("mine/datasets", "nothing"):
        with pytest.raises(UserError, match=f"{name} is no folder of configs: give one with"):
            plan(["base2new", "demo_aerial", "--config-folder", name], folder.parent)
    with pytest.raises(UserError, match=r"Choices.* Files of your own: dplq run --config-folder"):
        plan(["base2new", "my_scenes"], folder.parent)


def test_targets_of_transfer_are_own_datasets_too(folder):
    """Which domain is a dataset's, its declaration says: another process imports it."""
    (folder.parent / "own_scenes.py").write_text(
        "from dplq.datasets import FolderDataset, declare\n"
        "@declare\n"
        "class MyScenes(FolderDataset):\n"
        '    """Scenes."""\n'
        "    dataset_dir = 'my_scenes'\n"
        "    class_table = (('forest', 'forest'), ('river', 'river'))\n"
        "    domain, modality = 'remote sensing', 'optical RGB'\n"
        "    homepage, licence, citation = 'https://example.org', 'CC BY 4.0', 'Me'\n"
    )
    for name in ("my_scenes", "RSSCN7"):
        (folder.parent / "data" / name).mkdir(parents=True)
    words = ["cross-dataset", "my_scenes", "--trainers", "CoOp", "--data", "data"]
    words += ["--config-folder", "mine", "--import", "own_scenes"]
    made = plan(words, folder.parent)
    assert [run.dataset for run in made.runs] == ["my_scenes", "rsscn7"]
