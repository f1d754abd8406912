"""Preprocessing that a CLIP's own files ask for: mean, std, interpolation and way to resize."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

import dplq
from dplq.clip.backbone import config_digest
from dplq.clip.layouts.transformers_config import describe
from dplq.errors import UserError
from dplq.images.model_input import ModelInput
from dplq.io import checkpoint
from tests.tiny import tiny_clip_config, write_clip_dir

IMAGE = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
).resize((210, 120), Image.Resampling.BICUBIC)
KINDS: list[dict[str, Any]] = [
    {},
    {"resize_mode": "squash"},
    {"resize_mode": "squash", "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3},
    {"interpolation": "bilinear", "mean": [0.0] * 3, "std": [1.0] * 3},
    {"interpolation": "random"},
]


def model_of(folder: Path, preprocess: dict[str, Any]) -> Any:
    clip = dplq.load_backbone(
        write_clip_dir(folder, tiny_clip_config(), **preprocess), pretrained=False
    )
    return dplq.create_model("CoOp", clip, ["cat", "dog"], n_ctx=2, seed=0)


@pytest.mark.parametrize("given", KINDS, ids=str)
def test_equals_open_clip(tmp_path: Path, given: dict[str, Any]) -> None:
    wanted = image_transform_v2(PreprocessCfg(**{"size": 32, **given}), is_train=False)(IMAGE)
    found = model_of(tmp_path, given).preprocess(IMAGE)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_a_checkpoint_keeps_the_way_to_resize(tmp_path: Path) -> None:
    """One without it, as of earlier versions, is of the shorter edge and the middle."""
    model = model_of(tmp_path / "clip", {"resize_mode": "squash"})
    path = tmp_path / "model.safetensors"
    model.save(path)
    assert checkpoint.read_header(path)["input"]["resize_mode"] == "squash"
    assert dplq.load(path, clip=model.clip).input == model.input
    own = model.input
    model.input = ModelInput(own.size, own.interpolation, own.mean, own.std)
    model.save(path)
    assert checkpoint.read_header(path)["input"]["resize_mode"] == "shortest"
    assert dplq.load(path, clip=model.clip).input.resize_mode == "shortest"
    model.save(path, input=None)
    assert dplq.load(path, clip=model.clip).input.resize_mode == "shortest"
    tensors, header = checkpoint.read(path)
    checkpoint.save(path, tensors, header | {"input": {"resize_mode": "longest"}})
    with pytest.raises(UserError, match=r"input\.resize_mode"):
        dplq.load(path, clip=model.clip)


def test_the_preprocessing_of_a_training_outlives_its_folders(tmp_path: Path) -> None:
    model = model_of(tmp_path / "clip", {"mean": [0.1, 0.2, 0.3], "interpolation": "bilinear"})
    model.save(tmp_path / "model.safetensors")
    config = tmp_path / "clip/open_clip_config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "preprocess_cfg": {}}))
    other = dplq.load(tmp_path / "model.safetensors", weights=str(tmp_path / "clip"))
    assert other.clip.image_mean != model.clip.image_mean
    assert other.input == model.input


def test_another_config_in_the_folder_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(tmp_path / "clip", {})
    model.save(tmp_path / "model.safetensors")
    config = tmp_path / "clip/open_clip_config.json"
    content = json.loads(config.read_text())
    content["model_cfg"]["vision_cfg"]["pool_type"] = "avg"
    config.write_text(json.dumps(content))
    dplq.load(tmp_path / "model.safetensors", weights=str(tmp_path / "clip"))
    said = f"The config of local-dir:{tmp_path / 'clip'} has changed since"
    assert said in caplog.text
    caplog.clear()
    model.save(tmp_path / "model.safetensors", backbone_config="")  # as of earlier versions
    dplq.load(tmp_path / "model.safetensors", weights=str(tmp_path / "clip"))
    assert "has changed since" not in caplog.text


CLIP = {"do_center_crop": True, "size": {"shortest_edge": 32}, "resample": 3}
SIGLIP = {"size": {"height": 32, "width": 32}, "resample": 3, "image_mean": [0.5] * 3}
SIGLIP |= {"image_std": [0.5] * 3}


@pytest.mark.parametrize(
    ("kind", "file", "wanted"),
    [
        ("clip", CLIP, ("shortest", "bicubic", None)),
        ("clip", CLIP | {"size": 32}, ("shortest", "bicubic", None)),
        ("clip", SIGLIP, ("squash", "bicubic", (0.5,) * 3)),
        ("clip", CLIP | {"do_normalize": False}, ("shortest", "bicubic", (0.0,) * 3)),
        ("siglip", SIGLIP | {"rescale_factor": 0.00392156}, ("squash", "bicubic", (0.5,) * 3)),
        ("siglip", SIGLIP | {"rescale_factor": 2 / 255}, ("squash", "bicubic", (0.25,) * 3)),
        (
            "clip",
            CLIP | {"image_mean": [102.0] * 3, "do_rescale": False},
            ("shortest", "bicubic", (0.4,) * 3),
        ),
        ("siglip", SIGLIP | {"do_rescale": False}, ("squash", "bicubic", (0.5 / 255,) * 3)),
        ("siglip", SIGLIP, ("squash", "bicubic", (0.5,) * 3)),
        ("siglip", SIGLIP | {"resample": 2}, ("squash", "bilinear", (0.5,) * 3)),
        ("siglip", {}, ("squash", "bicubic", (0.5,) * 3)),
        ("siglip", CLIP, ("shortest", "bicubic", (0.5,) * 3)),
    ],
)
def test_a_preprocessor_of_transformers(
    tmp_path: Path, kind: str, file: dict[str, Any], wanted: tuple[Any, ...]
) -> None:
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    towers = {"text_config": sizes, "vision_config": sizes | {"num_hidden_layers": 12}}
    content = {"model_type": kind, "projection_dim": 512, **towers}
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(file))
    found = describe(tmp_path / "config.json", tmp_path / "preprocessor_config.json").preprocess
    assert (found["resize_mode"], found["interpolation"], found.get("mean")) == wanted


def test_another_interpolation_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
    content = {"model_type": "clip", "text_config": sizes, "vision_config": sizes}
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CLIP | {"resample": 1}))
    describe(tmp_path / "config.json", tmp_path / "preprocessor_config.json")
    assert "resized bicubically, not with resample 1 of its preprocessor_config.json" in caplog.text


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"size": {"shortest_edge": 48}, "crop_size": 224}, "by size {'shortest_edge': 48} of"),
        ({"size": 256, "crop_size": {"height": 224, "width": 224}}, "by size 256 of"),
        ({"size": {"longest_edge": 224}}, "by size {'longest_edge': 224} of"),
        ({"size": 224, "crop_size": 200}, "by crop_size 200 of"),
        ({"size": 224, "crop_size": 200, "do_center_crop": False}, ""),
        ({"size": {"height": 224, "width": 224}, "crop_size": {"height": 224, "width": 224}}, ""),
        ({"size": [224, 224]}, ""),
    ],
)
def test_another_size_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: dict[str, Any], said: str
) -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
    content = {"model_type": "clip", "text_config": sizes, "vision_config": sizes}
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(file))
    describe(tmp_path / "config.json", tmp_path / "preprocessor_config.json")
    assert ("resized to the model's 224 pixels at once, not" in caplog.text) == bool(said)
    assert said in caplog.text


@pytest.mark.parametrize("resample", [2, 3])
def test_equals_siglips_processor(tmp_path: Path, resample: int) -> None:
    transformers = pytest.importorskip("transformers", "5.0")
    given = {**SIGLIP, "resample": resample, "size": {"height": 32, "width": 32}}
    wanted = transformers.SiglipImageProcessorPil(**given)(IMAGE, return_tensors="pt")
    kind = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    kind["interpolation"] = {2: "bilinear", 3: "bicubic"}[resample]
    found = model_of(tmp_path, kind).preprocess(IMAGE)
    torch.testing.assert_close(found, wanted["pixel_values"][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "is_warned"),
    [("ViT-B-16-SigLIP", True), ("PE-Core-B-16", True), ("ViT-B-32", False), ("ViT-B/32", False)],
)
def test_files_without_a_tag(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, is_warned: bool
) -> None:
    """Which images their weights want is not known where no tag says it."""
    from dplq.clip.sources import find_source

    file = tmp_path / "weights.pt"
    file.touch()
    with caplog.at_level(logging.WARNING):
        source = find_source(name, str(file), pretrained=True, seed=0)
    said = f"all published weights of {name} want others: name the model with its tag, such as"
    assert (said in caplog.text) == is_warned
    assert not source.preprocess
    if is_warned:
        (tag,) = [tag for model, tag in open_clip.list_pretrained() if model == name][:1]
        told = find_source(f"{name}:{tag}", str(file), pretrained=True, seed=0)
        assert told.preprocess["resize_mode"] == "squash"
        assert tuple(told.preprocess["mean"]) == (0.5, 0.5, 0.5)
        assert told.file == file


@pytest.mark.parametrize(
    ("place", "act"),
    [
        ("vit_base_patch32_clip_224.openai", "quickgelu"),
        ("models--timm--vit_base_patch32_clip_224.openai/snapshots/1a", "quickgelu"),
        ("models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K/snapshots/1a", "gelu"),
    ],
)
def test_files_of_the_hub_are_known_by_their_repository(place: str, act: str) -> None:
    from dplq.clip.known_files import find_known

    known = find_known(Path("/files", place, "open_clip_model.safetensors"))
    assert known is not None
    assert known.act == act


@pytest.mark.parametrize(("kind", "digest"), [("clip", "1b80a0ee"), ("siglip", "ef1e2196")])
def test_the_digest_of_a_config_stays(tmp_path: Path, kind: str, digest: str) -> None:
    """Checkpoints record it: another one for the same file would refuse them."""
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    vision = sizes | {"num_hidden_layers": 12, "layer_norm_eps": 1e-6}
    content = {"model_type": kind, "text_config": sizes, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps({**content, "transformers_version": "9"}))
    config = describe(tmp_path / "config.json", None).config
    assert config_digest(config).startswith(digest)
    for changed in ({"quick_gelu": None}, {"text_cfg": {**config["text_cfg"], "act_kwargs": 1}}):
        assert config_digest({**config, **changed}).startswith(digest)
    assert not config_digest({**config, "embed_dim": 1}).startswith(digest)
