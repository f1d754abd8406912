"""Checkpoints: exact round trips, strictness, and what happens when the disk is full."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch
from torch import nn

from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.io.checkpoint import DamagedFile


def write_format_1(path, tensors, header):
    """Write a file as version 0.1.0 did, without a checksum; `header` may be any text."""
    import safetensors.torch

    text = header if isinstance(header, str) else json.dumps({"format": 1, **header})
    path.write_bytes(safetensors.torch.save(tensors, {"dplq": text}))


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


def test_every_flipped_bit_and_every_truncation_is_found(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"a": torch.arange(4.0), "b": torch.ones(1)}, {"epoch": 1, "n": ["x"]})
    whole = path.read_bytes()
    bits = range(8 * len(whole))
    damaged = [
        bytes(b ^ (1 << bit % 8) * (i == bit // 8) for i, b in enumerate(whole)) for bit in bits
    ]
    damaged += [whole[:length] for length in range(len(whole))] + [whole + b"x"]
    # One open file: to empty an old file anew costs ext4 a write to the disk each time.
    with open(path, "r+b", buffering=0) as file:
        for content in damaged:
            file.seek(0)
            file.write(content)
            file.truncate()
            with pytest.raises(DamagedFile, match=r"c\.safetensors .*[Rr]estore it"):
                checkpoint.read(path)
    assert path.read_bytes() == whole + b"x"
    path.write_bytes(whole)
    assert checkpoint.read_header(path) == {"format": 2, "epoch": 1, "n": ["x"]}


def test_files_without_a_checksum(tmp_path):
    """Format 1 has none, format 2 must have one, and an old file with one must be whole."""
    path, tensors = tmp_path / "c.safetensors", {"a": torch.ones(2)}
    write_format_1(path, tensors, {"epoch": 3})
    assert checkpoint.read(path)[1] == {"format": 1, "epoch": 3}
    for header in ({"format": 2}, {"checksum": "0" * 32}, {"format": True}, {"format": 1.0}):
        write_format_1(path, tensors, header)
        with pytest.raises(DamagedFile, match="its checksum is not that of its content"):
            checkpoint.read(path)
    for header in (
        "{broken",
        "[1]",
        "null",
        '{"format": 1, "format": 1}',
        '{"x": NaN}',
        "[" * 9999,
    ):
        write_format_1(path, tensors, header)
        with pytest.raises(DamagedFile, match=r"c\.safetensors is damaged: in its header, "):
            checkpoint.read(path)


def test_equal_content_gives_equal_files(tmp_path):
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        checkpoint.save(file, {"a": torch.ones(2), "b": torch.zeros(3)}, {"epoch": 1})
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_header_must_be_finite(tmp_path):
    with pytest.raises(UserError, match="c is not written: its header is no JSON"):
        checkpoint.save(tmp_path / "c", {}, {"val_result": float("nan")})
    assert not (tmp_path / "c").exists()


def test_a_damaged_epoch_names_the_good_ones(tmp_path):
    for epoch in (1, 2, 10, 30):
        value = float("nan") if epoch == 2 else 1.0
        tensors = {"a": torch.full((2,), value)}
        checkpoint.save(tmp_path / f"model-{epoch}.safetensors", tensors, {"epoch": epoch})
    path = tmp_path / "model-30.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFile) as caught:
        checkpoint.read(path)
    assert str(caught.value) == (
        f"{path} is damaged: its checksum is not that of its content. Restore it from a copy; "
        "or delete it and the results.json of its run, and the command of the training makes both "
        "again. Of the epochs beside it these are good: 1, 10 (--load-epoch of train.py)."
    )
    path.rename(tmp_path / "model-best.safetensors")
    with pytest.raises(DamagedFile, match=r"a copy, or train again \(train.py --overwrite\)\. Of"):
        checkpoint.read(tmp_path / "model-best.safetensors")


def test_weights_that_are_not_finite_are_not_loaded(tmp_path):
    layer = nn.Linear(2, 3)
    tensors = {**layer.state_dict(), "bias": torch.tensor([1.0, float("inf"), float("nan")])}
    with pytest.raises(UserError, match=r"f holds weights .* infinite: bias \(2 of 3 values\)"):
        checkpoint.load_strictly(layer, tensors, "f")
    assert torch.isfinite(layer.bias).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, r: t.update(momentum=torch.ones(2)), "momentum belongs to no parameter"),
        (lambda t, r: t.update({"7.exp_avg": torch.ones(2)}), "7.exp_avg belongs to no parameter"),
        (lambda t, r: r.append(r[0]), "a parameter is there twice"),
        (lambda t, r: r.append([7, {}]), "parameter 7 has the entries none"),
        (lambda t, r: t.pop("0.exp_avg"), "parameter 0 has the entries step, exp_avg_sq"),
        (lambda t, r: t.update({"0.exp_avg": torch.ones(3)}), "0.exp_avg is not what"),
        (lambda t, r: t.update({"0.step": torch.ones(1, dtype=torch.int64)}), "0.step is not what"),
        (lambda t, r: t["0.exp_avg"].fill_(float("nan")), r"infinite: 0.exp_avg \(4 of 4"),
    ],
)
def test_a_state_of_another_optimiser_is_refused(change, message):
    optimiser = torch.optim.Adam([nn.Parameter(torch.ones(2, 2))])
    optimiser.param_groups[0]["params"][0].grad = torch.ones(2, 2)
    optimiser.step()
    tensors, rest = checkpoint.flatten_optimizer(optimiser)
    checkpoint.restore_optimizer(optimiser, dict(tensors), list(rest))
    change(tensors, rest)
    with pytest.raises(ValueError, match=message):
        checkpoint.restore_optimizer(optimiser, tensors, rest)
