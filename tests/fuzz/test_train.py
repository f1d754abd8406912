"""The whole of train.py on mutated inputs, each in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import strategies as st

from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.io.runs.results import read_results
from tests.fuzz.campaign import Held, Refusal, contents, fuzzed, outcome
from tests.fuzz.mutations import damaged, json_files, trees
from tests.fuzz.test_configs import NOT_RUN, WORDS, as_text, near_misses, settings_of
from tests.fuzz.test_images import damaged_chunks
from tests.runner import CLASSES, make_project, train

QUICK = ["OPTIM.MAX_EPOCH", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "6", "DATASET.NUM_SHOTS", "3"]
MODEL, RESUME = "prompt_learner/model-2.safetensors", "prompt_learner/resume.safetensors"
SPLIT = {
    part: [
        [f"{name}/{i}.png", label, name.replace("_", " ")]
        for label, name in enumerate(CLASSES)
        for i in range(*span)
    ]
    for part, span in {"train": (0, 3), "val": (3, 4), "test": (4, 6)}.items()
}
TABLE = "\n".join(
    ["path,label,split"]
    + [f"{path},{name},{part}" for part, rows in SPLIT.items() for path, _, name in rows]
).encode()


def set_environment(values):
    os.environ.update(values)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project with a finished run, a test of its model and their caches, which is copied."""
    folder = tmp_path_factory.mktemp("train")
    work = folder / "work"
    work.mkdir()
    place = Held(work=work, kept=folder / "kept", log=folder / "log", flags=make_project(work, 6))
    for extra in ([], ["--eval-only", "--model-dir", str(work / "run")]):
        out = work / ("test" if extra else "run")
        done = run(place, [*extra, "--output-dir", str(out), *QUICK, *CACHED])
        assert done.code == 0, done.err
    work.rename(place.kept)
    return place


CACHED = ["DATALOADER.IMAGE_CACHE", "decoded", "DOMAIN.ENCODER", "clip"]


def eval_only(place):
    """Return the arguments for a test of the finished run."""
    return ["--eval-only", "--model-dir", str(place.work / "run")]


def run(place, arguments):
    environment = {"DPLQ_CACHE": str(place.work / "cache")}
    return train(place.log, [*place.flags, *arguments], set_environment, environment)


def ended(place, arguments):
    """Run train.py; return what it printed, or raise the error that it ended with."""
    try:
        done = run(place, arguments)
    except BaseException:
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        raise
    assert "Traceback" not in done.out + done.err, done.err
    if done.code == 0:
        return done
    assert done.code == 2, done
    _, _, message = f"\n{done.err}".rpartition("\nerror: ")
    raise UserError(message.rstrip("\n"))


def files(work, *, of_run=True):
    """Return what no run may change: data, configs, CLIP, the models of a finished run."""
    found = contents(work / "data", work / "clip")
    found |= {str(path): path.read_bytes() for path in work.glob("*.yaml")}
    if of_run:
        found |= {str(path): path.read_bytes() for path in work.glob("run/prompt_learner/model-*")}
    return found


def tried(
    place, kind, arguments, path=None, content=b"", *, lines=1, of_run=True, out="run", without=None
):
    """Copy the project, put a file into it, run train.py; require what must come of it."""
    shutil.rmtree(place.work, ignore_errors=True)
    shutil.copytree(place.kept, place.work)
    if path is not None:
        (place.work / path).write_bytes(content)
    if without is not None:
        (place.work / without).unlink()
    folder = place.work / out
    before = files(place.work, of_run=of_run)
    there = contents(folder) if folder.is_dir() else {}
    got = outcome(
        f"train.py: {kind}", ended, place, ["--output-dir", str(folder), *arguments], lines=lines
    )
    after = files(place.work, of_run=of_run)
    assert {name: after.get(name) for name in before} == before
    if isinstance(got, Refusal):
        left = contents(folder) if folder.is_dir() else {}
        changed = {name for name in there if left.get(name) != there[name]}
        assert {Path(name).name for name in changed} <= {"log.txt", ".owner.json"}, changed
    return got


def require_result(got, folder):
    """Require a valid results.json where the run has ended well."""
    if isinstance(got, Refusal):
        return
    results = read_results(folder / "results.json")
    assert 0 <= results.accuracy <= 100


SHARE = 0.01  # of every test here: 9 of them, a second for each input


@fuzzed(
    0.015, few=3, given=settings_of(lambda key: st.one_of(WORDS, near_misses(key).map(as_text)))
)
def test_options(given, place):
    trainer, values = given
    words = [word for key, value in values.items() if key not in NOT_RUN for word in (key, value)]
    words = [word.replace("\0", "") for word in words]
    got = tried(place, "KEY VALUE pairs", ["--trainer", trainer, *QUICK, *words], out="new")
    if values.get("TEST.NO_TEST") != "True":
        require_result(got, place.work / "new")


