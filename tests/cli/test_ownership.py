"""Whose folder it is, through train.py: no later run changes a file of an earlier one."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.interpreter import python
from tests.runner import PROJECT, make_project, start, train
from tests.tiny import tiny_backbone

DEPTHS = {
    "QuaternionPrompt": ["PROMPT_DEPTH"],
    "DCPL": ["PROMPT_DEPTH"],
    "MaPLe": ["PROMPT_DEPTH"],
    "IVLP": ["PROMPT_DEPTH_VISION", "PROMPT_DEPTH_TEXT"],
    "PromptSRC": ["PROMPT_DEPTH_VISION", "PROMPT_DEPTH_TEXT"],
    "VPT": ["PROMPT_DEPTH_VISION"],
    "CoOp": [],
    "CoCoOp": [],
    "LinearProbe": [],
    "ZeroshotCLIP": [],
    "ZeroshotCLIP2": [],
}
VOLATILE = ("log.txt", ".lock", "tensorboard")


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


def arguments(flags, name, out, *more):
    node = "ZEROSHOTCLIP" if name == "ZeroshotCLIP2" else name.upper()
    keys = [word for key in DEPTHS[name] for word in (f"TRAINER.{node}.{key}", "2")]
    given = [name if word == "QuaternionPrompt" else word for word in flags]
    options = ["OPTIM.MAX_EPOCH", "1", "DATASET.NUM_SHOTS", "2", f"TRAINER.{node}.PREC", "fp32"]
    words = [word for word in more if not word.isupper()]
    return [*given, "--output-dir", str(out), *words, *options, *keys]


def contents(folder):
    """Return the digest of every file that a run would miss."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(VOLATILE)
    }


@pytest.fixture(scope="module")
def finished(flags, tmp_path_factory):
    """A finished run of every trainer."""
    folder = tmp_path_factory.mktemp("finished")
    for name in DEPTHS:
        done = train(folder / "log", arguments(flags, name, folder / name))
        assert done.code == 0, done.err
    return folder


def _one_after_the_other(commands, report):
    """Run train.py with each of these arguments in this process; write exit codes and stderr."""
    import train as script

    ends = []
    for command in commands:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            code = script.main(command)
        ends.append((code, err.getvalue()))
    report.write_text(json.dumps(ends))


@pytest.mark.parametrize("second", DEPTHS)
def test_no_trainer_changes_the_folder_of_another(flags, finished, tmp_path, second):
    others = [name for name in DEPTHS if name != second]
    before = {name: contents(finished / name) for name in DEPTHS}
    commands = [arguments(flags, second, finished / name) for name in others]
    own = arguments(flags, second, finished / second)
    report = tmp_path / "ends.json"
    done = train(tmp_path / "log", own, _one_after_the_other, commands, report)
    for name in DEPTHS:
        assert contents(finished / name) == before[name], (name, second)
    assert done.code == 0, done.err
    assert f"Already finished: {finished / second}/results.json" in done.out
    for first, (code, err) in zip(others, json.loads(report.read_text()), strict=True):
        assert code == 2, (first, second)
        assert err.count("\n") == 1, err
        assert f"trainer: there '{first}', now '{second}'" in err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--seed", "2"], "seed: there 1, now 2"),
        (["DATASET.NUM_SHOTS", "4"], "shots: there 2, now 4"),
        (["DATASET.SUBSAMPLE_CLASSES", "base"], "subsample: there 'all', now 'base'"),
        (["TEST.SPLIT", "val"], "TEST.SPLIT: there 'test', now 'val'"),
        (["OPTIM.LR", "0.5"], "OPTIM.LR: there 0.0035, now 0.5"),
        (["DOMAIN.ENCODER", "none"], "DOMAIN.ENCODER: there 'clip', now 'none'"),
    ],
)
def test_other_settings_are_refused(flags, finished, tmp_path, more, words):
    before = contents(finished / "QuaternionPrompt")
    given = arguments(flags, "QuaternionPrompt", finished / "QuaternionPrompt")
    given = [*more, *given] if more[0].startswith("--") else [*given, *more]
    if more[0] == "--seed":
        at = given.index("--seed", 1)
        given = [*given[:at], *given[at + 2 :]]
    done = train(tmp_path / "log", given)
    assert done.code == 2
    assert words in done.err
    assert contents(finished / "QuaternionPrompt") == before


