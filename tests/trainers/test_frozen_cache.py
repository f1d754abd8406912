"""Runs with and without kept features: the same weights bit for bit, and what is left out."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
import torch

from dplq.io import checkpoint
from dplq.training.loaders import AcceleratedImages
from tests.fuzz.tiny_runs import build, quiet
from tests.runner import make_project, train

# trainer -> keys beside those of the tiny project
SETTINGS = {
    "QuaternionPrompt": {"PROMPT_DEPTH": 2},
    "CoOp": {"N_CTX": 2},
    "CoCoOp": {"N_CTX": 2},
    "CLIPAdapter": {"VIEWS": 2},
    "PromptSRC": {"PROMPT_DEPTH_VISION": 2, "PROMPT_DEPTH_TEXT": 2},
}
OTHER = {  # another setting of the same method, that leaves its frozen features as they are
    "QuaternionPrompt": ("OPTIM.LR", 0.01),
    "CoOp": ("TRAINER.COOP.N_CTX", 3),
    "CoCoOp": ("OPTIM.LR", 0.01),
    "CLIPAdapter": ("TRAINER.CLIPADAPTER.SELECT", "fixed"),
    "PromptSRC": ("OPTIM.LR", 0.01),
}
TRAINED_ON = {"CLIPAdapter": 4}  # batches; the others make 6 steps in each of two epochs
NEED_IMAGES = ("QuaternionPrompt", "PromptSRC")

pytestmark = pytest.mark.usefixtures("own_cache")

READ = AcceleratedImages.__getitem__


class Interrupted(Exception):
    """Raised in the middle of a run."""


@pytest.fixture(scope="module")
def filled_by_coop(project, tmp_path_factory):
    """A cache with all features of a CoOp run."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPLQ_CACHE", str(folder / "cache"))
        run(config(project, "CoOp", folder / "first"))
    AcceleratedImages.__getitem__ = READ
    return folder / "cache"


@pytest.fixture
def filled(filled_by_coop, tmp_path):
    """This test's cache, with all features of a CoOp run."""
    shutil.copytree(filled_by_coop, tmp_path / "cache")


def config(project, trainer, out, limit=4.0, workers=0, **changes):
    cfg = project.clone()
    cfg.TRAINER.NAME, cfg.OUTPUT_DIR, cfg.OPTIM.MAX_EPOCH = trainer, str(out), 2
    cfg.TRAIN.FEATURE_CACHE, cfg.DATALOADER.NUM_WORKERS = limit, workers
    node = cfg.TRAINER[trainer.upper()]
    for key, value in {**SETTINGS[trainer], "PREC": "fp32"}.items():
        node[key] = value
    for key, value in changes.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


def run(cfg, stop_after=None):
    """Train and test; return the learned state, the logits' table, and the work that was done."""
    trainer, done = build(cfg), {"images": 0, "clip": 0, "domain": 0}
    count(trainer, done)
    if stop_after is not None:
        original, steps = trainer._step, []

        def step():
            steps.append(1)
            if len(steps) > stop_after:
                raise Interrupted
            original()

        trainer._step = step
    with quiet():
        trainer.train()
    table = (Path(cfg.OUTPUT_DIR) / "predictions.csv").read_bytes()
    return {k: v.clone() for k, v in trainer.model.prompt_learner.state_dict().items()}, table, done


def count(trainer, done):
    """Count the calls of frozen encoders, and the images that are read in this process."""

    def counted(name, function):
        def call(*args):
            done[name] += 1
            return function(*args)

        return call

    clip, domain = trainer.model.unchanged_clip, trainer.model.domain
    clip.encode_image = counted("clip", clip.encode_image)
    if domain is not None:
        domain.forward = counted("domain", domain.forward)
    AcceleratedImages.__getitem__ = counted("images", READ)


@pytest.fixture(autouse=True)
def uncounted():
    yield
    AcceleratedImages.__getitem__ = READ


def cached_batches(folder):
    return json.loads((folder / "results.json").read_text())["seconds"]["cached_batches"]


def assert_same(one, other):
    assert one[0].keys() == other[0].keys()
    for name, tensor in one[0].items():
        assert torch.equal(tensor, other[0][name]), name
    assert one[1] == other[1]


@pytest.mark.parametrize("trainer", SETTINGS)
def test_weights_and_predictions_are_the_same_bit_for_bit(project, tmp_path, trainer):
    """Without the cache; interrupted and resumed while it fills; and once it is full."""
    plain = run(config(project, trainer, tmp_path / "plain", limit=0.0))
    first = config(project, trainer, tmp_path / "first")
    if trainer != "CLIPAdapter":  # which makes its steps on features, and has no epochs to resume
        with pytest.raises(Interrupted):
            run(first, stop_after=8)  # of 6 steps in each of two epochs
    assert_same(run(first), plain)
    known = run(config(project, trainer, tmp_path / "known"))
    assert_same(known, plain)
    counts = [cached_batches(tmp_path / name) for name in ("plain", "first", "known")]
    assert counts == [0, 0, TRAINED_ON.get(trainer, 12)]
    done, before = known[2], plain[2]
    if trainer in NEED_IMAGES:
        assert done["images"] == before["images"]
    else:
        assert done["images"] == done["clip"] == 0
    frozen = "domain" if trainer == "QuaternionPrompt" else "clip"
    assert done[frozen] < before[frozen] / 2


