"""The plan of an experiment, and its execution run by run, with a stand-in for training."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dplq.cli import demo
from dplq.errors import UserError
from dplq.experiments.base2new import base2new
from dplq.experiments.execute import execute
from dplq.experiments.plan import Run, is_own_python, posix_checksum, train_command
from dplq.experiments.series import Series
from dplq.io.protocols import CONFIGS
from tests.runner import PROJECT

STAND_IN = """#!{python}
import json, os, sys, time
from pathlib import Path
value = {{key: sys.argv[i + 1] for i, key in enumerate(sys.argv[:-1])}}
out = Path(value["--output-dir"])
out.mkdir(parents=True, exist_ok=True)
with open({calls!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
(out / "settings.txt").write_text(os.environ["DPLQ_SETTINGS"] + "\\n")
kind = "test" if "--eval-only" in sys.argv else "train"
if os.environ.get("FAIL") == f"{{kind}} {{value['--seed']}}":
    sys.exit(7)
if os.environ.get("FAIL") == "slow":
    (out / "started").touch()
    time.sleep(30)
(out / "prompt_learner").mkdir(exist_ok=True)
(out / "results.json").write_text("{{}}")
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Have a stand-in run in place of Python; return a function that lists its calls."""
    python, file = tmp_path / "python", tmp_path / "calls"
    python.write_text(STAND_IN.format(python=sys.executable, calls=str(file)))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("DPLQ_PYTHON", str(python))
    file.touch()
    return lambda: [json.loads(line) for line in file.read_text().splitlines()]


def plan(tmp_path, seeds=(1, 2), trainer="QuaternionPrompt", **changes):
    return base2new(
        Series("demo_aerial", trainer, "demo", seeds=seeds, out=tmp_path / "out", **changes)
    )


def test_posix_checksum(tmp_path):
    for content in (b"", b"a", bytes(range(256)) * 9):
        (tmp_path / "file").write_bytes(content)
        with (tmp_path / "file").open("rb") as file:
            done = subprocess.run(["cksum"], stdin=file, capture_output=True, text=True, check=True)
        assert posix_checksum(tmp_path / "file") == done.stdout.strip()


def test_the_plan_is_that_of_the_script(tmp_path):
    runs = plan(tmp_path).runs
    place = "demo_aerial/shots_16/QuaternionPrompt/demo"
    base, new = (tmp_path / "out/base2new" / part / place for part in ("train_base", "test_new"))
    assert [run.folder for run in runs] == [
        *(base / "seed1", new / "seed1", base / "seed2", new / "seed2"),
    ]
    assert [run.model for run in runs] == [None, base / "seed1", None, base / "seed2"]
    assert [run.title for run in runs[:2]] == [
        "train on the base classes of demo_aerial, seed 1",
        "test on the new classes of demo_aerial, seed 1",
    ]
    command = runs[1].command
    assert command[:2] == [sys.executable, str(PROJECT / "train.py")]
    assert command[-7:] == [
        *("--model-dir", str(base / "seed1"), "--eval-only"),
        *("DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", "new"),
    ]


def test_runs_have_the_modules_of_the_demo_that_starts_them(tmp_path, monkeypatch):
    """Also where the current folder has modules of these names."""
    here = tmp_path / "here"
    (here / "dplq").mkdir(parents=True)
    (here / "dplq/__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(here)
    for root in (PROJECT, None):  # a checkout, and an installed package
        monkeypatch.setattr("dplq.experiments.plan.checkout", lambda root=root: root)
        command = train_command()
        monkeypatch.setenv("PYTHONPATH", "" if root else str(PROJECT))
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: dplq train ")
    monkeypatch.setenv("DPLQ_PYTHON", "of/a/cluster")
    assert train_command()[0] == "of/a/cluster"


def test_which_python_is_this_one(tmp_path, monkeypatch):
    monkeypatch.delenv("DPLQ_PYTHON", raising=False)
    assert is_own_python()
    folder, link = Path(sys.executable).parent, tmp_path / "python"
    link.symlink_to(sys.executable)  # as in another virtual environment of the same Python
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    given = {"python": True, sys.executable: True, str(link): False, "no_such_python": False}
    for name, own in given.items():
        monkeypatch.setenv("DPLQ_PYTHON", name)
        assert is_own_python() is own, name


def test_a_head_is_not_tested_on_other_classes(tmp_path):
    assert [run.classes for run in plan(tmp_path, trainer="LinearProbe").runs] == ["base", "base"]


def test_settings_are_those_of_the_scripts(tmp_path):
    """The lines that the bash scripts of earlier versions wrote, whose runs are continued."""
    (tmp_path / "results.json").write_text("{}")
    script = (
        'echo "dataset demo_aerial (file $(cksum <configs/datasets/demo_aerial.yaml))"; '
        'echo "trainer CoOp"; echo "config demo (file $(cksum <configs/trainers/CoOp/demo.yaml))"; '
        f'echo "data /data"; echo "shots 16"; echo "classes new"; echo "seed 3"; '
        f'echo "model results.json $(cksum <"{tmp_path}/results.json")"; echo "OPTIM.LR 0.1"'
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    run = Run(
        *(tmp_path / "new", "demo_aerial", "CoOp", "demo", 3, 16, "new"),
        data=Path("/data"),
        model=tmp_path,
        options=(("OPTIM.LR", "0.1"),),
    )
    assert run.settings() == done.stdout.rstrip("\n")
    assert CONFIGS == PROJECT / "configs"


def test_finished_runs_are_not_repeated(tmp_path, calls, monkeypatch, capsys):
    monkeypatch.setenv("FAIL", "train 2")
    assert execute(plan(tmp_path)) == 7
    assert "failed (exit code 7): train on the base classes" in capsys.readouterr().err
    assert len(calls()) == 3
    monkeypatch.delenv("FAIL")
    assert execute(plan(tmp_path)) == 0
    assert len(calls()) == 5
    assert capsys.readouterr().out.count("already finished: ") == 2
    assert execute(plan(tmp_path)) == 0
    assert len(calls()) == 5


def test_other_settings_are_refused(tmp_path, calls):
    assert execute(plan(tmp_path)) == 0
    changed = plan(tmp_path, options=(("OPTIM.MAX_EPOCH", "2"),))
    with pytest.raises(UserError, match=r"made with other settings \(now: OPTIM.MAX_EPOCH 2\)"):
        execute(changed)
    beside = plan(tmp_path, seeds=[3], options=(("OPTIM.MAX_EPOCH", "2"),))
    with pytest.raises(UserError, match=r"seed\d was made with other settings"):
        execute(beside)
    assert execute(plan(tmp_path, seeds=[3])) == 0


def test_a_retrained_model_is_tested_again(tmp_path, calls):
    assert execute(plan(tmp_path, seeds=[1])) == 0
    (plan(tmp_path).runs[0].folder / "results.json").write_text('{"another": 1}')
    with pytest.raises(UserError, match=r"test_new.*there: model results.json"):
        execute(plan(tmp_path, seeds=[1]))


def test_the_old_test_of_a_model_that_is_trained_anew_is_refused(tmp_path, calls, capsys):
    """Its settings are known only once the model is there."""
    assert execute(plan(tmp_path, seeds=[1])) == 0
    train, test = plan(tmp_path, seeds=[1]).runs
    (test.folder / "settings.txt").write_text(test.settings().replace("json", "json 1") + "\n")
    (train.folder / "results.json").unlink()
    assert execute(plan(tmp_path, seeds=[1])) == 2
    assert "test_new/demo_aerial" in (err := capsys.readouterr().err)
    assert "was made with other settings (there: model results.json 1" in err
    assert len(calls()) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_then_the_plan(tmp_path, calls, monkeypatch, number):
    monkeypatch.setenv("FAIL", "slow")
    marker = plan(tmp_path).runs[0].folder / "started"

    def send():
        while not marker.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
    began, before = time.monotonic(), signal.getsignal(number)
    assert execute(plan(tmp_path)) == 128 + number
    assert time.monotonic() - began < 20
    assert len(calls()) == 1
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer", "CoOb"], "--trainer CoOb is not in the demo. Did you mean 'CoOp'"),
        (["--seeds", "-1"], "--seeds: -1: give whole numbers from 0"),
        (["--", "OPTIM.LR"], "'OPTIM.LR' has no partner"),
        (["--", "SEED", "3"], "SEED: the demo sets this itself"),
    ],
)
def test_the_demo_refuses_what_it_cannot_use(arguments, message, capsys):
    assert demo.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_demo_carries_out_the_plan(tmp_path, calls, monkeypatch, capsys):
    monkeypatch.setattr(demo, "print_table", lambda folders: print("table of", *folders))
    out = tmp_path / "out"
    arguments = ["--trainer", "coop", "--seeds", "4", "--out", str(out), "--", "OPTIM.LR", "0.1"]
    assert demo.main(arguments) == 0
    assert [call[-2:] for call in calls()] == [["OPTIM.LR", "0.1"]] * 2
    text = capsys.readouterr().out
    assert f"table of {out}/base2new/train_base/demo_aerial/shots_16/CoOp/demo" in text
    assert f"\n  dplq report {out}\n" in text
