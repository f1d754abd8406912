"""A look-alike with the declared numbers of images, and a home of its own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from .lookalike import dataset, noisy


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path_factory):
    """Nothing is written outside the test's folders; the look-alikes have the right numbers."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for variable in ("DPLQ_CACHE", "DATA", "HF_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    cls = dataset("RSSCN7")
    for key, value in {"images_per_class": 6, "total_images": 42, "download": ()}.items():
        monkeypatch.setattr(cls, key, value)


@pytest.fixture
def root(tmp_path) -> Path:
    noisy(tmp_path / "data" / "RSSCN7")
    return tmp_path / "data"
