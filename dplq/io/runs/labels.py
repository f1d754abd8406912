"""Files with labels that a run has used: whether they are still what they were."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from dplq.io.files import RECORDED, file_digest


def relative_to(root: str, path: str | os.PathLike[str]) -> str:
    """Return how a record names a file: from the data folder; whole on another drive."""
    try:
        return os.path.relpath(path, root).replace(os.sep, "/")
    except ValueError:
        return os.fspath(path)


def have_changed(
    labels: Mapping[str, str] | None, root: str | os.PathLike[str], digest_of: Callable[[str], str]
) -> bool:
    """Return whether any file with labels is another now.

    Args:
        labels: digests by path, as a run recorded them; None: it did not.
        root: the data folder now.
        digest_of: a file's digest; many runs have the same files.
    """
    return any(
        digest_of(os.path.normpath(os.path.join(root, path))) != digest
        for path, digest in (labels or {}).items()
    )


def digest_now(path: str) -> str:
    """Return the digest of a file; "" where there is none."""
    try:
        return file_digest(path, RECORDED)
    except OSError:
        return ""
