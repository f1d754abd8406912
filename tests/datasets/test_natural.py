"""ImageNet, its variants and the other sets of CoOp: classes, order, splits, transfer targets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from dplq import datasets
from dplq.errors import UserError
from tests.peers import peer

from .lookalikes import make_classes, make_config, parts

PROJECT = Path(__file__).resolve().parents[2]
CONFIGS = PROJECT / "configs" / "datasets"
# name: YAML file, folder, images, zero-shot text of "cat"
FACTS = {
    "ImageNet": ("imagenet", "imagenet", 1331167, "a photo of a cat."),
    "ImageNetV2": ("imagenetv2", "imagenetv2", 10000, "a photo of a cat."),
    "ImageNetSketch": ("imagenet_sketch", "imagenet-sketch", 50889, "a photo of a cat."),
    "ImageNetA": ("imagenet_a", "imagenet-adversarial", 7500, "a photo of a cat."),
    "ImageNetR": ("imagenet_r", "imagenet-rendition", 30000, "a photo of a cat."),
    "Caltech101": ("caltech101", "caltech-101", 8242, "a photo of a cat."),
    "OxfordPets": ("oxford_pets", "oxford_pets", 7349, "a photo of a cat, a type of pet."),
    "StanfordCars": ("stanford_cars", "stanford_cars", 16185, "a photo of a cat."),
    "OxfordFlowers": (
        "oxford_flowers",
        "oxford_flowers",
        8189,
        "a photo of a cat, a type of flower.",
    ),
    "Food101": ("food101", "food-101", 101000, "a photo of cat, a type of food."),
    "FGVCAircraft": (
        "fgvc_aircraft",
        "fgvc_aircraft",
        10000,
        "a photo of a cat, a type of aircraft.",
    ),
    "SUN397": ("sun397", "sun397", 39700, "a photo of a cat."),
    "DescribableTextures": ("dtd", "dtd", 5640, "cat texture."),
    "UCF101": ("ucf101", "ucf101", 13320, "a photo of a person doing cat."),
}
# where the images of a split file lie, as CoOp has it
IMAGE_DIRS = {
    "Caltech101": "caltech-101/101_ObjectCategories",
    "OxfordPets": "oxford_pets/images",
    "StanfordCars": "stanford_cars",
    "OxfordFlowers": "oxford_flowers/jpg",
    "Food101": "food-101/images",
    "SUN397": "sun397/SUN397",
    "DescribableTextures": "dtd/images",
    "UCF101": "ucf101/UCF-101-midframes",
}
WNIDS = {
    "n01440764": "tench",
    "n01443537": "goldfish",
    "n01484850": "great white shark",
    "n02012849": "crane",  # two classes of one name
    "n03126707": "crane",
    "n15075141": "toilet paper",
}
IMAGENET = ["tench", "goldfish", "great white shark", "crane", "crane", "toilet paper"]
VARIANTS = {  # folder of the class folders, the classes it has
    "ImageNetV2": ("imagenetv2/imagenetv2-matched-frequency-format-val", [0, 1, 2, 3, 4, 5]),
    "ImageNetSketch": ("imagenet-sketch/images", [0, 1, 2, 3, 4, 5]),
    "ImageNetA": ("imagenet-adversarial/imagenet-a", [1, 2, 5]),
    "ImageNetR": ("imagenet-rendition/imagenet-r", [0, 4]),
}


def write_class_names(folder: Path) -> None:
    """CoOp's `classnames.txt`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{wnid} {name}\n" for wnid, name in WNIDS.items()]
    (folder / "classnames.txt").write_text("".join(lines))


@pytest.fixture
def imagenet(tmp_path) -> Path:
    """ImageNet and its variants as CoOp has them, with a README among the class folders."""
    make_classes(tmp_path / "imagenet/images/train", list(WNIDS), 5)
    make_classes(tmp_path / "imagenet/images/val", list(WNIDS), 2)
    write_class_names(tmp_path / "imagenet")
    for place, labels in VARIANTS.values():
        names = map(str, labels) if "v2" in place else [list(WNIDS)[i] for i in labels]
        make_classes(tmp_path / place, names, 3)
        write_class_names((tmp_path / place).parent)
        (tmp_path / place / "README.txt").touch()
    return tmp_path


