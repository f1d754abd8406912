"""scripts/base2new.sh: with a stub in place of Python that records its arguments, and for real."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runner import make_project

PROJECT = Path(__file__).resolve().parents[1]
PLACE = "RSSCN7/shots_16/QuaternionPrompt/tiny/seed1"
STUB = """#!{python}
import json, os, subprocess, sys, time
from pathlib import Path

args = sys.argv[1:]
if args[0] != "train.py":
    sys.exit(subprocess.call([sys.executable, *args]))
value = {{key: args[i + 1] for i, key in enumerate(args[:-1])}}
with open({calls!r}, "a") as file:
    file.write(json.dumps({{"args": args, "cwd": os.getcwd()}}) + "\\n")
fail = os.environ.get("STUB_FAIL", "")
subset = value["DATASET.SUBSAMPLE_CLASSES"]
if fail == "sleep":
    time.sleep(30)
out = Path(value["--output-dir"])
(out / "log.txt").write_text("started\\n")
if fail == "silent":
    sys.exit(0)
if fail == f"{{subset}} {{value['--seed']}}":
    sys.exit(7)
(out / "prompt_learner").mkdir(exist_ok=True)
if fail == f"late {{subset}}":
    sys.exit(7)
result = {{
    "format": 1, "trainer": value["--trainer"], "dataset": "RSSCN7", "subsample": subset,
    "split": "test", "shots": int(value["DATASET.NUM_SHOTS"]), "seed": int(value["--seed"]),
    "accuracy": 90.0 if subset == "base" else 60.0, "run": os.environ.get("STUB_RUN", ""),
}}
(out / "results.json").write_text(json.dumps(result))
"""


class Sandbox:
    """A copy of the scripts in a small project whose path has a space, and a caller's folder."""

    def __init__(self, folder: Path):
        self.root = folder / "my project"
        self.caller = folder / "some where"
        self.calls_file = folder / "calls.jsonl"
        self.caller.mkdir()
        shutil.copytree(PROJECT / "scripts", self.root / "scripts")
        (self.root / "dplq").mkdir()
        (self.root / "dplq/__init__.py").touch()
        for name in ("errors.py", "results.py"):
            shutil.copy(PROJECT / "dplq" / name, self.root / "dplq")
        for name in (
            "datasets/RSSCN7.yaml",
            "datasets/btmri.yaml",
            "trainers/QuaternionPrompt/tiny.yaml",
            "trainers/CoOp/other.yaml",
        ):
            path = self.root / "configs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        stub = self.caller / "stub python"
        stub.write_text(STUB.format(python=sys.executable, calls=str(self.calls_file)))
        stub.chmod(0o755)
        self.env = {**os.environ, "PYTHON": "./stub python", "CFG": "tiny", "OUT": "my out"}
        self.env["LC_ALL"] = "C"  # the order of file names in messages
        for name in ("DATA", "TRAINER", "SHOTS", "STUB_FAIL", "STUB_RUN"):
            self.env.pop(name, None)

    def command(self, *args: str) -> list[str]:
        return ["bash", str(self.root / "scripts/base2new.sh"), *args]

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*args),
            cwd=self.caller,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self) -> list[list[str]]:
        if not self.calls_file.exists():
            return []
        return [json.loads(line)["args"] for line in self.calls_file.read_text().splitlines()]

    @property
    def train(self) -> Path:
        return self.caller / "my out/base2new/train_base" / PLACE

    @property
    def test(self) -> Path:
        return self.caller / "my out/base2new/test_new" / PLACE


@pytest.fixture
def box(tmp_path):
    return Sandbox(tmp_path)


def test_one_seed_makes_the_two_calls_of_coop_and_prints_the_table(box):
    done = box.run("rsscn7", "1", "--", "OPTIM.MAX_EPOCH", "5", DATA="my data")
    assert done.returncode == 0, done.stderr
    common = [
        *("train.py", "--root", str(box.caller / "my data"), "--seed", "1"),
        *("--trainer", "QuaternionPrompt"),
        *("--dataset-config-file", "configs/datasets/RSSCN7.yaml"),
        *("--config-file", "configs/trainers/QuaternionPrompt/tiny.yaml"),
        "--output-dir",
    ]
    shots = ["DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES"]
    opts = ["OPTIM.MAX_EPOCH", "5"]
    evaluate = ["--model-dir", str(box.train), "--eval-only"]
    assert box.calls() == [
        [*common, str(box.train), *shots, "base", *opts],
        [*common, str(box.test), *evaluate, *shots, "new", *opts],
    ]
    assert "90.00 +- 0.00  60.00 +- 0.00  72.00 +- 0.00" in done.stdout
    cwd = json.loads(box.calls_file.read_text().splitlines()[0])["cwd"]
    assert Path(cwd) == box.root


