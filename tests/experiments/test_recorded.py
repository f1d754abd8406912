"""Settings of finished runs, compared with those of a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from dplq.errors import UserError
from dplq.experiments.recorded import RecordedSettings
from dplq.experiments.series import Series
from dplq.io.files import RECORDED, file_digest
from dplq.io.runs.folder import Identity, hold, release_all


@pytest.fixture
def finished(tmp_path):
    def make(lines, seed=1):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        (folder / "results.json").write_text("{}")
        (folder / "settings.txt").write_text("\n".join(lines) + "\n")
        return folder

    return make


def test_built_in_datasets_lie_in_no_folder(tmp_path, finished):
    """One of the command line was recorded once: a moved checkout would be of other settings."""
    folder = finished(["dataset demo_aerial", f"data {tmp_path}", "seed 1"])
    RecordedSettings().check(folder, ["dataset demo_aerial", "data ", "seed 1"])
    with pytest.raises(UserError, match=r"\(there: A 1, now: A 2\)"):
        RecordedSettings().check(finished(["data x", "A 1"], 2), ["data ", "A 2"])
    series = Series("demo_aerial", "CoOp", "demo", (1,), tmp_path, data=tmp_path)
    trained = series.train(tmp_path, 1, "all")
    assert "--root" not in trained.words
    assert "data " in trained.settings().splitlines()
    assert series.test(tmp_path, trained, "all", "rsscn7").data == tmp_path


def test_a_dataset_of_ones_own_is_built_in_by_no_name(tmp_path, monkeypatch):
    from dplq.io import protocols

    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/demo_mine.yaml").touch()
    monkeypatch.setattr(protocols, "_own", [])
    protocols.add_configs(tmp_path)
    assert not protocols.is_built_in("demo_mine")
    assert protocols.is_built_in("demo_tissue")


def test_keys_that_change_no_result_do_not_count(finished):
    folder = finished(["A 1", "TRAIN.TRACK csv", "TRAIN.PRINT_FREQ 5"])
    RecordedSettings().check(folder, ["A 1", "TRAIN.TRACK wandb", "MODEL.COMPILE True"])
    with pytest.raises(UserError, match=r"\(there: A 1, now: A 2\)"):
        RecordedSettings().check(folder, ["A 2", "TRAIN.TRACK wandb"])


def test_how_a_value_is_written_does_not_count(finished):
    folder = finished(["OPTIM.LR 0.01", "INPUT.BANDS [3, 2, 1]", "config 1e-2"])
    RecordedSettings().check(folder, ["OPTIM.LR 1e-2", "INPUT.BANDS [3,2,1]", "config 1e-2"])
    for other in ("OPTIM.LR 2e-2", "OPTIM.LR '0.01'"):
        with pytest.raises(UserError, match=rf"there: OPTIM.LR 0.01, now: {other}"):
            RecordedSettings().check(folder, [other, "INPUT.BANDS [3,2,1]", "config 1e-2"])


def test_a_model_whose_results_were_made_again_is_the_same(finished, tmp_path):
    """The test has recorded which checkpoint it was of."""
    lines = ["seed 1", "model results.json 1 1"]
    folder, model = finished(lines), tmp_path / "model"
    (model / "prompt_learner").mkdir(parents=True)
    checkpoint = model / "prompt_learner/model-3.safetensors"
    checkpoint.write_bytes(b"weights")
    again = ["seed 1", "model results.json 2 2"]
    with pytest.raises(UserError, match=r"there: model results\.json 1 1"):
        RecordedSettings().check(folder, again, model)  # it has not
    digest = file_digest(checkpoint, RECORDED)
    identity = Identity("test", "CoOp", "d", "new", 16, 1, {}, model=digest)
    run = hold(folder)
    run._write(identity)
    release_all()
    RecordedSettings().check(folder, again, model)
    with pytest.raises(UserError, match="there: seed 1, now: seed 2"):
        RecordedSettings().check(folder, ["seed 2", again[1]], model)
    checkpoint.write_bytes(b"others")
    with pytest.raises(UserError, match=r"there: model results\.json 1 1"):
        RecordedSettings().check(folder, again, model)


@pytest.mark.parametrize(
    ("had", "wanted"), [("data /gone", "data "), ("data /gone", "data /there"), ("x", "x")]
)
def test_a_folder_that_is_gone(finished, caplog, had, wanted):
    RecordedSettings().check(finished([had, "A 1"]), [wanted, "A 1"])
    assert len(caplog.messages) == (wanted == "data /there")


def test_a_folder_that_is_there(tmp_path, finished):
    with pytest.raises(UserError, match=r"\(there: data .*, now: data /other\). Give another OUT"):
        RecordedSettings().check(finished([f"data {tmp_path}"]), ["data /other"])


def test_seeds_beside_it_are_compared_too(tmp_path, finished):
    finished(["A 1", "seed 2", "model x"], seed=2)
    RecordedSettings().check(tmp_path / "seed1", ["A 1", "seed 1", "model y"])
    with pytest.raises(UserError, match=r"seed2 was made with other settings \(there: A 1, now"):
        RecordedSettings().check(tmp_path / "seed1", ["A 2", "seed 1"])
    (tmp_path / "seed2/settings.txt").unlink()
    with pytest.raises(UserError, match=r"seed2 holds files but no settings.txt"):
        RecordedSettings().check(Path(tmp_path, "seed2"), ["A 1"])
