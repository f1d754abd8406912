"""Checksum of a safetensors file, kept in its own header.

It covers every byte of the file but its own digits, so that no changed bit and no truncation passes
unnoticed, in the header or in the tensors.
"""

from __future__ import annotations

import re

from dplq.io.files import ALGORITHMS, bytes_digest

ALGORITHM = "blake2b-128"
KEY = "checksum"  # of the digits, in the header
DIGITS = re.compile("[0-9a-f]{32}")


def placeholder(header: str) -> str:
    """Return digits that a file with this header can hold at one place only."""
    return bytes_digest(header.encode(), ALGORITHM)


def checksum(raw: bytes, digits: str) -> str | None:
    """Return the checksum of a file.

    Args:
        raw: the file.
        digits: what stands where the checksum belongs.

    Returns:
        Its digits; None if `digits` are not at exactly one place of the header.
    """
    end = 8 + int.from_bytes(raw[:8], "little")
    where = raw[:end].find(digits.encode())
    if where < 0 or raw[:end].count(digits.encode()) > 1:
        return None
    digest = ALGORITHMS[ALGORITHM](raw[:where])
    digest.update(memoryview(raw)[where + len(digits) :])
    return digest.hexdigest()


def with_checksum(raw: bytes, digits: str) -> bytes:
    """Return a file with its checksum in the place of `digits`, of which it has one copy."""
    value = checksum(raw, digits)
    assert value is not None
    return raw.replace(digits.encode(), value.encode(), 1)


def has_checksum(raw: bytes, digits: object) -> bool:
    """Return whether `digits`, from a file's header, are its checksum."""
    if not isinstance(digits, str) or not DIGITS.fullmatch(digits):
        return False
    return checksum(raw, digits) == digits
