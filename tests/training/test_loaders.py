"""Accelerated loaders: the images of Dassl's own, bit for bit, with and without a cache."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from dplq.domain.encoder import DomainEncoder
from dplq.errors import UserError
from dplq.host.config import extend_cfg
from dplq.host.dassl import ensure_dassl
from dplq.io import checkpoint
from dplq.io.spec import Spec
from dplq.training.loaders import accelerate_loader
from tests.runner import make_project, train

ensure_dassl()

from dassl.config import get_cfg_default  # noqa: E402
from dassl.data.data_manager import build_data_loader  # noqa: E402
from dassl.data.datasets import Datum  # noqa: E402
from dassl.data.transforms import build_transform  # noqa: E402


def config(workers=0, cache="", *more):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (32, 32), "bicubic"
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize", *more)
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.IMAGE_CACHE = workers, cache
    return cfg


def loader(cfg, images, is_train=True):
    with contextlib.redirect_stdout(io.StringIO()):
        return build_data_loader(
            cfg,
            sampler_type="RandomSampler" if is_train else "SequentialSampler",
            data_source=images,
            batch_size=4,
            tfm=build_transform(cfg, is_train=is_train),
            is_train=is_train,
        )


def epochs(batches, seeds=(5, 6, 5)):
    """The batches of several epochs, each seeded as the trainers do."""
    found = []
    for seed in seeds:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        found.append(list(batches))
    return found


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.keys() == b.keys()
            assert a["impath"] == b["impath"]
            assert torch.equal(a["label"], b["label"])
            assert a["img"].dtype == b["img"].dtype
            assert torch.equal(a["img"], b["img"])


@pytest.mark.parametrize("is_train", [True, False], ids=["train", "test"])
@pytest.mark.parametrize(
    ("workers", "cache"), [(0, ""), (2, ""), (2, "decoded"), (0, "decoded"), (0, "resized")]
)
def test_same_as_dassls_own_bit_for_bit(images, workers, cache, is_train):
    """Images, order and the state of the generators; only resized training images may differ."""
    plain = loader(config(workers), images, is_train)
    cfg = config(workers, cache)
    accelerated = accelerate_loader(loader(cfg, images, is_train), cfg, is_train=is_train)
    expected, state = epochs(plain), torch.get_rng_state()
    got = epochs(accelerated)
    assert torch.equal(torch.get_rng_state(), state)
    if cache == "resized" and is_train:
        for batch, other in zip(got[0], expected[0], strict=True):
            assert batch["impath"] == other["impath"]
            assert (batch["img"] - other["img"]).abs().mean() < 0.8  # of a range of 4
    else:
        assert_same(got, expected)
    assert len(accelerated) == len(plain)
    assert list(accelerated.dataset.originals) == images
    assert bool(accelerated.num_workers) == bool(workers)
    assert accelerated.persistent_workers == (is_train and workers > 0)


@pytest.mark.parametrize(("workers", "cache"), [(0, ""), (2, ""), (0, "decoded"), (0, "resized")])
def test_images_are_read_as_the_config_says(tmp_path, workers, cache):
    """12 bits in a 16-bit PNG, the second of two pages, with and without a cache."""
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    paths = [str(tmp_path / f"{i}.tif") for i in range(4)]
    for path in paths:
        tifffile.imwrite(path, np.stack([values * 0, values]), photometric="minisblack")
    items = [Datum(path, 0, 0, "x") for path in paths]
    cfg = config(workers, cache)
    cfg.INPUT.SIZE, cfg.INPUT.WINDOW, cfg.INPUT.FRAME = (64, 64), [0, 4095], 2
    (batch,) = accelerate_loader(loader(cfg, items, False), cfg, is_train=False)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))
    got = (batch["img"][0] * std + mean) * 255
    want = np.floor(values / 4095 * 255 + 0.5)
    assert np.abs(got.numpy() - want).max() < 0.01
    assert [type(path) for path in batch["impath"]] == [str] * 4
    assert batch["impath"] == paths


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_one_line_also_from_a_worker(images, tmp_path, workers):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    batches = loader(config(workers), [*images[:5], Datum(str(bad), 1, 0, "class 1")], False)
    accelerated = accelerate_loader(batches, config(workers), is_train=False)
    with pytest.raises(UserError) as caught:
        list(accelerated)
    assert str(caught.value) == f"{bad} is empty (0 bytes); get the file again."


def test_old_and_new_workers_draw_the_same(images):
    """Python's, NumPy's and torch's generators depend on the epoch's seed and the worker alone."""
    cfg = config(2)

    class Draws:
        def __init__(self, data):
            self.data_source, self.transform = data, None

        def __len__(self):
            return len(self.data_source)

        def __getitem__(self, index):
            drawn = (random.random(), np.random.random(), torch.rand(()).item())
            return {"label": index, "img": torch.tensor(drawn, dtype=torch.float64)}

    def fresh():
        plain = torch.utils.data.DataLoader(Draws(images), batch_size=4, num_workers=2)
        return accelerate_loader(plain, cfg, is_train=True)

    old = epochs(fresh())
    for seed, epoch in zip((5, 6), old, strict=False):
        assert_same(epochs(fresh(), [seed]), [epoch])
    numbers = torch.cat([batch["img"] for batch in old[0]])
    assert len(numbers.unique()) == 3 * len(images)  # no two workers draw alike
    assert not torch.equal(old[0][0]["img"], old[1][0]["img"])


def test_closed_workers_have_ended_and_start_again(images):
    cfg = config(2)
    accelerated = accelerate_loader(loader(cfg, images), cfg, is_train=True)
    (before,) = epochs(accelerated, [5])
    workers = list(accelerated._iterator._workers)
    assert [worker.is_alive() for worker in workers] == [True, True]
    for _ in range(2):
        accelerated.close()
        assert [worker.is_alive() for worker in workers] == [False, False]
    assert_same(epochs(accelerated, [5]), [before])
    accelerated.close()


def test_several_views_and_other_last_steps(images):
    for changes in ({"K_TRANSFORMS": 2}, {"RETURN_IMG0": True}):
        cfg = config()
        cfg.DATALOADER.merge_from_list([word for pair in changes.items() for word in pair])
        expected, got = (
            epochs(batches, [1])[0][0]
            for batches in (
                loader(cfg, images),
                accelerate_loader(loader(cfg, images), cfg, is_train=True),
            )
        )
        for key in ("img", *(["img0"] if "RETURN_IMG0" in changes else [])):
            several = zip(expected[key], got[key], strict=True)
            assert all(torch.equal(a, b) for a, b in several), key
    cfg = config(0, "", "gaussian_noise", "cutout")
    assert_same(
        epochs(accelerate_loader(loader(cfg, images), cfg, is_train=True)),
        epochs(loader(cfg, images)),
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu(images):
    device = torch.device("cuda")
    cfg = config(2)
    accelerated = accelerate_loader(loader(cfg, images), cfg, is_train=True, device=device)
    assert accelerated.pin_memory
    got = [[{**b, "img": b["img"].cpu()} for b in epoch] for epoch in epochs(accelerated)]
    assert_same(got, epochs(loader(cfg, images)))


def test_unknown_kind_of_cache(images):
    cfg = config(cache="pickled")
    with pytest.raises(UserError, match=r"DATALOADER\.IMAGE_CACHE is 'pickled'; it must"):
        accelerate_loader(loader(cfg, images), cfg, is_train=True)


# In a run


def choose_cache_folder(folder):
    os.environ["DPLQ_CACHE"] = folder


def test_runs_with_each_cache(tmp_path):
    """Decoded: the same weights and scores. Resized: a run of its own, not mixed with others."""
    flags = make_project(tmp_path)
    weights, scores = {}, {}
    for cache in ("", "decoded", "resized"):
        out = tmp_path / f"out{cache}"
        given = [*flags, "--output-dir", str(out), "DATALOADER.IMAGE_CACHE", cache]
        given += ["OPTIM.MAX_EPOCH", "2"]
        done = train(tmp_path / f"log{cache}", given, choose_cache_folder, str(tmp_path / "c"))
        assert done.code == 0, done.err
        assert ("are read from the image cache" in done.out) == bool(cache)
        weights[cache], _ = checkpoint.read(out / "prompt_learner/model-2.safetensors")
        scores[cache] = json.loads((out / "results.json").read_text())["per_class_accuracy"]
    assert scores["decoded"] == scores[""]
    for key, tensor in weights[""].items():
        assert torch.equal(weights["decoded"][key], tensor)
    assert (tmp_path / "c" / "images").is_dir()
    given = [*flags, "--output-dir", str(tmp_path / "outresized"), "OPTIM.MAX_EPOCH", "2"]
    mixed = train(tmp_path / "mixed", given, choose_cache_folder, str(tmp_path / "c"))
    assert mixed.code == 2
    assert "DATALOADER.IMAGE_CACHE: there 'resized', now ''" in mixed.err


class Seen(nn.Module):
    """An encoder that records what it is given."""

    num_prefix_tokens, num_features = 0, 3

    def forward_features(self, images):
        self.images = images
        return images.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("min_max", [False, True])
def test_the_domain_encoders_larger_input_is_made_on_the_images_device(min_max):
    """The meta device stands for a GPU: an operation with a tensor elsewhere would be an error."""
    encoder = DomainEncoder(
        Seen(),
        spec=Spec("seen"),
        image_size=1024,
        feature_dim=3,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        min_max=min_max,
    )
    images = torch.empty(2, 3, 224, 224, device="meta")
    assert encoder(images).device == images.device
    assert encoder.encoder.images.shape == (2, 3, 1024, 1024)
    assert encoder.encoder.images.device == images.device
