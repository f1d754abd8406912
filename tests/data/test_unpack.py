"""Archives that are hostile, damaged or do not fit."""

from __future__ import annotations

import errno
import gzip
import io
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from dplq.data import unpack as data_unpack
from dplq.data.unpack import Limits, TooLarge, unpack, unpack_over
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


def write_deflated(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
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
        ("a/" * 1500 + "evil", "lies in more than 64 folders"),
        ("a/" + "b" * 256, "a path that no file can have"),
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


@pytest.fixture
def limits(monkeypatch):
    """Set the limits of the test."""
    return lambda **values: monkeypatch.setattr(data_unpack, "LIMITS", Limits(**values))


def too_large(archive: Path, text: str) -> None:
    with pytest.raises(TooLarge, match=text) as caught:
        unpack(archive, archive.parent / "out")
    assert str(caught.value).startswith(f"{archive} is refused: it unpacks to ")
    assert str(caught.value).endswith("If you know that it is good, unpack it yourself.")
    assert names(archive.parent) == [archive.name], "kept, and nothing beside it"


@pytest.mark.parametrize(("make", "ending"), [(write_deflated, "zip"), (write_tar, "tar.gz")])
@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"ratio": 10, "free": 1000}, r"kB or more of its .* at most 10 times its size"),
        ({"size": 150_000}, r"200\.. kB or more; at most 150\.0 kB are accepted"),
        ({"members": 2}, r"3 or more members; at most 2 are accepted"),
    ],
)
def test_archives_over_a_limit_are_refused(tmp_path, limits, make, ending, values, text):
    limits(**values)
    members = {"a": b"1" * 200_000, "b": b"2", "c": b"3"}
    too_large(make(tmp_path / f"x.{ending}", members), text)


@pytest.mark.parametrize(("make", "ending"), [(write_deflated, "zip"), (write_tar, "tar.gz")])
def test_small_archives_may_have_any_ratio(tmp_path, limits, make, ending):
    limits(ratio=10, free=200_000)
    content = b"1" * 150_000
    unpack(make(tmp_path / f"x.{ending}", {"a": content}), tmp_path / "out")
    assert (tmp_path / "out/a").read_bytes() == content


def test_what_is_written_is_counted_whatever_a_header_says(tmp_path, limits, monkeypatch):
    limits(ratio=10, free=1000)
    written = []

    class Endless(io.BytesIO):
        def read(self, size=-1):
            written.append(size)
            return b"1" * size if len(written) < 100 else b""

    def lying(*_):
        yield data_unpack._Member("a", False, "", Endless)

    monkeypatch.setattr(data_unpack, "_zip_members", lying)
    too_large(write_zip(tmp_path / "x.zip", GOOD), "at most 10 times")
    assert len(written) == 1


def test_a_sparse_member_is_as_large_as_it_says(tmp_path):
    """A hole takes no bytes in the archive."""
    info = tarfile.TarInfo("GNUSparseFile.0/a")
    version = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    info.pax_headers = {**version, "GNU.sparse.name": "a", "GNU.sparse.realsize": str(10**15)}
    data = f"1\n{10**15}\n0\n".encode().ljust(512, b"\0")
    info.size = len(data)
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(data))
    too_large(tmp_path / "x.tar", r"1000\.0 TB or more; at most 4\.0 TB")


def test_a_header_that_would_fill_the_memory(tmp_path):
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    with pytest.raises(UserError, match=r"is damaged \(a header of 1\.1 TB\)"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "out")


@pytest.mark.parametrize("name", ["junk", "__MACOSX/a"])
def test_what_is_skipped_is_counted_too(tmp_path, limits, name):
    limits(ratio=10, free=20_000)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("good.jpg"))
        if name != "junk":
            for part in range(5):
                info = tarfile.TarInfo(f"{name}{part}")
                info.size = 10_000
                archive.addfile(info, io.BytesIO(bytes(10_000)))
    after = bytes(100_000) if name == "junk" else b""
    (tmp_path / "x.tgz").write_bytes(gzip.compress(content.getvalue() + after))
    too_large(tmp_path / "x.tgz", "at most 10 times")


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_every_compression_is_known_by_its_content(tmp_path, ending):
    with tarfile.open(tmp_path / f"x.{ending}", f"w:{ending[4:]}") as archive:
        info = tarfile.TarInfo("a")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    other = (tmp_path / f"x.{ending}").rename(tmp_path / "y.tar")
    unpack(other, tmp_path / "out")
    assert (tmp_path / "out/a").read_bytes() == b"abc"


def test_a_tar_that_cannot_fit_is_refused_before(tmp_path, monkeypatch):
    archive = write_tar(tmp_path / "x.tar.gz", GOOD)
    usage = data_unpack.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr("dplq.io.download.shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"or more in it\) needs .* only 10 bytes are free"):
        unpack(archive, tmp_path / "out")
    assert names(tmp_path) == ["x.tar.gz"]


def test_unpacking_into_one_folder_waits_for_another_process(tmp_path, caplog):
    archive = write_zip(tmp_path / "a.zip", {"a.txt": b"1"})
    with ThreadPoolExecutor(1) as pool, FileLock(tmp_path / ".a.zip.lock"):
        done = pool.submit(unpack_over, archive, tmp_path)
        deadline = time.monotonic() + 30
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
        assert caplog.messages[0].startswith(f"another process unpacks {archive} (lock: ")
        assert not (tmp_path / "a.txt").exists()
    done.result()
    assert (tmp_path / "a.txt").read_text() == "1"
