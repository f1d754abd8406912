"""Cache and config folders; digests of files and bytes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dplq.io.validation.paths import user_path

CHUNK = 1 << 20  # bytes read at a time
ALGORITHMS: dict[str, Callable[..., Any]] = {
    "sha256": hashlib.sha256,
    "md5": partial(hashlib.md5, usedforsecurity=False),
    "blake2b-128": partial(hashlib.blake2b, digest_size=16),
}
RECORDED = "blake2b-128"  # what runs record of images, files with labels and checkpoints


def cache_root() -> Path:
    """Return the folder of files that can be made again, outside the data folders.

    Returns:
        ``$DPLQ_CACHE``, or ``~/.cache/dplq`` where it is not set; it may not exist yet.

    Raises:
        UserError: it cannot be used as a path.
    """
    return user_path(os.environ.get("DPLQ_CACHE") or "~/.cache/dplq", "DPLQ_CACHE")


def file_digest(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """Return the digest of a file in lower-case hex.

    Args:
        path: the file, read in chunks.
        algorithm: a key of `ALGORITHMS`.

    Raises:
        OSError: the file cannot be read.
    """
    digest = ALGORITHMS[algorithm]()
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def bytes_digest(content: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of bytes in lower-case hex; `algorithm` as in `file_digest`."""
    return ALGORITHMS[algorithm](content).hexdigest()


def json_digest(content: object) -> str:
    """Return the SHA-256 of JSON-able content in hex, whatever the order of its keys."""
    return bytes_digest(json.dumps(content, sort_keys=True, default=str).encode())


def configs_folder() -> Path:
    """Return the folder of the config files: inside the package, or beside it in a checkout."""
    root = checkout()
    return (Path(__file__).resolve().parents[1] if root is None else root) / "configs"


def checkout() -> Path | None:
    """Return the root of the checkout that this package is in; None where it is installed."""
    package = Path(__file__).resolve().parents[1]
    return None if (package / "configs").is_dir() else package.parent
