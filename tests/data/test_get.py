"""`get` survives what networks, servers, archives and disks do."""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from dplq.data import get as data_get
from dplq.data.catalogue import registered
from dplq.data.check import problem
from dplq.data.unpack import Limits
from dplq.io.download import fetch
from tests.datasets.lookalikes import make_classes, make_lookalike

from .lookalike import by_part, check, dataset, noisy, run, write_split
from .web import Site, serve


def archive(folder: Path, prefix: str) -> bytes:
    """A zip of what lies in `folder`."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        for path in sorted(folder.rglob("*.jpg")):
            opened.write(path, prefix + path.relative_to(folder).as_posix())
    return content.getvalue()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server with RSSCN7 as a source tree's archive, which the declaration points at."""
    content = archive(noisy(tmp_path / "source"), "RSSCN7-master/")
    shutil.rmtree(tmp_path / "source")
    with serve(Site({"/RSSCN7.zip": content})) as running:
        md5 = hashlib.md5(content).hexdigest()
        declare(monkeypatch, running, md5)
        patient = partial(fetch, pause=lambda _: None)
        monkeypatch.setattr("dplq.data.get.fetch", patient)
        yield running


def declare(monkeypatch, site: Site, md5: str) -> None:
    download = ((f"{site.address}/RSSCN7.zip", md5, "RSSCN7.zip"),)
    monkeypatch.setattr(dataset("RSSCN7"), "download", download)


def get(capsys, root: Path, *options) -> tuple[int, str]:
    return run(capsys, "get", "RSSCN7", "--root", root, *options)


LOCKS = {".RSSCN7.lock", "downloads/RSSCN7/.RSSCN7.zip.lock", ".root.lock"}


def left_in(root: Path) -> list[str]:
    """The files below a folder, without the locks, which stay."""
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return sorted(files - LOCKS)


def entries(root: Path) -> list[str]:
    return sorted({path.name for path in root.iterdir()} - LOCKS)


def test_get(capsys, tmp_path, site):
    code, text = get(capsys, tmp_path)
    assert code == 0, text
    assert f"RSSCN7 is in {tmp_path}/RSSCN7. Licence: not stated" in text
    assert entries(tmp_path) == ["RSSCN7", "downloads"]
    assert (tmp_path / "RSSCN7" / "aGrass" / "a00.jpg").is_file(), "the wrapping is off"
    assert not [name for name in left_in(tmp_path) if name.startswith("downloads")]
    assert check(capsys, tmp_path)[0] == 0
    code, text = get(capsys, tmp_path)
    assert (code, len(site.asked)) == (0, 1)
    assert "RSSCN7 is there already." in text


def test_get_survives_a_cut_connection(capsys, tmp_path, site):
    site.cuts = [1000, 1000]
    assert get(capsys, tmp_path, "--keep")[0] == 0
    assert site.asked == ["", "bytes=1000-", "bytes=2000-"]
    assert check(capsys, tmp_path)[0] == 0
    assert (tmp_path / "downloads" / "RSSCN7" / "RSSCN7.zip").is_file()


def test_get_in_two_runs(capsys, tmp_path, site):
    site.cuts = [1000] + [0] * 9
    code, text = get(capsys, tmp_path)
    assert code == 2
    assert "broke off 5 times at 1.0 kB" in text
    assert not (tmp_path / "RSSCN7").exists()
    assert left_in(tmp_path) == [
        "downloads/RSSCN7/RSSCN7.zip.part",
        "downloads/RSSCN7/RSSCN7.zip.part.json",
    ]
    site.cuts = []
    assert get(capsys, tmp_path)[0] == 0


def test_get_of_a_wrong_file(capsys, tmp_path, site, monkeypatch):
    declare(monkeypatch, site, "0" * 32)
    code, text = get(capsys, tmp_path)
    assert code == 2
    assert "is not the file expected" in text
    assert not any(name.endswith((".zip", ".part", ".jpg")) for name in left_in(tmp_path))


@pytest.mark.parametrize("member", ["../../evil.jpg", "/tmp/evil.jpg"])
def test_get_of_a_hostile_archive(capsys, tmp_path, site, monkeypatch, member):
    with zipfile.ZipFile(content := io.BytesIO(site.files["/RSSCN7.zip"]), "a") as opened:
        opened.writestr(member, b"evil")
    site.files["/RSSCN7.zip"] = content.getvalue()
    declare(monkeypatch, site, "")
    code, text = get(capsys, tmp_path)
    assert code == 2
    assert "is refused: its member" in text
    assert left_in(tmp_path) == []
    assert entries(tmp_path) == ["downloads"]


def test_get_on_a_full_disk(capsys, tmp_path, site, monkeypatch):
    real, copied = shutil.copyfileobj, []

    def copy(*arguments):
        copied.append(arguments)
        if len(copied) > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr("dplq.data.unpack.shutil.copyfileobj", copy)
    code, text = get(capsys, tmp_path)
    assert code == 2
    assert "No space left on device. Nothing of it is kept" in text
    assert left_in(tmp_path) == ["downloads/RSSCN7/RSSCN7.zip"]
    monkeypatch.setattr("dplq.data.unpack.shutil.copyfileobj", real)
    assert get(capsys, tmp_path)[0] == 0
    assert len(site.asked) == 1, "the whole archive is used again"


def test_get_of_an_archive_over_the_limits_keeps_it(capsys, tmp_path, site, monkeypatch):
    monkeypatch.setattr("dplq.data.unpack.LIMITS", Limits(members=3))
    code, text = get(capsys, tmp_path)
    assert code == 2
    assert "RSSCN7.zip is refused: it unpacks to 42 or more members; at most 3" in text
    assert left_in(tmp_path) == ["downloads/RSSCN7/RSSCN7.zip"]