@fuzzed(SHARE, few=2, data=st.data())
def test_yaml(data, place):
    content = data.draw(damaged((place.kept / "trainer.yaml").read_bytes()))
    got = tried(place, "YAML files", QUICK, "trainer.yaml", content, out="new")
    if b"NO_TEST" not in content:
        require_result(got, place.work / "new")


@fuzzed(SHARE, few=2, content=st.one_of(json_files(SPLIT), damaged(TABLE)))
def test_splits(content, place):
    name = "data/given.json" if content[:1] in b"{[n" else "data/given.csv"
    options = [*QUICK, "DATASET.SPLIT_FILE", Path(name).name]
    got = tried(place, "splits", options, name, content, lines=40, out="new")
    require_result(got, place.work / "new")


@fuzzed(SHARE, few=2, data=st.data(), name=st.sampled_from(CLASSES), number=st.integers(0, 5))
def test_images(data, name, number, place):
    path = f"data/{name}/{number}.png"
    whole = (place.kept / path).read_bytes()
    content = data.draw(st.one_of(damaged(whole), damaged_chunks(whole)))
    got = tried(place, "images", QUICK, path, content, out="new")
    require_result(got, place.work / "new")


RECORDS = ("results.json", "run.json", "seed.txt", ".owner.json")


@fuzzed(0.015, few=3, data=st.data(), name=st.sampled_from(RECORDS))
def test_records(data, name, place):
    """The same command again, in the folder of the finished run."""
    valid = {"pid": 1, "host": "elsewhere"} if name == ".owner.json" else 1
    if (place.kept / "run" / name).is_file():
        valid = json.loads((place.kept / "run" / name).read_bytes())
    content = data.draw(json_files(valid) if name != "seed.txt" else WORDS.map(encoded))
    got = tried(place, name, [*QUICK, *CACHED], f"run/{name}", content)
    if name == "results.json" or not isinstance(got, Refusal):
        require_result(got, place.work / "run")


def encoded(text):
    return text.encode("utf-8", "surrogatepass")


def written(path, header):
    """Return a checkpoint with another header and its checksum, None if there is no such one."""
    tensors, _ = checkpoint.read(path)
    try:
        checkpoint.save(path.with_name("new"), tensors, header)
        return path.with_name("new").read_bytes()
    except Exception:  # no header that can be written
        return None
    finally:
        path.with_name("new").unlink(missing_ok=True)


def drawn(data, path, headers, head):
    """Return a checkpoint with damaged bytes or, where it can be written, with another header."""
    content = data.draw(damaged(path.read_bytes(), head=head))
    if not headers:
        return content
    header = data.draw(trees(checkpoint.read(path)[1]))
    return (written(path, header) if isinstance(header, dict) else None) or content


@fuzzed(SHARE, few=2, data=st.data(), headers=st.booleans())
def test_resume_files(data, headers, place):
    """A run that was interrupted before its test is continued."""
    content = drawn(data, place.kept / "run" / RESUME, headers, head=3000)
    got = tried(
        place,
        "resume files",
        [*QUICK, *CACHED],
        f"run/{RESUME}",
        content,
        of_run=not headers,
        without="run/results.json",
    )
    require_result(got, place.work / "run")


@fuzzed(SHARE, few=2, data=st.data(), headers=st.booleans())
def test_models(data, headers, place):
    """A model is tested that was trained before."""
    content = drawn(data, place.kept / "run" / MODEL, headers, head=2000)
    options = [*eval_only(place), *QUICK, *CACHED]
    got = tried(place, "models", options, f"run/{MODEL}", content, out="new")
    require_result(got, place.work / "new")


@fuzzed(SHARE / 2, few=2, data=st.data())
def test_training_images(data, place):
    name = "run/prompt_learner/train_images.json"
    content = data.draw(json_files(json.loads((place.kept / name).read_bytes())))
    options = [*eval_only(place), *QUICK, *CACHED]
    got = tried(place, "train_images.json", options, name, content, out="new")
    require_result(got, place.work / "new")


@fuzzed(SHARE, few=2, data=st.data())
def test_caches(data, place):
    """Damage in a cache changes no result."""
    caches = sorted(path for path in (place.kept / "cache").rglob("*") if path.is_file())
    kinds = sorted({path.suffix for path in caches})
    suffix = data.draw(st.sampled_from(kinds))
    path = data.draw(st.sampled_from([path for path in caches if path.suffix == suffix]))
    content = data.draw(damaged(path.read_bytes(), head=600))
    options = [*eval_only(place), *QUICK, *CACHED]
    got = tried(
        place, f"caches, {suffix}", options, path.relative_to(place.kept), content, out="new"
    )
    if path.name.startswith("split_"):  # no cache, but what the results are of
        require_result(got, place.work / "new")
        return
    assert not isinstance(got, Refusal), got
    now, then = (
        json.loads((place.work / name / "results.json").read_text()) for name in ("new", "test")
    )
    assert now["per_class_accuracy"] == then["per_class_accuracy"]
