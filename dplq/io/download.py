"""Resumable download of a file: only a complete, verified one is stored under its name.

The bytes go to ``NAME.part``; an interrupted download resumes where it stopped (HTTP Range), also
in a later run. ``NAME.part.json`` keeps the address and the ETag or date of the server's file, so
that both halves are of one file. Independent of datasets.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from tqdm import tqdm

from dplq.errors import UserError
from dplq.io.files import file_digest
from dplq.io.lock import exclusive
from dplq.io.validation.schema import InvalidContent, read_json

logger = logging.getLogger(__name__)

CHUNK = 1 << 18
TIMEOUT = 30  # seconds without a byte
HUBS = ("https://huggingface.co/", "https://hf.co/")
ALGORITHMS = ("sha256", "md5")


class _Cut(Exception):
    """The connection broke, or the server is busy: worth another try."""


class _Identity(msgspec.Struct):
    """Content of ``NAME.part.json``; the tag is sent in a header."""

    url: str
    tag: Annotated[str, msgspec.Meta(pattern=r"^[\x20-\x7e]*\Z", max_length=1024)]


def fetch(
    url: str,
    target: Path,
    checksum: str = "",
    *,
    tries: int = 5,
    pause: Callable[[float], object] = time.sleep,
) -> Path:
    """Download a file, unless it exists already; another process that downloads it is waited for.

    Args:
        url: http or https. Addresses of the Hugging Face hub follow ``$HF_ENDPOINT``.
        target: the file to write. Its folder is made.
        checksum: SHA-256 or MD5 in hex, optionally with a prefix ``sha256:`` or ``md5:``; "" if
            unknown.
        tries: attempts without progress before giving up.
        pause: how to wait between attempts, in seconds.

    Returns:
        `target`.

    Raises:
        UserError: the server refuses, the connection keeps breaking, the checksum is another, or
            the file cannot be written. `target` does not exist then.
    """
    if not url.startswith(("https://", "http://")):
        raise UserError(f"Cannot download {url}: only http:// and https:// addresses are.")
    try:
        if _is_complete(target, checksum):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f".{target.name}.lock")
        with exclusive(lock, f"downloads {target}"):
            if not _is_complete(target, checksum):  # the other process may have made it
                _download(url, target, checksum, tries, pause)
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror or error}. Nothing of it is kept. Free space "
            "or choose another folder, then run the same command again."
        ) from error
    return target


def _is_complete(target: Path, checksum: str) -> bool:
    if not target.is_file():
        return False
    return not checksum or _digest_like(checksum, target) == checksum.lower()


def _download(
    url: str, target: Path, checksum: str, tries: int, pause: Callable[[float], object]
) -> None:
    target.unlink(missing_ok=True)  # a file with another checksum
    part = _Part(url, target, bool(checksum))
    _fill(part, tries, pause)
    if checksum:
        _verify(part.path, url, checksum)
    os.replace(part.path, target)
    part.delete()


def need_space(folder: Path, size: int, what: str) -> None:
    """Raise early if a disk is too small.

    Raises:
        UserError: fewer than `size` bytes are free where `folder` is.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"{what} needs {in_units(size)}, but only {in_units(free)} are free in {folder}. Free "
            "space or choose another folder."
        )


def in_units(size: float) -> str:
    """Return a number of bytes as text: ``"12.3 MB"``."""
    power = 0
    while size >= 1000 and power < 4:
        size, power = size / 1000, power + 1
    return f"{size:.{min(power, 1)}f} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


class _Part:
    """Partial download, and the identity of the server's file.

    Args:
        url: its address.
        target: its final path.
        verified: a checksum will be compared, so any beginning may be resumed.
    """

    def __init__(self, url: str, target: Path, verified: bool) -> None:
        self.url = url
        self.path = target.with_name(f"{target.name}.part")
        self._identity = target.with_name(f"{target.name}.part.json")
        self._verified = verified

    def size(self) -> int:
        """Return the number of bytes so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def headers(self) -> dict[str, str]:
        """Return a Range header if a trusted beginning exists, else no headers."""
        tag = self._load_tag()
        if not self.size() or not (tag or self._verified):
            return {}
        rest = {"Range": f"bytes={self.size()}-"}
        return {**rest, "If-Range": tag} if tag else rest

    def save_identity(self, headers: Mapping[str, str]) -> None:
        """Save what identifies the server's file: a strong ETag, else its date."""
        tag = headers.get("ETag") or ""
        tag = headers.get("Last-Modified") or "" if tag.startswith("W/") or not tag else tag
        self._identity.write_text(json.dumps({"url": self.url, "tag": tag}), encoding="utf-8")

    def delete(self) -> None:
        """Delete the file and its identity."""
        self.path.unlink(missing_ok=True)
        self._identity.unlink(missing_ok=True)

    def _load_tag(self) -> str:
        try:
            identity: _Identity = read_json(self._identity, _Identity, max_bytes=1 << 16)
        except InvalidContent:  # missing or damaged: the download starts anew
            return ""
        return identity.tag if identity.url == self.url else ""


