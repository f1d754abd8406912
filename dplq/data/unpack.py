"""Safe unpacking of a zip or tar archive, which may be hostile.

Only plain files and folders inside the target are made: an archive with absolute paths, ``..``,
links, devices or encrypted members is refused, and nothing of it is kept. So is one that unpacks to
more than its `Limits`, whatever its headers say. Owners, modes and dates of the archive are not
restored. Independent of datasets.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, cast

from tqdm import tqdm

from dplq.errors import UserError, shown
from dplq.io.download import in_units, need_space
from dplq.io.lock import exclusive

TAR_SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
SUFFIXES = (".zip", *TAR_SUFFIXES)
COMPRESSIONS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
JUNK = {"__MACOSX", ".DS_Store", "Thumbs.db"}
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError),
    *(ValueError, NotImplementedError),  # nonsense in a header; an unknown compression
    *(FileExistsError, NotADirectoryError, IsADirectoryError),  # two members of one name
)


class BadArchive(UserError):
    """Error for a damaged or refused archive; another copy of it may be good."""


class TooLarge(UserError):
    """Error for an archive that exceeds its limits; it may be good, so it is kept."""


class Limits(NamedTuple):
    """What an archive may unpack to.

    ImageNet-21k, the largest dataset in use, is 1.3 TB of 14 million images; images are compressed
    already, and uncompressed ones (masks in TIFF or BMP) shrink to a fiftieth at most.
    """

    ratio: int = 200  # unpacked / packed
    free: int = 1 << 26  # bytes that are unpacked whatever the ratio: small and harmless
    size: int = 4 * 10**12  # bytes
    members: int = 50_000_000


LIMITS = Limits()
MAX_READ = 1 << 26  # bytes of an uncompressed header: larger ones would fill the memory
MAX_NAME = 255  # bytes of a file name, on all usual file systems
MAX_DEPTH = 64  # folders around a file


class _Meter:
    """Counts what comes out of an archive against its limits."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._packed = archive.stat().st_size
        self.written = 0
        self.members = 0

    def add(self, size: int) -> None:
        """Count bytes that will be written.

        Raises:
            TooLarge: they are too many.
        """
        self.written += size
        self.check(self.written)

    def add_member(self) -> None:
        """Count a member.

        Raises:
            TooLarge: they are too many.
        """
        self.members += 1
        self.check_members(self.members)

    def check(self, size: int) -> None:
        """Raise TooLarge if `size` bytes are too many in all."""
        if size > LIMITS.size:
            self._refuse(f"{in_units(size)} or more", f"{in_units(LIMITS.size)} are accepted")
        if size > max(LIMITS.free, LIMITS.ratio * self._packed):
            self._refuse(
                f"{in_units(size)} or more of its {in_units(self._packed)}",
                f"{LIMITS.ratio} times its size is accepted, and no archive of images needs that",
            )

    def check_members(self, count: int) -> None:
        """Raise TooLarge if `count` members are too many."""
        if count > LIMITS.members:
            self._refuse(f"{count:,} or more members", f"{LIMITS.members:,} are accepted")

    def _refuse(self, found: str, limit: str) -> NoReturn:
        raise TooLarge(
            f"{self._archive} is refused: it unpacks to {found}; at most {limit}. Nothing of it is "
            "kept. If you know that it is good, unpack it yourself."
        )


class _Writer:
    """A file whose bytes are counted before they are written."""

    def __init__(self, file: IO[bytes], meter: _Meter) -> None:
        self._file = file
        self._meter = meter

    def write(self, data: bytes) -> int:
        self._meter.add(len(data))
        return self._file.write(data)


class _Stream:
    """Uncompressed content of a tar file, with an end to how much is read."""

    def __init__(self, file: IO[bytes], meter: _Meter) -> None:
        self._file = file
        self._meter = meter
        self.tell, self.seek, self.close = file.tell, file.seek, file.close

    def read(self, size: int) -> bytes:
        """Read as a file does; tarfile reads a header whole, however large it says it is."""
        if size > MAX_READ:
            raise ValueError(f"a header of {in_units(size)}")
        data = self._file.read(size)
        self._meter.check(self._file.tell())
        return data


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
        TooLarge: it unpacks to more than `LIMITS`.
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
        meter = _Meter(archive)
        members = read(archive, folder, meter)
        for member in tqdm(members, archive.name, unit=" files", disable=None):
            meter.add_member()
            _make(member, folder, archive, meter)
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


