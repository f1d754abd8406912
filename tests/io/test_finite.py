"""The search for values that are nan or infinite."""

from __future__ import annotations

import contextlib

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from dplq.io.finite import non_finite


def test_bad_tensors_are_named_with_the_number_of_values():
    bad = torch.tensor([1.0, float("nan"), float("inf")])
    tensors = {"good": torch.ones(2), "bad": bad, "ids": torch.arange(3)}
    assert non_finite(tensors) == ["bad (2 of 3 values)"]
    assert non_finite({"good": torch.ones(2)}) == []
    assert non_finite({}) == []


def test_tensors_of_several_devices_are_not_put_together(monkeypatch):
    """Adam counts its steps on the CPU, where its weights are on a GPU."""
    stacked, stack = [], torch.stack

    def recorded(tensors):
        stacked.append({tensor.device.type for tensor in tensors})
        return stack(tensors)

    monkeypatch.setattr(torch, "stack", recorded)
    with FakeTensorMode(), contextlib.suppress(DataDependentOutputException):  # no values
        non_finite({"weight": torch.empty(2, device="cuda"), "step": torch.ones(())})
    assert stacked == [{"cuda"}]
