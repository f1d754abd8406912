"""Datasets, samplers, transforms, loaders."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from dassl.data import DataManager, build_data_loader
from dassl.data.datasets import DatasetBase, Datum, build_dataset
from dassl.data.samplers import build_sampler
from dassl.data.transforms import AVAI_CHOICES, build_transform
from dassl.utils import ChoiceError, InputError, read_image, set_random_seed
from torchvision.transforms import functional as TF

from dplq.errors import UserError
from tests.fallback.toys import CLASSES, toy_config, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    write_images(root)
    return root


@pytest.fixture
def cfg(images, tmp_path):
    return toy_config(images, tmp_path)


def _items(*counts: int) -> list[SimpleNamespace]:
    """Records of classes 0, 1, ... with so many images each; the domain is the parity."""
    return [
        SimpleNamespace(label=label, domain=number % 2, name=f"{label}-{number}")
        for label, count in enumerate(counts)
        for number in range(count)
    ]


def test_missing_image_and_empty_data(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"image file not found: '.*gone\.jpg'"):
        Datum(str(tmp_path / "gone.jpg"))
    with pytest.raises(InputError, match="must be a string, got int"):
        Datum(3)
    with pytest.raises(ValueError, match="DatasetBase: there is no training image"):
        DatasetBase(train_x=[], test=[])


def test_unknown_dataset_lists_choices(cfg):
    cfg.DATASET.NAME = "toys"
    with pytest.raises(ChoiceError, match=r"unknown dataset 'toys'.*Toy"):
        build_dataset(cfg)


def test_few_shot_draws_are_random_sample_in_label_order(images, cfg, capsys):
    data = _items(5, 2, 4)
    base = build_dataset(cfg)
    random.seed(1)
    got = base.generate_fewshot_dataset(data, data[:5], num_shots=3)
    random.seed(1)
    groups = [data[:5], data[5:7], data[7:]]
    expected = [
        random.sample(groups[0], 3) + groups[1] + random.sample(groups[2], 3),
        random.sample(groups[0], 3),
    ]
    assert got == expected
    repeated = base.generate_fewshot_dataset(data, num_shots=4, repeat=True)
    assert Counter(item.label for item in repeated) == {0: 4, 1: 4, 2: 4}
    assert base.generate_fewshot_dataset(data, num_shots=0) is data
    assert "Creating a 3-shot dataset\n" in capsys.readouterr().out


def test_dataset_properties(cfg):
    cfg.DATASET.NUM_SHOTS = -1
    data = build_dataset(cfg)
    assert (data.num_classes, data.classnames) == (3, list(CLASSES))
    assert data.lab2cname == dict(enumerate(CLASSES))
    assert [len(part) for part in (data.train_x, data.val, data.test)] == [15, 6, 9]
    domains = data.split_dataset_by_domain(data.train_x)
    assert {domain: len(items) for domain, items in domains.items()} == {0: 9, 1: 6}
    data.domains = ["art", "photo"]
    data.check_input_domains(["art"], ["photo"])
    with pytest.raises(ValueError, match=r"unknown domain 'foto'\. Did you mean 'photo'"):
        data.check_input_domains(["art"], ["foto"])
    with pytest.raises(InputError, match="SOURCE_DOMAINS is empty"):
        data.check_input_domains([], ["art"])


@pytest.fixture
def download(tmp_path, monkeypatch):
    """Have a file "downloaded" by `DatasetBase.download_data` into the folder data."""

    def run(name: str, content: bytes) -> Path:
        def fetch(url, dst):
            Path(dst).write_bytes(content)

        monkeypatch.setattr("dassl.data.datasets.base_dataset.fetch", fetch)
        dst = tmp_path / "data" / name
        DatasetBase.download_data(None, "http://here", str(dst), from_gdrive=False)
        return dst.parent

    return run


def zip_of(**members: str) -> bytes:
    with zipfile.ZipFile(content := io.BytesIO(), "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


def files_in(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix == ".txt"
    }


def test_a_download_is_unpacked_beside_itself(download):
    folder = download("a.zip", zip_of(**{"a/b.txt": "1", "c.txt": "2", "empty/": ""}))
    (folder / "own.txt").write_text("mine")
    (folder / "a" / "own.txt").write_text("mine")
    assert download("a.zip", zip_of(**{"a/b.txt": "3"})) == folder
    own = {"own.txt": "mine", "a/own.txt": "mine"}
    assert files_in(folder) == {"a/b.txt": "3", "c.txt": "2", **own}
    assert (folder / "empty").is_dir()
    assert sorted(path.name for path in folder.iterdir()) == [
        *(".a.zip.lock", "a", "a.zip", "c.txt", "empty", "own.txt")
    ]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.zip", zip_of(**{"a.txt": "1", "../evil.txt": "1"}), r"a path with '\.\.'"),
        ("a.zip", b"<html>", "is damaged"),
        ("a.tar.zst", b"", r"cannot be unpacked here: it must be one of \.zip \.tar"),
        ("a.zip", zip_of(**{"own.txt/a.txt": "1"}), "Move that away, then try again"),
    ],
    ids=["outside", "damaged", "unknown", "in the way"],  # a zip holds the time, a name must not
)
def test_a_bad_download_changes_nothing(download, tmp_path, name, content, text):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/own.txt").write_text("mine")
    with pytest.raises(UserError, match=text):
        download(name, content)
    assert files_in(tmp_path) == {"data/own.txt": "mine"}
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        *(f".{name}.lock", name, "own.txt")
    ]


def test_links_in_a_download_are_refused(download):
    with tarfile.open(fileobj=(content := io.BytesIO()), mode="w:gz") as archive:
        info = tarfile.TarInfo("a")
        info.type, info.linkname = tarfile.SYMTYPE, "../b"
        archive.addfile(info)
    with pytest.raises(UserError, match=r"is a link to '\.\./b'"):
        download("a.tar.gz", content.getvalue())


def test_domain_samplers_balance_each_batch():
    data = _items(8, 8)
    for name in ("RandomDomainSampler", "SeqDomainSampler"):
        sampler = build_sampler(name, data_source=data, batch_size=4, n_domain=2)
        drawn = list(sampler)
        assert len(drawn) == len(sampler) == len(set(drawn)) == 16
        for start in range(0, 16, 4):
            domains = [data[index].domain for index in drawn[start : start + 4]]
            assert sorted(domains) == [0, 0, 1, 1]
            assert name == "RandomDomainSampler" or domains == [0, 0, 1, 1]
    with pytest.raises(InputError, match="batch size 5 is not a multiple of the 2 domains"):
        build_sampler("SeqDomainSampler", data_source=data, batch_size=5)
    with pytest.raises(InputError, match=r"needs 8 images of each domain.*only 1"):
        build_sampler("SeqDomainSampler", data_source=_items(3), batch_size=16)


def test_class_sampler_gives_n_ins_of_each_class():
    data = _items(5, 4, 1)
    sampler = build_sampler("RandomClassSampler", data_source=data, batch_size=4, n_ins=2)
    drawn = list(sampler)
    assert len(drawn) % 4 == 0
    assert len(drawn) >= 4
    for start in range(0, len(drawn), 2):
        assert data[drawn[start]].label == data[drawn[start + 1]].label
    with pytest.raises(InputError, match="smaller than N_INS 8"):
        build_sampler("RandomClassSampler", data_source=data, batch_size=4, n_ins=8)
    with pytest.raises(InputError, match=r"needs 4 classes.*the data has 3"):
        build_sampler("RandomClassSampler", data_source=data, batch_size=8, n_ins=2)
    with pytest.raises(ChoiceError, match="unknown sampler 'Random'"):
        build_sampler("Random", data_source=data)


def test_test_pipeline_is_resize_crop_normalise(cfg, images, capsys):
    image = read_image(images / "red_0.png")
    got = build_transform(cfg, is_train=False)(image)
    crop = TF.center_crop(TF.resize(image, 16), [16, 16])
    expected = TF.normalize(TF.to_tensor(crop), cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)
    assert torch.equal(got, expected)
    assert capsys.readouterr().out.splitlines() == [
        "Building transform_test",
        "+ resize the smaller edge to 16",
        "+ 16x16 center crop",
        "+ to torch tensor of range [0, 1]",
        "+ normalization (mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])",
    ]


@pytest.mark.parametrize("choice", AVAI_CHOICES)
def test_every_choice_gives_a_tensor_of_the_input_size(cfg, images, choice):
    set_random_seed(0)
    out = build_transform(cfg, choices=[choice])(read_image(images / "red_0.png"))
    assert out.shape == (3, 16, 16)
    assert out.dtype == torch.float32


def test_cutout_and_instance_norm(cfg, images):
    from dassl.data.image_ops import Cutout, InstanceNormalization

    set_random_seed(0)
    holes = Cutout(n_holes=1, length=4)(torch.ones(3, 16, 16))
    assert int((holes == 0).sum()) in {3 * a * b for a in (2, 3, 4) for b in (2, 3, 4)}
    normal = InstanceNormalization()(torch.rand(3, 16, 16))
    assert torch.allclose(normal.mean((1, 2)), torch.zeros(3), atol=1e-6)
    assert torch.allclose(normal.std((1, 2)), torch.ones(3), atol=1e-6)


def test_transform_errors(cfg):
    with pytest.raises(ChoiceError, match=r"unknown INPUT\.TRANSFORMS entry 'flip'.*random_flip"):
        build_transform(cfg, choices=["flip"])
    cfg.INPUT.INTERPOLATION = "cubic"
    with pytest.raises(ChoiceError, match="Did you mean 'bicubic'"):
        build_transform(cfg)


def test_loaders_drop_only_a_spare_batch(cfg, capsys):
    manager = DataManager(cfg)
    assert [len(loader) for loader in (manager.train_loader_x, manager.test_loader)] == [3, 1]
    assert "# classes  3\n# train_x  12\n" in capsys.readouterr().out
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 64
    assert len(DataManager(cfg).train_loader_x) == 1
    with pytest.raises(InputError, match="dataset 'Toy' has no test images"):
        build_data_loader(cfg, data_source=[], is_train=False)


def test_batches_hold_what_the_trainers_read(cfg, images):
    cfg.DATALOADER.K_TRANSFORMS, cfg.DATALOADER.RETURN_IMG0 = 2, True
    manager = DataManager(cfg)
    batch = next(iter(manager.train_loader_x))
    assert [tuple(view.shape) for view in batch["img"]] == [(4, 3, 16, 16)] * 2
    assert batch["img0"].shape == (4, 3, 16, 16)
    names = [f"{CLASSES[label]}" for label in batch["label"]]
    assert [Path(path).name.split("_")[0] for path in batch["impath"]] == names
    test = next(iter(manager.test_loader))
    assert test["label"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert test["index"].tolist() == list(range(9))
    assert test["domain"].tolist() == [1, 0, 1] * 3
