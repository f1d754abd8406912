"""Unmodified train.py, trainers and dataset files of the trees, on the fallback.

Each run trains two epochs on one half of the classes, saves and tests; a second call loads the
weights and tests again. One run is compared with the same on the real Dassl.
"""

from __future__ import annotations

import json
import re

import pytest
from dassl.utils import load_checkpoint

from tests.fallback.lookalikes import write_all
from tests.fallback.places import FALLBACK, finish, start
from tests.peers import peer

# tree -> (trainer, dataset, config, key of the precision, folder of the checkpoints)
RUNS = {
    "CoOp": [
        ("CoOp", "dtd", "vit_b16", "COOP", "prompt_learner"),
        ("CoCoOp", "eurosat", "vit_b16_c4_ep10_batch1", "COCOOP", "prompt_learner"),
    ],
    "multimodal-prompt-learning": [
        ("CoOp", "dtd", "vit_b16", "COOP", "prompt_learner"),
        ("CoCoOp", "eurosat", "vit_b16_c4_ep10_batch1", "COCOOP", "prompt_learner"),
        ("MaPLe", "oxford_pets", "vit_b16_c2_ep5_batch4_2ctx", "MAPLE", "MultiModalPromptLearner"),
    ],
    "PromptSRC": [
        ("PromptSRC", "eurosat", "vit_b16_c2_ep20_batch4_4+4ctx", "PROMPTSRC", "VLPromptLearner"),
    ],
}
LIGHT = {
    "USE_CUDA": "False",
    "INPUT.SIZE": "(32, 32)",
    "DATALOADER.NUM_WORKERS": "0",
    "DATALOADER.TRAIN_X.BATCH_SIZE": "2",
    "DATASET.NUM_SHOTS": "2",
    "OPTIM.MAX_EPOCH": "2",
    "TRAIN.PRINT_FREQ": "1",
}


def _jobs(root, out, runs, evaluate: bool) -> list[list[str]]:
    """Argument lists for train.py: for each run training, then evaluation of epoch 2."""
    jobs = []
    for trainer, dataset, config, precision, _ in runs:
        options = [part for pair in LIGHT.items() for part in pair]
        options += ["DATASET.SUBSAMPLE_CLASSES", "base", f"TRAINER.{precision}.PREC", "fp32"]
        if trainer == "MaPLe":  # the real Dassl's warm-up fails on torch >= 2.7
            options += ["TRAINER.MAPLE.PROMPT_DEPTH", "2", "OPTIM.WARMUP_EPOCH", "-1"]
        common = ["--root", root, "--seed", "1", "--trainer", trainer]
        common += ["--dataset-config-file", f"configs/datasets/{dataset}.yaml"]
        common += ["--config-file", f"configs/trainers/{trainer}/{config}.yaml"]
        folder = f"{out}/{trainer}"
        jobs.append([*common, "--output-dir", folder, *options])
        if evaluate:
            loading = ["--eval-only", "--model-dir", folder, "--load-epoch", "2"]
            jobs.append([*common, "--output-dir", f"{folder}/eval", *loading, *options])
    return [list(map(str, job)) for job in jobs]


def _start(tree: str, dassl, work, runs, evaluate: bool):
    root = write_all(work / "data")
    jobs = work / "jobs.json"
    jobs.write_text(json.dumps(_jobs(root, work / "out", runs, evaluate)))
    folder = peer(tree)
    return start("run_peer.py", folder, work, jobs, path=[dassl], cwd=folder)


def _losses(log: str) -> list[str]:
    return re.findall(r"^epoch \[\d/2\] batch .* loss (\d+\.\d{4}) ", log, re.M)


def _accuracies(log: str) -> list[str]:
    return re.findall(r"^\* accuracy: (\d+\.\d)%$", log, re.M)


def _check_run(out, trainer: str, model: str) -> None:
    log = (out / "log.txt").read_text()
    assert f"Loading trainer: {trainer}\n" in log
    # two base classes of two shots, batches of two, two epochs
    assert len(_losses(log)) == 4, log[-2000:]
    assert all(0 < float(loss) < 1000 for loss in _losses(log))
    assert f"Checkpoint saved to {out}/{model}/model.pth.tar-2\n" in log
    assert re.search(r"^Elapsed: 0:0\d:\d\d$", log, re.M)
    assert (out / model / "checkpoint").read_text() == "model.pth.tar-2\n"
    assert load_checkpoint(str(out / model / "model.pth.tar-2"))["epoch"] == 2
    assert list((out / "tensorboard").glob("events.out.tfevents.*"))
    evaluated = (out / "eval" / "log.txt").read_text()
    assert "Loading weights to" in evaluated
    assert len(_accuracies(log)) == 1
    assert _accuracies(evaluated) == _accuracies(log)


@pytest.mark.parametrize("tree", RUNS)
def test_trains_saves_loads_and_tests(tree, tmp_path):
    finish(_start(tree, FALLBACK, tmp_path, RUNS[tree], evaluate=True))
    for trainer, _, _, _, model in RUNS[tree]:
        _check_run(tmp_path / "out" / trainer, trainer, model)


def test_same_numbers_as_on_the_real_dassl(tmp_path):
    tree, run = "multimodal-prompt-learning", RUNS["multimodal-prompt-learning"][2:]
    processes = {}
    for name, dassl in (("real", peer("Dassl.pytorch")), ("ours", FALLBACK)):
        (tmp_path / name).mkdir()
        processes[name] = _start(tree, dassl, tmp_path / name, run, evaluate=False)
    logs = {}
    for name, process in processes.items():
        finish(process)
        logs[name] = (tmp_path / name / "out" / "MaPLe" / "log.txt").read_text()
    assert len(_losses(logs["real"])) == 4
    assert _losses(logs["ours"]) == _losses(logs["real"])
    assert _accuracies(logs["ours"]) == _accuracies(logs["real"])
