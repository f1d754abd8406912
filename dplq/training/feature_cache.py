"""On-disk cache of frozen features, shared by trainers, seeds and runs.

A frozen encoder maps an image to the same feature every time. Features are stored under
`dplq.io.files.cache_root()`, in safetensors files whose names are digests of all that decides them:

* `FeatureCache`: domain features of test images, one file per encoder and preparation of the
  images, keyed by the content of the image files: names, folders and times do not matter.
* `dplq.training.frozen`: features of a whole pass over a loader, one file per pass.

A damaged file is reported, and its features are computed again. A full disk only warns. Where a
limit is set, the files that were not used for the longest time are removed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
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
KEY = "key"  # of the header: the file's own name
GB = 10**9  # bytes


class Encoder(Protocol):
    """What the cache needs of a frozen domain encoder; `spec` and `feature_dim` may be absent."""

    def identity(self) -> Mapping[str, Tensor]:
        """Return tensors that differ between encoders."""


def features_folder() -> Path:
    """Return the folder of all files with features; it may not exist yet."""
    return cache_root() / "features"


def encoder_digest(encoder: Encoder, facts: Mapping[str, Any]) -> str:
    """Return the digest of an encoder and of what else decides its features, in hex.

    Args:
        encoder: its `spec` and `identity` count.
        facts: JSON-able.
    """
    spec = getattr(encoder, "spec", None)
    digest = ALGORITHMS[DIGEST]()
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    digest.update(json.dumps(spec.as_dict() if spec else {}, sort_keys=True).encode())
    for name, tensor in sorted(encoder.identity().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class FeatureFiles:
    """Files with features, of at most so many bytes together.

    Args:
        limit: in bytes; None: no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.folder, self.limit = features_folder(), limit
        self._logged: set[str] = set()

    def path(self, key: str) -> Path:
        """Return the path of a file, which may not exist."""
        return self.folder / f"{key}.safetensors"

    def read(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and header of a file; None if there is none, or it is damaged."""
        path = self.path(key)
        if not path.is_file():
            return None
        try:
            tensors, header = checkpoint.read(path)
            if header.get("format") == checkpoint.WITHOUT_CHECKSUM:
                raise DamagedFile(path, "was written without a checksum, by an earlier version")
            if header.get(KEY) != key:
                raise DamagedFile(path, "is not the cache of this encoder and these settings")
        except UserError as error:
            if path.is_file():  # else another process has removed it
                self.report_damage(path, error)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # when it was last used
        return tensors, header

    def report_damage(self, path: Path, error: UserError) -> None:
        """Warn, once, of a file that cannot be used."""
        problem = error.problem if isinstance(error, DamagedFile) else str(error)
        text = "%s %s. The features are computed again."
        self.log_once(logging.WARNING, text, path, problem)

    def log_once(self, level: int, text: str, *values: Any) -> None:
        """Log the first line of a text; what else it would be formatted with is not logged."""
        if text not in self._logged:
            self._logged.add(text)
            logger.log(level, text, *values)

    def write(
        self, key: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any] | None = None
    ) -> bool:
        """Write a file, and remove others beyond the limit; return whether it was written."""
        path = self.path(key)
        try:
            clear_temporaries(self.folder)
            checkpoint.save(path, tensors, {KEY: key, **(header or {})})
        except UserError as error:  # the run does not need the file
            logger.warning("Features are not kept: %s", error)
            return False
        if self.limit is not None:
            self._remove_beyond(self.limit, path)
        return True

    def _remove_beyond(self, limit: int, newest: Path) -> None:
        """Remove the files that were not used for the longest time, but for the newest."""
        found = []
        for path in self.folder.glob("*.safetensors"):
            with contextlib.suppress(OSError):  # another process has removed it
                status = path.stat()
                found.append((status.st_mtime_ns, path.name, status.st_size))
        size, removed = sum(file[2] for file in found), 0
        for _, name, own in sorted(found):
            if size <= limit:
                break
            if name == newest.name:
                continue
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
            size, removed = size - own, removed + 1
        if removed:
            self.log_once(
                logging.INFO,
                "%s holds more than %g GB: features that were not used for the longest time are "
                "removed (TRAIN.FEATURE_CACHE).",
                self.folder,
                limit / GB,
            )


class FeatureCache:
    """Features of image files, by content.

    Args:
        encoder: the frozen domain encoder; its `spec` and `identity` are part of the key.
        preparation: how files become inputs (JSON-able): transforms, precision, versions.
        limit: of all files with features together, in bytes; None: none.
    """

    def __init__(
        self, encoder: Encoder, preparation: Mapping[str, Any], limit: int | None = None
    ) -> None:
        self._key, self._files = encoder_digest(encoder, preparation), FeatureFiles(limit)
        self.path = self._files.path(self._key)
        self._width = getattr(encoder, "feature_dim", None)
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
        if self._files.write(self._key, tensors):
            self._unsaved = 0

    def _read(self) -> dict[bytes, Tensor]:
        """Return the stored features by digest of their files; none if the file is damaged."""
        found = self._files.read(self._key)
        if found is None:
            return {}
        try:
            files, features = self._checked(found[0])
        except DamagedFile as error:
            self._files.report_damage(self.path, error)
            return {}
        return dict(zip(map(bytes, files.tolist()), features, strict=True))

    def _checked(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return digests (N, 16) and features (N, d_f) of a file that is what it must be.

        Raises:
            DamagedFile: it is something else.
        """
        files, features = tensors.get("files"), tensors.get("features")
        if files is None or features is None:
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
