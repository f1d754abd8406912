"""What a plan would do: states of its runs, what is refused, and how long the rest may take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dplq.experiments.base2new import base2new
from dplq.experiments.dry_run import estimate, overview
from dplq.experiments.plan import merge
from dplq.experiments.series import Series
from dplq.io.runs.lock import RunLock


def plan(out, trainers=("CoOp", "MaPLe"), **changes):
    given = {"seeds": (1, 2), "out": out, **changes}
    return merge(base2new(Series("demo_aerial", trainer, "demo", **given)) for trainer in trainers)


def finish(run, seconds=None):
    """Write what a finished run leaves."""
    run.folder.mkdir(parents=True)
    (run.folder / "settings.txt").write_text(f"{run.settings()}\n")
    results = {
        **{"format": 1, "trainer": run.trainer, "dataset": run.dataset, "accuracy": 50.0},
        **{"subsample": run.classes, "shots": run.shots, "seed": run.seed},
        "seconds": seconds or {},
    }
    (run.folder / "results.json").write_text(json.dumps(results))


def test_an_overview(tmp_path):
    made = plan(tmp_path / "out")
    finish(made.runs[0], {"train": 100.0, "test": 20.0})
    finish(made.runs[1], {"test": 30.0})
    (made.runs[2].folder / "prompt_learner").mkdir(parents=True)
    (made.runs[2].folder / "prompt_learner/resume.safetensors").touch()
    held = made.runs[4].folder
    held.mkdir(parents=True)
    lock = RunLock(held)
    lock.acquire()
    (made.runs[2].folder / "settings.txt").write_text(f"{made.runs[2].settings()}\n")
    text = overview(made)
    owner = lock.owner()
    lock.release()
    head, _, *rows = text.splitlines()
    below = f"seeds of, below {tmp_path}/out/base2new"
    assert head.split("  ")[0] == below
    assert head.removeprefix(below).split("  ")[1:]
    assert [row.split() for row in rows[:4]] == [
        ["train_base/demo_aerial/shots_16/CoOp/demo", "1", "1"],
        ["test_new/demo_aerial/shots_16/CoOp/demo", "1", "1"],
        ["train_base/demo_aerial/shots_16/MaPLe/demo", "1", "1"],
        ["test_new/demo_aerial/shots_16/MaPLe/demo", "2"],
    ]
    assert rows[5:] == [
        "8 runs: 2 finished, 1 running, 1 unfinished, 4 not begun.",
        f"running: {held} by {owner}",
        "About 2 min for 2 of them, one after the other; no finished run to estimate MaPLe from.",
    ]


def test_other_settings_are_named(tmp_path):
    made = plan(tmp_path, ("CoOp",))
    finish(made.runs[0])
    changed = plan(tmp_path, ("CoOp",), options=(("OPTIM.LR", "1"),))
    text = overview(changed)
    assert "4 runs: 2 not begun, 2 refused." in text  # the seed beside it, too
    assert f"refused: {made.runs[0].folder} was made with other settings (now: OPTIM.LR 1)" in text
    assert "No finished run to estimate from." in text


def test_a_finished_plan_has_no_estimate(tmp_path):
    made = plan(tmp_path, ("CoOp",), seeds=(1,))
    for run in made.runs:
        finish(run, {"train": 1.0})
    assert overview(made).endswith("2 runs: 2 finished.")


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "7 s"), (600.0, "10 min"), (36000.0, "10.0 h")]
)
def test_an_estimate_takes_runs_of_the_same_trainer_shots_and_kind(tmp_path, seconds, text):
    made = plan(tmp_path, ("CoOp",), seeds=(1,))
    finish(made.runs[0], {"train": seconds})
    other = plan(Path("/elsewhere"), ("CoOp",), seeds=(5,)).runs
    assert estimate(other, made.runs[:1]).startswith(f"About {text} for 1 of them")
    assert estimate(other[1:], made.runs[:1]) == "No finished run to estimate from."
    few = plan(Path("/elsewhere"), ("CoOp",), shots=4).runs
    assert estimate(few, made.runs[:1]) == "No finished run to estimate from."


def test_runs_with_cached_features_are_samples_only_where_there_are_no_others(tmp_path):
    made = plan(tmp_path, ("CoOp",), seeds=(1, 2, 3))
    trained = [run for run in made.runs if run.model is None]
    finish(trained[0], {"train": 1.0, "cached_batches": 9})
    assert estimate(trained[2:], trained[:1]).startswith("About 1 s for 1 of them")
    finish(trained[1], {"train": 40.0})
    assert estimate(trained[2:], trained[:2]).startswith("About 40 s for 1 of them")


def test_damaged_results_are_no_sample(tmp_path):
    made = plan(tmp_path, ("CoOp",), seeds=(1,))
    finish(made.runs[0])
    (made.runs[0].folder / "results.json").write_text("{")
    assert estimate(made.runs[1:], made.runs[:1]) == "No finished run to estimate from."
