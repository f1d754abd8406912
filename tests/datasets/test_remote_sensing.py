"""The remote-sensing and radar sets: what each is known for, and the table of facts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from dplq import datasets
from dplq.datasets import DECLARED
from dplq.datasets._engine.layout.folders import ClassTable
from dplq.io.spelling import spelling

from .lookalikes import make_classes, make_config, make_lookalike, parts, write_image

FACTS = Path(__file__).resolve().parents[3] / "shared" / "benchmarks" / "benchmarks.yaml"
OPTICAL = [
    "AID",
    "EuroSAT",
    "MLRSNet",
    "NWPU",
    "PatternNet",
    "RSD46",
    "RSICD",
    "RSSCN7",
    "UCM",
    "WHURS19",
]
RADAR = ["MSTAR", "airplane", "ship"]
BETTER = {  # our prompt where the table of facts has the originals', which no expert would use
    "MSTAR": ("2S1", "BMP2", "BRDM_2", "BTR60", "BTR70", "D7", "ZIL131", "ZSU_23_4"),
    "airplane": ("A220", "A320321", "A330", "ARJ21", "Boeing737", "Boeing787"),
    "ship": ("GeneralCargo",),
}


def load(name: str, root: Path, **keys):
    return DECLARED[name](make_config(root, CHECK_IMAGES=False, **keys))


@pytest.fixture(scope="module")
def table_of_facts() -> dict:
    if not FACTS.is_file():
        pytest.skip(f"no table of facts at {FACTS}")
    return yaml.load(FACTS.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["benchmarks"]


@pytest.mark.parametrize("name", [*OPTICAL, *RADAR])
def test_declarations_and_the_table_of_facts(name, table_of_facts):
    facts, declared = table_of_facts[name.replace("NWPU", "nwpu")], DECLARED[name]
    table = ClassTable(declared.class_table)
    assert len(table.rows) == facts["num_classes"]
    for row in facts["classes"]:
        label, folder = row["label"], row["folder"]
        spellings = [folder, row.get("official_folder", folder), *row.get("aliases", [])]
        assert {table.label_of(text) for text in spellings} == {label}
        assert table.folder_of(label) in (folder, row["prompt"])
        if folder not in BETTER.get(name, ()):
            assert table.prompts[label] == row["prompt"]
    assert declared.dataset_dir == facts["dataset_dir"]
    assert declared.domain == {"remote_sensing": "remote sensing", "sar": "SAR"}[facts["domain"]]
    assert declared.homepage == facts["homepage"]
    assert (declared.licence == "unknown") == (facts["licence"] == "unknown")
    assert (declared.citation == "unknown") == (facts["citation"] == "unknown")
    if "images_per_class" in facts and declared.images_per_class:
        assert declared.images_per_class == facts["images_per_class"]
    rounded = "rounded" in facts["num_images_evidence"]
    assert declared.total_images == (None if rounded else facts["num_images"])
    if declared.image_size:
        assert facts["image_size"].startswith("{}x{}".format(*declared.image_size))
    else:
        assert facts["image_size"] == "unknown"
    variant = facts["test_only_variant"] or {"registered_name": ""}
    assert declared.v2_name == variant["registered_name"].replace("nwpu", "NWPU")
    sources = {entry.get("url"): entry["md5"] for entry in facts["auto_download"]}
    assert all(sources[url] == checksum for url, checksum, _ in declared.download)


@pytest.mark.parametrize("name", [*OPTICAL, *RADAR])
def test_prompts_are_words(name):
    for prompt in ClassTable(DECLARED[name].class_table).prompts:
        assert "_" not in prompt
        assert "  " not in prompt
        words = [word for word in prompt.split() if word.isalpha() and not word.isupper()]
        assert all(word[1:].islower() or len(word) == 1 for word in words), prompt


def test_the_original_names_of_nwpu_are_registered(tmp_path):
    from dassl.data.datasets import DATASET_REGISTRY

    make_lookalike(datasets.NWPU, tmp_path)
    first = load("NWPU", tmp_path)
    again = DATASET_REGISTRY.get("nwpu")(make_config(tmp_path))
    assert again.split_path == first.split_path
    assert first.split_path.endswith("dplq_NWPU.json")
    everything = DATASET_REGISTRY.get("nwpuv2")(make_config(tmp_path))
    assert len(everything.test) == 45 * 4
    assert "nwpu" not in DECLARED


def test_whurs19_in_one_flat_folder(tmp_path):
    for row in datasets.WHURS19.class_table:
        for i in range(4):
            write_image(tmp_path / "WHURS19/images" / f"{spelling(row[-1])}_{i:02d}.jpg")
    dataset = load("WHURS19", tmp_path)
    assert dataset.classnames == [row[0] for row in datasets.WHURS19.class_table]
    assert load("WHURS19", tmp_path, SUBSAMPLE_CLASSES="new").classnames[-2:] == [
        "Football Field",
        "Railway Station",
    ]


def test_rsicd_from_file_names_has_thirty_classes(tmp_path, caplog):
    folder = tmp_path / "RSICD/RSICD_images"
    for row in datasets.AID.class_table:
        for i in range(4):
            write_image(folder / f"{spelling(row[-1])}_{i}.jpg")
    write_image(folder / "00623.jpg")
    base, new = (load("RSICD", tmp_path, SUBSAMPLE_CLASSES=s).classnames for s in ("base", "new"))
    assert (len(base), len(new)) == (15, 15)
    assert base[-1] == "Medium Residential Area"
    assert "Playfields" not in base + new
    assert "not a class of RSICD, ignored: 00623" in caplog.text
    make_lookalike(datasets.RSICD, tmp_path / "other")
    assert len(load("RSICD", tmp_path / "other", SUBSAMPLE_CLASSES="base").classnames) == 16


@pytest.fixture
def rsd46(tmp_path):
    folder, _, _ = make_lookalike(datasets.RSD46, tmp_path, per_class=6)
    return folder


def test_rsd46_tests_on_the_val_folder(rsd46, tmp_path):
    got = parts(load("RSD46", tmp_path))
    assert {(part, path.split("/")[0]) for part, items in got.items() for path, *_ in items} == {
        ("train", "train"),
        ("val", "val"),
        ("test", "val"),
    }
    assert [len(items) for items in got.values()] == [46 * 6, 46 * 3, 46 * 3]


def test_rsd46_as_the_original_tests_on_its_training_images(rsd46, tmp_path, caplog):
    ours = load("RSD46", tmp_path)
    shutil.rmtree(rsd46 / "RSD46" / "val")
    dataset = load("RSD46", tmp_path, PROTOCOL="reference")
    got = parts(dataset)
    assert [len(items) for items in got.values()] == [46 * 6, 46 * 3, 46 * 3]
    assert sorted(p for p, *_ in got["val"] + got["test"]) == sorted(p for p, *_ in got["train"])
    assert dataset.split_path.endswith("split_dplq_RSD46_reference.json") != ours.split_path
    assert dataset.classnames[32] == "Scattered blue root factory building"
    assert parts(load("RSD46", tmp_path, PROTOCOL="reference")) == got
    assert "138 test images are also in train or val" in caplog.text


@pytest.mark.parametrize(
    ("name", "variant", "folder", "original"),
    [
        ("AID", "", "DenseResidential", "DenseResidential"),
        ("AID", "v2", "BareLand", "BareLand"),
        ("AID", "", "BareLand", "Bare Land"),
        ("PatternNet", "", "intersection", "inter section"),
        ("PatternNet", "v2", "intersection", "intersection"),
        ("PatternNet", "v2", "swimming_pool", "swimming_pool"),
        ("MLRSNet", "", "swimmimg_pool", "swimmig pool"),
        ("RSSCN7", "v2", "RiverLake", "River Lake"),
        ("RSSCN7", "", "RiverLake", "River or Lake"),
        ("WHURS19", "", "Commercial", "Commercial"),
        ("WHURS19", "v2", "Commerical", "Commerical Area"),
        ("MSTAR", "", "D7", "D7 tank"),
    ],
)
def test_reference_prompts(name, variant, folder, original, tmp_path):
    data = DECLARED[name].at(str(tmp_path))
    label = data.table.label_of(folder)
    names = [data.table.folder_of(i) for i in range(len(data.table.rows))]
    names[label] = folder
    make_classes(Path(data.dataset_dir), names, 4)
    assert load(name + variant, tmp_path).classnames == data.table.prompts
    assert load(name + variant, tmp_path, PROTOCOL="reference").classnames[label] == original


def test_radar_is_not_called_a_photo():
    for name in RADAR:
        assert "aperture radar" in DECLARED[name].template
        assert DECLARED[name].reference_template == "a photo of {}."


def test_aid_s_counts_per_class():
    """Table I of the paper: 220 to 420 images in each class, 10,000 in all."""
    aid = DECLARED["AID"]
    counts = dict(zip((row[0] for row in aid.class_table), aid.images_per_class, strict=True))
    assert sum(counts.values()) == aid.total_images == 10_000
    assert (min(counts.values()), max(counts.values())) == (220, 420)
    assert counts["Baseball Field"] == 220
    assert counts["Pond"] == counts["Viaduct"] == 420
    assert counts["Railway Station"] == 260
    assert sum(count == 300 for count in counts.values()) == 3
