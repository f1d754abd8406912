"""What tests of trainers in this process share."""

from __future__ import annotations

import pytest

from tests.fuzz.tiny_runs import project_config


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The config of a tiny project."""
    return project_config(tmp_path_factory.mktemp("project"))
