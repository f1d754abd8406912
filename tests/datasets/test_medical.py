"""The medical sets: two families that share names, their prompts, and the archives' layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dplq import datasets
from dplq.errors import UserError

from .lookalikes import make_classes, make_config, parts

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "datasets"
# name: YAML file, classes, images, the first class's zero-shot text
FACTS = {
    "BTMRI": ("btmri", 4, 7023, "an MRI scan of the brain showing glioma."),
    "CCBTM": ("ccbtm", 4, 21672, "an MRI scan of the brain showing normal brain."),
    "CHMNIST": ("chmnist", 8, 5000, "a histology image of adipose tissue."),
    "Kvasir": ("kvasir", 8, None, "an endoscopy image of dyed lifted polyps."),
    "COVID19": ("covid19", 4, 21165, "a chest X-ray showing COVID-19."),
    "MEMNIST": ("memnist", 6, 58954, "a medical image, abdominal CT."),
    "TMR17": ("tmr17", 17, 4448, "a brain scan showing glioma on T1-weighted MRI."),
    "BiomedBTMRI": ("biomedbtmri", 4, 5712, "an MRI scan showing glioma tumor."),
    "BUSI": ("busi", 3, 780, "an ultrasound image of benign breast tumor."),
    "BiomedCHMNIST": ("biomedchmnist", 8, 5000, "a histology image of adipose tissue."),
    "COVID_19": ("covid", 4, 21165, "a chest X-ray of lungs with COVID-19."),
    "CTKidney": ("ctkidney", 4, 12446, "a CT scan showing a kidney cyst."),
    "DermaMNIST": ("dermamnist", 7, 10014, "a dermatoscopic image of actinic keratosis."),
    "KneeXray": ("kneexray", 5, 8260, "an X-ray image of healthy knee."),
    "BiomedKvasir": ("biomedkvasir", 8, 4000, "an endoscopy image of dyed lifted polyps."),
    "LungColon": ("lungcolon", 5, 25000, "a histology image of colon adenocarcinoma."),
    "OCTMNIST": ("octmnist", 4, 109309, "an OCT scan showing choroidal neovascularization."),
    "RETINA": ("retina", 4, 4217, "a fundus photograph showing diabetic retinopathy."),
}
BIOMEDCOOP = list(FACTS)[7:]
DPLQ_TUMOURS = ["glioma", "meningioma", "no brain tumor", "pituitary tumor"]
BIOMED_TUMOURS = ["glioma tumor", "meningioma tumor", "pituitary tumor", "normal brain"]


def folders_of(name: str) -> list[str]:
    """The class folders that a message would ask for, in label order."""
    return [row[1] if len(row) > 1 else row[0] for row in datasets.DECLARED[name].class_table]


def published_split(folder: Path, name: str, classes: list[str], per_class: int = 5) -> None:
    """What BiomedCoOp hands out: class folders, and a split that has the last images in train."""
    place = folder / name
    make_classes(place / name, classes, per_class)
    split: dict[str, list] = {"train": [], "val": [], "test": []}
    for label, title in enumerate(classes):
        images = sorted(path.name for path in (place / name / title).iterdir())
        for part, chosen in zip(split, (images[3:], images[2:3], images[:2]), strict=True):
            items = [[f"{title}/{image}", label, title.replace("_", " ")] for image in chosen]
            split[part] += items
    (place / f"split_{name}.json").write_text(json.dumps(split))


@pytest.fixture
def both(tmp_path) -> Path:
    """One ROOT with DPLQ's BTMRI, and BiomedCoOp's in the folder `BiomedCoOp`."""
    make_classes(tmp_path / "BTMRI" / "BTMRI", folders_of("BTMRI"), 10)
    published_split(tmp_path / "BiomedCoOp", "BTMRI", folders_of("BiomedBTMRI"))
    return tmp_path


@pytest.mark.parametrize("name", FACTS)
def test_declarations(name):
    from dassl.data.datasets import DATASET_REGISTRY  # once `datasets` has found a Dassl

    config, classes, images, text = FACTS[name]
    dataset = datasets.DECLARED[name]
    prompts = [row[0] for row in dataset.class_table]
    assert DATASET_REGISTRY.get(name) is dataset
    assert yaml.safe_load((CONFIGS / f"{config}.yaml").read_text()) == {"DATASET": {"NAME": name}}
    assert (len(prompts), dataset.total_images, dataset.domain) == (classes, images, "medical")
    assert dataset.template.format(prompts[0]) == text
    article = "a " if name in BIOMEDCOOP else ""
    assert dataset.reference_template == f"a photo of {article}{{}}."
    assert dataset.homepage.startswith("https://")
    counts = dataset.images_per_class
    if counts:
        assert images == (sum(counts) if isinstance(counts, tuple) else counts * classes)


@pytest.mark.parametrize("name", FACTS)
def test_prompts_are_words_and_no_folder_names(name):
    prompts = [row[0] for row in datasets.DECLARED[name].class_table]
    assert len({prompt.casefold() for prompt in prompts}) == len(prompts)
    for prompt in prompts:
        assert not set(prompt) & set("_+")
        for word in prompt.split():
            # "X-ray", "CT", "MRI", "COVID-19" and "T1-weighted" are how these are written
            assert word == word.lower() or word[:2].isupper() or word[:2] in ("X-", "T1", "T2")


def test_variants_have_configs():
    for name in ("BTMRIv2", "CCBTMv2", "CHMNISTv2"):
        raw = yaml.safe_load((CONFIGS / f"{name.lower()}.yaml").read_text())
        assert raw == {"DATASET": {"NAME": name}}
        assert datasets.DECLARED[name].test_only


def test_both_brain_tumour_sets_live_under_one_root(both):
    ours = datasets.BTMRI(make_config(both))
    theirs = datasets.BiomedBTMRI(make_config(both))
    assert ours.classnames == DPLQ_TUMOURS
    assert theirs.classnames == BIOMED_TUMOURS
    assert [len(part) for part in parts(ours).values()] == [20, 8, 12]
    assert [len(part) for part in parts(theirs).values()] == [8, 4, 8]
    assert parts(theirs)["train"][-1] == ("normal_brain/n04.jpg", 3, "normal brain")
    assert theirs.split_path == str(both / "BiomedCoOp/BTMRI/split_BTMRI.json")
    assert ours.split_path == str(both / "BTMRI/split_dplq_BTMRI.json")


def test_the_two_have_other_new_classes(both):
    new = make_config(both, SUBSAMPLE_CLASSES="new")
    assert datasets.BTMRI(new).classnames == ["no brain tumor", "pituitary tumor"]
    assert datasets.BiomedBTMRI(new).classnames == ["pituitary tumor", "normal brain"]


def test_biomedcoop_s_own_place_serves_too(tmp_path):
    published_split(tmp_path, "BTMRI", folders_of("BiomedBTMRI"))
    theirs = datasets.BiomedBTMRI(make_config(tmp_path))
    assert theirs.classnames == BIOMED_TUMOURS
    assert theirs.split_path == str(tmp_path / "BTMRI/split_BTMRI.json")
    ours = datasets.BTMRI(make_config(tmp_path))  # reads their folders, but not their split
    assert ours.classnames == DPLQ_TUMOURS
    assert ours.split_path == str(tmp_path / "BTMRI/split_dplq_BTMRI.json")


@pytest.mark.parametrize("name", BIOMEDCOOP)
def test_published_split_is_read(tmp_path, name):
    dataset = datasets.DECLARED[name]
    folder = Path(dataset.dataset_dir).name
    published_split(tmp_path, folder, folders_of(name))
    loaded = dataset(make_config(tmp_path))
    classes = FACTS[name][1]
    assert loaded.classnames == [row[0] for row in dataset.class_table]
    assert [len(part) for part in parts(loaded).values()] == [2 * classes, classes, 2 * classes]
    under_reference = dataset(make_config(tmp_path, PROTOCOL="reference"))
    assert under_reference.classnames == [f.replace("_", " ") for f in folders_of(name)]


def test_without_the_published_split_nothing_is_loaded(tmp_path):
    make_classes(tmp_path / "BTMRI" / "BTMRI", folders_of("BiomedBTMRI"), 4)
    with pytest.raises(UserError, match=r"split_BTMRI\.json") as caught:
        datasets.BiomedBTMRI(make_config(tmp_path))
    assert "https://raw.githubusercontent.com/HealthX-Lab/BiomedCoOp/" in str(caught.value)
    assert not list(tmp_path.rglob("split_dplq_*"))


@pytest.mark.parametrize("name", BIOMEDCOOP)
def test_what_is_downloaded(name):
    dataset = datasets.DECLARED[name]
    folder = Path(dataset.dataset_dir).name
    images, split = dataset.download
    assert images[0].endswith(f"/{folder}.zip")
    assert split[0] == dataset.split_url
    assert (len(split[1]), split[2]) == (0 if name == "OCTMNIST" else 32, f"split_{folder}.json")


def test_another_class_order_in_the_split_is_kept_and_said(tmp_path, caplog):
    published_split(tmp_path, "OCTMNIST", folders_of("OCTMNIST")[::-1])
    names = datasets.OCTMNIST(make_config(tmp_path)).classnames
    assert names[0] == "normal retina"
    assert names[-1] == "choroidal neovascularization"
    assert "its classes or their order are not those of the dataset" in caplog.text


@pytest.mark.parametrize("top", ["Kather_texture_2016_image_tiles_5000", "", "CHMNIST"])
def test_chmnist_as_in_the_archive(tmp_path, top):
    archive = ["TUMOR", "STROMA", "COMPLEX", "LYMPHO", "DEBRIS", "MUCOSA", "ADIPOSE", "EMPTY"]
    numbered = [f"{i:02d}_{name}" for i, name in enumerate(archive, 1)]
    make_classes(tmp_path / "CHMNIST" / top, numbered, 4)
    dataset = datasets.CHMNIST(make_config(tmp_path))
    assert dataset.classnames[:2] == ["adipose tissue", "complex stroma"]
    assert dataset.classnames[-2:] == ["simple stroma", "tumor epithelium"]
    first = {path.split("/")[-2] for path, label, _ in parts(dataset)["test"] if label == 7}
    assert first == {"01_TUMOR"}


def test_covid19_masks_are_not_images(tmp_path):
    for folder in folders_of("COVID19"):
        make_classes(tmp_path / "COVID19" / folder, ["images", "masks"], 4)
    dataset = datasets.COVID19(make_config(tmp_path))
    paths = [path for items in parts(dataset).values() for path, *_ in items]
    assert len(paths) == 16
    assert {path.split("/")[-2] for path in paths} == {"images"}


def test_capitals_come_first(tmp_path):
    for name in ("MEMNIST", "TMR17", "CCBTM"):
        make_classes(tmp_path / name, folders_of(name), 4)
        assert folders_of(name) == sorted(folders_of(name))
        assert datasets.DECLARED[name](make_config(tmp_path)).classnames == [
            row[0] for row in datasets.DECLARED[name].class_table
        ]
    base = datasets.TMR17(make_config(tmp_path, SUBSAMPLE_CLASSES="base")).classnames
    assert (len(base), base[-1]) == (9, "neurocytoma on T1-weighted MRI")


@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("BTMRI", ["glioma", "meningioma", "no brain tumor", "pituitary"]),
        ("CCBTM", ["normal", "glioma tumor", "meningioma tumor", "pituitary tumor"]),
        ("MEMNIST", ["Abdomen CT", "Breast MRI", "Chest X-Ray", "Chest CT", "Hand CT", "Head CT"]),
        ("COVID19", ["Coronavirus Disease", "Lung Opacity", "Normal", "Viral Pneumonia"]),
    ],
)
def test_official_prompts_under_reference(tmp_path, name, official):
    make_classes(tmp_path / name / name, folders_of(name), 4)
    dataset = datasets.DECLARED[name](make_config(tmp_path, PROTOCOL="reference"))
    assert dataset.classnames == official


TRUE_FOLDERS = {
    "BUSI": (
        "BUSI/Dataset_BUSI_with_GT",
        {"benign_tumor": "benign", "malignant_tumor": "malignant", "normal_scan": "normal"},
    ),
    "RETINA": ("RETINA/RETINA", {"normal_retina": "normal"}),
}


@pytest.mark.parametrize("spelling", ["published", "archive"])
@pytest.mark.parametrize("name", TRUE_FOLDERS)
def test_folders_as_the_archives_have_them(tmp_path, name, spelling, caplog):
    """The published split fits the archive, whose folders have other names."""
    published_split(tmp_path, name, folders_of(name))
    place, renamed = TRUE_FOLDERS[name]
    if spelling == "archive":
        source = tmp_path / name / name
        if place != f"{name}/{name}":
            source = source.rename(tmp_path / place)
        for old, new in renamed.items():
            (source / old).rename(source / new)
    with caplog.at_level("INFO", "dplq"):
        dataset = datasets.DECLARED[name](make_config(tmp_path))
    assert dataset.classnames == [row[0] for row in datasets.DECLARED[name].class_table]
    classes = len(dataset.classnames)
    sizes = {part: len(items) for part, items in parts(dataset).items()}
    assert sizes == {"train": 2 * classes, "val": classes, "test": 2 * classes}
    assert all(Path(item.impath).is_file() for item in dataset.test)
    said = [r.getMessage() for r in caplog.records if "of the split is" in r.getMessage()]
    assert len(said) == (len(renamed) if spelling == "archive" else 0)
    if said:
        assert said[0].startswith(f"{tmp_path / place}: the folder '")


def test_busi_s_masks_are_declared():
    assert datasets.DECLARED["BUSI"].mask_files == ("*_mask.png", "*_mask_*.png")
    assert datasets.DECLARED["RETINA"].mask_files == ()


@pytest.mark.parametrize("damage", ["absent images", "no split", "no JSON"])
def test_a_split_that_is_needed_is_not_to_be_deleted(tmp_path, damage):
    published_split(tmp_path, "BUSI", folders_of("BUSI"))
    split = tmp_path / "BUSI/split_BUSI.json"
    if damage == "absent images":
        for path in (tmp_path / "BUSI/BUSI/benign_tumor").iterdir():
            path.unlink()
    else:
        split.write_text("{}" if damage == "no split" else "{")
    with pytest.raises(UserError) as caught:
        datasets.DECLARED["BUSI"](make_config(tmp_path))
    text = str(caught.value)
    url = datasets.DECLARED["BUSI"].split_url
    assert text.endswith(f", or get the split file again from {url}.")
    assert "delete" not in text
