"""Training of the demo's models: the second stage of CLIP, which raises its logit scale."""

from __future__ import annotations

import argparse
import copy
import json

import pytest
import torch

import dplq
from tools import make_demo_weights
from tools.make_demo_weights import (
    CLIP_FILE,
    LEARNING_RATE,
    draw,
    make_raised,
    new_clip,
    ramp,
    read_clip,
    train_clip,
    write_clip,
)

ONE_BATCH = len(make_demo_weights.CLASSES)  # pictures: one per class


@pytest.fixture(scope="module")
def pictures():
    return draw("general", "train", 1, workers=1)


def one_step(pictures, **options):
    """Train a random CLIP for one step; return it before and after, and the tokens used."""
    backbone = new_clip(3)
    before = copy.deepcopy(backbone.clip.state_dict())
    used = train_clip(backbone, pictures, 3, 1, ONE_BATCH, **options)
    return before, backbone, used


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, 25.0),
        (1, 25 * 2**0.5),
        (2, 50.0),
        (3.5, 25 * 4**0.875),
        (4, 100.0),
        (6, 100.0),
        (8, 100.0),
    ],
)
def test_the_ramp_is_geometric_over_half_the_epochs_and_then_constant(epoch, expected):
    assert ramp(epoch, 8, 25.0, 100.0) == pytest.approx(expected, rel=1e-12)


def test_the_second_stage_sets_the_scale_and_trains_all_else(pictures):
    before, backbone, used = one_step(pictures, raise_to=100.0)
    assert backbone.logit_scale.item() == pytest.approx(100, rel=1e-6)
    after = backbone.clip.state_dict()
    rate = LEARNING_RATE["raise"]
    unused = before["token_embedding.weight"][~used]
    decayed = after["token_embedding.weight"][~used][1:]  # the first is padding
    torch.testing.assert_close(decayed, unused[1:] * (1 - 0.1 * rate), rtol=1e-6, atol=0)
    for name, value in before.items():
        if name != "logit_scale":
            moved = (after[name] - value).abs().max().item()
            assert 0.5 * rate < moved < 1.2 * rate, name
    assert not any(p.requires_grad for p in backbone.parameters())


def test_the_first_stage_learns_the_scale(pictures):
    before, backbone, _ = one_step(pictures)
    moved = backbone.clip.logit_scale - before["logit_scale"]
    assert moved.abs().item() == pytest.approx(LEARNING_RATE["clip"], rel=1e-2)


def test_a_seed_determines_the_second_stage(pictures):
    (_, one, used), (_, two, same) = (one_step(pictures, raise_to=100.0) for _ in range(2))
    assert torch.equal(used, same)
    for name, value in one.clip.state_dict().items():
        assert torch.equal(value, two.clip.state_dict()[name]), name


def test_a_written_clip_is_raised_once(pictures, tmp_path, monkeypatch):
    """The scale is exact in the file, no embedding is lost, and a second time is refused."""
    monkeypatch.setattr(make_demo_weights, "BATCH", ONE_BATCH)
    path = tmp_path / CLIP_FILE
    untrained = new_clip(3)
    used = torch.zeros(49408, dtype=torch.bool)
    used[[7, 11]] = True
    write_clip(path, untrained, used, {"general": pictures})
    first = path.read_bytes()
    given = argparse.Namespace(
        out=tmp_path, seed=3, raise_pictures=1, raise_epochs=2, workers=1, device="cpu"
    )
    figures = make_raised(given, {"general": pictures})
    assert figures["logit scale"] == 100.0
    assert set(figures["zero-shot accuracy"]) == {"aerial, general look", "tissue, general look"}
    raised, now = read_clip(path, seed=4)
    assert raised.logit_scale.item() == pytest.approx(100, rel=1e-6)
    assert now[[7, 11]].all()
    assert now.sum() > 30
    assert path.read_bytes() != first
    with pytest.raises(dplq.UserError, match=r"its logit scale is 100 already.*--only clip raise"):
        make_raised(given, {"general": pictures})


@pytest.mark.parametrize(
    ("only", "run", "figures"),
    [
        ([], ["clip", "raise", "domain"], {"clip": 1, "raise": 1, "domain": 1}),
        (["--only", "raise", "clip"], ["clip", "raise"], {"clip": 1, "raise": 1, "domain": 0}),
        (["--only", "raise"], ["raise"], {"clip": 0, "raise": 1, "domain": 0}),
        (["--only", "clip"], ["clip"], {"clip": 1, "domain": 0}),
    ],
)
def test_parts_run_in_order_and_figures_of_replaced_weights_go(
    only, run, figures, tmp_path, monkeypatch
):
    done = []

    def part(name):
        return lambda args, tests: done.append(name) or {"new": 1}

    names = ("clip", "raise", "domain")
    monkeypatch.setattr(make_demo_weights, "PARTS", {name: part(name) for name in names})
    monkeypatch.setattr(make_demo_weights, "draw", lambda *args: None)
    monkeypatch.setattr("sys.argv", ["make_demo_weights", "--out", str(tmp_path), *only])
    path = tmp_path / "figures.json"
    path.write_text(json.dumps({name: {"new": 0} for name in names}))
    make_demo_weights.main()
    written = json.loads(path.read_text())
    assert done == run
    assert {name: made["new"] for name, made in written.items()} == figures
    assert list(written) == list(figures)