def write_split(root: Path, name: str, names: list[str], per_class: int = 4) -> dict:
    """Flat images in the place of `name`, and a split file with these class names."""
    place = root / IMAGE_DIRS[name]
    place.mkdir(parents=True)
    split: dict[str, list] = {"train": [], "val": [], "test": []}
    for label, title in enumerate(names):
        for i in range(per_class):
            Image.new("RGB", (8, 8), (label, i, 0)).save(place / f"{label}_{i}.jpg")
            part = ("test", "val", "train")[min(i, 2)]
            split[part].insert(0, [f"{label}_{i}.jpg", label, title])
    path = root / FACTS[name][1] / f"split_zhou_{name}.json"
    path.write_text(json.dumps(split))
    return split


@pytest.fixture
def aircraft(tmp_path) -> Path:
    """FGVCAircraft with three variants, one of them with a slash and a blank."""
    folder = tmp_path / "fgvc_aircraft"
    variants = ["707-320", "BAE 146-200", "F-16A/B"]
    (folder / "images").mkdir(parents=True)
    (folder / "variants.txt").write_text("\n".join(variants) + "\n")
    number = 34000
    for part in ("train", "val", "test"):
        lines = []
        for variant in reversed(variants):
            number += 1
            Image.new("RGB", (8, 8)).save(folder / f"images/{number:07d}.jpg")
            lines.append(f"{number:07d} {variant}\n")
        (folder / f"images_variant_{part}.txt").write_text("".join(lines))
    return tmp_path


@pytest.mark.parametrize("name", FACTS)
def test_declarations(name):
    config, folder, images, text = FACTS[name]
    dataset = datasets.DECLARED[name]
    assert yaml.safe_load((CONFIGS / f"{config}.yaml").read_text()) == {"DATASET": {"NAME": name}}
    assert (dataset.dataset_dir, dataset.total_images) == (folder, images)
    assert dataset.template.format("cat") == text
    assert (dataset.domain, dataset.v2_name) == ("natural", "")
    assert dataset.homepage.startswith("https://")
    for url, md5, _ in dataset.download:
        assert url.startswith(("http", "torchvision:"))
        assert len(md5) in (0, 32)


def test_coop_has_the_same_names_and_templates():
    tree = peer("CoOp")
    theirs = {path.name for path in (tree / "configs/datasets").iterdir()} - {"eurosat.yaml"}
    assert theirs == {f"{config}.yaml" for config, *_ in FACTS.values()}
    source = (tree / "trainers/zsclip.py").read_text()
    for name in FACTS:
        assert f'"{name}": "{datasets.DECLARED[name].template}"' in source


def test_imagenet_tests_on_val(imagenet):
    dataset = datasets.ImageNet(make_config(imagenet))
    assert dataset.classnames == IMAGENET
    assert [len(part) for part in parts(dataset).values()] == [30, 12, 12]
    assert parts(dataset)["val"] == parts(dataset)["test"]
    assert parts(dataset)["test"][6] == ("val/n02012849/n00.jpg", 3, "crane")
    assert parts(dataset)["train"][0][0] == "train/n01440764/n00.jpg"


def test_imagenet_shots_and_halves(imagenet):
    shots = datasets.ImageNet(make_config(imagenet, shots=2, SUBSAMPLE_CLASSES="new"))
    assert shots.classnames == ["crane", "crane", "toilet paper"]
    assert len(shots.train_x) == 6
    assert len(shots.test) == 6  # never reduced
    all_classes = parts(datasets.ImageNet(make_config(imagenet, shots=2)))["train"]
    kept = [path for path, label, _ in all_classes if label >= 3]
    assert kept == [path for path, *_ in parts(shots)["train"]]


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_share_imagenet_s_classes_in_its_order(imagenet, name):
    _, labels = VARIANTS[name]
    dataset = datasets.DECLARED[name](make_config(imagenet, shots=16))
    assert dataset.classnames == [IMAGENET[label] for label in labels]
    assert len(dataset.test) == 3 * len(labels)
    assert parts(dataset)["train"] == parts(dataset)["test"]
    assert {label for _, label, _ in parts(dataset)["test"]} == set(range(len(labels)))
    with pytest.raises(UserError, match="no base and new classes"):
        datasets.DECLARED[name](make_config(imagenet, SUBSAMPLE_CLASSES="base"))


def test_sketch_as_in_the_archive(imagenet):
    (imagenet / "imagenet-sketch/images").rename(imagenet / "imagenet-sketch/sketch")
    assert datasets.ImageNetSketch(make_config(imagenet)).classnames == IMAGENET


def test_imagenet_without_class_names_says_so(imagenet):
    (imagenet / "imagenet/classnames.txt").unlink()
    with pytest.raises(
        UserError, match=r"no class is known without classnames\.txt in .*/imagenet\."
    ):
        datasets.ImageNet(make_config(imagenet))


