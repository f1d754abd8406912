"""Checkpoints, resume files and results that version 0.1.0 wrote before its modules were moved.

`tests/fixtures/written_by_0_1_0` holds them: three epochs of every trainer on the project that
`tests.runner.make_project` makes, and the state after the second.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dplq.io import checkpoint
from dplq.results import collect
from tests.cli.test_ownership import contents
from tests.runner import make_project, train

WRITTEN = Path(__file__).resolve().parents[1] / "fixtures" / "written_by_0_1_0"
OPTIONS = {
    "QuaternionPrompt": [],
    "DCPL": ["PROMPT_DEPTH", "2"],
    "MaPLe": ["PROMPT_DEPTH", "2"],
    "IVLP": ["PROMPT_DEPTH_VISION", "2", "PROMPT_DEPTH_TEXT", "2"],
    "PromptSRC": ["PROMPT_DEPTH_VISION", "2", "PROMPT_DEPTH_TEXT", "2", "GPA_MEAN", "2"],
    "VPT": ["PROMPT_DEPTH_VISION", "2"],
    "CoOp": ["N_CTX", "4"],
    "CoCoOp": ["N_CTX", "4"],
    "LinearProbe": [],
}
LAST = {"LinearProbe": 1}


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    flags = make_project(folder)
    shutil.copy(WRITTEN / "split_dplq_OwnImages.json", folder / "data")
    return flags


def arguments(flags, name, out, *more):
    """What the files were made with."""
    pairs = zip(OPTIONS[name][::2], OPTIONS[name][1::2], strict=True)
    keys = [word for key, value in pairs for word in (f"TRAINER.{name.upper()}.{key}", value)]
    keys += [f"TRAINER.{name.upper()}.PREC", "fp32", "DATASET.NUM_SHOTS", "4"]
    given = [name if word == "QuaternionPrompt" else word for word in flags]
    return [*given, "--output-dir", str(out), *more, *keys]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_checkpoint_is_tested_with_the_same_result(name, flags, tmp_path):
    folder = tmp_path / "old/prompt_learner"
    folder.mkdir(parents=True)
    file = f"model-{LAST.get(name, 3)}.safetensors"
    shutil.copy(WRITTEN / name / file, folder)
    tested = ["--eval-only", "--model-dir", str(tmp_path / "old")]
    done = train(tmp_path / "log", arguments(flags, name, tmp_path / "new", *tested))
    assert done.code == 0, done.err
    now = json.loads((tmp_path / "new/results.json").read_text())
    then = json.loads((WRITTEN / name / "results.json").read_text())
    for key in ("accuracy", "macro_f1", "per_class_accuracy", "total", "learnable_parameters"):
        assert now[key] == pytest.approx(then[key]), key


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "LinearProbe"])
def test_an_interrupted_run_is_resumed(name, flags, tmp_path):
    """The third epoch ends with the weights that the earlier version ended with."""
    folder = tmp_path / "run/prompt_learner"
    folder.mkdir(parents=True)
    shutil.copy(WRITTEN / name / "resume-2.safetensors", folder / "resume.safetensors")
    done = train(tmp_path / "log", arguments(flags, name, tmp_path / "run"))
    assert done.code == 0, done.err
    assert "will resume after epoch 2" in done.out
    now, header = checkpoint.read(folder / "model-3.safetensors")
    then, before = checkpoint.read(WRITTEN / name / "model-3.safetensors")
    later = ("format", "val_result", "split", "reading", "input", "backbone_config")
    assert {k: v for k, v in header.items() if k not in later} == {
        k: v for k, v in before.items() if k not in later
    }
    assert now.keys() == then.keys()
    for key, value in then.items():  # another processor may round otherwise
        torch.testing.assert_close(now[key], value, rtol=1e-4, atol=1e-6)


def test_results_are_read(tmp_path):
    for name in OPTIONS:
        place = tmp_path / f"base2new/train_base/OwnImages/shots_4/{name}/tiny/seed1"
        place.mkdir(parents=True)
        shutil.copy(WRITTEN / name / "results.json", place)
    runs = collect([tmp_path])
    assert {run.setting.trainer for run in runs} == set(OPTIONS)


def old(tmp_path, *files):
    """Return a folder of the earlier version with these files of CoOp, and its digests."""
    run = tmp_path / "run"
    (run / "prompt_learner").mkdir(parents=True)
    for file in files:
        there = "results.json" if file == "results.json" else f"prompt_learner/{file}"
        shutil.copy(WRITTEN / "CoOp" / file, run / there.replace("resume-2", "resume"))
    return run, contents(run)


@pytest.mark.parametrize(
    "more", [["OPTIM.LR", "0.5"], ["TEST.FINAL_MODEL", "best_val"], ["SEED", "-1"]]
)
def test_wrong_settings_do_not_take_over_an_interrupted_run(flags, tmp_path, more):
    """The resume file tells the settings: before it has agreed, the folder is nobody's."""
    run, before = old(tmp_path, "resume-2.safetensors")
    given = arguments(flags, "CoOp", run)
    if more[0] == "SEED":
        at = given.index("--seed")
        wrong = [*given[:at], *given[at + 2 :]]
    else:
        wrong = [*given, *more]
    refused = train(tmp_path / "log", wrong)
    assert refused.code == 2
    assert "was made with other settings" in refused.err
    assert contents(run) == before
    done = train(tmp_path / "log", given)
    assert done.code == 0, done.err
    assert "will resume after epoch 2" in done.out
    assert json.loads((run / "run.json").read_text())["identity"]["seed"] == 1


