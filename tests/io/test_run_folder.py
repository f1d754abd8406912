"""Whose folder it is: claims, refusals, and what is deleted on request."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dplq.errors import UserError
from dplq.io.atomic import atomic_write
from dplq.io.runs.folder import Identity, hold, is_to_be_cleared, release_all

RUN = Identity(
    kind="train",
    trainer="CoOp",
    dataset="RSSCN7",
    subsample="base",
    shots=16,
    seed=1,
    settings={"OPTIM.LR": 0.002, "INPUT.SIZE": [224, 224]},
)


def other(**changes):
    return Identity(**{name: getattr(RUN, name) for name in RUN.__struct_fields__} | changes)


@pytest.fixture
def folder(tmp_path):
    yield hold(tmp_path / "out")
    release_all()


def work(folder):
    (folder.path / "prompt_learner").mkdir()
    (folder.path / "prompt_learner/model-1.safetensors").write_bytes(b"weights")


def test_run_json_names_the_run(folder):
    folder.claim(RUN)
    record = json.loads((folder.path / "run.json").read_text())
    assert record["identity"]["trainer"] == "CoOp"
    assert record["identity"]["settings"] == RUN.settings
    assert folder.recorded() == RUN


def test_what_is_known_later_completes_the_identity(folder):
    folder.claim(RUN)
    work(folder)
    known = {"split": "0a", "weights": {"domain": "1b"}}
    folder.claim(other(**known))
    assert folder.recorded() == other(**known)
    folder.claim(RUN)
    assert folder.recorded() == other(**known)
    with pytest.raises(UserError, match=r"weights: there \{'domain': '1b'\}, now \{'domain': '2"):
        folder.claim(other(weights={"domain": "2c"}))


def test_a_damaged_run_json_can_be_deleted(folder):
    folder.claim(RUN)
    (folder.path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run.json cannot be used: .* delete this one file"):
        folder.claim(RUN)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainer": "LinearProbe"}, "trainer: there 'CoOp', now 'LinearProbe'"),
        ({"dataset": "AID"}, "dataset: there 'RSSCN7', now 'AID'"),
        ({"subsample": "new"}, "subsample: there 'base', now 'new'"),
        ({"shots": 4}, "shots: there 16, now 4"),
        ({"seed": 2}, "seed: there 1, now 2"),
        ({"kind": "test"}, "kind: there 'train', now 'test'"),
        ({"settings": {**RUN.settings, "OPTIM.LR": 1.0}}, "OPTIM.LR: there 0.002, now 1.0"),
    ],
)
def test_another_identity_is_refused_where_work_lies(folder, changes, words):
    folder.claim(RUN)
    folder.claim(other(**changes))  # nothing was computed yet: it may have the folder
    folder.claim(RUN)
    work(folder)
    before = (folder.path / "run.json").read_bytes()
    with pytest.raises(UserError) as error:
        folder.claim(other(**changes))
    assert str(error.value) == (
        f"{folder.path} holds another run: {words}. Give another --output-dir, or delete that run "
        "(train.py --overwrite does)."
    )
    assert (folder.path / "run.json").read_bytes() == before
    folder.claim(RUN)


def test_another_trainer_is_named_without_its_settings(folder):
    folder.claim(RUN)
    work(folder)
    with pytest.raises(UserError) as error:
        folder.claim(other(trainer="MaPLe", settings={"OPTIM.LR": 1.0}))
    assert "OPTIM.LR" not in str(error.value)


def test_the_split_is_added_once_known_and_compared_from_then_on(folder):
    folder.claim(RUN)
    work(folder)
    folder.claim(other(split="aaaa"))
    assert folder.recorded().split == "aaaa"
    folder.claim(RUN)  # before the dataset is read
    assert folder.recorded().split == "aaaa"
    with pytest.raises(UserError, match="split: there 'aaaa', now 'bbbb'"):
        folder.claim(other(split="bbbb"))


def test_other_images_are_no_news_where_others_are_drawn(folder):
    """Two shots have other images than four; the files are as they were."""
    folder.claim(other(data="aaaa"))
    work(folder)
    with pytest.raises(UserError) as error:
        folder.claim(other(shots=RUN.shots + 1, data="bbbb"))
    assert "shots: there" in str(error.value)
    assert "have changed since" not in str(error.value)
    with pytest.raises(UserError, match="labels or image files have changed since"):
        folder.claim(other(data="bbbb"))


def test_a_key_of_a_later_version_counts_as_its_default(folder):
    folder.claim(RUN)
    work(folder)
    later = other(settings={**RUN.settings, "OPTIM.NEW": 5})
    folder.claim(later, defaults={"OPTIM.NEW": 5})
    folder.claim(RUN)  # a key that went away is not compared
    folder.clear()
    folder.claim(RUN)
    work(folder)
    with pytest.raises(UserError, match=r"OPTIM\.NEW: there 4, now 5"):
        folder.claim(later, defaults={"OPTIM.NEW": 4})


def test_clear_deletes_the_pages_of_the_run(folder):
    folder.claim(RUN)
    pages = [folder.path / name for name in ("report.html", "report-A-all-test.html")]
    others = [folder.path / name for name in ("my-report.html", "report_final.html")]
    for path in (*pages, *others):
        path.write_text("x")
    folder.clear()
    assert [path.exists() for path in (*pages, *others)] == [False, False, True, True]


def test_files_of_unknown_making_are_refused(folder):
    work(folder)
    with pytest.raises(UserError, match=r"model-1\.safetensors, but no run\.json that says"):
        folder.claim(RUN)
    folder.claim(RUN, RUN)  # their making is known from elsewhere


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", '{"format": 1}', '{"format": 2, "identity": {}}'),
        '{"format": 1, "identity": {"kind": "other"}}',
    ],
)
def test_a_damaged_record_is_refused_by_name(folder, text):
    work(folder)
    (folder.path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json cannot be used: "):
        folder.claim(RUN)


def test_clear_deletes_the_run_alone(folder):
    folder.claim(RUN, settings="shots 16")
    work(folder)
    for name in ("log.txt", "notes.txt", "results.json", "results-A-all-test.json", "seed.txt"):
        (folder.path / name).write_text("1")
    folder.clear()
    left = {path.name for path in folder.path.iterdir()} - {".lock", ".owner.json"}
    assert left == {"log.txt", "notes.txt"}
    folder.claim(other(trainer="MaPLe"))


def test_weights_of_the_user_are_no_work_of_a_run(tmp_path):
    weights = tmp_path / "weights/vit.safetensors"
    weights.parent.mkdir()
    weights.touch()
    folder = hold(tmp_path)
    folder.claim(RUN)
    work(folder)
    assert folder.work() == ["prompt_learner/model-1.safetensors"]
    folder.clear()
    release_all()
    assert weights.exists()


def test_temporaries_of_runs_in_other_folders_are_left(tmp_path):
    mine = tmp_path / "prompt_learner/.model-1.0123abcd-1-2.part.safetensors"
    other = tmp_path / "other" / mine.name
    for path in (mine, other):
        path.parent.mkdir()
        path.touch()
    hold(tmp_path)
    release_all()
    assert not mine.exists()
    assert other.exists()


def test_a_process_that_ends_leaves_no_owner(tmp_path):
    code = "import sys; from dplq.io.runs.folder import hold; hold(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_settings_of_a_script_are_written_by_the_owner_alone(folder):
    folder.claim(RUN, settings="a")
    assert (folder.path / "settings.txt").read_text() == "a\n"
    work(folder)
    with pytest.raises(UserError):
        folder.claim(other(seed=2), settings="b")
    folder.claim(RUN, settings="c")
    assert (folder.path / "settings.txt").read_text() == "a\n"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--output-dir .*file/out cannot be used: Not a directory"):
        hold(tmp_path / "file/out")


def test_a_run_in_a_folder_of_a_run_is_left_alone(folder):
    """Both write: neither clears the other's temporaries, or counts the other's files."""
    inner = hold(folder.path / "inner")
    inner.claim(other(trainer="MaPLe"))
    work(inner)
    with atomic_write(inner.path / "results.json") as temporary:
        temporary.write_text("half")
        release_all()
        outer = hold(folder.path)
        assert temporary.exists()
    outer.claim(RUN)
    outer.claim(other(seed=2))
    outer.clear()
    assert (inner.path / "prompt_learner/model-1.safetensors").exists()


def test_weights_of_others_are_no_work_and_stay(folder):
    """The output folder may be one in which there is more, as a checkout."""
    (folder.path / "weights").mkdir()
    (folder.path / "weights/clip.safetensors").write_bytes(b"weights")
    assert folder.work() == []
    folder.claim(RUN)
    folder.clear()
    assert (folder.path / "weights/clip.safetensors").exists()


def test_a_link_is_the_same_folder(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder.path)
    assert hold(tmp_path / "link") is folder
    folder.to_be_cleared = True
    (tmp_path / "other").mkdir()
    for path in (folder.path, tmp_path / "link", tmp_path / "other" / ".." / "out"):
        assert is_to_be_cleared(path)
    assert not is_to_be_cleared(tmp_path / "other")


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "raise ValueError"])
def test_a_process_that_ends_gives_its_folders_back(tmp_path, end):
    """Else its note would refuse the next one where that runs on another machine."""
    code = f"from dplq.io.runs.folder import hold\nhold({str(tmp_path)!r})\n{end}"
    subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}