def test_a_missing_class_of_imagenet_is_no_200_class_set(imagenet):
    (imagenet / "imagenet-sketch/images/n01443537").rename(imagenet / "gone")
    with pytest.raises(UserError, match=r"no folder for class 'goldfish' \(n01443537/\)"):
        datasets.ImageNetSketch(make_config(imagenet))


@pytest.mark.parametrize("name", IMAGE_DIRS)
def test_transfer_targets_read_coop_s_split(tmp_path, name, caplog):
    split = write_split(tmp_path, name, ["zebra_fish", "Ape", "2012 Audi S-4", "face"])
    dataset = datasets.DECLARED[name](make_config(tmp_path))
    names = ["zebra fish", "Ape", "2012 Audi S-4", "face"]
    assert dataset.classnames == names
    assert dataset.image_dir == str(tmp_path / IMAGE_DIRS[name])
    expected = [(path, label, names[label]) for path, label, _ in split["test"]]
    assert parts(dataset)["test"] == expected
    assert [len(part) for part in parts(dataset).values()] == [8, 4, 4]
    assert "differ" not in caplog.text
    base = datasets.DECLARED[name](make_config(tmp_path, shots=1, SUBSAMPLE_CLASSES="base"))
    assert (base.classnames, len(base.train_x), len(base.test)) == (names[:2], 2, 2)


@pytest.mark.parametrize("name", IMAGE_DIRS)
def test_the_published_split_is_needed(tmp_path, name):
    make_classes(tmp_path / IMAGE_DIRS[name], ["ape", "bee"], 4)
    with pytest.raises(UserError, match=f"split_zhou_{name}.json.*https://drive.google.com/"):
        datasets.DECLARED[name](make_config(tmp_path))


def test_aircraft_lists(aircraft):
    dataset = datasets.FGVCAircraft(make_config(aircraft))
    assert dataset.classnames == ["707-320", "BAE 146-200", "F-16A/B"]
    assert parts(dataset)["train"] == [
        ("images/0034001.jpg", 2, "F-16A/B"),
        ("images/0034002.jpg", 1, "BAE 146-200"),
        ("images/0034003.jpg", 0, "707-320"),
    ]
    assert [len(part) for part in parts(dataset).values()] == [3, 3, 3]


def test_aircraft_archive_as_it_unpacks(aircraft):
    before = parts(datasets.FGVCAircraft(make_config(aircraft)))
    inside = aircraft / "fgvc_aircraft/fgvc-aircraft-2013b"
    (aircraft / "fgvc_aircraft").rename(aircraft / "data")
    inside.mkdir(parents=True)
    (aircraft / "data").rename(inside / "data")
    assert parts(datasets.FGVCAircraft(make_config(aircraft))) == before


COOP_SCRIPT = """
import importlib, json, sys
from types import SimpleNamespace as NS
from dassl.data.datasets import DATASET_REGISTRY

answer = []
for module, name, root in json.loads(sys.argv[1]):
    importlib.import_module("datasets." + module)
    keys = NS(ROOT=root, NUM_SHOTS=-1, SUBSAMPLE_CLASSES="all")
    data = DATASET_REGISTRY.get(name)(NS(SEED=1, DATASET=keys))
    lists = [part or [] for part in (data.train_x, data.val, data.test)]
    answer.append([[[d.impath, d.label, d.classname] for d in part] for part in lists])
print("ANSWER" + json.dumps(answer))
"""


def test_coop_s_loaders_and_ours_agree(imagenet, aircraft):
    """The same (path, label, class name) from CoOp's own code, whose files are named otherwise."""
    for name in IMAGE_DIRS:
        write_split(imagenet, name, ["zebra fish", "Ape", "face"])
    (imagenet / "imagenet-sketch/images/README.txt").unlink()  # CoOp takes it for a class
    names = [name for name in FACTS if name != "ImageNetV2"]  # CoOp wants all 1,000 classes of it
    jobs = [[FACTS[name][0], name, str(imagenet)] for name in names]
    command = [sys.executable, "-B", "-c", COOP_SCRIPT, json.dumps(jobs)]
    paths = [peer("CoOp"), PROJECT / "dplq/_fallback", PROJECT]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    answer = subprocess.check_output(command, cwd=peer("CoOp"), env=env, text=True)
    theirs = json.loads(answer.split("ANSWER")[1])
    for name, answer in zip(names, theirs, strict=True):
        dataset = datasets.DECLARED[name](make_config(imagenet))
        for items, reference in zip(("train_x", "val", "test"), answer, strict=True):
            ours = [[d.impath, d.label, d.classname] for d in getattr(dataset, items) or []]
            assert sorted(ours) == sorted(reference), name
