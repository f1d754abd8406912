"""What a file is by its first bytes, whatever its name ends in.

Downloads of weights often are something else: the pointer that Git LFS puts in a file's place, or
the page with which a server answers.
"""

from __future__ import annotations

import os

from dplq.errors import shown

LFS = b"version https://git-lfs.github.com/spec/"
PAGES = (b"<!doctype html", b"<html", b"<?xml")
ZIP = b"PK"  # of an archive that was cut short
START = 512  # bytes


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is in the safetensors format, whatever its name ends in."""
    with open(path, "rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and 8 + length <= os.path.getsize(path)


def not_weights(path: str | os.PathLike[str]) -> str:
    """Return what a file without weights is, and what to do; "" where it may hold some.

    Returns:
        The rest of a sentence that begins with the file's name.
    """
    with open(path, "rb") as file:
        start = file.read(START)
    if not start:
        return "is empty: get the file again"
    if start.startswith(LFS):
        return (
            "is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, or "
            "download the file from its page"
        )
    if start.lstrip().lower().startswith(PAGES):
        return (
            "is a web page, not a file of weights: the server answered the download with a page. "
            "Download the file again, logged in where its publisher requires that"
        )
    text = _text(start)
    return f"is text ({shown(text[:40])}), not a file of weights: download it again" if text else ""


def _text(start: bytes) -> str:
    """Return the first line of a text, "" for binary content."""
    if start.startswith(ZIP):
        return ""
    try:
        text = start.decode("utf-8", "strict" if len(start) < START else "ignore").strip()
    except UnicodeDecodeError:
        return ""
    lines = text.splitlines()
    is_text = bool(lines) and all(line.replace("\t", " ").isprintable() for line in lines)
    return lines[0] if is_text else ""