def _fill(part: _Part, tries: int, pause: Callable[[float], object]) -> None:
    """Complete the part file, in as many connections as needed."""
    furthest, failures = part.size(), 0
    while True:
        try:
            return _connect(part)
        except _Cut as cut:
            failures = 0 if part.size() > furthest else failures + 1
            furthest = max(furthest, part.size())
            if failures >= tries:
                raise UserError(
                    f"The download of {part.url} broke off {failures} times at "
                    f"{in_units(part.size())} ({cut}). Run the same command again: it goes on from "
                    f"there where the server allows it ({part.path})."
                ) from cut
            logger.warning("%s: %s; trying again", part.url, cut)
            pause(min(2.0**failures, 30))


def _connect(part: _Part) -> None:
    """Open one connection; append to the part file, or start it anew."""
    answer = _open(part)
    if answer is None:
        return
    with answer as response:
        start, total = _extent(response, part.size())
        if start is None:
            part.delete()
            raise _Cut("the server sent another range than the one requested")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise UserError(
                f"{part.url} is a web page, not the file: it may require a login or a confirmation."
                " Open it in a browser, and get the file by hand."
            )
        if total is not None:
            need_space(part.path.parent, total - start, f"The download of {part.url}")
        try:
            if start == 0:
                part.save_identity(response.headers)
            _copy(response, part.path, start, total)
        except OSError:
            part.delete()  # the content on a full disk is not to be trusted
            raise
    if total is not None and part.size() > total:
        part.delete()
        raise _Cut("it is longer than the server announced")
    if total is not None and part.size() < total:
        raise _Cut(f"{in_units(total)} were announced")


def _open(part: _Part) -> Any:
    """Open the connection; None if the part is complete but not renamed yet."""
    url, endpoint = part.url, os.environ.get("HF_ENDPOINT", "").rstrip("/")
    for hub in HUBS if endpoint else ():
        url = f"{endpoint}/{url.removeprefix(hub)}" if url.startswith(hub) else url
    headers = {"User-Agent": "dplq", "Accept-Encoding": "identity", **part.headers()}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # nothing from this byte on: it is complete, or of another file
                if error.headers.get("Content-Range") == f"bytes */{part.size()}":
                    return None
                part.delete()
            if error.code in (408, 416, 429) or error.code >= 500:
                raise _Cut(f"HTTP {error.code}") from error
            raise UserError(
                f"{url} cannot be downloaded: HTTP {error.code} {error.reason}. The address may "
                "have changed, or needs a login: get the file with a browser."
            ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(f"{getattr(error, 'reason', None) or error}") from error


def _extent(response: Any, have: int) -> tuple[int | None, int | None]:
    """Return where the answer begins (None: at a wrong byte), and the full size, if sent."""
    if response.status != 206:
        length = response.headers.get("Content-Length")
        return 0, int(length) if length and length.isdigit() else None
    sent = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not sent or int(sent[1]) != have:
        return None, None
    return have, None if sent[2] == "*" else int(sent[2])


def _copy(response: Any, path: Path, start: int, total: int | None) -> None:
    bar = tqdm(
        desc=path.name.removesuffix(".part"),
        initial=start,
        total=total,
        unit="B",
        unit_scale=True,
        disable=None,
    )
    with bar, open(path, "ab" if start else "wb") as file:
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _Cut(str(error) or type(error).__name__) from error
            if not chunk:
                break
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())


def _verify(path: Path, url: str, checksum: str) -> None:
    found = _digest_like(checksum, path)
    if found != checksum.lower():
        path.unlink()
        raise UserError(
            f"{url} is not the file expected: its checksum is {found}, not {checksum}. It has been "
            "deleted. Run the same command again; if it stays so, the file on the server is "
            "another one: get it from the home page and compare."
        )


def _digest_like(checksum: str, path: Path) -> str:
    """The digest of a file, written as `checksum` is."""
    named, _, digits = checksum.lower().rpartition(":")
    algorithm = named or {32: "md5", 64: "sha256"}.get(len(digits), "")
    if algorithm not in ALGORITHMS:
        raise UserError(f"Checksum '{algorithm}': only {' and '.join(ALGORITHMS)} are known.")
    return f"{named}:" * bool(named) + file_digest(path, algorithm)
