"""The cache folder, digests, and packaged models."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dplq.io.files import bytes_digest, cache_root, file_digest
from dplq.io.packaged import packaged_model


def test_cache_root(monkeypatch, tmp_path):
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.setenv("DPLQ_CACHE", "")
    assert cache_root() == Path.home() / ".cache" / "dplq"


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("sha256", lambda content: hashlib.sha256(content)),
        ("md5", lambda content: hashlib.md5(content)),
        ("blake2b-128", lambda content: hashlib.blake2b(content, digest_size=16)),
    ],
)
def test_digests_of_files_and_bytes(tmp_path, algorithm, expected):
    content = b"0123456789abcdef" * 100_000  # more than one chunk
    path = tmp_path / "file"
    path.write_bytes(content)
    wanted = expected(content).hexdigest()
    assert file_digest(path, algorithm) == bytes_digest(content, algorithm) == wanted


def test_packaged_models_are_found_by_name():
    model = packaged_model("demo")
    assert model is not None
    assert model.__name__ == "dplq.demo.models"
    assert packaged_model("ViT-B/16") is None
