"""`list` and `info`, and what all commands share."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from dplq.data.__main__ import main
from dplq.data.catalogue import registered
from dplq.data.datasheet import datasheet

from .lookalike import dataset, run


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom dplq.data.__main__ import main\n"
        "try: main(['get', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'PIL', 'tabulate', 'dassl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "--archive" in done.stdout


def test_list_has_every_dataset_once(capsys):
    code = main(["list"])
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[2:]]
    assert code == 0
    assert lines[0].split() == [
        "name",
        "domain",
        "classes",
        "images",
        "licence",
        "get",
        "all",
        "as",
        "test",
    ]
    assert len(names) == len(set(names))
    assert {"RSSCN7", "WHURS19", "BTMRI", "DemoAerial", "OwnImages"} <= set(names)
    variants = {cls.v2_name for cls in registered().values()} - {""}
    assert not variants & set(names), "a variant has a column, no line"
    row = next(line for line in lines if line.startswith("RSSCN7 "))
    assert re.search(r"remote sensing +7 +42 +not stated.* manual +RSSCN7v2", row)


def test_info_is_the_whole_datasheet(capsys):
    code, text = run(capsys, "info", "rsscn7")
    assert code == 0
    for part in (
        "RSSCN7: 2,800 optical aerial scenes",
        "classes 7: 4 base, 3 new",
        "home page https://github.com/palewithout/RSSCN7",
        "citation Zou, Ni, Zhang, Wang",
        "else made here, 50/20/30 % of every class",
        "DATA/RSSCN7/ bField/",
        "DATA/RSSCN7/images/{class}/*",
        "3 base a photo of Industrial Area. cIndustry | Industry",
    ):
        assert part in text


def test_every_dataset_has_a_datasheet(capsys):
    for name in registered():
        assert main(["info", name]) == 0
        assert capsys.readouterr().out.startswith(f"{name}: ")


def test_datasheet_names_what_is_downloaded():
    declarations = {"RSSCN7": type("RSSCN7", (dataset("RSSCN7"),), {"download": (("u", "m", ""),)})}
    assert "get          u (m)" in datasheet("RSSCN7", declarations, "", "")


@pytest.mark.parametrize("command", ["info", "get", "check", "sheet"])
def test_unknown_name(capsys, command):
    code, text = run(capsys, command, "RSSCN77")
    assert code == 2
    assert "error: There is no dataset 'RSSCN77'. Did you mean 'RSSCN7'" in text
