"""What tests of training share: a cache of their own, and images."""

from __future__ import annotations

import pytest

from tests.images.noise import write_noise


@pytest.fixture(autouse=True)
def with_own_cache(own_cache):
    pass


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Thirteen noisy JPEGs of three classes."""
    from dassl.data.datasets import Datum

    paths = write_noise(tmp_path_factory.mktemp("images"))
    return [Datum(path, i % 3, 0, f"class {i % 3}") for i, path in enumerate(paths)]
