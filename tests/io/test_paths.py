"""Paths of the user and names on disk: usable, or one line that prints."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dplq import load, load_backbone, load_domain_encoder
from dplq.errors import UserError, printable
from dplq.images.reader import read_image
from dplq.io.files import cache_root
from dplq.io.validation.local_paths import without_folders
from dplq.io.validation.paths import is_file, name_problem, refused_paths, user_folder, user_path
from dplq.io.validation.schema import InvalidContent, read_json, read_text
from dplq.io.validation.yaml_file import read_yaml
from tests.oddities import KINDS, make_odd

UNUSABLE = [
    ("~nobody-has-this-name/x", "the home folder of ~nobody-has-this-name is not known"),
    ("a\0b", "a\\x00b, which has a NUL character"),
    (os.fsdecode(b"caf\xe9"), "caf\\xe9, which is not UTF-8"),
    ("a" * 300, "which cannot be used: File name too long"),
    ("x/" * 3000, "... (6000 characters), which cannot be used: File name too long"),
]


@pytest.mark.parametrize(("text", "said"), UNUSABLE)
def test_paths_that_cannot_be_used(text, said):
    with pytest.raises(UserError) as error:
        user_path(text, "--root")
    message = str(error.value)
    assert message.startswith("--root is ")
    assert said in message
    assert "\n" not in message
    assert len(message) < 500
    message.encode()


@pytest.mark.parametrize("kind", ["link to itself", "link to nothing"])
def test_links_that_lead_nowhere(tmp_path, kind):
    make_odd(tmp_path / "odd", kind)
    with pytest.raises(UserError, match=r"odd, which (cannot be used: Too many|is a link that)"):
        user_path(tmp_path / "odd", "--output-dir")


def test_paths_that_can_be_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/new/folder", "--root") == tmp_path / "new" / "folder"
    assert user_path("gr\u00fcn", "--root") == Path("gr\u00fcn")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert user_folder(tmp_path / "link", "--root") == tmp_path / "link"
    assert user_folder(tmp_path / "absent", "--root") == tmp_path / "absent"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--root .*file cannot be used: it is not a folder"):
        user_folder(tmp_path / "file", "--root")


def test_is_file(tmp_path):
    assert not is_file(tmp_path / "absent")
    (tmp_path / "file").touch()
    assert is_file(tmp_path / "file")
    assert not is_file(tmp_path / "file" / "below")
    (tmp_path / "link").symlink_to("file")
    assert is_file(tmp_path / "link")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_never_opened(tmp_path, kind):
    path = tmp_path / "odd"
    make_odd(path, kind)
    with pytest.raises(UserError, match=r"odd (is a|cannot be used: Too many) .*or remove it\.$"):
        is_file(path)
    for read in (read_json, read_text, read_yaml):
        with pytest.raises(InvalidContent, match="odd cannot be used: "):
            read(path)
    with pytest.raises(UserError, match=r"odd (is a folder|is a pipe|cannot be opened)"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gr\u00fcn 1", ""),
        ("\u7dd1", ""),
        (" ", "is empty"),
        ("a\nb", "has a control character"),
        ("a\x7fb", "has a control character"),
        ("a\u2028b", "has a control character"),
        (os.fsdecode(b"\xe9"), "is not UTF-8"),
    ],
)
def test_names(name, problem):
    assert name_problem(name) == problem


def test_printable():
    assert printable("gr\u00fcn \u7dd1 b") == "gr\u00fcn \u7dd1 b"
    assert printable("a\nb\tc\x1b") == r"a\nb\tc\x1b"
    assert printable(os.fsdecode(b"caf\xe9")) == r"caf\xe9"
    assert printable("\ud800") == r"\ud800"


def test_what_the_system_refuses_is_a_mistake_of_the_users():
    def fail(error: BaseException) -> None:
        with refused_paths():
            raise error

    loop = OSError(errno.ELOOP, os.strerror(errno.ELOOP), "a\nb")
    with pytest.raises(UserError, match=r"^a\\nb cannot be used: Too many levels"):
        fail(loop)
    with pytest.raises(OSError, match="No space"):
        fail(OSError(errno.ENOSPC, "No space", "file"))
    with pytest.raises(OSError, match="Too many"):
        fail(OSError(errno.ELOOP, "Too many"))
    with pytest.raises(UserError, match=r"^caf\\xe9 is not UTF-8: rename it"), refused_paths():
        os.fsdecode(b"caf\xe9").encode()
    with pytest.raises(UnicodeEncodeError), refused_paths():
        "\u7dd1".encode("ascii")


def test_the_cache_folder(monkeypatch):
    monkeypatch.setenv("DPLQ_CACHE", "~nobody-has-this-name/x")
    with pytest.raises(UserError, match=r"^DPLQ_CACHE is ~nobody-has-this-name/x: the home"):
        cache_root()


@pytest.mark.parametrize("text", [text for text, _ in UNUSABLE])
def test_the_library_refuses_paths_by_argument(text):
    with pytest.raises(UserError, match=r"^path is "):
        load(text)
    with pytest.raises(UserError, match=r"^weights \(MODEL.INIT_WEIGHTS\) is "):
        load_backbone("ViT-B/16", weights=text)
    with pytest.raises(UserError, match=r"^local-dir: is "):
        load_backbone(f"local-dir:{text}")
    with pytest.raises(UserError, match=r"^weights \(DOMAIN.WEIGHTS\) is "):
        load_domain_encoder("mae_vit_base_patch16", weights=text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "it is not valid YAML"),
        ("[" * 2000, "nested too deeply"),
        ("a: 2024-13-45", "ValueError"),
        ("- 1", "expected `object`, got `array`"),
        ("a: x", "a: expected `int`, got `str`|expected `int`, got `str`"),
    ],
)
def test_yaml(tmp_path, text, said):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InvalidContent, match=rf"x\.yaml cannot be used: .*({said})") as error:
        read_yaml(tmp_path / "x.yaml", dict[str, int])
    assert "\n" not in str(error.value)


def test_local_paths_are_told_from_other_values():
    content = {
        "A": "/home/anna/x.pt",
        "B": ["~/a/one.pt", "hf-hub:lab/model", "ViT-B/16"],
        "C": {"D": "C:\\Users\\anna\\t.csv", "E": "https://host/x/y", "F": "a photo of a/an {}."},
        "G": "local-dir:models/clip",
        "H": 3,
        "I": "file:///home/anna/y.pt",
    }
    cleaned, changed = without_folders(content)
    assert cleaned == {
        "A": "x.pt",
        "B": ["one.pt", "hf-hub:lab/model", "ViT-B/16"],
        "C": {"D": "t.csv", "E": "https://host/x/y", "F": "a photo of a/an {}."},
        "G": "local-dir:clip",
        "H": 3,
        "I": "file:y.pt",
    }
    assert changed == ["A", "B", "C.D", "G", "I"]
