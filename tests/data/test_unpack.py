"""Archives that are hostile, damaged or do not fit."""

from __future__ import annotations

import errno
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from dplq.data.unpack import unpack
from dplq.errors import UserError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def write_zip(path: Path, members: dict[str, bytes], mode: int = 0, flag: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
            archive.infolist()[-1].flag_bits |= flag
    return path


def write_tar(path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            is_plain = name == "good.jpg" or kind == tarfile.REGTYPE
            info.type = tarfile.REGTYPE if is_plain else kind
            info.size, info.linkname = (len(content), "") if is_plain else (0, "/etc/passwd")
            archive.addfile(info, io.BytesIO(content))
    return path


GOOD = {"good.jpg": b"1"}


@pytest.mark.parametrize(("make", "ending"), [(write_zip, "zip"), (write_tar, "tar.gz")])
def test_unpacking(tmp_path, make, ending):
    members = {"a/b.jpg": b"2", "./c.txt": b"3", "d\\e.jpg": b"4", "__MACOSX/a/._b.jpg": b"5"}
    unpack(make(tmp_path / f"x.{ending}", {**GOOD, **members}), tmp_path / "out")
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert found == {"good.jpg": b"1", "a/b.jpg": b"2", "c.txt": b"3", "d/e.jpg": b"4"}


@pytest.mark.parametrize(("make", "ending"), [(write_zip, "zip"), (write_tar, "tar.gz")])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/tmp/evil", "absolute path"),
        ("\\evil", "absolute path"),
        ("C:\\evil", "absolute path"),
        ("../evil", "'..'"),
        ("a/../../evil", "'..'"),
        ("a\\..\\..\\evil", "'..'"),
    ],
)
def test_members_outside_are_refused(tmp_path, make, ending, name, reason):
    refused(make(tmp_path / f"x.{ending}", {**GOOD, name: b"evil"}), reason)


def refused(archive: Path, reason: str) -> None:
    before = names(archive.parent)
    with pytest.raises(UserError, match=f"is refused: its member .* {reason}"):
        unpack(archive, archive.parent / "out" / "inner")
    assert names(archive.parent / "out") == [], "not even the good members stay"
    assert [name for name in names(archive.parent) if name != "out"] == before


@pytest.mark.parametrize(
    ("mode", "flag", "reason"),
    [(0o120777, 0, "is a link"), (0o010644, 0, "is a special file"), (0, 1, "is encrypted")],
)
def test_zip_members_that_are_no_plain_files_are_refused(tmp_path, mode, flag, reason):
    refused(write_zip(tmp_path / "x.zip", {"evil": b"/etc/passwd"}, mode, flag), reason)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "is a link to '/etc/passwd'"),
        (tarfile.LNKTYPE, "is a link to '/etc/passwd'"),
        (tarfile.CHRTYPE, "is a special file"),
        (tarfile.FIFOTYPE, "is a special file"),
    ],
)
def test_tar_members_that_are_no_plain_files_are_refused(tmp_path, kind, reason):
    refused(write_tar(tmp_path / "x.tgz", {**GOOD, "evil": b"x"}, kind), reason)


@pytest.mark.parametrize(("make", "ending"), [(write_zip, "zip"), (write_tar, "tar.gz")])
@pytest.mark.parametrize("harm", ["truncated", "changed", "empty"])
def test_damaged_archives_leave_nothing(tmp_path, make, ending, harm):
    archive = make(tmp_path / f"x.{ending}", {**GOOD, "b.jpg": bytes(range(256)) * 400})
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    keep = {"truncated": len(content) // 2, "changed": len(content), "empty": 0}[harm]
    archive.write_bytes(content[:keep])
    with pytest.raises(UserError, match=r"is damaged .*Get it again"):
        unpack(archive, tmp_path / "out")
    assert names(tmp_path) == [archive.name]


def test_two_members_of_one_name_are_damage(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as z:
        z.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            z.writestr("a", b"2")
    with pytest.raises(UserError, match="is damaged"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


def test_full_disk_while_unpacking_leaves_nothing(tmp_path, monkeypatch):
    archive = write_tar(tmp_path / "x.tar.gz", GOOD)
    monkeypatch.setattr("dplq.data.unpack.shutil.copyfileobj", full_disk)
    with pytest.raises(UserError, match=r"Cannot unpack .*No space left on device"):
        unpack(archive, tmp_path / "out")
    assert names(tmp_path) == ["x.tar.gz"]


def test_other_files_are_not_unpacked(tmp_path):
    (tmp_path / "x.rar").write_bytes(b"Rar!")
    with pytest.raises(UserError, match=r"must be one of \.zip \.tar"):
        unpack(tmp_path / "x.rar", tmp_path / "out")
    with pytest.raises(UserError, match="no archive"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
