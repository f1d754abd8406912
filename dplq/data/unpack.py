"""Safe unpacking of a zip or tar archive, which may be hostile.

Only plain files and folders inside the target are made: an archive with absolute paths, ``..``,
links, devices or encrypted members is refused, and nothing of it is kept. Owners, modes and dates
of the archive are not restored. Independent of datasets.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from tqdm import tqdm

from dplq.data.download import in_units, need_space
from dplq.errors import UserError

TAR_SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
SUFFIXES = (".zip", *TAR_SUFFIXES)
JUNK = {"__MACOSX", ".DS_Store", "Thumbs.db"}
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError),
    *(ValueError, NotImplementedError),  # nonsense in a header; an unknown compression
    *(FileExistsError, NotADirectoryError, IsADirectoryError),  # two members of one name
)


class BadArchive(UserError):
    """Error for a damaged or refused archive; another copy of it may be good."""


class _Member(NamedTuple):
    """File or folder of an archive; `refusal` is why it must not be made, "" if it may."""

    name: str
    is_folder: bool
    refusal: str
    open: Callable[[], IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """Return whether the name is that of an archive that can be unpacked here."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder, which is made; its files must not exist yet.

    Args:
        archive: .zip or .tar, the latter also compressed.
        folder: the target. Deleted again if anything fails.

    Raises:
        BadArchive: it is damaged, or refused.
        UserError: no such archive, another kind, or too little disk space.
    """
    if not archive.is_file():
        raise UserError(f"There is no archive {archive}.")
    if not is_archive(archive):
        raise UserError(
            f"{archive} cannot be unpacked here: it must be one of {' '.join(SUFFIXES)}. Unpack it "
            "yourself."
        )
    read = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for member in tqdm(read(archive, folder), archive.name, unit=" files", disable=None):
            _make(member, folder, archive)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, _DAMAGE) or (isinstance(error, OSError) and error.errno is None):
            why = " ".join(str(error).split()) or type(error).__name__
            raise BadArchive(
                f"{archive} is damaged ({why}); nothing of it is unpacked. Get it again."
            ) from error
        if isinstance(error, OSError):
            raise UserError(
                f"Cannot unpack {archive} to {folder}: {error.strerror}. Nothing of it is kept. "
                "Free space or choose another folder."
            ) from error
        raise


def _make(member: _Member, folder: Path, archive: Path) -> None:
    parts = [part for part in re.split(r"[/\\]", member.name) if part not in ("", ".")]
    if JUNK.intersection(parts):
        return
    refusal = member.refusal or _outside(member.name, parts)
    if refusal:
        raise BadArchive(
            f"{archive} is refused: its member {member.name!r} {refusal}. Nothing is unpacked. It "
            "is not the expected archive, or has been tampered with."
        )
    path = folder.joinpath(*parts)
    if member.is_folder:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None, "a plain file can be read"
    with source, open(path, "xb") as file:  # x: a second member of the same name is no accident
        shutil.copyfileobj(source, file, 1 << 18)


def _outside(name: str, parts: list[str]) -> str:
    if re.match(r"[/\\]|[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in parts:
        return "has a path with '..'"
    return "has a path that no file can have" if "\0" in name else ""


def _zip_members(archive: Path, folder: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        size = sum(info.file_size for info in infos)
        need_space(folder, size, f"Unpacking {archive} ({in_units(size)} in it)")
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            refusal = "is encrypted" if info.flag_bits & 1 else ""
            if stat.S_ISLNK(kind):
                refusal = "is a link"
            elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                refusal = "is a special file"
            yield _Member(info.filename, info.is_dir(), refusal, partial(opened.open, info))


def _tar_members(archive: Path, _: Path) -> Iterator[_Member]:
    with tarfile.open(archive) as opened:
        for info in opened:
            refusal = ""
            if info.issym() or info.islnk():
                refusal = f"is a link to {info.linkname!r}"
            elif not (info.isreg() or info.isdir()):
                refusal = "is a special file"
            yield _Member(info.name, info.isdir(), refusal, partial(opened.extractfile, info))
        while opened.fileobj.read(1 << 20):  # gzip compares its checksum at the very end only
            pass
