"""`model.preprocess` and `image_batches` against the test loader of a config, bit for bit."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import dplq
from dplq.cli.predict import main
from dplq.errors import UserError
from dplq.evaluation.prediction_table import PredictionTable
from dplq.host.config import extend_cfg
from dplq.host.dassl import ensure_dassl
from dplq.images.batches import image_batches
from dplq.images.model_input import ModelInput
from dplq.images.reader import convert_image, read_image
from dplq.images.settings import ReadSettings
from dplq.io import checkpoint
from dplq.io.runs.results import read_results
from dplq.training.loaders import accelerate_loader
from tests.images.noise import write_noise
from tests.runner import make_project, train
from tests.tiny import tiny_backbone, tiny_clip_config, write_clip_dir

ensure_dassl()

from dassl.config import get_cfg_default  # noqa: E402
from dassl.data.data_manager import build_data_loader  # noqa: E402
from dassl.data.datasets import Datum  # noqa: E402
from dassl.data.transforms import build_transform  # noqa: E402

from dplq.trainers._engine.checkpoints import warn_of_input, warn_of_lacking_classes  # noqa: E402
from dplq.trainers._engine.validation import check_input, input_of  # noqa: E402

NAMES = ["forest", "river", "parking lot"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Files of several shapes and kinds: JPEG, turned JPEG, palette, grey, alpha, 16 bits."""
    folder = tmp_path_factory.mktemp("images")
    paths = write_noise(folder)[:4]
    random = np.random.default_rng(1)
    colours = random.integers(0, 256, (50, 71, 3), dtype=np.uint8)
    kinds = {
        "palette.png": Image.fromarray(colours).quantize(16),
        "grey.png": Image.fromarray(colours[..., 0]),
        "alpha.png": Image.fromarray(np.dstack([colours, colours[..., :1]])),
        "deep.png": Image.fromarray(random.integers(0, 4096, (40, 33)).astype(np.uint16)),
    }
    for name, image in kinds.items():
        image.save(folder / name)
        paths.append(str(folder / name))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(colours).save(folder / "turned.jpg", exif=turned)
    kinds["deep.png"].save(folder / "turned.png", exif=turned)
    return [*paths, str(folder / "turned.jpg"), str(folder / "turned.png")]


def config(**given):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.INPUT.SIZE, cfg.DATALOADER.NUM_WORKERS = (32, 32), 0
    cfg.INPUT.TRANSFORMS = ("random_flip", "normalize")
    for key, value in given.items():
        setattr(cfg.INPUT, key, value)
    return cfg


def loaded(cfg, paths):
    """The images of the accelerated test loader."""
    with contextlib.redirect_stdout(io.StringIO()):
        plain = build_data_loader(
            cfg,
            data_source=[Datum(path, 0, 0, "a") for path in paths],
            batch_size=4,
            tfm=build_transform(cfg, is_train=False),
            is_train=False,
        )
    batches = accelerate_loader(plain, cfg, is_train=False)
    return torch.cat([batch["img"] for batch in batches])


@pytest.mark.parametrize(
    "given",
    [
        {"INTERPOLATION": "bicubic", "WINDOW": [0, 4095]},
        {"INTERPOLATION": "bilinear", "PIXEL_MEAN": [0.5, 0.4, 0.3], "WINDOW": "percentile"},
        {"TRANSFORMS": ("random_flip",), "BACKGROUND": [255, 0, 9]},
        {"TRANSFORMS": ("normalize", "instance_norm"), "PIXEL_STD": [0.1, 0.2, 0.3]},
    ],
    ids=["bicubic", "bilinear", "not normalised", "instance norm"],
)
def test_the_transform_is_that_of_the_test_loader(images, given):
    cfg = config(**given)
    expected, found = loaded(cfg, images), input_of(cfg.INPUT, tiny_backbone())
    transform = found.transform()
    ours = torch.stack([transform(Image.open(path)) for path in images])
    assert torch.equal(ours, expected)
    for workers in (0, 2):
        batches = list(image_batches(images, found, batch_size=4, workers=workers))
        assert [len(batch.indices) for batch in batches] == [4, 4, 2]
        assert torch.equal(torch.cat([batch.images for batch in batches]), expected)


