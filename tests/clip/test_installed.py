"""The installed open_clip, where a folder of the same name comes before it on the path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import open_clip

from dplq.clip.installed import open_clip as import_open_clip
from tests.tiny import tiny_clip_config, write_clip_dir

PROJECT = Path(__file__).resolve().parents[2]
CODE = """
import logging, sys
logging.basicConfig(format="%(message)s")
import dplq
clip = dplq.load_backbone({name!r}, pretrained=False)
import open_clip
print(open_clip.__file__, type(clip.clip).__module__)
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(PROJECT)])}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=variables, capture_output=True, text=True
    )


def test_normally_it_is_the_module_of_that_name():
    assert import_open_clip() is open_clip
    assert import_open_clip("pretrained") is sys.modules["open_clip.pretrained"]


NAMES = """
import json, sys
from dplq.clip import installed, sources
names = installed.architectures()
found = {name: installed.architecture(name) for name in names}
tags = installed.pretrained_tables().list_pretrained(as_str=True)
installed.architecture("ViT-B-16")["embed_dim"] = 1  # a copy
source = sources.find_source("ViT-B-16:openai", "", pretrained=False, seed=0)
assert not {"open_clip", "transformers", "timm"} & set(sys.modules)
import open_clip
assert sorted(open_clip.list_models()) == names
assert {name: open_clip.get_model_config(name) for name in names} == found
assert open_clip.list_pretrained(as_str=True) == tags
assert source.config == {**found["ViT-B-16"], "quick_gelu": True}
open_clip.factory._MODEL_CONFIGS["mine"] = {"embed_dim": 7}  # as add_model_config does
assert "mine" in installed.architectures() and installed.architecture("mine") == {"embed_dim": 7}
assert installed.pretrained_tables() is open_clip.pretrained
print("equal")
"""


def test_names_are_those_of_open_clip_without_its_import(tmp_path):
    done = run(NAMES, tmp_path)
    assert done.stdout == "equal\n", done.stderr


def test_a_folder_of_that_name_is_passed_over(tmp_path):
    """The tree's own name stays the tree's; one line says what hides what."""
    (tmp_path / "open_clip").mkdir()
    (tmp_path / "open_clip/__init__.py").touch()
    name = write_clip_dir(tmp_path / "clip", tiny_clip_config())
    done = run(CODE.format(name=name), tmp_path)
    where, module = done.stdout.split()
    assert where == str(tmp_path / "open_clip/__init__.py"), done.stderr
    assert module == "dplq_open_clip.model"
    line = f"{tmp_path / 'open_clip'} hides the installed open_clip: dplq uses "
    assert done.stderr.count(line) == 1


def test_nothing_to_import_is_one_clear_message(tmp_path):
    (tmp_path / "open_clip").mkdir()
    (tmp_path / "open_clip/__init__.py").touch()
    code = (
        "from dplq.clip import installed; installed.DISTRIBUTION = 'no_such_distribution'\n"
        "try: installed.open_clip()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    done = run(code, tmp_path)
    assert done.stdout.startswith("UserError The package open_clip cannot be imported: ")
    assert f"{tmp_path / 'open_clip'} is another package of that name" in done.stdout
    assert "Install no_such_distribution, or rename the folder that hides it." in done.stdout
