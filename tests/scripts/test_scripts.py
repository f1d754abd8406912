"""What all scripts share, and base2new.sh, with a stub in place of Python."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandbox import PLACE, PROJECT, Sandbox


@pytest.fixture
def box(tmp_path):
    return Sandbox(tmp_path)


def test_one_seed_makes_the_two_calls_of_coop_and_prints_the_table(box):
    done = box.run("rsscn7", "1", "--", "OPTIM.MAX_EPOCH", "5", DATA="my data")
    assert done.returncode == 0, done.stderr
    configs = box.root / "configs"
    common = [
        *(str(box.root / "train.py"), "--root", str(box.caller / "my data"), "--seed", "1"),
        *("--trainer", "QuaternionPrompt"),
        *("--dataset-config-file", str(configs / "datasets/RSSCN7.yaml")),
        *("--config-file", str(configs / "trainers/QuaternionPrompt/tiny.yaml")),
        "--output-dir",
    ]
    shots = ["DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES"]
    opts = ["OPTIM.MAX_EPOCH", "5"]
    evaluate = ["--model-dir", str(box.train), "--eval-only"]
    assert box.calls() == [
        [*common, str(box.train), *shots, "base", *opts],
        [*common, str(box.test), *evaluate, *shots, "new", *opts],
    ]
    assert "90.00 +- -  60.00 +- -  72.00 +- -" in done.stdout
    cwd = json.loads(box.calls_file.read_text().splitlines()[0])["cwd"]
    assert Path(cwd) == box.root


def test_seeds_default_to_1_2_3(box):
    assert box.run("RSSCN7").returncode == 0
    assert [args[args.index("--seed") + 1] for args in box.calls()] == list("112233")


def test_finished_runs_are_not_repeated(box):
    box.run("RSSCN7", "1")
    again = box.run("RSSCN7", "1")
    assert again.returncode == 0
    assert len(box.calls()) == 2
    assert f"already finished: {box.train}\nalready finished: {box.test}\n" in again.stdout


def test_failure_gives_its_code_stops_nothing_else_and_is_continued(box):
    failed = box.run("RSSCN7", "1", "2", STUB_FAIL="new 1")
    assert failed.returncode == 7
    assert len(box.calls()) == 4
    assert "failed (exit code 7): test on the new classes of RSSCN7, seed 1" in failed.stderr
    assert "give the same command again" in failed.stderr
    again = box.run("RSSCN7", "1", "2")
    assert again.returncode == 0
    assert len(box.calls()) == 5
    assert again.stdout.startswith(f"already finished: {box.train}\n")
    assert again.stdout.count("already finished: ") == 3
    assert "== test on the new classes of RSSCN7, seed 1: " in again.stdout


def test_success_without_results_is_a_failure(box):
    done = box.run("RSSCN7", "1", STUB_FAIL="silent")
    assert done.returncode == 1
    assert len(box.calls()) == 1
    assert "ended without a whole results.json" in done.stderr


@pytest.mark.parametrize("fail", ["", "late base"])
def test_other_settings_are_refused_finished_or_not(box, fail):
    box.run("RSSCN7", "1", "--", "OPTIM.MAX_EPOCH", "5", STUB_FAIL=fail)
    before = len(box.calls())
    done = box.run("RSSCN7", "1", "--", "OPTIM.MAX_EPOCH", "6")
    assert done.returncode == 2
    assert len(box.calls()) == before
    why = "there: OPTIM.MAX_EPOCH 5, now: OPTIM.MAX_EPOCH 6"
    assert f"{box.train} was made with other settings ({why}). Give another OUT" in done.stderr


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
    assert done.returncode == 2
    assert "seed1 was made with other settings" in done.stderr


def test_other_data_are_other_settings(box):
    for name in ("one", "other"):
        (box.caller / name).mkdir()
    box.run("RSSCN7", "1", DATA="one")
    done = box.run("RSSCN7", "1", DATA="other")
    assert done.returncode == 2
    assert len(box.calls()) == 2
    assert f"(there: data {box.caller}/one, now: data {box.caller}/other)" in done.stderr
    assert box.run("RSSCN7", "1", DATA="other/../one/").returncode == 0


def test_a_data_folder_may_move(box):
    (box.caller / "one").mkdir()
    box.run("RSSCN7", "1", DATA="one")
    (box.caller / "one").rename(box.caller / "moved")
    done = box.run("RSSCN7", "1", DATA="moved")
    assert done.returncode == 0, done.stderr
    assert len(box.calls()) == 2, "the runs are not made again"
    said = f"The data folder {box.caller}/one is gone: what was made with it counts as made with "
    assert done.stderr.count(f"{said}{box.caller}/moved.") == 1


def test_an_edited_config_file_is_other_settings(box):
    box.run("RSSCN7", "1")
    (box.root / "configs/trainers/QuaternionPrompt/tiny.yaml").write_text("OPTIM: {LR: 1}\n")
    assert "was made with other settings" in box.run("RSSCN7", "1").stderr


def test_another_seed_with_other_settings_is_refused(box):
    box.run("RSSCN7", "1")
    done = box.run("RSSCN7", "2", "--", "OPTIM.MAX_EPOCH", "6")
    assert done.returncode == 2
    assert len(box.calls()) == 2
    assert "seed1 was made with other settings" in done.stderr


def test_other_shots_go_to_another_folder(box):
    box.run("RSSCN7", "1")
    done = box.run("RSSCN7", "1", SHOTS="4")
    assert done.returncode == 0
    assert len(box.calls()) == 4
    assert (box.train.parents[2].parent / "shots_4/QuaternionPrompt/tiny/seed1").is_dir()


def test_a_test_of_a_replaced_model_is_refused(box):
    box.run("RSSCN7", "1")
    shutil.rmtree(box.train)
    done = box.run("RSSCN7", "1", STUB_RUN="again")
    assert done.returncode == 2
    assert f"{box.test} was made with other settings" in done.stderr


def test_files_of_unknown_making_are_refused(box):
    box.train.mkdir(parents=True)
    (box.train / "results.json").write_text("{}")
    done = box.run("RSSCN7", "1")
    assert done.returncode == 2
    assert box.calls() == []
    assert "no settings.txt: how they were made is unknown" in done.stderr


@pytest.mark.parametrize(
    ("args", "env", "message"),
    [
        (["RSSCN"], {}, "unknown dataset 'RSSCN'. Choices in configs/datasets: RSSCN7 btmri."),
        (["RSSCN7"], {"CFG": "no"}, "CFG 'no'. Choices in configs/trainers/QuaternionPrompt: tiny"),
        (["RSSCN7"], {"TRAINER": "no"}, "Choices in configs/trainers: CoOp QuaternionPrompt."),
        (["RSSCN7", "-1"], {}, "'-1' is no seed"),
        (["RSSCN7", "OPTIM.LR", "1"], {}, "KEY VALUE settings come after --"),
        (["RSSCN7", "--", "OPTIM.LR"], {}, "come in pairs KEY VALUE; got 1 words: OPTIM.LR"),
        (["RSSCN7", "--", "DATASET.NUM_SHOTS", "4"], {}, "DATASET.NUM_SHOTS is set by this script"),
        (["RSSCN7"], {"SHOTS": "many"}, "SHOTS is 'many'"),
        (["RSSCN7"], {"SHOTS": "1 2"}, "SHOTS is '1 2': one number is wanted here"),
        (["RSSCN7"], {"TRAINERS": "CoOp", "CFG": ""}, "CFG 'vit_b16_ctxv1'. Choices in "),
        (["RSSCN7"], {"PYTHON": "./no python"}, "set PYTHON"),
        (["RSSCN7"], {"PYTHON": "-V"}, "no Python '-V': set PYTHON"),
        (["RSSCN7", ""], {}, "'' is no seed"),
        (["RSSCN7", " \n"], {}, "'  ' is no seed"),
        (["RSSCN7", "1 *"], {}, "'*' is no seed"),
        (
            ["RSSCN7"],
            {"TRAINER": " "},
            "TRAINER holds white space only: name at least one, or unset",
        ),
        (["RSSCN7"], {"TRAINERS": "\n\t", "TRAINER": "CoOp"}, "TRAINERS holds white space only"),
        (["RSSCN7"], {"SHOTS": "\n"}, "SHOTS holds white space only"),
        (["RSSCN7"], {"TRAINERS": "*"}, "unknown TRAINER '*'"),
        (["RSS\nCN7"], {}, "unknown dataset 'RSS CN7'"),
        (["RSSCN7"], {"OUT": "a\nb"}, "OUT has a line break in it: $'a\\nb'"),
        (["RSSCN7"], {"DATA": "a\n"}, "DATA has a line break in it: $'a\\n'"),
        (
            ["RSSCN7"],
            {"OUT": "~no-such-user/x"},
            "OUT is ~no-such-user/x: the home folder of ",
        ),
        (["RSSCN7"], {"DATA": "~$(id)"}, "DATA is ~$(id): the home folder of ~$(id) is not known"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(box, args, env, message):
    done = box.run(*args, **env)
    assert done.returncode == 2
    assert box.calls() == []
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (box.caller / "my out").exists()


@pytest.mark.parametrize("place", ["", "base2new", "base2new/train_base/RSSCN7"])
def test_a_file_in_the_place_of_a_folder_of_results(box, place):
    path = box.caller / "my out" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    done = box.run("RSSCN7", "1")
    assert done.returncode == 2
    assert box.calls() == []
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {box.train} cannot be written to (")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_results_without_permission(box):
    (box.caller / "my out").mkdir(mode=0o555)
    done = box.run("RSSCN7", "1")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {box.train} cannot be written to (")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("base2new", "DATASET (16)"),
        ("compare", "DATASET (16) ZeroshotCLIP2"),
        ("few_shot", "DATASET (1 2 4 8 16)"),
        ("cross_dataset", "SOURCE TARGETS"),
        ("domain_generalization", "SOURCE TARGETS v2"),
    ],
)
def test_help(box, script, words):
    for args in (["--help"], ["RSSCN7", "-h"]):
        done = box.run(*args, script=script)
        assert done.returncode == 0
        assert done.stderr == ""
        for word in f"{words} SEED DATA TRAINERS CFG SHOTS OUT PYTHON".split():
            assert word in done.stdout


def test_without_arguments_the_demo_runs(box):
    for name in ("datasets/demo_aerial.yaml", "trainers/QuaternionPrompt/demo.yaml"):
        (box.root / "configs" / name).touch()
    done = box.run(CFG="")
    assert done.returncode == 0
    assert "the built-in demo (DATASET demo_aerial)" in done.stdout
    assert [args[args.index("--seed") + 1] for args in box.calls()] == list("112233")
    for call in (" ".join(args) for args in box.calls()):
        assert "datasets/demo_aerial.yaml" in call
        assert "QuaternionPrompt/demo.yaml" in call


SETTINGS = {
    "A": ("./w.pth", "{caller}/./w.pth"),
    "B": ("models/w.pt", "{caller}/models/w.pt"),
    "C": ("local-dir:models/clip", "local-dir:{caller}/models/clip"),
    "D": ("ViT-B/16:models/w.pt", "ViT-B/16:{caller}/models/w.pt"),
    "DOMAIN.ENCODER": (
        "[local-dir:models/clip,clip ]",
        "[local-dir:{caller}/models/clip, clip]",
    ),
    # none of these names a file of the caller
    "E": ("w.pth", "w.pth"),
    "F": ("[models/w.pt, 2]", "[models/w.pt, 2]"),
    "G": ("ViT-B/16", "ViT-B/16"),
    "H": ("ViT-B-16:w.pth", "ViT-B-16:w.pth"),
    "I": ("local-dir:models/none", "local-dir:models/none"),
    "J": ("hf-hub:models/clip", "hf-hub:models/clip"),
}


def add_models(box):
    (box.caller / "models/clip").mkdir(parents=True)
    for name in ("w.pth", "models/w.pt"):
        (box.caller / name).touch()


@pytest.fixture(scope="module")
def passed_on(tmp_path_factory):
    """The caller's folder, and the values that train.py gets for `SETTINGS`."""
    box = Sandbox(tmp_path_factory.mktemp("settings"))
    add_models(box)
    words = [word for key, (value, _) in SETTINGS.items() for word in (key, value)]
    assert box.run("RSSCN7", "1", "--", *words).returncode == 0
    given = box.calls()[0][-len(words) :]
    assert given[::2] == list(SETTINGS)
    return box.caller, dict(zip(given[::2], given[1::2], strict=True))