def test_images_that_cannot_be_read_are_beside_their_batch(images, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n")
    given = input_of(config().INPUT, tiny_backbone())
    paths = [images[0], str(broken), images[1], str(tmp_path / "absent.png")]
    first, second = image_batches(paths, given, batch_size=3)
    assert (first.indices, len(first.images), first.refused[0].at) == ([0, 2], 2, 1)
    assert second.images is None
    assert "absent.png cannot be opened" in str(second.refused[0].error)


def test_images_are_converted_as_their_files_are_read(images):
    for path in images:
        settings = ReadSettings(window=(0, 4095), background=(9, 8, 7))
        image = convert_image(Image.open(path), settings)
        expected = read_image(path, settings)
        assert (image.mode, image.size) == ("RGB", expected.size)
        assert image.tobytes() == expected.tobytes()
        assert convert_image(expected, settings).tobytes() == expected.tobytes()  # not turned twice
    floats = Image.fromarray(np.float32([[0, 7]]))
    with pytest.raises(UserError, match=r"This image .*set INPUT.WINDOW"):
        convert_image(floats)


def test_a_backbone_has_its_own_preprocessing(tmp_path):
    name = write_clip_dir(
        tmp_path, tiny_clip_config(), mean=[0.5] * 3, std=[0.25] * 3, interpolation="bilinear"
    )
    clip = dplq.load_backbone(name, pretrained=False)
    steps = dplq.create_model("ZeroshotCLIP", clip, NAMES).preprocess.transforms
    assert [type(step).__name__ for step in steps] == [
        *("ToRGB", "Resize", "CenterCrop", "ToTensor", "Normalize")
    ]
    assert (steps[1].size, steps[1].interpolation.value) == (32, "bilinear")
    assert (steps[-1].mean, steps[-1].std) == ((0.5,) * 3, (0.25,) * 3)


def test_a_checkpoint_records_the_preprocessing(tmp_path):
    model = dplq.create_model("CoOp", tiny_backbone(), NAMES, n_ctx=2, seed=0)
    path = tmp_path / "model.safetensors"
    model.save(path)
    own = {
        "interpolation": "bicubic",
        "mean": list(model.clip.image_mean),
        "std": list(model.clip.image_std),
        "instance_norm": False,
        "resize_mode": "shortest",
    }
    assert checkpoint.read_header(path)["input"] == own
    assert "reading" not in checkpoint.read_header(path)
    assert dplq.load(path, clip=model.clip).input == model.input
    cfg = config(INTERPOLATION="bilinear", PIXEL_STD=[0.5, 0.5, 0.25], BANDS=[3, 2, 1])
    model.input = input_of(cfg.INPUT, model.clip)
    model.save(path)
    header = checkpoint.read_header(path)
    changed = {"interpolation": "bilinear", "mean": list(cfg.INPUT.PIXEL_MEAN)}
    assert header["input"] == {**own, **changed, "std": [0.5, 0.5, 0.25]}
    assert header["reading"] == {"BANDS": [3, 2, 1]}
    assert dplq.load(path, clip=model.clip).input == model.input
    tensors, header = checkpoint.read(path)
    checkpoint.save(path, tensors, header | dict(input={"interpolation": "lanczos"}))
    with pytest.raises(UserError, match=r"header, .*input\.interpolation"):
        dplq.load(path, clip=model.clip)
    checkpoint.save(path, tensors, header | dict(input={"mean": [0.5, 0.5]}))
    with pytest.raises(UserError, match=r"input\.mean"):
        dplq.load(path, clip=model.clip)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose images are interpolated otherwise than the backbone's, and its flags."""
    folder = tmp_path_factory.mktemp("run")
    flags = [*make_project(folder), "--output-dir", str(folder / "run")]
    more = ["OPTIM.MAX_EPOCH", "1", "INPUT.INTERPOLATION", "bilinear"]
    ended = train(folder / "log", [*flags, *more])
    assert ended.code == 0, ended.err
    return folder, flags


def test_predict_gives_the_runs_own_predictions(finished, capsys):
    """The issue's: `dplq predict` on the test images has the accuracy of the run."""
    folder, _ = finished
    results = read_results(folder / "run/results.json")
    tested = PredictionTable.read(folder / "run/predictions.csv")
    labels = [tested.classes[label] for label in tested.labels]
    rows = "".join(f"{path},{name}\n" for path, name in zip(tested.paths, labels, strict=True))
    (folder / "data/test.csv").write_text("path,label\n" + rows, encoding="utf-8")
    out = folder / "test.csv"
    given = [str(folder / "run"), str(folder / "data/test.csv"), "--out", str(out)]
    assert main([*given, "--weights", str(folder / "clip")]) == 0
    assert f"accuracy: {results.accuracy:.2f} %" in capsys.readouterr().out
    model = dplq.load(folder / "run", weights=str(folder / "clip"))
    assert model.input.interpolation == "bilinear"
    (path,) = (folder / "run/prompt_learner").glob("model-1.safetensors")
    assert checkpoint.read_header(path)["input"]["interpolation"] == "bilinear"


def test_a_test_that_interpolates_otherwise_is_warned_of(finished):
    folder, flags = finished
    flags = flags[:-2]
    ended = train(
        folder / "again",
        [*flags, "--eval-only", "--model-dir", str(folder / "run"), "--load-epoch", "1"],
    )
    assert ended.code == 0, ended.err
    said = "INPUT.INTERPOLATION is bicubic, but the model was trained with bilinear"
    assert said in ended.err + ended.out


def test_what_a_checkpoint_does_not_record_is_compared_too(caplog):
    """Trained as the backbone was, and tested otherwise: the header has no entry."""
    own = ModelInput(32, "bicubic", (0.5,) * 3, (0.5,) * 3)
    warn_of_input(own, own, {})
    assert caplog.text == ""
    warn_of_input(own, replace(own, interpolation="bilinear", instance_norm=True), {})
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(
        "INPUT.INTERPOLATION is bilinear, but the checkpoint records nothing but the backbone's "
        "own, bicubic: unless it is of a version that did not record this"
    )
    assert second.startswith("instance_norm is in INPUT.TRANSFORMS, but")
    caplog.clear()
    warn_of_input(replace(own, instance_norm=True), own, {"instance_norm": True})
    assert caplog.messages == [
        "instance_norm is not in INPUT.TRANSFORMS, but the model was trained with True: it sees "
        "other images"
    ]
    caplog.clear()
    warn_of_input(replace(own, resize_mode="squash"), own, {"resize_mode": "squash"})
    assert caplog.messages == [
        "Images are resized by shortest, but the model was trained with squash: it sees other "
        "images"
    ]


@pytest.mark.parametrize(
    ("tested", "said"),
    [
        (
            ["cyst", "normal"],
            "is tested among the 2 that have images here, not tumor: that is easier",
        ),
        (["normal", "Tumor", "cy_st"], ""),
        (
            ["Cyst", "nor_mal", "stone"],
            "Tested, too, though the model was not trained on it: stone.",
        ),
        (["Cyst", "nor_mal", "stone"], "among the 3 that have images here, not tumor"),
        (["cyst", "stone"], ""),  # another task
        (["cyst", "normal", "tumor", "stone"], ""),  # a generalised test
    ],
)
def test_a_test_among_some_of_the_trained_classes_says_so(caplog, tested, said):
    warn_of_lacking_classes(["cyst", "normal", "tumor"], tested)
    assert said in caplog.text
    assert bool(said) == bool(caplog.messages)


def test_a_run_says_that_it_crops_what_others_squash(caplog, tmp_path):
    name = write_clip_dir(tmp_path, tiny_clip_config(), resize_mode="squash")
    clip = dplq.load_backbone(name, pretrained=False)
    caplog.clear()
    check_input(config().INPUT, clip)
    said = caplog.messages[-1]
    assert "cropped, but " in said
    assert said.endswith("of images that are not square, what is cropped is not seen.")
    assert input_of(config().INPUT, clip).resize_mode == "shortest"


def test_images_that_are_not_normalised_are_warned_of(caplog):
    clip = tiny_backbone()
    given = config(PIXEL_MEAN=list(clip.image_mean), PIXEL_STD=list(clip.image_std)).INPUT
    given.INTERPOLATION = clip.interpolation
    caplog.clear()
    check_input(given, clip)
    assert not caplog.messages
    given.TRANSFORMS, given.INTERPOLATION = (), "bilinear"
    check_input(given, clip)
    first, second = caplog.messages
    assert "Images are NOT NORMALISED, as INPUT.TRANSFORMS (empty) lacks normalize" in first
    assert f'INPUT.PIXEL_MEAN "{list(clip.image_mean)}" and INPUT.PIXEL_STD' in first
    assert "INPUT.INTERPOLATION is bilinear, but" in second
    assert second.endswith("was trained with bicubic: set it in the config file.")


def test_images_of_which_each_is_standardised_are_not_warned_of(caplog):
    clip = tiny_backbone()
    given = config(INTERPOLATION=clip.interpolation, TRANSFORMS=("instance_norm",)).INPUT
    caplog.clear()
    check_input(given, clip)
    assert not caplog.messages
