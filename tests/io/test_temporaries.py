"""Temporaries that killed processes left: which are cleared, and which are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from dplq.io.atomic import atomic_write, clear_temporaries

WRITE = """
import os, sys
from dplq.io.atomic import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def left(tmp_path):
    """What a killed process left."""
    target = tmp_path / "prompt_learner/model-1.safetensors"
    target.parent.mkdir()
    done = subprocess.run([sys.executable, "-c", WRITE, str(target)])
    assert done.returncode == -signal.SIGKILL
    (path,) = target.parent.iterdir()
    return path


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_those_of_dead_processes_are_cleared(left, tmp_path):
    kept = ["model.safetensors", ".hidden", ".part", ".model-1.part.safetensors", "a.1-2.part"]
    for name in kept:
        (tmp_path / name).touch()
    assert clear_temporaries(tmp_path) == [left]
    assert names(tmp_path) == sorted(kept)
    assert clear_temporaries(tmp_path / "absent") == []


def test_those_of_living_processes_are_kept(tmp_path):
    with atomic_write(tmp_path / "x.json") as temporary:
        temporary.touch()
        assert clear_temporaries(tmp_path) == []
    assert names(tmp_path) == ["x.json"]


@pytest.mark.parametrize("host", ["", "0123abcd-"])
def test_those_of_unknown_hosts_are_cleared_after_a_day(host, left, tmp_path):
    """Version 0.1.0 wrote no host."""
    known = left.name.split(".")[2].split("-", 1)[0]
    left = left.rename(left.with_name(left.name.replace(f"{known}-", host)))
    assert clear_temporaries(tmp_path) == []
    then = time.time() - 25 * 3600
    os.utime(left, (then, then))
    assert clear_temporaries(tmp_path) == [left]


def test_all_are_cleared_on_demand(tmp_path):
    for name in (".x.0123abcd-1-2.part.json", f".y.{os.getpid()}-2.part"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below/.z.0123abcd-1-2.part.json").touch()
    assert len(clear_temporaries(tmp_path, all=True)) == 2
    assert names(tmp_path) == [".z.0123abcd-1-2.part.json"], "others may write below"