@pytest.mark.parametrize("key", SETTINGS)
def test_relative_path_in_a_setting_is_found_from_the_callers_folder(passed_on, key):
    caller, values = passed_on
    assert values[key] == SETTINGS[key][1].format(caller=caller)


@pytest.mark.parametrize(
    ("value", "given"),
    [
        ("w.pth", "{caller}/w.pth"),
        ("{caller}/w.pth", "{caller}/w.pth"),
        ("[w.pth, models/w.pt]", "[{caller}/w.pth, {caller}/models/w.pt]"),
        ("none.pth", "none.pth"),
        ("", ""),
    ],
)
def test_relative_path_of_weights_is_found_from_the_callers_folder(box, value, given):
    add_models(box)
    box.run("RSSCN7", "1", "--", "DOMAIN.WEIGHTS", value.format(caller=box.caller))
    assert box.calls()[0][-2:] == ["DOMAIN.WEIGHTS", given.format(caller=box.caller)]


@pytest.mark.parametrize(
    ("out", "place"),
    [
        ("-x y", "{caller}/-x y"),
        ("~/out", "{home}/out"),
        ("~", "{home}"),
        ("./~nobody", "{caller}/./~nobody"),
        ("$(id)*", "{caller}/$(id)*"),
    ],
)
def test_folders_with_odd_names(box, tmp_path, out, place):
    home = tmp_path / "the home"
    home.mkdir()
    done = box.run("RSSCN7", "1", OUT=out, DATA=out, HOME=str(home))
    assert done.returncode == 0, done.stderr
    folder = place.format(caller=box.caller, home=home)
    assert Path(folder, "base2new/train_base", PLACE, "results.json").is_file()
    assert Path(box.calls()[0][2]).resolve() == Path(folder).resolve()
    assert "72.00 +- -" in done.stdout