def unpack_over(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder that may hold files: those of the same names are replaced.

    Nothing changes before the whole archive is unpacked, into a hidden folder beside. Another
    process that unpacks it there is waited for.

    Args:
        archive: as for `unpack`.
        folder: the target, which exists.

    Raises:
        UserError: as for `unpack`, or a file has the name of a folder.
    """
    try:
        with exclusive(folder / f".{archive.name}.lock", f"unpacks {archive}"):
            _unpack_over(archive, folder)
    except OSError as error:
        raise UserError(
            f"Cannot unpack {archive} to {folder}: {error.strerror or error}. Choose a folder that "
            "can be written to."
        ) from error


def _unpack_over(archive: Path, folder: Path) -> None:
    staging = folder / f".{archive.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    unpack(archive, staging)
    try:
        for source in sorted(staging.rglob("*")):  # a folder before what is in it
            target = folder / source.relative_to(staging)
            if source.is_dir():
                target.mkdir(exist_ok=True)
            else:
                source.replace(target)
    except OSError as error:
        raise UserError(
            f"Cannot move the content of {archive} to {error.filename2 or error.filename}: "
            f"{error.strerror}. Move that away, then try again."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _make(member: _Member, folder: Path, archive: Path, meter: _Meter) -> None:
    parts = [part for part in re.split(r"[/\\]", member.name) if part not in ("", ".")]
    if JUNK.intersection(parts):
        return
    refusal = member.refusal or _outside(member.name, parts)
    if refusal:
        raise BadArchive(
            f"{archive} is refused: its member {shown(member.name)} {refusal}. Nothing is "
            "unpacked. It is not the expected archive, or has been tampered with."
        )
    path = folder.joinpath(*parts)
    if member.is_folder:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None, "a plain file can be read"
    with source, open(path, "xb") as file:  # x: a second member of the same name is no accident
        shutil.copyfileobj(source, _Writer(file, meter), 1 << 18)


def _outside(name: str, parts: list[str]) -> str:
    if re.match(r"[/\\]|[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in parts:
        return "has a path with '..'"
    if "\0" in name or any(len(os.fsencode(part)) > MAX_NAME for part in parts):
        return "has a path that no file can have"
    return f"lies in more than {MAX_DEPTH} folders" if len(parts) > MAX_DEPTH else ""


def _zip_members(archive: Path, folder: Path, meter: _Meter) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        size = sum(info.file_size for info in infos)
        meter.check_members(len(infos))
        meter.check(size)
        need_space(folder, size, f"Unpacking {archive} ({in_units(size)} in it)")
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            refusal = "is encrypted" if info.flag_bits & 1 else ""
            if stat.S_ISLNK(kind):
                refusal = "is a link"
            elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                refusal = "is a special file"
            yield _Member(info.filename, info.is_dir(), refusal, partial(opened.open, info))


def _tar_members(archive: Path, folder: Path, meter: _Meter) -> Iterator[_Member]:
    packed = archive.stat().st_size
    need_space(folder, packed, f"Unpacking {archive} ({in_units(packed)} or more in it)")
    stream = _Stream(_uncompressed(archive), meter)
    with closing(stream), tarfile.TarFile(fileobj=cast(IO[bytes], stream)) as opened:
        for info in opened:
            meter.check(meter.written + info.size)
            refusal = ""
            if info.issym() or info.islnk():
                refusal = f"is a link to {shown(info.linkname)}"
            elif not (info.isreg() or info.isdir()):
                refusal = "is a special file"
            yield _Member(info.name, info.isdir(), refusal, partial(opened.extractfile, info))
        while stream.read(1 << 20):  # gzip compares its checksum at the very end only
            pass


def _uncompressed(archive: Path) -> IO[bytes]:
    with open(archive, "rb") as file:
        start = file.read(6)
    for magic, opener in COMPRESSIONS.items():
        if start.startswith(magic):
            return cast(IO[bytes], opener(archive))
    return open(archive, "rb")
