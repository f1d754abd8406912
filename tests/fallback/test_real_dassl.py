"""The fallback against the real Dassl: the same script under both, in processes of their own."""

from __future__ import annotations

import json
import pickle
import re
from types import SimpleNamespace

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint

from tests.fallback.places import FALLBACK, finish, start
from tests.peers import peer


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Facts, printed lines and folder of the run under the real Dassl and of ours."""
    real = peer("Dassl.pytorch")
    from tests.fallback.toys import write_images

    tmp = tmp_path_factory.mktemp("real")
    write_images(tmp / "images")
    started = {}
    for name, path in {"real": real, "ours": FALLBACK}.items():
        (tmp / name).mkdir()
        args = (tmp / "images", tmp / name)
        started[name] = start("run_toy.py", *args, path=[path], cwd=tmp)
    runs = {}
    for name, process in started.items():
        printed = finish(process)
        facts = json.loads((tmp / name / "facts.json").read_text())
        runs[name] = SimpleNamespace(printed=printed, facts=facts, folder=tmp / name)
    return runs["real"], runs["ours"]


@pytest.mark.parametrize(
    "key",
    [
        "defaults",
        "sample",
        "classnames",
        "drawn",
        "evaluated",
        "accuracy",
        "distances",
        "meter",
        "ToyX",
        "ToyXU",
    ],
)
def test_same_facts(both, key):
    real, ours = both
    assert ours.facts[key] == real.facts[key]


def test_same_learning_rates_and_tensors(both):
    real, ours = both
    assert ours.facts["rates"] == real.facts["rates"]
    for key in ("train_tensors", "test_tensors"):
        assert ours.facts[key] == real.facts[key]


def _training_log(run) -> list[str]:
    """The lines between the marks, without times, folders and progress bars."""
    text = "".join(re.findall(r"^@@@.*?^@@@ end$", run.printed, re.M | re.S))
    text = text.replace(str(run.folder), "OUT")
    text = re.sub(r"(time|data) \d+\.\d{3} \(\d+\.\d{3}\)", r"\1 T", text)
    text = re.sub(r"(eta|Elapsed:) \d+:\d\d:\d\d", r"\1 T", text)
    return [line for line in text.splitlines() if "it/s" not in line and "?it" not in line]


def test_same_log_lines(both):
    real, ours = map(_training_log, both)
    epoch_line = r"epoch \[1/2\] batch \[2/3\] time T data T loss [\d.]+ \([\d.]+\) acc .* eta T"
    assert any(re.fullmatch(epoch_line, line) for line in ours)
    assert ours == real


def test_same_result_block(both):
    blocks = [re.findall(r"^(?:=> |\* ).*$", run.printed, re.M) for run in both]
    assert len(blocks[0]) > 20
    unlike = [
        pair
        for pair in zip(*blocks, strict=True)
        if pair[0].replace(str(both[0].folder), "") != pair[1].replace(str(both[1].folder), "")
    ]
    assert unlike == []


def test_reads_the_real_few_shot_pickles_and_checkpoints(both):
    real, _ = both
    with open(real.folder / "datums.pkl", "rb") as file:
        items = pickle.load(file)["train"]
    assert [item.impath.rsplit("/", 1)[1] for item in items] == real.facts["sample"]

    best = load_checkpoint(str(real.folder / "ToyX" / "toy_net" / "model-best.pth.tar"))
    assert best["val_result"] == real.facts["ToyX"]["best"]

    warm = load_checkpoint(str(real.folder / "warm" / "model.pth.tar-1"))
    assert set(warm["state_dict"]) == {"1.weight", "1.bias"}
    cfg = get_cfg_default().OPTIM
    cfg.LR_SCHEDULER, cfg.WARMUP_EPOCH, cfg.NAME, cfg.LR = "cosine", 1, "sgd", 0.005
    cfg.MAX_EPOCH = 2
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(2))], cfg)
    scheduler = build_lr_scheduler(optimizer, cfg)
    scheduler.load_state_dict(warm["scheduler"])
    optimizer.step()
    rates = []
    for _ in range(3):
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.005, 0.0025, 0.0], abs=1e-12)
