"""Split files, the stored split, classes.json, tables, the config of a CLIP's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

from dplq.clip.backbone import CONFIG_FILE, load_backbone
from dplq.datasets import OwnImages
from dplq.datasets._engine.protocol import Item, Split
from tests.datasets.lookalikes import make_config, parts, write_image
from tests.datasets.sound_splits import CLASSES, NONSENSE, VALID, require_sound
from tests.fuzz.campaign import Refusal, fuzzed, outcome, untouched
from tests.fuzz.mutations import NONSENSE as ANYTHING
from tests.fuzz.mutations import damaged, json_files
from tests.tiny import tiny_clip_config

MOST_LINES = 40  # of a message: the layouts that a data folder may have are shown as a tree
NAMES = {"apple tree": "apple tree", "boat": "boat", "dune": "sand dune"}
ROWS = [
    f"{path},{NAMES[name]},{part},site {number}"
    for part, rows in VALID.items()
    for number, (path, _, name) in enumerate(rows)
]
TABLE = "\n".join(["path,label,split,group", *ROWS]).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder of class folders; what is made of it goes to a cache of its own."""
    root = tmp_path_factory.mktemp("data") / "images"
    for path in (row[0] for rows in VALID.values() for row in rows):
        write_image(root / path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPLQ_CACHE", str(root.parent / "cache"))
        yield root


def load(root, **keys):
    dataset = OwnImages(make_config(root, **keys))
    for path in (i.impath for part in parts_of(dataset) for i in part):
        assert Path(path).is_file(), path
    return dataset


def parts_of(dataset):
    return dataset.train_x, dataset.val, dataset.test


def require_sound_dataset(dataset, *, is_given=False):
    """Require a sound split; where it is not given, but drawn, every image is there once."""
    named = parts(dataset)
    require_sound(Split(*([Item(*row) for row in rows] for rows in named.values())))
    assert dataset.num_classes == len(dataset.classnames) >= 1
    if not is_given:
        paths = [path for rows in named.values() for path, *_ in rows]
        assert len(set(paths)) == len(paths)


def tried(kind, root, path, content, **keys):
    """Load the dataset with a file in place, which is gone afterwards; require what it must be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        with untouched(root):
            got = outcome(kind, lambda: load(root, **keys), lines=MOST_LINES)
    finally:
        path.unlink(missing_ok=True)
        for left in root.parent.glob("cache/**/split_*"):
            left.unlink()
    if not isinstance(got, Refusal):
        require_sound_dataset(got, is_given="SPLIT_FILE" in keys)


@fuzzed(0.08, content=json_files(VALID, NONSENSE))
def test_split_files(content, folder):
    tried("split files", folder, folder / "given.json", content, SPLIT_FILE="given.json")


@fuzzed(0.04, content=json_files(VALID, NONSENSE))
def test_stored_splits(content, folder):
    """A split of ours that was stored: it is used, brought up to date, or refused, but not lost."""
    from dplq.datasets._engine.store import Store

    path = Store(str(folder), "OwnImages").outside / "split_dplq_OwnImages.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        with untouched(folder):
            got = outcome("stored splits", load, folder)
        assert path.is_file()
        if isinstance(got, Refusal):
            assert path.read_bytes() == content
        else:
            require_sound_dataset(got, is_given=True)
    finally:
        path.unlink()


@fuzzed(0.04, content=json_files(NAMES, st.one_of(NONSENSE, ANYTHING)))
def test_classes(content, folder):
    tried("classes.json", folder, folder / "classes.json", content)


@fuzzed(0.03, content=json_files(list(NAMES.values()), st.one_of(NONSENSE, ANYTHING)))
def test_lists_of_classes(content, folder):
    tried("classes.json", folder, folder / "classes.json", content)


@fuzzed(0.06, content=damaged(TABLE), name=st.sampled_from(["t.csv", "t.tsv"]))
def test_tables(content, name, folder):
    """Tables are damaged as text: a row or a column less, other names, quotes, bytes."""
    if name.endswith("tsv"):
        content = content.replace(b",", b"\t")
    tried("tables", folder, folder / name, content, SPLIT_FILE=name)


CLIP = {"model_cfg": tiny_clip_config(), "preprocess_cfg": {"mean": [0.5] * 3, "size": [32, 32]}}


@fuzzed(0.03, content=json_files(CLIP))
def test_configs_of_a_clip(content, tmp_path_factory):
    """A folder with a CLIP's config: a model that encodes, or a message."""
    folder = tmp_path_factory.getbasetemp() / "fuzzed_clip"
    folder.mkdir(exist_ok=True)
    (folder / CONFIG_FILE).write_bytes(content)

    def encode():
        clip = load_backbone(f"local-dir:{folder}", pretrained=False)
        size = clip.image_size
        with torch.no_grad():
            texts = clip.encode_text(clip.tokenize(list(CLASSES)))
            return texts, clip.encode_image(torch.zeros(1, 3, size, size))

    with untouched(folder):
        got = outcome("configs of a CLIP", encode)
    if not isinstance(got, Refusal):
        texts, image = got
        assert texts.shape == (len(CLASSES), image.shape[1])
        assert torch.isfinite(texts).all()
        assert torch.isfinite(image).all()


def test_the_valid_files_are_read(folder):
    """The mutations are of files that are accepted."""
    for name, content, count in (
        ("given.json", json.dumps(VALID).encode(), 18),
        ("t.csv", TABLE, 18),
    ):
        (folder / name).write_bytes(content)
        dataset = load(folder, SPLIT_FILE=name)
        assert sum(map(len, parts_of(dataset))) == count
        (folder / name).unlink()
