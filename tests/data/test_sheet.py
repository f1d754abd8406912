"""`sheet` draws the images of every class under its prompt."""

from __future__ import annotations

import pytest
from PIL import Image

from dplq.data import contact_sheet
from dplq.data.contact_sheet import Cell, draw, evenly

from .lookalike import run


def test_sheet(capsys, root, tmp_path):
    (root / "RSSCN7" / "aGrass" / "a02.jpg").write_bytes(b"broken")
    out = tmp_path / "new" / "sheet.png"
    options = ("--root", root, "--out", out, "--size", 30, "--per-class", 6)
    code, text = run(capsys, "sheet", "rsscn7", *options)
    assert (code, text) == (0, str(out))
    with Image.open(out) as sheet:
        assert sheet.size == (2 * (6 * 32 + 8) + 8, 4 * (36 + 30 + 8) + 18 + 16)
    assert [path.name for path in out.parent.iterdir()] == ["sheet.png"]


def test_sheet_shows_the_prompts(root, monkeypatch, tmp_path, capsys):
    written = []
    monkeypatch.setattr(contact_sheet, "_fitting", lambda text, *_: written.append(text) or text)
    assert run(capsys, "sheet", "RSSCN7", "--root", root, "--out", tmp_path / "a.png")[0] == 0
    assert written[::2][2:4] == ["2 a photo of Grass.", "3 a photo of Industrial Area."]
    assert written[1::2][2:5] == [
        "base, aGrass, 6 images",
        "base, cIndustry, 6 images",
        "new, gParking, 6 images",
    ]


@pytest.mark.parametrize(("name", "text"), [("a.nope", "unknown file extension"), ("", "RSSCN7")])
def test_sheet_that_cannot_be(capsys, root, tmp_path, name, text):
    options = ("--out", tmp_path / name) if name else ()
    code, out = run(capsys, "sheet", "RSSCN7", "--root", root if name else tmp_path, *options)
    assert code == 2
    assert text in out


def test_drawing():
    cells = [Cell(f"class {i} " * 9, "", []) for i in range(100)]
    width, height = draw("title", cells, per_class=2, size=20).size
    assert 0.5 < width / height < 2
    assert evenly("abcdefgh", 4) == list("bdfh")
    assert evenly("ab", 4) == list("ab")
