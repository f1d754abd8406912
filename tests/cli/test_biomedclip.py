"""BiomedCoOp's setting end to end: a small BiomedCLIP on look-alikes of its datasets.

Every run uses the published config and changes sizes only. `python -m pytest -m slow
tests/cli/test_biomedclip.py` runs all eleven datasets (a minute).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

import dplq
from dplq.clip.backbone import load_backbone
from dplq.datasets import DECLARED
from tests.datasets.lookalikes import make_lookalike
from tests.runner import PROJECT, Finished, train
from tests.tiny import write_biomedclip_dir

SMALL = [
    *("DATALOADER.NUM_WORKERS", "0", "DATALOADER.TEST.BATCH_SIZE", "8", "OPTIM.MAX_EPOCH", "1"),
    *("DATASET.NUM_SHOTS", "2", "INPUT.SIZE", "(32,32)"),
]
RUNS = {  # trainer -> its config, and what makes it small
    "ZeroshotCLIP": ("biomedclip", []),
    "CoOp": ("biomedclip_c4_ep50_batch32", []),
    "CoCoOp": ("biomedclip_c4_ep10_batch1", []),
    "KgCoOp": ("biomedclip_c4_ep50_batch128", []),
    "ProGrad": ("biomedclip_c4_ep50_batch128", []),
    "BiomedCoOp": (
        "biomedclip_c4_ep50_batch4",
        [*("TRAINER.BIOMEDCOOP.TEXTS", "templates", "TRAINER.BIOMEDCOOP.N_PROMPTS", "8")],
    ),
    "MaPLe": (
        "biomedclip_c2_ep5_batch4_2ctx",
        ["TRAINER.MAPLE.PROMPT_DEPTH", "2", "TRAINER.MAPLE.PREC", "fp32"],
    ),
    "QuaternionPrompt": (
        "biomedclip_c2_ep15_batch4_2ctx_medsam",
        [
            *("TRAINER.QUATERNIONPROMPT.PROMPT_DEPTH", "2", "TRAINER.QUATERNIONPROMPT.PREC"),
            *("fp32", "DOMAIN.ENCODER", "clip"),
        ],
    ),
}
FILES = {
    yaml.safe_load(path.read_text())["DATASET"]["NAME"]: path
    for path in (PROJECT / "configs/datasets").glob("*.yaml")
}
ELEVEN = [name for name, one in DECLARED.items() if one.__module__.endswith(".biomedcoop")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BiomedCLIP as it is published: config, tokenizer, weights."""
    folder = tmp_path_factory.mktemp("biomedclip")
    name = write_biomedclip_dir(folder, context_length=48)
    random = load_backbone(name, pretrained=False)
    torch.save(random.clip.state_dict(), folder / "open_clip_pytorch_model.bin")
    return name


def run(trainer: str, dataset: str, model: str, root: Path, out: Path, *more: str) -> Finished:
    config, small = RUNS[trainer]
    flags = [
        *("--root", str(root), "--seed", "1", "--trainer", trainer, "--output-dir", str(out)),
        *("--dataset-config-file", str(FILES[dataset])),
        *("--config-file", str(PROJECT / f"configs/trainers/{trainer}/{config}.yaml")),
    ]
    keys = ["MODEL.BACKBONE.NAME", model, *SMALL, *small]
    return train(out.with_suffix(".log"), [*flags, *more, *keys])


@pytest.mark.parametrize("trainer", RUNS)
def test_a_method_runs_on_busi(trainer: str, model: str, tmp_path: Path) -> None:
    _, prompts, _ = make_lookalike(DECLARED["BUSI"], tmp_path / "data", per_class=10)
    done = run(trainer, "BUSI", model, tmp_path / "data", tmp_path / "out")
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "out/results.json").read_text())
    assert (result["dataset"], list(result["per_class_accuracy"])) == ("BUSI", prompts)
    (checkpoint,) = (tmp_path / "out").rglob("model-*.safetensors")
    opened = dplq.load(checkpoint, weights=model.removeprefix("local-dir:"))
    logits = opened(torch.zeros(1, 3, 32, 32))
    assert logits.shape == (1, len(prompts))
    assert logits.isfinite().all()
    if trainer == "CoOp":
        more = ("--eval-only", "--model-dir", str(tmp_path / "out"))
        again = run(trainer, "BUSI", model, tmp_path / "data", tmp_path / "again", *more)
        assert again.code == 0, again.err
        second = json.loads((tmp_path / "again/results.json").read_text())
        assert second["accuracy"] == result["accuracy"]


def test_a_method_that_needs_clip_s_blocks_says_who_does_not(model: str, tmp_path: Path) -> None:
    make_lookalike(DECLARED["BUSI"], tmp_path / "data", per_class=10)
    flags = [
        *("--root", str(tmp_path / "data"), "--trainer", "CLIPLoRA", "--seed", "1"),
        *("--dataset-config-file", str(FILES["BUSI"])),
        *("--config-file", str(PROJECT / "configs/trainers/CLIPLoRA/vit_b16.yaml")),
    ]
    done = train(tmp_path / "log", [*flags, "MODEL.BACKBONE.NAME", model, *SMALL])
    assert done.code == 2
    assert "its text tower is a Hugging Face model, not CLIP's transformer" in done.err
    assert "QuaternionPrompt" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ELEVEN)
@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "QuaternionPrompt"])
def test_all_eleven(trainer: str, dataset: str, model: str, tmp_path: Path) -> None:
    _, prompts, _ = make_lookalike(DECLARED[dataset], tmp_path / "data", per_class=10)
    done = run(trainer, dataset, model, tmp_path / "data", tmp_path / "out")
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "out/results.json").read_text())
    assert list(result["per_class_accuracy"]) == prompts
