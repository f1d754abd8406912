"""From a folder and a config to Dassl data: layouts, split files, caches, broken images."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from dplq.datasets import BTMRI, RSSCN7, WHURS19
from dplq.datasets._engine import images as images_module
from dplq.datasets._engine import store as store_module
from dplq.errors import UserError
from tests.oddities import KINDS, make_odd

from .lookalikes import (
    REPOSITORY_RSSCN7,
    RSSCN7_PROMPTS,
    edit_json,
    make_classes,
    make_config,
    parts,
    triples,
)

OFFICIAL = ["Field", "Forest", "Grass", "Industry", "Parking", "Resident", "RiverLake"]
SPLIT = "split_dplq_RSSCN7.json"


@pytest.fixture
def root(tmp_path) -> Path:
    """RSSCN7 as its repository has it, 10 images per class."""
    make_classes(tmp_path / "RSSCN7", REPOSITORY_RSSCN7)
    return tmp_path


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    "folders",
    [REPOSITORY_RSSCN7, OFFICIAL, [n.lower() for n in OFFICIAL], RSSCN7_PROMPTS],
    ids=["repository", "official", "lower", "prompts"],
)
@pytest.mark.parametrize("inside", ["RSSCN7", ".", "images"])
def test_order_and_prompts_do_not_depend_on_spelling_or_layout(tmp_path, folders, inside):
    make_classes(tmp_path / "RSSCN7" / inside, folders, 4)
    dataset = RSSCN7(make_config(tmp_path))
    assert dataset.classnames == RSSCN7_PROMPTS
    assert dataset.num_classes == 7
    for item in dataset.train_x + dataset.val + dataset.test:
        folder = Path(item.impath).parent.name
        assert dataset.table.label_of(folder) == item.label
        assert item.classname == RSSCN7_PROMPTS[item.label]


def test_whurs19_ends_with_its_lower_case_folders(tmp_path):
    rows = WHURS19.class_table
    make_classes(tmp_path / "WHURS19" / "WHURS19", [row[-1].lower() for row in rows], 4)
    names = WHURS19(make_config(tmp_path)).classnames
    assert names[3] == "Commercial Area"
    assert names[-2:] == ["Football Field", "Railway Station"]
    assert names[:17] == sorted(names[:17])


def test_btmri_merges_the_archive_folders(tmp_path):
    make_classes(tmp_path / "BTMRI/Training", ["glioma", "meningioma", "notumor", "pituitary"], 6)
    make_classes(tmp_path / "BTMRI/Testing", ["glioma", "meningioma", "notumor", "pituitary"], 4)
    dataset = BTMRI(make_config(tmp_path))
    assert dataset.classnames == [row[0] for row in BTMRI.class_table]
    assert [len(part) for part in parts(dataset).values()] == [20, 8, 12]
    assert {path.split("/")[0] for path, *_ in parts(dataset)["train"]} == {"Training", "Testing"}


def test_btmri_with_half_of_the_archive_says_so(tmp_path, caplog):
    make_classes(tmp_path / "BTMRI/Training", ["glioma", "meningioma", "notumor", "pituitary"], 6)
    BTMRI(make_config(tmp_path))
    assert "only ('Training',) of ('Training', 'Testing') is there" in caplog.text


def test_split_file_has_coop_s_format_and_is_used_again(root):
    first = RSSCN7(make_config(root))
    split = read(root / "RSSCN7" / SPLIT)
    assert list(split) == ["train", "val", "test", "contents"]
    contents = split.pop("contents")
    assert contents.keys() == {path for items in split.values() for path, *_ in items}
    assert [len(part) for part in split.values()] == [35, 14, 21]
    assert all((root / "RSSCN7" / path).is_file() for path, _, _ in split["test"])
    assert {name: [tuple(i) for i in items] for name, items in split.items()} == parts(first)
    before = (root / "RSSCN7" / SPLIT).stat().st_mtime_ns
    assert parts(RSSCN7(make_config(root, seed=9))) == parts(first)
    assert (root / "RSSCN7" / SPLIT).stat().st_mtime_ns == before
    assert not list((root / "RSSCN7").glob(".*"))


def test_first_and_later_runs_and_subsets_share_their_images(root):
    first = parts(RSSCN7(make_config(root, shots=2)))
    later = parts(RSSCN7(make_config(root, shots=2)))
    base = parts(RSSCN7(make_config(root, shots=2, SUBSAMPLE_CLASSES="base")))
    new = parts(RSSCN7(make_config(root, shots=2, SUBSAMPLE_CLASSES="new")))
    assert first == later
    for part, items in first.items():
        assert base[part] == [item for item in items if item[1] < 4]
        assert new[part] == [(p, label - 4, n) for p, label, n in items if label >= 4]


@pytest.mark.parametrize("lister", ["scandir", "listdir"])
def test_order_of_the_directory_listing_does_not_matter(root, monkeypatch, lister):
    expected = parts(RSSCN7(make_config(root, shots=2)))
    (root / "RSSCN7" / SPLIT).unlink()
    real = getattr(os, lister)

    class Backwards(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, lister, lambda *args: Backwards(reversed(list(real(*args)))))
    assert parts(RSSCN7(make_config(root, shots=2))) == expected


def test_unset_seed_draws_fresh_and_says_which(root, caplog):
    drawn = {tuple(parts(RSSCN7(make_config(root, seed=-1, shots=2)))["train"]) for _ in range(3)}
    assert len(drawn) > 1
    assert re.search(r"the 2 shots are drawn with seed \d+", caplog.text)


def test_strays_are_ignored_and_extra_folders_reported(root, caplog):
    data = root / "RSSCN7"
    (data / "README.md").touch()
    (data / "aGrass" / "Thumbs.db").touch()
    (data / ".git").mkdir()
    make_classes(data, ["hDesert"], 4)
    (data / "split_fewshot").mkdir()
    (data / "split_fewshot" / "shot_1-seed_1.pkl").write_bytes(b"never read")
    dataset = RSSCN7(make_config(root, shots=1))
    assert dataset.classnames == RSSCN7_PROMPTS
    assert f"{data}: not a class of RSSCN7, ignored: hDesert\n" in caplog.text
    assert caplog.text.count("the pickles in split_fewshot/ are ignored") == 1


def test_missing_data_shows_the_places_the_tree_and_the_source(tmp_path):
    with pytest.raises(UserError) as caught:
        RSSCN7(make_config(tmp_path))
    text = str(caught.value)
    data = tmp_path / "RSSCN7"
    assert f"RSSCN7: {data} does not exist. Searched: {data}/RSSCN7, {data}, {data}/images" in text
    assert f"where DATASET.ROOT (--root) is {tmp_path}:" in text
    assert f"  {data}/\n    bField/\n      *.jpg\n    eForest/" in text
    assert "... (7 class folders)" in text
    assert text.endswith("Get the data from https://github.com/palewithout/RSSCN7")
    data.mkdir()
    with pytest.raises(UserError, match=r"holds no class folder\. Searched"):
        RSSCN7(make_config(tmp_path))
    make_classes(data, ["aGrass"], 1)
    with pytest.raises(UserError, match=f"{data} holds some: DATASET.ROOT must be"):
        RSSCN7(make_config(data))


def test_missing_and_empty_classes_are_named(root):
    shutil.rmtree(root / "RSSCN7" / "gParking")
    with pytest.raises(UserError, match=r"no folder for class 'Parking' \(gParking/\) in .*aGrass"):
        RSSCN7(make_config(root))
    (root / "RSSCN7" / "gParking").mkdir()
    with pytest.raises(UserError, match=r"no image for class 'Parking' \(gParking/\)"):
        RSSCN7(make_config(root))
    make_classes(root / "RSSCN7", ["gParking"], 3)
    with pytest.raises(UserError, match=r"class 'Parking' \(3\). Every class needs at least 4"):
        RSSCN7(make_config(root))


def foreign_split(data: Path, filename: str, order: list[str], image_dir: str = "") -> dict:
    """Write a split as another project would: its own label order and class names."""
    split = {"train": [], "val": [], "test": []}
    for label, name in enumerate(order):
        for i, part in enumerate(["test", "train", "val", "train"]):
            split[part].append([f"{name}/{name[0]}{i:02d}.jpg", label, name])
    (data / filename).write_text(json.dumps(split))
    return split


def test_foreign_split_keeps_its_labels_and_gets_our_prompts(root, caplog):
    split = foreign_split(root / "RSSCN7", "split_cao_RSSCN7.json", REPOSITORY_RSSCN7)
    dataset = RSSCN7(make_config(root))
    assert [[p, label] for p, label, _ in parts(dataset)["train"]] == [
        item[:2] for item in split["train"]
    ]
    assert dataset.classnames[0] == "Grass"
    assert dataset.classnames[2] == "Industrial Area"
    assert (
        "split_cao_RSSCN7.json: its classes or their order are not those of the dataset"
        in caplog.text
    )
    assert dataset.split_path.endswith("split_cao_RSSCN7.json")
    assert not (root / "RSSCN7" / SPLIT).exists()


def test_precedence_of_split_files(root):
    data = root / "RSSCN7"
    names = ["split_cao_RSSCN7.json", "split_zhou_RSSCN7.json", "split_RSSCN7.json", SPLIT]
    RSSCN7(make_config(root))
    for name in names[:3]:
        foreign_split(data, name, REPOSITORY_RSSCN7)
    for name in names:
        assert RSSCN7(make_config(root)).split_path == str(data / name)
        (data / name).unlink()


def test_foreign_classes_outside_the_table_keep_their_names(tmp_path):
    data = make_classes(tmp_path / "RSSCN7", ["aGrass", "hDesert"], 4)
    foreign_split(data, "split_RSSCN7.json", ["hDesert", "aGrass"])
    assert RSSCN7(make_config(tmp_path)).classnames == ["hDesert", "Grass"]


def test_foreign_names_stay_where_two_would_become_one(tmp_path):
    data = make_classes(tmp_path / "RSSCN7", ["aGrass", "Grass"], 4)
    foreign_split(data, "split_RSSCN7.json", ["aGrass", "Grass"])
    assert RSSCN7(make_config(tmp_path)).classnames == ["aGrass", "Grass"]


@pytest.mark.parametrize("name", [SPLIT, "split_zhou_RSSCN7.json"])
def test_split_file_that_names_absent_images(root, name):
    data = root / "RSSCN7"
    RSSCN7(make_config(root))
    if name != SPLIT:
        (data / SPLIT).rename(data / name)
    gone = [path for path, *_ in read(data / name)["train"][:5]]
    for path in gone:
        (data / path).unlink()
    text = f"{data / name} names 5 image(s) (of 70) that do not exist in {data}: {gone[0]}, "
    with pytest.raises(UserError, match=re.escape(text) + r".* and 2 more\. Put them back"):
        RSSCN7(make_config(root))


@pytest.mark.parametrize("text", ["{", "[]", '{"train": 3}', '{"train": [["a", 0]]}', '"x"'])
def test_split_file_that_is_none(root, text):
    path = root / "RSSCN7" / "split_RSSCN7.json"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path))):
        RSSCN7(make_config(root))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["aGrass/a03.jpg", 0.5, "Grass"], "train[35][1]: expected `int`, got `float`"),
        (["aGrass/a03.jpg", 0.0, "Grass"], "train[35][1]: expected `int`, got `float`"),
        (["aGrass/a03.jpg", True, "Grass"], "train[35][1]: expected `int`, got `bool`"),
        (["aGrass/a03.jpg", "0", "Grass"], "train[35][1]: expected `int`, got `str`"),
        (["aGrass/a03.jpg", -1, "Grass"], "train[35][1]: expected `int` >= 0"),
        (["aGrass/a03.jpg", 10**30, "Grass"], "train[35][1]: expected `int` <= "),
        (["aGrass/a03.jpg", 0, None], "train[35][2]: expected `str`, got `null`"),
        ([None, 0, "Grass"], "train[35][0]: expected `str`, got `null`"),
        (["", 0, "Grass"], "train[35][0]: expected `str` of length >= 1"),
        (["aGrass/a03.jpg", 0], "train[35]: expected `array` of length 3, got 2"),
        ({"impath": "x"}, "train[35]: expected `array`, got `object`"),
    ],
)
def test_rows_of_a_split_file_are_validated(root, row, said):
    path = root / "RSSCN7" / SPLIT
    RSSCN7(make_config(root))
    edit_json(path, train=[*read(path)["train"], row])
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        RSSCN7(make_config(root))
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be used: ")
    assert 'A split file is {"train": [[path, label, classname], ...], "val": ' in message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["../secret.jpg", 0, "Grass"], "'../secret.jpg' leads out of its folder by '..'"),
        (["a\\..\\..\\s.jpg", 0, "Grass"], "'a/../../s.jpg' leads out of its folder by '..'"),
        (["/etc/s.jpg", 0, "Grass"], "1 image(s) (of 71) by an absolute path: /etc/s.jpg. They"),
        (["C:\\s.jpg", 0, "Grass"], "by an absolute path: C:/s.jpg. They are of another machine"),
        (["aGrass/a\n.jpg", 0, "Grass"], r"'aGrass/a\n.jpg' has a control character"),
        (["aGrass/a\0.jpg", 0, "Grass"], r"'aGrass/a\x00.jpg' has a control character"),
        (["aGrass/a\udce9.jpg", 0, "Grass"], r"'aGrass/a\xe9.jpg' is not UTF-8"),
        ([" ", 0, "Grass"], "the image path ' ' is empty"),
        (["./", 0, "Grass"], "the image path '' is empty"),
        (["aGrass/a03.jpg", 2, "Wood"], "label 2 is called both 'Grass' and 'Wood'"),
        (["aGrass/a03.jpg", 1, "Forest"], "1 image(s) have two labels: aGrass/a03.jpg (1 and 2)"),
    ],
)
def test_nonsense_in_a_split_file_is_refused(root, row, said):
    path = root / "RSSCN7" / "split_RSSCN7.json"
    RSSCN7(make_config(root))
    split = read(root / "RSSCN7" / SPLIT)
    every = [item for part in ("train", "val", "test") for item in split[part]]
    assert "aGrass/a03.jpg" in [item[0] for item in every]
    path.write_text(json.dumps({**split, "train": [*split["train"], row]}))
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        RSSCN7(make_config(root))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Forest", "classes 0 and 1 have one name, 'Forest' and 'Forest'"),
        (" fOREST", "classes 0 and 1 have one name, ' fOREST' and 'Forest' (case, spaces and '_' "),
        ("a\tb", r"the name 'a\tb' has a control character"),
        (" ", "the name ' ' is empty"),
    ],
)
def test_class_names_in_a_split_file_are_told_apart(root, name, said):
    path = root / "RSSCN7" / "split_RSSCN7.json"
    RSSCN7(make_config(root))
    split = read(root / "RSSCN7" / SPLIT)
    rows = {
        part: [[p, k, name if k == 0 else n] for p, k, n in split[part]]
        for part in ("train", "val", "test")
    }
    path.write_text(json.dumps(rows))
    with pytest.raises(UserError, match=re.escape(f"{path}: {said}")):
        RSSCN7(make_config(root))


def test_steps_that_lead_nowhere_are_left_out_of_paths(root):
    path = root / "RSSCN7" / "split_RSSCN7.json"
    before = parts(RSSCN7(make_config(root)))
    split = read(root / "RSSCN7" / SPLIT)
    rows = {
        part: [["./" + p.replace("/", "/.//"), k, n] for p, k, n in split[part]]
        for part in ("train", "val", "test")
    }
    path.write_text(json.dumps(rows))
    assert parts(RSSCN7(make_config(root))) == before


def test_repeated_rows_of_a_split_are_warned_of(root, caplog):
    path = root / "RSSCN7" / SPLIT
    RSSCN7(make_config(root))
    split = read(path)
    edit_json(path, test=[*split["test"], split["test"][0]])
    RSSCN7(make_config(root))
    assert f"{path}: 1 rows name an image of their part again" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_what_only_has_the_name_of_a_split_file_is_refused(root, kind):
    path = root / "RSSCN7" / "split_RSSCN7.json"
    make_odd(path, kind)
    with pytest.raises(UserError, match=f"{re.escape(str(path))} (is a|cannot be used: Too many)"):
        RSSCN7(make_config(root))


def test_absolute_paths_of_another_machine_are_named(root):
    path = root / "RSSCN7" / "split_RSSCN7.json"
    RSSCN7(make_config(root))
    split = read(root / "RSSCN7" / SPLIT)
    far = {k: [["/home/me/" + row[0], *row[1:]] for row in rows] for k, rows in split.items()}
    path.write_text(json.dumps(far))
    with pytest.raises(UserError, match="another machine: write paths from the image folder on"):
        RSSCN7(make_config(root))


def test_split_with_a_class_without_test_images(root):
    path = root / "RSSCN7" / SPLIT
    RSSCN7(make_config(root))
    edit_json(path, test=[item for item in read(path)["test"] if item[1] != 6])
    with pytest.raises(UserError, match=f"{path}: no test image for class 'River or Lake'"):
        RSSCN7(make_config(root))


def test_leaking_split_and_images_added_later_are_reported(root, caplog):
    path = root / "RSSCN7" / SPLIT
    RSSCN7(make_config(root))
    make_classes(root / "RSSCN7", ["aGrass"], 12)
    RSSCN7(make_config(root))
    assert f"{path}: 2 images are not in it; delete it to use them" in caplog.text
    split = read(path)
    edit_json(path, test=split["test"] + split["train"][:3])
    RSSCN7(make_config(root))
    assert "3 test images are also in train or val" in caplog.text


def test_dplq_cache_keeps_the_data_folder_clean(root, tmp_path_factory, monkeypatch, caplog):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DPLQ_CACHE", str(cache))
    before = sorted(root.rglob("*"))
    first = parts(RSSCN7(make_config(root)))
    assert sorted(root.rglob("*")) == before
    (folder,) = cache.iterdir()
    assert re.fullmatch(r"RSSCN7-[0-9a-f]{12}", folder.name)
    assert sorted(p.name for p in folder.iterdir()) == ["images_checked.json", SPLIT]
    assert caplog.text.count(f"Split and caches of {root / 'RSSCN7'} go to {folder}") == 1
    assert parts(RSSCN7(make_config(root))) == first
    assert str(tmp_path_factory.getbasetemp()) not in (folder / SPLIT).read_text()


def test_read_only_data_folder(root, monkeypatch):
    """Writing into the data folder fails as on a read-only mount (tests may run as root)."""
    real = store_module.atomic_write

    def atomic_write(path):
        if Path(path).is_relative_to(root):
            raise OSError(30, "Read-only file system")
        return real(path)

    monkeypatch.setattr(store_module, "atomic_write", atomic_write)
    first = RSSCN7(make_config(root, shots=2))
    assert Path(first.split_path).is_relative_to(Path.home() / ".cache" / "dplq")
    assert not list(root.rglob("*.json"))
    assert parts(RSSCN7(make_config(root, shots=2))) == parts(first)
    monkeypatch.setenv("DPLQ_CACHE", str(root / "cache"))
    with pytest.raises(UserError, match=r"Cannot write .*Read-only file system\. Set DPLQ_CACHE"):
        RSSCN7(make_config(root))


def test_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        store_module.write_json(tmp_path / "x.json", {"bad": object()})
    assert not list(tmp_path.iterdir())


def truncate(path: Path) -> None:
    """An image whose header is whole and whose second half is missing."""
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Image.open(path) as image:
        assert image.size == (64, 64)


def test_broken_image_is_named_with_the_remedy(root):
    truncate(root / "RSSCN7" / "aGrass" / "a03.jpg")
    (root / "RSSCN7" / "bField" / "b04.jpg").write_text("<html>not found</html>")
    with pytest.raises(UserError) as caught:
        RSSCN7(make_config(root))
    text = str(caught.value)
    assert text.startswith(
        f"{root / 'RSSCN7'}: 2 image(s) cannot be read: aGrass/a03.jpg: cannot be decoded, it is "
        "damaged or truncated (OSError: image file is truncated"
    )
    assert "; bField/b04.jpg: is not an image, or not in a format that can be read" in text
    assert text.endswith("Or set DATASET.SKIP_BROKEN True to leave them out.")
    assert len(parts(RSSCN7(make_config(root, CHECK_IMAGES=False)))["train"]) == 35


def test_broken_images_are_skipped_on_request_and_replaced(root, caplog):
    intact = parts(RSSCN7(make_config(root, shots=2)))["train"]
    three = parts(RSSCN7(make_config(root, shots=3)))["train"]
    bad, _, label_name = intact[0]
    truncate(root / "RSSCN7" / bad)
    skipping = parts(RSSCN7(make_config(root, shots=2, SKIP_BROKEN=True)))["train"]
    assert skipping == [three[1], three[2], *intact[2:]]
    assert f"1 image(s) cannot be read: {bad}: cannot be decoded" in caplog.text
    assert "Skipped." in caplog.text
    assert label_name == "Field"


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("subset", ["all", "base"])
def test_skipping_all_images_of_a_class_is_an_error(root, part, subset):
    RSSCN7(make_config(root))
    for path, label, _ in read(root / "RSSCN7" / SPLIT)[part]:
        if label == 2:
            truncate(root / "RSSCN7" / path)
    with pytest.raises(UserError, match=f"decoded: no {part} image for class 'Grass'"):
        RSSCN7(make_config(root, SKIP_BROKEN=True, SUBSAMPLE_CLASSES=subset))


def test_skipping_every_image_of_the_first_class_names_it(root):
    for path in (root / "RSSCN7" / "aGrass").iterdir():
        truncate(path)
    with pytest.raises(UserError, match="decoded: no train image for class 'Grass'"):
        RSSCN7(make_config(root, SKIP_BROKEN=True))


def test_good_images_are_decoded_once_changed_ones_again(root, monkeypatch):
    decoded = []
    real = images_module.examine
    monkeypatch.setattr(
        images_module,
        "examine",
        lambda path, settings: decoded.append(path) or real(path, settings),
    )
    RSSCN7(make_config(root))
    assert len(decoded) == 70
    RSSCN7(make_config(root, shots=4))
    assert len(decoded) == 70
    changed = root / "RSSCN7" / "aGrass" / "a00.jpg"
    os.utime(changed, ns=(1, 1))
    RSSCN7(make_config(root))
    assert decoded[70:] == [str(changed)]
    (root / "RSSCN7" / "images_checked.json").write_text("{ damaged")
    RSSCN7(make_config(root))
    assert len(decoded) == 141


def test_only_the_images_of_the_run_are_decoded(root):
    dataset = RSSCN7(make_config(root, shots=1, SUBSAMPLE_CLASSES="new"))
    used = {path for items in parts(dataset).values() for path, *_ in items}
    assert len(used) == 3 + 3 + 9
    assert set(read(root / "RSSCN7" / "images_checked.json")["images"]) == used


def test_unknown_subset_is_told_before_any_image_is_decoded(root, monkeypatch):
    monkeypatch.setattr(images_module, "examine", lambda path, settings: pytest.fail("decoded"))
    with pytest.raises(UserError, match="SUBSAMPLE_CLASSES 'novel' is unknown"):
        RSSCN7(make_config(root, SUBSAMPLE_CLASSES="novel"))


def test_absent_keys_have_defaults_and_a_relative_root_works(root, monkeypatch):
    cfg = make_config(Path("."))
    del cfg.DATASET["NUM_SHOTS"]
    monkeypatch.chdir(root)
    dataset = RSSCN7(cfg)
    assert len(dataset.train_x) == 35
    assert triples(dataset.test, str(root / "RSSCN7"))