def test_seeds_are_separated_by_any_white_space_and_run_once(box):
    assert box.run("RSSCN7", "1 2\n3", "\t2\r\n", "1").returncode == 0
    assert [args[args.index("--seed") + 1] for args in box.calls()] == list("112233")


def test_train_py_gets_the_settings_and_writes_them(box):
    assert box.run("RSSCN7", "1", "--", "A", "two words", STUB_FAIL="owner").returncode == 0
    settings = box.records()[0]["settings"]
    assert settings.startswith("dataset RSSCN7 (file ")
    assert "\nclasses base\nseed 1\nA two words" in settings
    assert (box.train / "settings.txt").read_text() == settings + "\n"


def test_settings_of_a_run_that_has_an_owner_are_not_replaced(box):
    """A second script may come while the first one's train.py has no model yet."""
    box.train.mkdir(parents=True)
    (box.train / "run.json").write_text("{}")
    (box.train / "settings.txt").write_text("of another\n")
    assert box.run("RSSCN7", "1", STUB_FAIL="base 1").returncode == 7
    assert (box.train / "settings.txt").read_text() == "of another\n"
    (box.train / "settings.txt").unlink()
    assert box.run("RSSCN7", "1", STUB_FAIL="base 1").returncode == 7
    assert sorted(path.name for path in box.train.iterdir()) == ["log.txt", "run.json"]


def test_names_that_differ_in_capitals_only(box):
    (box.root / "configs/datasets/BTMRI.yaml").touch()
    box.run("btmri", "1")
    assert str(box.root / "configs/datasets/btmri.yaml") in box.calls()[0]


def test_scripts_pass_shellcheck():
    scripts = sorted((PROJECT / "scripts").glob("*.sh"))
    assert scripts
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", "-x", *scripts], check=True, cwd=PROJECT)


@pytest.mark.parametrize(
    ("script", "environment"), [("compare", {}), ("few_shot", {"CFG": "", "TRAINER": "CoOp"})]
)
def test_a_python_without_the_project_ends_the_script(box, script, environment):
    broken = box.caller / "broken python"
    broken.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # without site-packages
    broken.chmod(0o755)
    environment = {"PYTHON": "./broken python", **environment}
    done = box.run("RSSCN7", "1", script=script, **environment)
    assert done.returncode == 2, done.stdout
    assert "error: this Python lacks what the project needs (No module named " in done.stderr
    assert "set PYTHON" in done.stderr