def test_what_does_not_change_the_result_is_not_compared(flags, finished, tmp_path):
    given = arguments(flags, "CoOp", finished / "CoOp")
    more = ["DATALOADER.TEST.BATCH_SIZE", "4", "MODEL.TEXT_CHUNK", "2", "TRAIN.PRINT_FREQ", "5"]
    done = train(tmp_path / "log", [*given, *more])
    assert done.code == 0, done.err
    assert "Already finished" in done.out


def _in_a_plan():
    os.environ["DPLQ_JOB"] = "test-CoOp-00001"


def test_a_test_of_a_plan_that_another_job_has_made_ends_at_once(flags, finished, tmp_path):
    """A job that waits in a cluster's queue may be submitted twice."""
    out = tmp_path / "out"
    model = ["--eval-only", "--model-dir", str(finished / "CoOp")]
    given = arguments(flags, "CoOp", out, *model)
    first = train(tmp_path / "log", given, _in_a_plan)
    assert (first.code, "Already finished" in first.out) == (0, False), first.err
    written = (out / "results.json").stat().st_mtime_ns
    second = train(tmp_path / "log", given, _in_a_plan)
    assert second.code == 0, second.err
    assert f"Already finished: {out}/results.json (accuracy: " in second.out
    assert (out / "results.json").stat().st_mtime_ns == written
    by_hand = train(tmp_path / "log", given)
    assert (by_hand.code, "Already finished" in by_hand.out) == (0, False), by_hand.err
    assert (out / "results.json").stat().st_mtime_ns > written


def test_a_test_in_the_folder_of_the_training_has_a_file_of_its_own(flags, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished / "CoOp", out)
    before = contents(out)
    tested = ["--eval-only", "--model-dir", str(out)]
    given = [*arguments(flags, "CoOp", out, *tested), "DATASET.SUBSAMPLE_CLASSES"]
    for subset in ("all", "new"):
        done = train(tmp_path / "log", [*given, subset])
        assert done.code == 0, done.err
    val = train(tmp_path / "log", [*given, "all", "TEST.SPLIT", "val"])
    epoch = train(tmp_path / "log", ["--load-epoch", "1", *given, "all"])
    assert (val.code, epoch.code) == (0, 0)
    after = contents(out)
    assert {name: after[name] for name in before} == before
    tests = ("all-test", "new-test", "all-val", "all-test-epoch1")
    kinds = (("results", "json"), ("predictions", "csv"))
    assert after.keys() - before.keys() == {
        f"{stem}-OwnImages-{test}.{suffix}" for test in tests for stem, suffix in kinds
    }
    results = json.loads((out / "results.json").read_text())
    again = json.loads((out / "results-OwnImages-all-test.json").read_text())
    assert again["accuracy"] == results["accuracy"]
    learning = ["OPTIM.LR", "0.5", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "TRAIN.PRINT_FREQ", "2"]
    again = train(tmp_path / "log", [*given, "all", *learning])  # which a test does not do
    assert again.code == 0, again.err
    after = contents(out)
    other = train(tmp_path / "log", [*given, "all", "INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]"])
    assert other.code == 2
    assert "results-OwnImages-all-test.json holds the results of another test: INPUT" in other.err
    assert contents(out) == after


def test_a_test_never_enters_the_folder_of_another_training(flags, finished, tmp_path):
    before = contents(finished / "CoOp")
    model = ["--eval-only", "--model-dir", str(finished / "CoCoOp")]
    done = train(tmp_path / "log", arguments(flags, "CoCoOp", finished / "CoOp", *model))
    assert done.code == 2
    assert f"{finished / 'CoOp'} holds a training run of CoOp" in done.err
    assert contents(finished / "CoOp") == before


def test_a_test_owns_its_folder(flags, finished, tmp_path):
    out = tmp_path / "out"

    def test(name, *more):
        model = ["--eval-only", "--model-dir", str(finished / name)]
        return train(tmp_path / "log", [*arguments(flags, name, out, *model), *more])

    assert test("CoOp").code == 0
    before = contents(out)
    assert json.loads((out / "run.json").read_text())["identity"]["kind"] == "test"
    assert test("CoOp").code == 0
    others = {
        "trainer: there 'CoOp', now 'MaPLe'": test("MaPLe"),
        "subsample: there 'all', now 'new'": test("CoOp", "DATASET.SUBSAMPLE_CLASSES", "new"),
        "kind: there 'test', now 'train'": train(tmp_path / "log", arguments(flags, "CoOp", out)),
    }
    for words, done in others.items():
        assert done.code == 2
        assert words in done.err
    after = contents(out)
    assert after.keys() == before.keys()
    assert after["run.json"] == before["run.json"]