def test_two_at_once_get_it_once(tmp_path, site, caplog):
    """One waits for the other, then finds the data in place."""
    cls = dataset("RSSCN7")

    def one(_):
        return data_get.get(cls, str(tmp_path), lambda root: problem(cls, root))

    with ThreadPoolExecutor(2) as pool, FileLock(tmp_path / ".RSSCN7.lock"):
        both = pool.map(one, range(2))
        deadline = time.monotonic() + 30
        while len(caplog.messages) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        waiting = (
            f"another process fills {tmp_path}/RSSCN7 (lock: {tmp_path}/.RSSCN7.lock); waiting"
        )
        assert [line.startswith(waiting) for line in caplog.messages] == [True, True]
        assert site.asked == []
        caplog.clear()
    assert list(both) == [tmp_path / "RSSCN7"] * 2
    assert site.asked == [""]
    assert caplog.messages == [
        f"RSSCN7 is in {tmp_path}/RSSCN7 already: another process has got it"
    ]


def test_get_after_a_kill_in_the_middle(capsys, tmp_path, site):
    make_classes(tmp_path / ".RSSCN7.unpacking" / "RSSCN7", ["aGrass"])
    assert get(capsys, tmp_path)[0] == 0
    assert not (tmp_path / ".RSSCN7.unpacking").exists()
    assert check(capsys, tmp_path)[0] == 0


def test_get_mixes_nothing(capsys, root, site):
    shutil.rmtree(root / "RSSCN7" / "aGrass")
    before = left_in(root)
    code, text = get(capsys, root)
    assert code == 2
    assert "has folders already, but is not complete. `check RSSCN7` says what is wrong" in text
    assert (left_in(root), site.asked) == (before, [])


def test_get_leaves_a_split_file_where_it_is(capsys, tmp_path, site):
    (tmp_path / "RSSCN7").mkdir()
    write_split(tmp_path, *by_part(tmp_path))
    assert get(capsys, tmp_path)[0] == 0
    assert "split_cao_RSSCN7.json (train 21, val 7, test 14)" in check(capsys, tmp_path)[1]


def test_get_by_hand(capsys, tmp_path, site, monkeypatch):
    monkeypatch.setattr(dataset("RSSCN7"), "download", ())
    code, text = get(capsys, tmp_path)
    assert code == 1
    for part in (
        "RSSCN7: cannot be downloaded for you. Get it from: https://github.com/palewithout/RSSCN7",
        f"{tmp_path}/RSSCN7/ bField/",
        "--archive FILE",
    ):
        assert part in text
    file = tmp_path / "by hand.zip"
    file.write_bytes(site.files["/RSSCN7.zip"])
    code, text = get(capsys, tmp_path, "--archive", file)
    assert code == 0, text
    assert file.is_file()
    assert check(capsys, tmp_path)[0] == 0


def test_get_of_ones_own(capsys, tmp_path):
    code, text = run(capsys, "get", "OwnImages", "--root", tmp_path / "data")
    assert code == 1
    assert "OwnImages: your own collection" in text
    (tmp_path / "x.zip").write_bytes(archive(noisy(tmp_path / "source", ["cat", "dog"]), "x/"))
    root = tmp_path / "data"
    code, text = run(capsys, "get", "OwnImages", "--root", root, "--archive", tmp_path / "x.zip")
    assert code == 0, text
    assert entries(root) == ["cat", "dog"]


def test_get_says_when_what_was_got_is_not_it(capsys, tmp_path, monkeypatch):
    other = noisy(tmp_path / "other", ["aGrass", "bField"])
    (tmp_path / "x.zip").write_bytes(archive(other, "RSSCN7/stuff/"))
    code, text = get(capsys, tmp_path / "data", "--archive", tmp_path / "x.zip")
    assert code == 1
    assert "It cannot be used yet: RSSCN7: " in text
    assert "holds no class folder" in text
    assert (tmp_path / "data/RSSCN7/stuff/aGrass").is_dir(), "as it was in the archive"


def test_get_through_torchvision(capsys, tmp_path, monkeypatch):
    from torchvision import datasets

    def download(folder, download, kind):
        assert download is True
        noisy(Path(folder) / kind)
        (Path(folder) / "x.zip").write_bytes(b"left by torchvision")

    monkeypatch.setattr(datasets, "EuroSAT", download)
    declared = (("torchvision:EuroSAT?kind=images", "", ""),)
    monkeypatch.setattr(dataset("RSSCN7"), "download", declared)
    assert get(capsys, tmp_path)[0] == 0
    assert not (tmp_path / "RSSCN7" / "x.zip").exists()
    assert check(capsys, tmp_path)[0] == 0


AUTOMATIC = sorted(  # without further names and variants of all images
    name
    for name, cls in registered().items()
    if cls.download and (cls.class_file or cls.v2_name or not cls.test_only) and not cls.file_name
)


@pytest.mark.parametrize("name", AUTOMATIC)
def test_archives_with_folders_around_everything(name, tmp_path):
    cls = dataset(name)
    layouts = [None] if cls.list_files else cls.at(str(tmp_path / "source")).layouts()
    folder, *_ = make_lookalike(cls, tmp_path / "source", layouts[-1])
    others = [path for path in folder.iterdir() if path.is_file()]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
        for path in set(folder.rglob("*.*")) - set(others):
            opened.write(path, "x-master/y" / path.relative_to(folder))
    archives = [str(tmp_path / "x.zip"), *map(str, others)]
    got = data_get.get(cls, str(tmp_path), lambda root: problem(cls, root), archives=archives)
    assert problem(cls, str(tmp_path)) == ""
    assert got.is_relative_to(tmp_path / cls.dataset_dir.split("/")[0])
