"""A model and images for `dplq predict`."""

from __future__ import annotations

import os

import pytest

import dplq
from dplq.cli.predict import main
from tests.images.noise import write_noise
from tests.tiny import tiny_backbone

NAMES = ["forest", "river", "parking_lot", "storage, tank"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two checkpoints, and twelve images in a folder with a sub-folder."""
    folder = tmp_path_factory.mktemp("predict")
    clip = tiny_backbone(folder / "clip")  # found beside the checkpoints
    for seed in (0, 1):
        model = dplq.create_model("CoOp", clip, NAMES, n_ctx=2, seed=seed)
        model.save(folder / f"{seed}.safetensors")
    dplq.create_model("LinearProbe", clip, NAMES).save(folder / "probe.safetensors")
    (folder / "images/more").mkdir(parents=True)
    for path in write_noise(folder / "images")[9:]:
        os.replace(path, folder / "images/more" / os.path.basename(path))
    os.remove(folder / "images/0.jpg")
    return folder


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """Call the command on a checkpoint, in the folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(folder)

    def call(*arguments, model="0.safetensors"):
        code = main([model, *map(str, arguments), "--batch-size", "3"])
        return code, *capsys.readouterr()

    return call