def test_a_test_of_a_model_that_was_trained_anew_is_refused(flags, finished, tmp_path):
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(finished / "CoOp", model)
    given = arguments(flags, "CoOp", out, "--eval-only", "--model-dir", str(model))
    assert train(tmp_path / "log", given).code == 0
    before = contents(out)
    again = arguments(flags, "CoOp", model, "--overwrite")
    again[again.index("--seed") + 1] = "2"
    assert train(tmp_path / "log", again).code == 0
    done = train(tmp_path / "log", given)
    assert done.code == 2
    assert "model: there '" in done.err
    assert contents(out) == before


def test_overwrite(flags, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished / "CoOp", out)
    (out / "notes.txt").write_text("mine")
    (out / "share").mkdir()
    done = train(tmp_path / "log", arguments(flags, "ZeroshotCLIP", out, "--overwrite"))
    assert done.code == 0, done.err
    kept = f"{out / 'share'} keeps the model of the run that is overwritten; `dplq share` replaces"
    assert kept in done.out + done.err
    assert json.loads((out / "results.json").read_text())["trainer"] == "ZeroshotCLIP"
    assert [path.name for path in (out / "prompt_learner").iterdir()] == ["model-0.safetensors"]
    assert (out / "notes.txt").read_text() == "mine"


def without_seed(given):
    at = given.index("--seed")
    return [*given[:at], *given[at + 2 :]]


def test_a_mistake_beside_overwrite_deletes_nothing(flags, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished / "CoOp", out)
    before = contents(out)
    given = arguments(flags, "CoOp", out, "--overwrite")
    root = list(given)
    root[root.index("--root") + 1] = str(tmp_path / "nowhere")
    tested = ["--eval-only", "--model-dir", str(out / "prompt_learner")]
    needed = "--overwrite would delete the run in {}, which {} names. Leave it out"
    for wrong, words in (
        (root, "nowhere is absent"),
        ([*given, "OPTIM.LR", "-1"], "OPTIM.LR is -1"),
        ([*given, "TRAINER.COOP.N_CTX", "100"], "error: TRAINER.COOP.N_CTX must be"),
        ([*tested, *given], needed.format(out, "--model-dir")),
        (["--resume", str(out), *given], needed.format(out, "--resume")),
    ):
        done = train(tmp_path / "log", wrong)
        assert done.code == 2, words
        assert words in done.err
        assert contents(out) == before, words
    assert train(tmp_path / "log", ["--no-train", *given]).code == 0
    assert contents(out) == before


def test_overwrite_owes_nothing_to_the_run_before(flags, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished / "CoOp", out)
    (out / "run.json").write_text("{")  # whatever it was, it goes
    given = arguments(flags, "CoOp", out, "--overwrite")
    done = train(tmp_path / "log", without_seed(given))
    assert done.code == 0, done.err
    seed = json.loads((out / "run.json").read_text())["identity"]["seed"]
    assert seed == json.loads((out / "results.json").read_text())["seed"] != 1
    assert train(tmp_path / "log", given).code == 0
    whole = json.loads((finished / "CoOp/results.json").read_text())
    assert json.loads((out / "results.json").read_text())["accuracy"] == whole["accuracy"]


def test_without_a_seed_the_run_that_is_there_goes_on(flags, finished, tmp_path):
    before = contents(finished / "CoOp")
    given = without_seed(arguments(flags, "CoOp", finished / "CoOp"))
    done = train(tmp_path / "log", given)
    assert done.code == 0, done.err
    assert "Already finished" in done.out
    other = train(tmp_path / "log", [*given, "OPTIM.LR", "0.5"])
    assert other.code == 2
    assert "holds another run: OPTIM.LR: there 0.0035, now 0.5. Give" in other.err
    assert contents(finished / "CoOp") == before


def test_another_file_of_the_same_name_is_another_run(flags, tmp_path):
    given = arguments(flags, "ZeroshotCLIP", tmp_path / "out")
    own = tiny_backbone(vision_layers=2, text_layers=2).clip.state_dict()
    for folder, shift in (("a", 0), ("b", 0), ("c", 1)):
        weights = {name: value + shift for name, value in own.items()}
        (tmp_path / folder).mkdir()
        torch.save(weights, tmp_path / folder / "clip.pt")

    def run(folder):
        path = str(tmp_path / folder / "clip.pt")
        keys = ["MODEL.INIT_WEIGHTS", path, "MODEL.BACKBONE.PRETRAINED", "True"]
        return train(tmp_path / "log", [*given, *keys])

    assert run("a").code == 0
    before = contents(tmp_path / "out")
    same = run("b")
    assert same.code == 0, same.err
    assert "Already finished" in same.out
    other = run("c")
    assert other.code == 2
    assert "out holds another run: weights: there {'backbone': '" in other.err
    assert contents(tmp_path / "out") == before


