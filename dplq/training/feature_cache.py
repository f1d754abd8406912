"""On-disk cache of domain features, shared by trainers, seeds and runs.

A frozen encoder maps a test image to the same pooled feature every time. Features are stored under
`dplq.io.files.cache_root()`, one safetensors file per encoder and preparation of the images, keyed
by the content of the image files: names, folders and times do not matter. A damaged file is
reported, and its features are computed again.
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
from dplq.io.atomic import clear_temporaries
from dplq.io.checkpoint import DamagedFile
from dplq.io.files import ALGORITHMS, cache_root, file_digest
from dplq.io.finite import non_finite

logger = logging.getLogger(__name__)
DIGEST = "blake2b-128"  # of encoders and image files
DIGEST_BYTES = 16
KEY = "key"  # of the header: digest of the encoder and the preparation


class Encoder(Protocol):
    """What the cache needs of a frozen domain encoder; `spec` and `feature_dim` may be absent."""

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
        self._width = getattr(encoder, "feature_dim", None)
        self._has_warned = False
        self._rows = self._read()
        self._digests: dict[str, bytes] = {}
        self._unsaved = 0

    def get(self, paths: Sequence[str]) -> Tensor | None:
        """Return the features (N, d_f) of image files, or None if one of them is missing."""
        rows = [row for path in paths if (row := self._rows.get(self._digest(path))) is not None]
        return torch.stack(rows) if len(rows) == len(paths) else None

    def put(self, paths: Sequence[str], features: Tensor) -> None:
        """Add the features (N, d_f) of image files; those that are not finite are left out."""
        for path, row in zip(paths, features.detach().float().cpu(), strict=True):
            if torch.isfinite(row).all():
                self._rows[self._digest(path)] = row
                self._unsaved += 1

    def write(self) -> None:
        """Write new features, merged with what other runs wrote; a full disk only warns."""
        if not self._unsaved:
            return
        self._rows = self._read() | self._rows
        keys = torch.tensor([list(key) for key in self._rows], dtype=torch.uint8)
        tensors = {"files": keys, "features": torch.stack(list(self._rows.values()))}
        try:
            clear_temporaries(self.path.parent)
            checkpoint.save(self.path, tensors, {KEY: self.path.stem})
            self._unsaved = 0
        except UserError as error:  # the run does not need the file
            logger.warning("Domain features are not kept: %s", error)

    def _read(self) -> dict[bytes, Tensor]:
        """Return the stored features by digest of their files; none if the file is damaged."""
        if not self.path.is_file():
            return {}
        try:
            tensors, header = checkpoint.read(self.path)
            files, features = self._checked(tensors, header)
        except UserError as error:
            if not self._has_warned:
                problem = error.problem if isinstance(error, DamagedFile) else str(error)
                logger.warning("%s %s. The features are computed again.", self.path, problem)
            self._has_warned = True
            return {}
        return dict(zip(map(bytes, files.tolist()), features, strict=True))

    def _checked(
        self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Return digests (N, 16) and features (N, d_f) of a file that is what it must be.

        Raises:
            DamagedFile: it is something else, or of a version that wrote no checksum.
        """
        if header.get("format") == checkpoint.WITHOUT_CHECKSUM:
            raise DamagedFile(self.path, "was written without a checksum, by an earlier version")
        files, features = tensors.get("files"), tensors.get("features")
        if header.get(KEY) != self.path.stem or files is None or features is None:
            raise DamagedFile(self.path, "is not the cache of this encoder and these settings")
        shape = (len(files), self._width or features.shape[-1])
        if files.dtype != torch.uint8 or files.shape[1:] != (DIGEST_BYTES,):
            raise DamagedFile(self.path, "does not hold digests of files")
        if features.dtype != torch.float32 or features.shape != shape or non_finite(tensors):
            raise DamagedFile(self.path, "does not hold one finite feature per file")
        return files, features

    def _digest(self, path: str) -> bytes:
        """Return the digest of a file, which is assumed not to change during a run."""
        if path not in self._digests:
            self._digests[path] = bytes.fromhex(file_digest(path, DIGEST))
        return self._digests[path]
