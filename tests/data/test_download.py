"""Downloads that are cut, wrong or do not fit."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from dplq.errors import UserError
from dplq.io import download
from dplq.io.download import fetch, in_units

from .web import Site, serve

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def site():
    with serve(Site({"/a.zip": CONTENT})) as running:
        yield running


def get(site: Site, folder: Path, checksum: str = "", **options) -> Path:
    return fetch(f"{site.address}/a.zip", folder / "a.zip", checksum, pause=lambda _: 0, **options)


LOCK = ".a.zip.lock"


def names(folder: Path) -> list[str]:
    """What lies in a folder, without the lock of a download, which stays."""
    return sorted({path.name for path in folder.iterdir()} - {LOCK})


@pytest.mark.parametrize("checksum", ["", SHA256, MD5, f"md5:{MD5.upper()}"])
def test_whole_file_and_nothing_else(site, tmp_path, checksum):
    assert get(site, tmp_path / "new", checksum).read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["a.zip"]
    get(site, tmp_path / "new", checksum)
    assert site.asked == [""], "what is there is not got again"


def test_cut_connection_goes_on_where_it_stopped(site, tmp_path):
    site.cuts = [100_000, 200_000]
    assert get(site, tmp_path, SHA256).read_bytes() == CONTENT
    assert site.asked == ["", "bytes=100000-", "bytes=300000-"]


def test_cut_connection_without_range_starts_anew(site, tmp_path):
    site.cuts, site.ranges = [100_000, 200_000], False
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("checksum", ["", SHA256])
def test_a_later_run_goes_on(site, tmp_path, checksum):
    site.cuts = [100_000, *[0] * 9]
    with pytest.raises(UserError, match=r"broke off 3 times at 100\.0 kB .*go(es)? on from there"):
        get(site, tmp_path, checksum, tries=3)
    assert names(tmp_path) == ["a.zip.part", "a.zip.part.json"], "nothing bears the file's name"
    site.cuts, site.asked = [], []
    assert get(site, tmp_path, checksum).read_bytes() == CONTENT
    assert site.asked == ["bytes=100000-"]


@pytest.mark.parametrize("change", ["etag", "no etag", "other address"])
def test_halves_of_two_files_are_never_joined(site, tmp_path, change):
    site.cuts = [100_000, *[0] * 9]
    site.etag = "" if change == "no etag" else site.etag
    with pytest.raises(UserError):
        get(site, tmp_path, tries=2)
    site.cuts = []
    site.files = {"/a.zip": CONTENT[::-1], "/b.zip": CONTENT[::-1]}
    site.etag = '"2"' if change == "etag" else site.etag
    path = "/b.zip" if change == "other address" else "/a.zip"
    got = fetch(site.address + path, tmp_path / "a.zip", pause=lambda _: 0)
    assert got.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff", b'{"url": 1}', b'{"url": "URL", "tag": null}', b"[" * 10**5]
    + [
        json.dumps({"url": "URL", "tag": tag}).encode()
        for tag in ("a\r\nX: 1", "\u2603", "a" * 2000)
    ],
)
def test_a_damaged_record_of_a_part_costs_the_part_only(site, tmp_path, content):
    content = content.replace(b"URL", f"{site.address}/a.zip".encode())
    (tmp_path / "a.zip.part").write_bytes(b"another file")
    (tmp_path / "a.zip.part.json").write_bytes(content)
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.asked == [""]


def test_two_processes_download_once(site, tmp_path):
    code = "from dplq.io.download import fetch; import sys, pathlib as p; "
    code += "fetch(sys.argv[1], p.Path(sys.argv[2]))"
    command = [sys.executable, "-c", code, f"{site.address}/a.zip", str(tmp_path / "a.zip")]
    lock = FileLock(tmp_path / LOCK)
    with lock:
        both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.stderr.readline() for process in both]
        assert site.asked == []
    assert [process.wait(60) for process in both] == [0, 0]
    for line in said:
        assert line.startswith(
            f"another process downloads {tmp_path}/a.zip (lock: {tmp_path}/{LOCK})"
        )
    assert site.asked == [""]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    for process in both:
        process.stderr.close()


def test_a_file_that_is_there_needs_no_lock(site, tmp_path):
    (tmp_path / "a.zip").write_bytes(CONTENT)
    with FileLock(tmp_path / LOCK):
        assert get(site, tmp_path, SHA256).read_bytes() == CONTENT


def test_a_whole_part_that_was_never_renamed_is_taken(site, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    assert get(site, tmp_path, SHA256).read_bytes() == CONTENT
    assert site.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_that_is_too_long_is_thrown_away(site, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT + b"!")
    assert get(site, tmp_path, SHA256).read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing(site, tmp_path):
    with pytest.raises(UserError, match=f"checksum is sha256:.*, not sha256:{'0' * 64}.*deleted"):
        get(site, tmp_path, f"sha256:{'0' * 64}")
    assert not (tmp_path / "a.zip").exists()
    assert not (tmp_path / "a.zip.part").exists()


def test_a_file_with_a_wrong_checksum_is_replaced(site, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"half")
    assert get(site, tmp_path, MD5).read_bytes() == CONTENT


def test_server_errors_that_pass_are_tried_again(site, tmp_path):
    site.errors = [503, 429]
    assert get(site, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("kind", "path", "text"),
    [
        ("application/zip", "/no.zip", "HTTP 404"),
        ("text/html; charset=utf-8", "/a.zip", "is a web page, not the file"),
    ],
)
def test_what_will_not_become_better_is_not_tried_again(site, tmp_path, kind, path, text):
    site.kind = kind
    with pytest.raises(UserError, match=text):
        fetch(site.address + path, tmp_path / "a.zip", pause=pytest.fail)
    assert names(tmp_path) == []


def test_no_server(tmp_path):
    with pytest.raises(UserError, match="broke off 2 times at 0 bytes"):
        fetch("http://127.0.0.1:9/a", tmp_path / "a", tries=2, pause=lambda _: 0)
    with pytest.raises(UserError, match="only http:// and https://"):
        fetch("file:///etc/passwd", tmp_path / "a")


def test_full_disk_is_seen_before(site, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"needs 1\.0 MB, but only 1\.0 kB are free"):
        get(site, tmp_path)
    assert names(tmp_path) == []


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_disk_that_fills_meanwhile_leaves_nothing(site, tmp_path, monkeypatch):
    monkeypatch.setattr(download.os, "fsync", full_disk)
    with pytest.raises(UserError, match=r"No space left on device\. Nothing of it is kept"):
        get(site, tmp_path)
    assert names(tmp_path) == []


def test_hub_addresses_follow_the_endpoint(site, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", site.address + "/")
    for i, hub in enumerate(("https://huggingface.co/", "https://hf.co/")):
        assert fetch(hub + "a.zip", tmp_path / str(i)).read_bytes() == CONTENT


def test_units():
    assert [in_units(n) for n in (999, 1000, 2.5e6, 4e12, 5e16)] == [
        *("999 bytes", "1.0 kB", "2.5 MB", "4.0 TB", "50000.0 TB")
    ]
