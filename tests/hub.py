"""A hub for tests: a local folder in place of every repository."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError


class Hub:
    """Stands in for `huggingface_hub.hf_hub_download`.

    Args:
        folder: the files of each repository.

    Attributes:
        asked: (repository, file, revision) of each call.
        broken: files whose download fails.
        uncached: files that are not in the cache, and the network is away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str, str | None]] = []
        self.broken: Collection[str] = ()
        self.uncached: Collection[str] = ()

    def download(self, repository: str, file: str, revision: str | None = None) -> str:
        """Return the path of a file, or raise what the hub's client raises."""
        self.asked.append((repository, file, revision))
        if file in self.broken:
            raise ConnectionError("no network\nat all")
        if file in self.uncached:
            raise LocalEntryNotFoundError(f"{file} is not in the cache")
        if not (self.folder / file).is_file():
            raise EntryNotFoundError("404")
        return str(self.folder / file)


def use_hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Hub:
    """Have downloads come from a folder."""
    hub = Hub(folder)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    monkeypatch.setattr("dplq.io.hub.hub_access", nullcontext)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "no cache"))
    return hub
