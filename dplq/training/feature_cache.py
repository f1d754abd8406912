"""Pooled domain features of test images, computed once for all trainers, seeds and runs.

A frozen encoder gives a test image the same feature every time. Features are kept under
`dplq.io.files.cache_root()`, one safetensors file per encoder and way of preparing images, keyed by
what is in the image files: nothing depends on names, folders or times.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dplq.domain.load import DomainEncoder
from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.io.files import cache_root

logger = logging.getLogger(__name__)
DIGEST = 16  # bytes per image


class FeatureCache:
    """Features of image files; a file that was changed is another file.

    Args:
        encoder: the frozen domain encoder; what `identity` says of it is part of the key.
        preparation: how files become inputs (JSON-able): transforms, precision, versions.
    """

    def __init__(self, encoder: DomainEncoder, preparation: Mapping[str, Any]) -> None:
        digest = hashlib.blake2b(digest_size=DIGEST)
        digest.update(json.dumps(preparation, sort_keys=True, default=str).encode())
        spec = encoder.spec.as_dict() if hasattr(encoder, "spec") else {}
        digest.update(json.dumps(spec, sort_keys=True).encode())
        for name, tensor in sorted(encoder.identity().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        self.path = cache_root() / "features" / f"{digest.hexdigest()}.safetensors"
        self._rows = self._read()
        self._hashes: dict[str, bytes] = {}
        self._fresh = 0

    def get(self, paths: Sequence[str]) -> Tensor | None:
        """Features (N, d_f) of image files, or None if one of them is not known."""
        rows = [self._rows.get(self._hash(path)) for path in paths]
        return None if any(row is None for row in rows) else torch.stack(rows)

    def put(self, paths: Sequence[str], features: Tensor) -> None:
        """Remember the features (N, d_f) of image files."""
        for path, row in zip(paths, features.detach().float().cpu(), strict=True):
            self._rows[self._hash(path)] = row
        self._fresh += len(paths)

    def write(self) -> None:
        """Write what is new, with what others have written meanwhile; a full disk only warns."""
        if not self._fresh:
            return
        self._rows = self._read() | self._rows
        keys = torch.tensor([list(key) for key in self._rows], dtype=torch.uint8)
        tensors = {"files": keys, "features": torch.stack(list(self._rows.values()))}
        try:
            checkpoint.save(self.path, tensors, {})
            self._fresh = 0
        except UserError as error:
            logger.warning("Domain features are not kept: %s", error)

    def _read(self) -> dict[bytes, Tensor]:
        if not self.path.is_file():
            return {}
        try:
            tensors, _ = checkpoint.read(self.path)
        except UserError as error:
            logger.warning("%s The features are computed again.", error)
            return {}
        keys = (bytes(row) for row in tensors["files"].tolist())
        return dict(zip(keys, tensors["features"], strict=True))

    def _hash(self, path: str) -> bytes:
        if path not in self._hashes:
            content = Path(path).read_bytes()
            self._hashes[path] = hashlib.blake2b(content, digest_size=DIGEST).digest()
        return self._hashes[path]
