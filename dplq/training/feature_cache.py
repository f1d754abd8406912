"""On-disk cache of domain features, shared by trainers, seeds and runs.

A frozen encoder maps a test image to the same pooled feature every time. Features are stored under
`dplq.io.files.cache_root()`, one safetensors file per encoder and preparation of the images, keyed
by the content of the image files: names, folders and times do not matter.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.io.files import ALGORITHMS, cache_root, file_digest

logger = logging.getLogger(__name__)
DIGEST = "blake2b-128"  # of encoders and image files


class Encoder(Protocol):
    """What the cache needs of a frozen domain encoder; its `spec` may be absent."""

    def identity(self) -> Mapping[str, Tensor]:
        """Return tensors that differ between encoders."""


class FeatureCache:
    """Features of image files, by content.

    Args:
        encoder: the frozen domain encoder; its `spec` and `identity` are part of the key.
        preparation: how files become inputs (JSON-able): transforms, precision, versions.
    """

    def __init__(self, encoder: Encoder, preparation: Mapping[str, Any]) -> None:
        spec = getattr(encoder, "spec", None)
        digest = ALGORITHMS[DIGEST]()
        digest.update(json.dumps(preparation, sort_keys=True, default=str).encode())
        digest.update(json.dumps(spec.as_dict() if spec else {}, sort_keys=True).encode())
        for name, tensor in sorted(encoder.identity().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        self.path = cache_root() / "features" / f"{digest.hexdigest()}.safetensors"
        self._rows = self._read()
        self._digests: dict[str, bytes] = {}
        self._unsaved = 0

    def get(self, paths: Sequence[str]) -> Tensor | None:
        """Return the features (N, d_f) of image files, or None if one of them is missing."""
        rows = [row for path in paths if (row := self._rows.get(self._digest(path))) is not None]
        return torch.stack(rows) if len(rows) == len(paths) else None

    def put(self, paths: Sequence[str], features: Tensor) -> None:
        """Add the features (N, d_f) of image files."""
        for path, row in zip(paths, features.detach().float().cpu(), strict=True):
            self._rows[self._digest(path)] = row
        self._unsaved += len(paths)

    def write(self) -> None:
        """Write new features, merged with what other runs wrote; a full disk only warns."""
        if not self._unsaved:
            return
        self._rows = self._read() | self._rows
        keys = torch.tensor([list(key) for key in self._rows], dtype=torch.uint8)
        tensors = {"files": keys, "features": torch.stack(list(self._rows.values()))}
        try:
            checkpoint.save(self.path, tensors, {})
            self._unsaved = 0
        except UserError as error:  # the run does not need the file
            logger.warning("Domain features are not kept: %s", error)

    def _read(self) -> dict[bytes, Tensor]:
        """Return the stored features by digest of their files; none if the file is damaged."""
        if not self.path.is_file():
            return {}
        try:
            tensors, _ = checkpoint.read(self.path)
        except UserError as error:
            logger.warning("%s The features are computed again.", error)
            return {}
        keys = (bytes(row) for row in tensors["files"].tolist())
        return dict(zip(keys, tensors["features"], strict=True))

    def _digest(self, path: str) -> bytes:
        """Return the digest of a file, which is assumed not to change during a run."""
        if path not in self._digests:
            self._digests[path] = bytes.fromhex(file_digest(path, DIGEST))
        return self._digests[path]