def test_seeds_default_to_1_2_3(box):
    assert box.run("RSSCN7").returncode == 0
    assert [args[args.index("--seed") + 1] for args in box.calls()] == list("112233")


def test_finished_runs_are_not_repeated(box):
    box.run("RSSCN7", "1")
    again = box.run("RSSCN7", "1")
    assert again.returncode == 0 and len(box.calls()) == 2
    assert f"already finished: {box.train}\nalready finished: {box.test}\n" in again.stdout


def test_failure_stops_with_its_code_and_is_continued(box):
    failed = box.run("RSSCN7", "1", "2", STUB_FAIL="new 1")
    assert failed.returncode == 7 and len(box.calls()) == 2
    assert "failed (exit code 7): test on the new classes of RSSCN7, seed 1" in failed.stderr
    assert "give the same command again" in failed.stderr
    again = box.run("RSSCN7", "1", "2")
    assert again.returncode == 0 and len(box.calls()) == 5
    assert again.stdout.startswith(f"already finished: {box.train}\n== test on the new classes")


def test_success_without_results_is_a_failure(box):
    done = box.run("RSSCN7", "1", STUB_FAIL="silent")
    assert done.returncode == 1 and len(box.calls()) == 1
    assert "ended without writing results.json" in done.stderr


@pytest.mark.parametrize("fail", ["", "late base"])
def test_other_settings_are_refused_finished_or_not(box, fail):
    box.run("RSSCN7", "1", "--", "OPTIM.MAX_EPOCH", "5", STUB_FAIL=fail)
    before = len(box.calls())
    done = box.run("RSSCN7", "1", "--", "OPTIM.MAX_EPOCH", "6")
    assert done.returncode == 2 and len(box.calls()) == before
    assert "< OPTIM.MAX_EPOCH 5\n> OPTIM.MAX_EPOCH 6\n" in done.stderr
    assert f"{box.train} was made with other settings. Give another OUT" in done.stderr


def test_a_run_that_failed_early_refuses_no_other_settings(box):
    assert box.run("RSSCN7", "1", "--", "A", "wrong", STUB_FAIL="base 1").returncode == 7
    assert (box.train / "settings.txt").exists()
    beside = box.run("RSSCN7", "2", "--", "A", "right")
    mended = box.run("RSSCN7", "1", "--", "A", "right")
    assert (beside.returncode, mended.returncode, len(box.calls())) == (0, 0, 5)
    assert "A right" in (box.train / "settings.txt").read_text()
    assert "already finished" in box.run("RSSCN7", "1", "--", "A", "right").stdout


def test_another_seed_that_failed_late_is_still_compared(box):
    box.run("RSSCN7", "1", "--", "A", "wrong", STUB_FAIL="late base")
    done = box.run("RSSCN7", "2", "--", "A", "right")
    assert done.returncode == 2 and "seed1 was made with other settings" in done.stderr


def test_other_data_are_other_settings(box):
    for name in ("one", "other"):
        (box.caller / name).mkdir()
    box.run("RSSCN7", "1", DATA="one")
    done = box.run("RSSCN7", "1", DATA="other")
    assert done.returncode == 2 and len(box.calls()) == 2
    assert f"< data {box.caller}/one\n> data {box.caller}/other\n" in done.stderr
    assert box.run("RSSCN7", "1", DATA="other/../one/").returncode == 0


def test_an_edited_config_file_is_other_settings(box):
    box.run("RSSCN7", "1")
    (box.root / "configs/trainers/QuaternionPrompt/tiny.yaml").write_text("OPTIM: {LR: 1}\n")
    assert "was made with other settings" in box.run("RSSCN7", "1").stderr


def test_another_seed_with_other_settings_is_refused(box):
    box.run("RSSCN7", "1")
    done = box.run("RSSCN7", "2", "--", "OPTIM.MAX_EPOCH", "6")
    assert done.returncode == 2 and len(box.calls()) == 2
    assert "seed1 was made with other settings" in done.stderr


def test_other_shots_go_to_another_folder(box):
    box.run("RSSCN7", "1")
    done = box.run("RSSCN7", "1", SHOTS="4")
    assert done.returncode == 0 and len(box.calls()) == 4
    assert (box.train.parents[2].parent / "shots_4/QuaternionPrompt/tiny/seed1").is_dir()