def test_overwrite_never_deletes_what_the_run_needs(flags, finished, tmp_path):
    before = contents(finished / "CoOp")
    given = arguments(flags, "CoOp", finished / "CoOp", "--overwrite")
    itself = str(finished / "CoCoOp/../CoOp")
    for flag, more in (("--resume", []), ("--model-dir", ["--eval-only"])):
        done = train(tmp_path / "log", [*more, flag, itself, *given])
        assert done.code == 2
        assert f"--overwrite would delete the run in {finished / 'CoOp'}, which {flag}" in done.err
        assert contents(finished / "CoOp") == before
    done = train(tmp_path / "log", ["--eval-only", *given])
    assert done.code == 2
    assert "--eval-only needs --model-dir" in done.err
    assert contents(finished / "CoOp") == before


def test_a_seed_is_recorded_twice_alike(flags, finished, tmp_path):
    given = arguments(flags, "CoOp", tmp_path / "out")
    for words in ("Checkpoint saved", "Already finished"):
        done = train(tmp_path / "log", without_seed(given))
        assert words in done.out
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert run["identity"]["seed"] == int((tmp_path / "out/seed.txt").read_text())


def test_an_empty_output_folder_is_refused(flags, tmp_path):
    done = train(tmp_path / "log", [*flags, "OUTPUT_DIR", ""])
    assert done.code == 2
    assert done.err == "error: OUTPUT_DIR is empty: give --output-dir, the folder of the run.\n"


def test_damaged_results_are_made_again(flags, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished / "CoOp", out)
    whole = json.loads((out / "results.json").read_text())
    for text in ("[]", "", '{"accuracy": null}', '{"accuracy": 300}'):
        (out / "results.json").write_text(text)
        done = train(tmp_path / "log", arguments(flags, "CoOp", out))
        assert done.code == 0, done.err
        assert json.loads((out / "results.json").read_text())["accuracy"] == whole["accuracy"]


@pytest.mark.parametrize("size", ["2", "many"])
def test_several_processes_that_torchrun_did_not_start_are_refused(flags, tmp_path, size):
    done = python(["train.py", *arguments(flags, "CoOp", tmp_path / "out")], WORLD_SIZE=size)
    assert done.returncode == 2
    words = f"error: WORLD_SIZE is {size}, without RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT: "
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("typo", ["nothing", "empty"])
def test_a_mistyped_resume_creates_nothing(flags, tmp_path, typo):
    (tmp_path / "empty").mkdir()
    at = flags.index("--seed")
    given = [*flags[:at], *flags[at + 2 :], "--resume", str(tmp_path / typo)]
    done = train(tmp_path / "log", [*given, "--output-dir", str(tmp_path / "out")])
    assert done.code == 2
    assert f"RESUME is {tmp_path / typo}, but there is no" in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "log.out", "log.err"}
    assert not list((tmp_path / "empty").iterdir())


