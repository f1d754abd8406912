"""Real samples converted to other kinds of file: the same pixels, the same predictions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from yacs.config import CfgNode

from benchmarks.conversions import CONVERSIONS, convert, largest_difference
from benchmarks.converted_samples import GREY, write_table
from dplq import datasets
from dplq.clip.backbone import load_backbone
from dplq.images.preprocessing import to_pixels
from dplq.images.reader import read_image
from tests.datasets.lookalikes import make_config

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "data"
SAMPLED = {"BTMRI": 8, "RSSCN7": 4}  # images per class
KINDS = {  # conversion -> what the reader says the files are: of grey images, of coloured ones
    "PNG, 8 bits": ("8-bit grey", "8-bit RGB"),
    "PNG, 16 bits": ("16-bit grey", "16-bit RGB"),
    "PNG, 12 bits in 16, INPUT.WINDOW": ("16-bit grey", "16-bit RGB"),
    "TIFF, 16 bits": ("16-bit grey", "16-bit RGB"),
    "TIFF, 32-bit float": ("32-bit float grey", "32-bit float RGB"),
    "DICOM, 8 bits": ("8-bit DICOM", "8-bit DICOM, RGB"),
    "DICOM, 12 bits": ("12-bit DICOM", ""),
    "DICOM, 16 bits": ("16-bit DICOM", ""),
    "DICOM, 12 bits, MONOCHROME1": ("12-bit DICOM", ""),
    "PNG, RGBA, opaque": ("8-bit RGB with alpha",) * 2,
    "PNG, 8 bits, black border": ("8-bit grey", "8-bit RGB"),
    "PNG, RGBA, border hides colours": ("8-bit RGB with alpha",) * 2,
}
ORIGINALS = ""
BY_NAME = {conversion.name: conversion for conversion in CONVERSIONS}


@pytest.fixture(scope="module", params=SAMPLED)
def folders(request, tmp_path_factory):
    """Yield the folders of a dataset, with a few images of each of its classes."""
    name = request.param
    if not (SAMPLES / name).is_dir():
        pytest.skip(f"no sample data in {SAMPLES}")
    root = tmp_path_factory.mktemp(name) / "originals"
    classes = sorted({path.parent for path in (SAMPLES / name).rglob("*.jpg")})
    for folder in classes:
        target = root / folder.relative_to(SAMPLES)
        target.mkdir(parents=True)
        for path in sorted(folder.glob("*.jpg"))[: SAMPLED[name]]:
            shutil.copy(path, target)
    write_table(root, name, root.parent / "split.csv", shots=40)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for so small a model more are slower
    yield Folders(name, root, load_backbone("demo").eval())
    torch.set_num_threads(threads)


class Folders:
    """A dataset's originals and their conversions, each made and read once."""

    def __init__(self, name, root, clip):
        self.name, self.clip = name, clip
        self.roots, self.seen = {ORIGINALS: root}, {}

    def add(self, conversion):
        """Convert the originals, unless that is done."""
        if conversion.name not in self.roots:
            root = self.roots[conversion.name] = self.roots[ORIGINALS].parent / conversion.name
            convert(self.roots[ORIGINALS], root, conversion)

    @torch.no_grad()
    def outcome(self, name):
        """Return the kinds of file, the test's stems, and the logits of two classifiers.

        These are zero-shot CLIP, and the mean training feature of each class.
        """
        if name in self.seen:
            return self.seen[name]
        config = make_config(self.roots[name], SPLIT_FILE=str(self.table))
        if name and BY_NAME[name].settings.window:
            config.INPUT = CfgNode({"WINDOW": BY_NAME[name].settings.window})
        dataset = getattr(datasets, self.name)(config)
        features = {}
        for part, items in (("train", dataset.train_x), ("test", dataset.test)):
            pixels = torch.stack([to_pixels(read_image(i.impath).resize((64, 64))) for i in items])
            images = pixels.permute(0, 3, 1, 2) / 255 - 0.5
            features[part] = F.normalize(self.clip.encode_image(images), dim=1)
        texts = self.clip.encode_text(self.clip.tokenize(dataset.classnames))
        labels = torch.tensor([item.label for item in dataset.train_x])
        classes = range(dataset.num_classes)
        means = torch.stack([features["train"][labels == k].mean(0) for k in classes])
        logits = [features["test"] @ F.normalize(rows, dim=1).T for rows in (texts, means)]
        stems = [Path(item.impath).stem for item in dataset.test]
        self.seen[name] = dataset.image_summary["kinds"], stems, logits
        return self.seen[name]

    @property
    def table(self):
        """The split of all folders."""
        return self.roots[ORIGINALS].parent / "split.csv"


@pytest.mark.parametrize("conversion", CONVERSIONS, ids=lambda c: c.name)
def test_conversion(folders, conversion):
    is_grey = folders.name in GREY
    if conversion.grey_only and not is_grey:
        pytest.skip("for grey images")
    for name in filter(None, (conversion.origin, conversion.name)):
        folders.add(BY_NAME[name])
    one, other = (folders.roots[name] for name in (conversion.name, conversion.origin))
    assert largest_difference(one, other, conversion.settings) == 0
    kinds, stems, logits = folders.outcome(conversion.name)
    _, same_stems, wanted = folders.outcome(conversion.origin)
    assert list(kinds) == [KINDS[conversion.name][not is_grey]]
    assert stems == same_stems
    for got, want in zip(logits, wanted, strict=True):
        assert (got.argmax(1) != want.argmax(1)).sum() <= 1
        assert torch.allclose(got, want, atol=1e-5)
    assert len(wanted[1].argmax(1).unique()) > 1  # a constant would hide everything


def test_hidden_colours_would_count(folders):
    """The border holds random colours, which differ from the black that is shown."""
    conversion = BY_NAME["PNG, RGBA, border hides colours"]
    folders.add(conversion)
    path = next(folders.roots[conversion.name].rglob("*.png"))
    with Image.open(path) as image:
        assert np.asarray(image)[0, :, :3].std() > 50
    assert not np.asarray(read_image(path))[0].any()