def test_a_test_of_a_replaced_model_is_refused(box):
    box.run("RSSCN7", "1")
    shutil.rmtree(box.train)
    done = box.run("RSSCN7", "1", STUB_RUN="again")
    assert done.returncode == 2 and f"{box.test} was made with other settings" in done.stderr


def test_files_of_unknown_making_are_refused(box):
    box.train.mkdir(parents=True)
    (box.train / "results.json").write_text("{}")
    done = box.run("RSSCN7", "1")
    assert done.returncode == 2 and box.calls() == []
    assert "no settings.txt: how they were made is unknown" in done.stderr


@pytest.mark.parametrize(
    "args, env, message",
    [
        (["RSSCN"], {}, "unknown dataset 'RSSCN'. Choices in configs/datasets: RSSCN7 btmri."),
        (["RSSCN7"], {"CFG": "no"}, "CFG 'no'. Choices in configs/trainers/QuaternionPrompt: tiny"),
        (["RSSCN7"], {"TRAINER": "no"}, "Choices in configs/trainers: CoOp QuaternionPrompt."),
        (["RSSCN7", "-1"], {}, "'-1' is no seed"),
        (["RSSCN7", "OPTIM.LR", "1"], {}, "KEY VALUE settings come after --"),
        (["RSSCN7", "--", "OPTIM.LR"], {}, "come in pairs KEY VALUE; got 1 words: OPTIM.LR"),
        (["RSSCN7", "--", "DATASET.NUM_SHOTS", "4"], {}, "DATASET.NUM_SHOTS is set by this script"),
        (["RSSCN7"], {"SHOTS": "many"}, "SHOTS is 'many'"),
        (["RSSCN7"], {"PYTHON": "./no python"}, "set PYTHON"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(box, args, env, message):
    done = box.run(*args, **env)
    assert done.returncode == 2 and box.calls() == []
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (box.caller / "my out").exists()


@pytest.mark.parametrize("place", ["", "base2new", "base2new/train_base/RSSCN7"])
def test_a_file_in_the_place_of_a_folder_of_results(box, place):
    path = box.caller / "my out" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    done = box.run("RSSCN7", "1")
    assert done.returncode == 2 and box.calls() == [] and done.stdout == ""
    assert done.stderr.startswith(f"error: OUT ({box.caller}/my out) cannot be written; give ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_results_without_permission(box):
    (box.caller / "my out").mkdir(mode=0o555)
    done = box.run("RSSCN7", "1")
    assert done.returncode == 2 and done.stderr.startswith("error: OUT (")


def test_help(box):
    for args in (["--help"], ["RSSCN7", "-h"]):
        done = box.run(*args)
        assert done.returncode == 0 and done.stderr == ""
        for word in ("DATASET", "SEED", "DATA ", "TRAINER", "CFG", "SHOTS", "OUT ", "PYTHON"):
            assert word in done.stdout


def test_without_arguments_the_demo_runs(box):
    for name in ("datasets/demo_aerial.yaml", "trainers/QuaternionPrompt/demo.yaml"):
        (box.root / "configs" / name).touch()
    done = box.run(CFG="")
    assert done.returncode == 0 and "the built-in demo (DATASET demo_aerial)" in done.stdout
    assert [args[args.index("--seed") + 1] for args in box.calls()] == list("112233")
    for call in (" ".join(args) for args in box.calls()):
        assert "datasets/demo_aerial.yaml" in call and "QuaternionPrompt/demo.yaml" in call


@pytest.mark.parametrize(
    "key, value, given",
    [
        ("A", "./w.pth", "{caller}/./w.pth"),
        ("A", "models/w.pt", "{caller}/models/w.pt"),
        ("A", "local-dir:models/clip", "local-dir:{caller}/models/clip"),
        ("A", "ViT-B/16:models/w.pt", "ViT-B/16:{caller}/models/w.pt"),
        ("DOMAIN.WEIGHTS", "w.pth", "{caller}/w.pth"),
        ("DOMAIN.WEIGHTS", "{caller}/w.pth", "{caller}/w.pth"),
        # none of these names a file of the caller
        ("A", "w.pth", "w.pth"),
        ("A", "ViT-B/16", "ViT-B/16"),
        ("A", "ViT-B-16:w.pth", "ViT-B-16:w.pth"),
        ("A", "local-dir:models/none", "local-dir:models/none"),
        ("A", "hf-hub:models/clip", "hf-hub:models/clip"),
        ("DOMAIN.WEIGHTS", "none.pth", "none.pth"),
        ("DOMAIN.WEIGHTS", "", ""),
    ],
)
def test_relative_path_in_a_setting_is_found_from_the_callers_folder(box, key, value, given):
    (box.caller / "models/clip").mkdir(parents=True)
    for name in ("w.pth", "models/w.pt"):
        (box.caller / name).touch()
    box.run("RSSCN7", "1", "--", key, value.format(caller=box.caller))
    assert box.calls()[0][-2:] == [key, given.format(caller=box.caller)]


def test_names_that_differ_in_capitals_only(box):
    (box.root / "configs/datasets/BTMRI.yaml").touch()
    box.run("btmri", "1")
    assert "configs/datasets/btmri.yaml" in box.calls()[0]


def interrupt(command, *, when, cwd, env):
    """Start a command, press Ctrl-C once `when()` is true, and return its exit code and stderr."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run started in the background ignores SIGINT, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    return process.returncode, stderr


def test_interrupt_stops_everything(box):
    env = {**box.env, "STUB_FAIL": "sleep"}
    code, stderr = interrupt(box.command("RSSCN7", "1"), when=box.calls, cwd=box.caller, env=env)
    assert code == 130 and len(box.calls()) == 1
    assert "stopped; to go on, give the same command again" in stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """This project with a tiny CLIP and configs of its own beside a small dataset."""
    folder = tmp_path_factory.mktemp("real")
    make_project(folder, images=6)
    tree = folder / "tree"
    shutil.copytree(PROJECT / "scripts", tree / "scripts")
    for name in ("dplq", "trainers", "datasets", "train.py"):
        (tree / name).symlink_to(PROJECT / name)
    for source, target in (
        ("dataset.yaml", "datasets/own_images.yaml"),
        ("trainer.yaml", "trainers/QuaternionPrompt/tiny.yaml"),
    ):
        (tree / "configs" / target).parent.mkdir(parents=True)
        shutil.copy(folder / source, tree / "configs" / target)
    return tree


@pytest.fixture
def real(tree):
    """The command for the tree and what it runs with, apart from OUT."""
    env = {k: v for k, v in os.environ.items() if k not in ("DPLQ_DASSL", "TRAINER", "SHOTS")}
    env |= {"PYTHON": sys.executable, "CFG": "tiny", "DATA": "../data", "OMP_NUM_THREADS": "1"}
    return ["bash", "scripts/base2new.sh", "own_images", "1"], {"cwd": tree, "env": env}


def test_the_real_train_py_from_training_to_table(tree, real):
    command, given = real
    runs = [
        subprocess.run(command, **given, capture_output=True, text=True, timeout=300)
        for _ in range(2)
    ]
    for done in runs:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    seed = "own_images/shots_16/QuaternionPrompt/tiny/seed1/results.json"
    row = "QuaternionPrompt +tiny +16 +OwnImages +1"
    for kind, classes in (
        ("train_base", ["forest", "parking lot"]),
        ("test_new", ["river", "storage tank"]),
    ):
        result = json.loads((tree / "output/base2new" / kind / seed).read_text())
        assert list(result["per_class_accuracy"]) == classes
        row += rf" +{result['accuracy']:.2f} \+- 0.00"
    assert all(re.search(row, done.stdout) for done in runs)
    assert "epoch [3/3]" in runs[0].stdout and "epoch [" not in runs[1].stdout
    assert "already finished" not in runs[0].stdout
    assert runs[1].stdout.count("already finished: ") == 2


def test_interrupting_the_real_train_py(tree, real):
    command, given = real
    seed = "own_images/shots_16/QuaternionPrompt/tiny/seed1"
    log = tree / "stopped/base2new/train_base" / seed / "log.txt"
    code, stderr = interrupt(
        [*command, "--", "OPTIM.MAX_EPOCH", "500"],
        when=lambda: log.exists() and "epoch [1/" in log.read_text(),
        cwd=given["cwd"],
        env={**given["env"], "OUT": "stopped"},
    )
    assert code == 130 and "Traceback" not in stderr, stderr
    assert "stopped; to go on, give the same command again" in stderr
    assert "epoch [499/" not in log.read_text() and not (log.parent / "results.json").exists()


def test_scripts_pass_shellcheck():
    scripts = sorted((PROJECT / "scripts").glob("*.sh"))
    assert scripts
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", "-x", *scripts], check=True, cwd=PROJECT)
