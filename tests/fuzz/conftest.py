"""A tiny project for all fuzz tests."""

from __future__ import annotations

import pytest
import torch

from tests.fuzz.campaign import Held
from tests.fuzz.tiny_runs import project_config


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The folder of a tiny project, and its config; runs in it cache nothing elsewhere."""
    folder = tmp_path_factory.mktemp("project")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPLQ_CACHE", str(folder / "cache"))
        yield Held(folder=folder, cfg=project_config(folder))
    torch.set_num_threads(threads)
