"""Weights are found before the images: what is missing is said at once, with what to do."""

from __future__ import annotations

import pytest

import dplq.plugin
from dplq.domain.load import find_domain_weights
from dplq.errors import UserError
from dplq.host.dassl import find_trainer
from dplq.host.weights import check_weights
from dplq.io import hub
from tests.runner import make_project, train


@pytest.fixture(autouse=True)
def without_network(monkeypatch, tmp_path):
    """The hub does not answer, and its cache is empty."""
    monkeypatch.setattr(hub, "_answers_now", lambda address: False)
    monkeypatch.setattr(hub, "_answers", {"https://huggingface.co": (0.0, False)})
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", str(tmp_path / "hub"))
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path / "cache"))


def config(**keys):
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    dplq.plugin.extend_cfg(cfg)
    cfg.MODEL.BACKBONE.NAME = "demo"
    for key, value in keys.items():
        *sections, leaf = key.split("__")
        node = cfg
        for section in sections:
            node = node[section]
        node[leaf] = value
    return cfg


def problem(trainer="QuaternionPrompt", **keys):
    with pytest.raises(UserError) as caught:
        check_weights(config(**keys), find_trainer(trainer))
    return str(caught.value)


def test_packaged_models_are_there():
    check_weights(config(DOMAIN__ENCODER="demo"), find_trainer("QuaternionPrompt"))


def test_both_weights_are_missing_and_both_are_named():
    clip, domain = problem(
        MODEL__BACKBONE__NAME="ViT-B/16", DOMAIN__ENCODER="mae_vit_base_patch16"
    ).splitlines()
    assert "cannot get the weights of 'ViT-B/16'" in clip
    assert "https://huggingface.co cannot be reached" in clip
    assert "https://huggingface.co/timm/vit_base_patch16_clip_224.openai" in clip  # from where
    assert "ViT-B-16.pt" in clip  # which file
    assert "MODEL.INIT_WEIGHTS" in clip  # where to
    assert "'mae_vit_base_patch16' has no weights to download" in domain
    assert "pretrained=False (MODEL.BACKBONE.PRETRAINED False)" in clip
    assert "pretrained=False (DOMAIN.PRETRAINED False)" in domain
    assert clip.count("ViT-B-16.pt") == 1
    assert "mae_pretrain_vit_base.pth of https://dl.fbaipublicfiles.com/mae" in domain
    assert "DOMAIN.WEIGHTS" in domain


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"MODEL__INIT_WEIGHTS": "gone.pt"}, "no weights at '"),
        ({"MODEL__BACKBONE__NAME": "ViT-B-16:gone.pt"}, "no weights at '"),
        ({"MODEL__BACKBONE__NAME": "ViT-B-61"}, "unknown CLIP model 'ViT-B-61'"),
        ({"MODEL__BACKBONE__NAME": "remoteclip-vit-b-32"}, "Run `dplq models get"),
        ({"MODEL__BACKBONE__NAME": "hf-hub:o/n"}, "https://huggingface.co/o/n and name it"),
        ({"DOMAIN__ENCODER": "demo", "DOMAIN__WEIGHTS": "gone.pth"}, "'gone.pth': no such file"),
        ({"DOMAIN__ENCODER": "mae-vit-b"}, "The weights of 'mae-vit-b' are not on this machine"),
        ({"DOMAIN__ENCODER": "vit_tiny_patch16_224"}, "https://huggingface.co/timm/vit_tiny"),
        ({"DOMAIN__ENCODER": "hf-hub:o/n"}, "'hf-hub:o/n': its config.json cannot be downloaded"),
        ({"DOMAIN__ENCODER": "vit_tony"}, "unknown domain encoder 'vit_tony'"),
        ({"DOMAIN__ENCODER": ["demo", "mae-vit-b"]}, "The weights of 'mae-vit-b'"),
    ],
)
def test_what_is_missing_is_said(keys, wanted):
    assert wanted in problem(**{"DOMAIN__ENCODER": "clip", **keys})


def test_random_weights_need_no_file():
    keys = {"MODEL__BACKBONE__NAME": "ViT-B/16", "MODEL__BACKBONE__PRETRAINED": False}
    keys |= {"DOMAIN__ENCODER": "mae_vit_base_patch16", "DOMAIN__PRETRAINED": False}
    check_weights(config(**keys), find_trainer("QuaternionPrompt"))


def test_a_trainer_without_a_domain_encoder_needs_no_weights_of_one():
    check_weights(config(DOMAIN__ENCODER="mae_vit_base_patch16"), find_trainer("CoOp"))


def test_no_encoder_needs_no_file(tmp_path):
    assert find_domain_weights("none") == []
    assert find_domain_weights("clip") == []
    (tmp_path / "a.pth").touch()
    file = tmp_path / "a.pth"
    assert find_domain_weights("mae_vit_base_patch16", weights=str(file)) == [file]


def test_a_run_without_weights_writes_nothing_and_reads_no_image(tmp_path):
    flags = make_project(tmp_path)
    for path in (tmp_path / "data").rglob("*.png"):
        path.write_bytes(b"no image")  # would be refused, and named, if it were read
    run = tmp_path / "run"
    options = ["MODEL.BACKBONE.NAME", "ViT-B-32:gone.pt", "MODEL.BACKBONE.PRETRAINED", "True"]
    done = train(tmp_path / "log", [*flags, "--output-dir", str(run), *options])
    assert done.code == 2
    assert "no weights at '" in done.err
    assert not [path for path in run.rglob("*") if path.name != ".lock"]
    assert not list((tmp_path / "data").glob("*.json"))


def test_the_home_folder_is_expanded_in_every_encoders_weights(monkeypatch, tmp_path):
    (tmp_path / "file.pth").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("mae_vit_base_patch16", "uni", "vit_tiny_patch16_224"):
        assert find_domain_weights(name, weights="~/file.pth") == [tmp_path / "file.pth"]
