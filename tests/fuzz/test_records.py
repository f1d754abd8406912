"""What a run wrote of itself: results.json, run.json, seed.txt, train_images.json, the lock."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import socket

import pytest
from hypothesis import strategies as st

from dplq.cli.train import recorded_seed
from dplq.io.runs import trained_images
from dplq.io.runs.folder import hold, release_all
from dplq.io.runs.lock import OWNER_FILE, RunLock
from dplq.io.runs.results import read_results
from dplq.results import collect, render, summarise
from dplq.results.__main__ import main
from dplq.trainers._engine import trained_on
from tests.fuzz.campaign import Refusal, fuzzed, outcome, untouched
from tests.fuzz.mutations import TEXTS, json_files
from tests.io.test_run_folder import RUN as ONE
from tests.io.test_run_folder import other
from tests.trainers.test_trained_on import make_run

RESULTS = {
    **{"format": 1, "trainer": "CoOp", "dataset": "RSSCN7", "subsample": "all", "split": "test"},
    **{"shots": 16, "seed": 1, "accuracy": 81.25, "split_hash": "0123", "device": "cpu"},
    **{"learnable_parameters": 2048, "checkpoint_bytes": 9000, "peak_memory_mib": 12.5},
    **{"precision": "fp32", "seconds": {"train": 3.5, "test": 1.0, "step": 0.1}},
    **{"macro_f1": 80.0, "per_class_accuracy": {"a": 80.0}, "config": {"OPTIM": {"LR": 0.002}}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of this module, with work of a run in it."""
    path = tmp_path_factory.mktemp("records")
    (path / "prompt_learner").mkdir()
    (path / "prompt_learner/model-1.safetensors").write_bytes(b"weights")
    return path


def table_of(path):
    """Read a results.json, and make the table of the runs of its folder."""
    results = read_results(path)
    runs = collect([path.parent])
    return results, runs, render(summarise(runs))


@fuzzed(0.06, content=json_files(RESULTS))
def test_results(content, folder):
    path = folder / "shots_16/CoOp/tiny/seed1/results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with untouched(path.parent):
        got = outcome("results.json", table_of, path)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            code = main([str(path.parent), "--costs"])
    assert code in ((2,) if isinstance(got, Refusal) else (0,))
    if not isinstance(got, Refusal):
        results, (run,), table = got
        assert 0 <= results.accuracy <= 100
        assert 0 <= run.accuracy <= 100
        assert all(math.isfinite(cost) and cost >= 0 for cost in run.costs.values())
        assert "nan" not in table.lower() or "nan" in (results.trainer + results.dataset).lower()
        table.encode()
        printed.getvalue().encode()


RUN = other(settings={**ONE.settings, "OPTIM.NAME": "sgd"}, split="0123")
RECORD = {
    "format": 1,
    "identity": {name: getattr(RUN, name) for name in RUN.__struct_fields__},
    "version": "0.2.0",
}


def claim(folder):
    try:
        held = hold(folder)
        held.claim(RUN)
        return held.recorded()
    finally:
        release_all()


@fuzzed(0.05, content=json_files(RECORD))
def test_run_records(content, folder):
    """The run has its folder back, or the record is left as it is."""
    path = folder / "run.json"
    path.write_bytes(content)
    with untouched(folder / "prompt_learner"):
        got = outcome("run.json", claim, folder)
    if isinstance(got, Refusal):
        assert path.read_bytes() == content
    else:
        assert got.differences(RUN, {}) == []
        assert (got.split, got.shots, type(got.shots)) == ("0123", 16, int)
    path.unlink()


SEEDS = (
    *["0", "7", "4294967295", "4294967296", "-1", "1.0", "1e3", "07", "0x7", "+7", "''"],
    "7\n",
    " 7 ",
    "7 8",
    "\ufeff7",
)


@fuzzed(
    0.02,
    content=st.one_of(
        *map(st.sampled_from, (SEEDS, TEXTS)), st.integers().map(str), st.text(max_size=5)
    ).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.binary(max_size=6),
)
def test_seeds(content, folder):
    path = folder / "seed.txt"
    path.write_bytes(content)
    with untouched(folder):
        got = outcome("seed.txt", recorded_seed, "", str(folder))
    if not isinstance(got, Refusal):
        assert type(got) is int
        assert 0 <= got < 2**32
        assert int(content.decode("utf-8-sig")) == got
    path.unlink()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trainer that tests other images than those of the run that it loads."""
    trainer = make_run(tmp_path_factory.mktemp("run"))
    trainer.dm.dataset.split_hash = "2"
    return trainer


IMAGES = {
    "format": 1,
    "dataset": "Mine",
    "split": "1",
    "train": {"a.png": [9, "0" * 32], "b.png": [9, "f" * 32]},
}


@fuzzed(0.03, content=json_files(IMAGES))
def test_training_images(content, run):
    folder = run.model_dir("")
    (folder / trained_images.TRAIN_IMAGES_FILE).write_bytes(content)
    with untouched(folder.parents[1]):
        outcome("train_images.json", trained_on.check_tested_images, run, run.output_dir)


OWNER = {"pid": os.getpid(), "host": socket.gethostname(), "since": "2026-01-01 00:00:00"}


def lock(folder):
    taken = RunLock(folder)
    taken.acquire()
    try:
        return taken.owner()
    finally:
        taken.release()


@fuzzed(0.03, content=json_files(OWNER))
def test_owners(content, folder):
    """Nobody holds the lock: it is taken, unless another machine is named, which may hold it."""
    path = folder / OWNER_FILE
    path.write_bytes(content)
    with untouched(folder / "prompt_learner"):
        got = outcome(".owner.json", lock, folder)
    if isinstance(got, Refusal):
        assert json.loads(content)["host"] != OWNER["host"]
        assert path.read_bytes() == content
    else:
        assert got.pid == os.getpid()
    path.unlink(missing_ok=True)


def test_the_valid_records_are_accepted(folder):
    path = folder / "shots_16/CoOp/tiny/seed1/results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(RESULTS))
    assert "81.25" in table_of(path)[2]
    (folder / "run.json").write_text(json.dumps(RECORD))
    assert claim(folder) == RUN
    (folder / "run.json").unlink()
