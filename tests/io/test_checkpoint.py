"""Checkpoints: exact round trips, strictness, and what happens when the disk is full."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from torch import nn

from dplq.errors import UserError
from dplq.io import checkpoint


def test_round_trip_is_exact(tmp_path):
    tensors = {"a": torch.randn(3, 4).T, "scalar": torch.tensor(0.1), "empty": torch.zeros(0, 2)}
    checkpoint.save(tmp_path / "x" / "c.safetensors", tensors, {"epoch": 3, "names": ["a"]})
    read, header = checkpoint.read(tmp_path / "x" / "c.safetensors")
    assert header == {"format": 2, "epoch": 3, "names": ["a"]}
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch, failing):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"a": torch.ones(2)}, {"epoch": 1})
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing == "write":
        monkeypatch.setattr("builtins.open", full)
    else:
        monkeypatch.setattr(os, failing, full)
    with pytest.raises(
        UserError, match=r"Cannot write .*No space left.*that was there is unchanged"
    ):
        checkpoint.save(path, {"a": torch.zeros(2)}, {"epoch": 2})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(UserError, match=r"There is no checkpoint at .*none\.safetensors"):
        checkpoint.read(tmp_path / "none.safetensors")
    pickled = tmp_path / "model.pth.tar-5"
    torch.save({"state_dict": {}}, pickled)
    with pytest.raises(UserError, match=r"model\.pth\.tar-5 is not a readable safetensors file"):
        checkpoint.read(pickled)
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="has no dplq header"):
        checkpoint.read(tmp_path / "plain.safetensors")
    truncated = tmp_path / "cut.safetensors"
    truncated.write_bytes((tmp_path / "plain.safetensors").read_bytes()[:-2])
    with pytest.raises(UserError, match=r"cut\.safetensors is not a readable"):
        checkpoint.read(truncated)


def test_loading_is_strict():
    layer = nn.Linear(2, 3)
    good = layer.state_dict()
    with pytest.raises(UserError, match="bias is missing"):
        checkpoint.load_strictly(layer, {"weight": good["weight"]}, "f")
    with pytest.raises(UserError, match="extra is not part of this model"):
        checkpoint.load_strictly(layer, {**good, "extra": torch.ones(1)}, "f")
    with pytest.raises(UserError, match=r"weight is \(3, 4\), the model has \(3, 2\)"):
        checkpoint.load_strictly(layer, {**good, "weight": torch.ones(3, 4)}, "f")


def test_header_comparison_names_both_values():
    header = {"backbone": {"name": "ViT-B/16", "seed": 0}, "depth": 9, "more": 1}
    checkpoint.check_header(header, {"backbone": {"name": "ViT-B/16"}, "depth": 9}, "f")
    with pytest.raises(UserError) as caught:
        checkpoint.check_header(header, {"backbone": {"name": "ViT-B/32"}, "depth": 3}, "f")
    assert "backbone.name: there 'ViT-B/16', now 'ViT-B/32'" in str(caught.value)
    assert "depth: there 9, now 3" in str(caught.value)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_optimiser_state_round_trip(tmp_path, make):
    """Two optimisers, one restored from the other's state, take the same next step."""

    def step(parameters, optimiser, seed):
        generator = torch.Generator().manual_seed(seed)
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator)
        optimiser.step()

    settings = {"lr": 0.1, "momentum": 0.9} if make is torch.optim.SGD else {"lr": 0.1}
    first = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))]
    one = make(first, **settings)
    step(first, one, 0)
    tensors, rest = checkpoint.flatten_optimizer(one)
    checkpoint.save(tmp_path / "o.safetensors", tensors, {"rest": rest})
    tensors, header = checkpoint.read(tmp_path / "o.safetensors")
    second = [nn.Parameter(p.detach().clone()) for p in first]
    two = make(second, **settings)
    checkpoint.restore_optimizer(two, tensors, header["rest"])
    step(first, one, 1)
    step(second, two, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