def real_process(flags, out):
    command = [sys.executable, "-u", "train.py", *arguments(flags, "CoOp", out)]
    return subprocess.Popen(
        [*command, "OPTIM.MAX_EPOCH", "500"],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_a_child(flags, out):
    given = [*arguments(flags, "CoOp", out), "OPTIM.MAX_EPOCH", "500"]
    return start(out.with_suffix(".log"), given)


def interrupted(begun, out, number):
    """Send a signal once the first epoch is done; return the exit code and what was printed."""
    process = getattr(begun, "child", begun)
    deadline = time.monotonic() + 100
    log = out / "log.txt"
    while not (log.exists() and "epoch [1/" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, number)
    if process is begun:
        _, err = process.communicate(timeout=60)
        return process.returncode, err
    done = begun.wait(60)
    return done.code, done.err


@pytest.mark.parametrize("more", [[], ["OPTIM.LR", "0.5"]])
def test_two_at_once(flags, tmp_path, more):
    """One of them makes the run, the other is refused; the folder is that of the first alone."""
    out = tmp_path / "out"
    given = arguments(flags, "CoOp", out)
    both = [start(tmp_path / "1", given), start(tmp_path / "2", [*given, *more])]
    both = [process.wait(100) for process in both]
    texts = [(done.out, done.err) for done in both]
    codes = [done.code for done in both]
    assert "Traceback" not in texts[0][1] + texts[1][1]
    assert 0 in codes, texts
    for code, (_, err) in zip(codes, texts, strict=True):
        if code:
            assert "is in use by process" in err or "holds another run: OPTIM.LR" in err
    winner = [*given, *more] if more and codes[1] == 0 else given
    before = contents(out)
    again = train(tmp_path / "log", winner)
    assert "Already finished" in again.out
    assert contents(out) == before
    alone = train(
        tmp_path / "log", [str(tmp_path / "alone") if w == str(out) else w for w in winner]
    )
    assert alone.code == 0
    for name in ("prompt_learner/model-1.safetensors",):
        assert contents(tmp_path / "alone")[name] == before[name]


@pytest.mark.parametrize(
    ("begin", "number", "code"),
    [(real_process, signal.SIGTERM, 143), (in_a_child, signal.SIGINT, 130)],
)
def test_signals_end_a_run_with_one_line(flags, tmp_path, begin, number, code):
    out = tmp_path / "out"
    ended, err = interrupted(begin(flags, out), out, number)
    assert ended == code
    assert "Traceback" not in err
    assert "Interrupted. Every finished epoch is saved" in err
    assert "run the same command again to go on" in err
    assert not (out / ".owner.json").exists()


def test_the_advice_after_an_interrupted_overwrite_deletes_nothing(flags, tmp_path):
    out = tmp_path / "out"
    begun = in_a_child(["--overwrite", *flags], out)
    _, err = interrupted(begun, out, signal.SIGTERM)
    assert "run the same command again, without --overwrite, to go on from there" in err


@pytest.mark.parametrize("flag", ["--model-dir", "--resume"])
def test_overwrite_never_deletes_what_it_is_to_use(flags, finished, tmp_path, flag):
    out, link = tmp_path / "out", tmp_path / "link"
    shutil.copytree(finished / "CoOp", out)
    link.symlink_to(out)
    before = contents(out)
    more = [flag, str(link), *(["--eval-only"] if flag == "--model-dir" else [])]
    done = train(tmp_path / "log", arguments(flags, "CoOp", out, "--overwrite", *more))
    assert done.code == 2
    assert f"--overwrite would delete the run in {out}, which {flag} names" in done.err
    assert contents(out) == before


def test_overwrite_without_what_to_test_deletes_nothing(flags, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished / "CoOp", out)
    before = contents(out)
    done = train(tmp_path / "log", arguments(flags, "CoOp", out, "--overwrite", "--eval-only"))
    assert done.code == 2
    assert "--eval-only needs --model-dir" in done.err
    assert contents(out) == before


def test_a_link_is_another_name_of_the_folder(flags, finished, tmp_path):
    out, link = tmp_path / "out", tmp_path / "link"
    shutil.copytree(finished / "CoOp", out)
    link.symlink_to(out)
    assert "Already finished" in train(tmp_path / "log", arguments(flags, "CoOp", link)).out
    model = ["--eval-only", "--model-dir", str(out)]
    assert train(tmp_path / "log", arguments(flags, "CoOp", link, *model)).code == 0
    assert (out / "results-OwnImages-all-test.json").is_file()
    done = train(tmp_path / "log", arguments(flags, "MaPLe", link))
    assert done.code == 2
    assert "trainer: there 'CoOp', now 'MaPLe'" in done.err


def delete_folder_at_epoch(count, folder, taken=""):
    """Delete the output folder in an epoch, as somebody else may; another process may take it."""
    from dplq.trainers._engine.base import PromptTrainer

    original = PromptTrainer.before_epoch

    def before_epoch(self):
        original(self)
        if self.epoch + 1 == count:
            shutil.rmtree(folder)
        if self.epoch + 1 == count and taken:
            shutil.copytree(taken, folder)

    PromptTrainer.before_epoch = before_epoch


@pytest.mark.parametrize("taken", [False, True])
def test_a_run_whose_folder_is_deleted_stops(flags, finished, tmp_path, taken):
    out = tmp_path / "out"
    other = str(finished / "MaPLe") if taken else ""
    given = arguments(flags, "CoOp", out)
    done = train(tmp_path / "log", given, delete_folder_at_epoch, 1, str(out), other)
    assert done.code == 2
    assert f"{out} was deleted while this run wrote there: it stops" in done.err
    if taken:
        assert contents(out) == contents(finished / "MaPLe")
    else:
        assert contents(out) == {}
        assert train(tmp_path / "log", given).code == 0