def test_a_run_continued_from_elsewhere_replaces_no_interrupted_one(flags, tmp_path):
    run, before = old(tmp_path, "resume-2.safetensors")
    shutil.copytree(run, tmp_path / "other")
    given = arguments(flags, "CoOp", run, "--resume", str(tmp_path / "other"))
    refused = train(tmp_path / "log", given)
    assert refused.code == 2
    assert "holds prompt_learner/resume.safetensors, but no run.json" in refused.err
    assert contents(run) == before


def test_a_checkpoint_alone_is_tested_but_never_trained_over(flags, tmp_path):
    """Of which seed it is, nothing tells."""
    run, before = old(tmp_path, "model-3.safetensors")
    for more in ([], ["TEST.SPLIT", "val"]):
        refused = train(tmp_path / "log", [*arguments(flags, "CoOp", run), *more])
        assert refused.code == 2
        assert "holds prompt_learner/model-3.safetensors, but no run.json" in refused.err
        assert contents(run) == before
    tested = ["--eval-only", "--model-dir", str(run)]
    done = train(tmp_path / "log", arguments(flags, "CoOp", run, *tested))
    assert done.code == 0, done.err
    after = contents(run)
    written = {"results-OwnImages-all-test.json", "predictions-OwnImages-all-test.csv"}
    assert after.keys() - before.keys() == written
    assert {name: after[name] for name in before} == before


def test_results_alone_are_replaced_by_no_test(flags, tmp_path):
    """Of which model they are, nothing tells; a training run they may be of is done."""
    model, _ = old(tmp_path / "model", "model-3.safetensors")
    run, before = old(tmp_path, "results.json")
    tested = ["--eval-only", "--model-dir", str(model)]
    refused = train(tmp_path / "log", arguments(flags, "CoOp", run, *tested))
    assert refused.code == 2
    assert "holds results.json, but no run.json that says of which run" in refused.err
    assert contents(run) == before
    for more in ([], ["TEST.NO_TEST", "True"]):
        done = train(tmp_path / "log", [*arguments(flags, "CoOp", run), *more])
        assert "Already finished" in done.out
    assert contents(run)["results.json"] == before["results.json"]
