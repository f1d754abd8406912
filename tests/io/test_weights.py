"""Reading of foreign checkpoints: what may stand beside the tensors."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch

from dplq.errors import UserError
from dplq.io.weights import read_content


def renamed(path, old: bytes, new: bytes):
    """Write a checkpoint's pickle with another module name, as another version of numpy does."""
    target = path.with_name("renamed.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as archive:
        for member in source.infolist():
            archive.writestr(member.filename, source.read(member).replace(old, new))
    return target


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_numbers_of_numpy_may_stand_beside_the_weights(tmp_path, module):
    path = tmp_path / "model.pt"
    numbers = {"best": np.float64(61.5), "step": np.int64(7), "done": np.bool_(True)}
    torch.save({"state_dict": {"weight": torch.ones(2)}, **numbers}, path)
    here = np.float64.__reduce__(np.float64(0))[0].__module__
    content = read_content(renamed(path, here.encode(), f"{module}.multiarray".encode()))
    assert {key: content[key] for key in numbers} == numbers


@pytest.mark.parametrize("value", [np.array([1.0]), np.array([print], dtype=object), np.dtype("O")])
def test_other_objects_of_numpy_may_not(tmp_path, value):
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(2), "other": value}, path)
    with pytest.raises(UserError, match=r"seems to hold more than weights|cannot be read"):
        read_content(path)
