"""Fixtures of the domain encoders' tests."""

from __future__ import annotations

import pytest

from tests.domain.helpers import (
    MAE,
    SMALL_VIT,
    small,
)


@pytest.fixture
def small_mae(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mae_vit_base_patch16` is small."""
    small(MAE, monkeypatch, **SMALL_VIT)