@pytest.mark.usefixtures("filled")
def test_batches_from_the_cache_are_counted_over_an_interruption(project, tmp_path):
    known = config(project, "CoOp", tmp_path / "known")
    with pytest.raises(Interrupted):
        run(known, stop_after=8)
    run(known)
    assert cached_batches(tmp_path / "known") == 12


@pytest.mark.parametrize("trainer", SETTINGS)
def test_another_setting_shares_the_features(project, tmp_path, trainer):
    key, value = OTHER[trainer]
    changes = {key.replace(".", "__"): value}
    run(config(project, trainer, tmp_path / "first"))
    plain = run(config(project, trainer, tmp_path / "plain", limit=0.0, **changes))
    known = run(config(project, trainer, tmp_path / "known", **changes))
    assert_same(known, plain)
    frozen = "domain" if trainer == "QuaternionPrompt" else "clip"
    assert known[2][frozen] < plain[2][frozen] / 2


@pytest.mark.usefixtures("filled")
def test_methods_share_the_features(project, tmp_path):
    """CoOp's are CoCoOp's, and both train without an image."""
    plain = run(config(project, "CoCoOp", tmp_path / "plain", limit=0.0))
    known = run(config(project, "CoCoOp", tmp_path / "known"))
    assert_same(known, plain)
    assert known[2]["images"] == known[2]["clip"] == 0


def test_worker_processes_change_nothing(project, tmp_path):
    """Of the loaders; with all features known none is started."""
    plain = run(config(project, "CoOp", tmp_path / "plain", limit=0.0, workers=2))
    assert_same(run(config(project, "CoOp", tmp_path / "first", workers=2)), plain)
    known = run(config(project, "CoOp", tmp_path / "known", workers=2))
    assert_same(known, plain)
    assert known[2]["clip"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"SEED": 2},
        {"INPUT__RRCROP_SCALE": (0.5, 1.0)},
        {"INPUT__TRANSFORMS": ("random_resized_crop", "normalize")},
        {"TRAINER__COOP__PREC": "bf16"},
        {"DATALOADER__TRAIN_X__BATCH_SIZE": 3},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.usefixtures("filled")
def test_other_views_are_computed(project, tmp_path, change):
    plain = run(config(project, "CoOp", tmp_path / "plain", limit=0.0, **change))
    found = run(config(project, "CoOp", tmp_path / "other", **change))
    assert_same(found, plain)
    steps = 2 * 12 // change.get("DATALOADER__TRAIN_X__BATCH_SIZE", 2)
    assert found[2]["clip"] >= steps


def test_nothing_is_kept_where_it_is_off_or_would_differ(project, tmp_path, monkeypatch):
    assert build(config(project, "CoOp", "", limit=0.0)).frozen is None
    cfg = config(project, "CoOp", "", MODEL__COMPILE="default")
    assert build(cfg).frozen is None
    assert build(config(project, "CoOp", "")).frozen is not None
    assert not (tmp_path / "cache" / "features").exists()


def test_domain_features_of_tests_have_a_limit_where_the_others_are_off(project):
    from dplq.trainers._engine.domain import cache_limit

    for given, limit in ((0.0, 4 * 10**9), (1.5, 15 * 10**8)):
        assert cache_limit(config(project, "QuaternionPrompt", "", limit=given)) == limit


def choose_cache(folder):
    import os

    os.environ["DPLQ_CACHE"] = folder


def test_two_runs_at_once_fill_one_cache(tmp_path):
    flags = make_project(tmp_path / "project", images=6)
    flags = ["CoOp" if flag == "QuaternionPrompt" else flag for flag in flags]
    keys = ["OPTIM.MAX_EPOCH", "2", "TRAINER.COOP.PREC", "fp32"]
    cache, codes = str(tmp_path / "cache"), {}

    def start(name, limit):
        out = ["--output-dir", str(tmp_path / name)]
        more = ["TRAIN.FEATURE_CACHE", limit]
        codes[name] = train(
            tmp_path / f"{name}.log", [*flags, *out, *keys, *more], choose_cache, cache
        )

    threads = [threading.Thread(target=start, args=(name, "1")) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    start("plain", "0")
    for thread in threads:
        thread.join()
    start("known", "1")
    assert [done.code for done in codes.values()] == [0] * 4, codes
    assert "images are not decoded" in codes["known"].out
    weights = [
        checkpoint.read(tmp_path / name / "prompt_learner/model-2.safetensors")[0] for name in codes
    ]
    for other in weights[1:]:
        assert all(torch.equal(tensor, other[key]) for key, tensor in weights[0].items())
