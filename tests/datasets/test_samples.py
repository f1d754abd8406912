"""The real samples beside the project, where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from dplq import datasets

from .lookalikes import RSSCN7_PROMPTS, make_config, parts

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.parametrize(("name", "classes"), [("RSSCN7", 7), ("WHURS19", 19), ("BTMRI", 4)])
def test_samples(name, classes, tmp_path, monkeypatch):
    if not (SAMPLES / name).is_dir():
        pytest.skip(f"no sample data in {SAMPLES}")
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path))
    before = sorted((SAMPLES / name).rglob("*"))
    dataset = getattr(datasets, name)(make_config(SAMPLES))
    counts = [len(items) for items in parts(dataset).values()]
    assert counts == [20 * classes, 8 * classes, 12 * classes]
    assert dataset.num_classes == classes
    few = getattr(datasets, name)(make_config(SAMPLES, shots=16, SUBSAMPLE_CLASSES="new"))
    assert len(few.train_x) == 16 * (classes // 2)
    whole = getattr(datasets, f"{name}v2")(make_config(SAMPLES))
    assert len(whole.test) == 40 * classes
    assert whole.classnames == dataset.classnames
    assert sorted((SAMPLES / name).rglob("*")) == before
    if name == "RSSCN7":
        assert dataset.classnames == RSSCN7_PROMPTS
