"""Learning rates and optimisers against numbers computed here."""

from __future__ import annotations

import math

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import ChoiceError
from torch import nn

LR, EPOCHS = 0.1, 8


def _config(**settings):
    cfg = get_cfg_default().OPTIM
    cfg.NAME, cfg.LR, cfg.MAX_EPOCH = "sgd", LR, EPOCHS
    for key, value in settings.items():
        cfg[key] = value
    return cfg


def _rates(cfg, epochs: int = EPOCHS) -> list[float]:
    optimizer = build_optimizer(nn.Linear(2, 2), cfg)
    scheduler = build_lr_scheduler(optimizer, cfg)
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def _cosine(epoch: int) -> float:
    return LR * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2


def test_cosine_after_one_constant_epoch():
    cfg = _config(LR_SCHEDULER="cosine", WARMUP_EPOCH=1, WARMUP_TYPE="constant")
    expected = [1e-5] + [_cosine(epoch) for epoch in range(EPOCHS - 1)]
    assert _rates(cfg) == pytest.approx(expected, rel=1e-12)


def test_cosine_after_linear_warmup():
    cfg = _config(LR_SCHEDULER="cosine", WARMUP_EPOCH=4, WARMUP_TYPE="linear")
    expected = [1e-5, LR / 4, LR / 2, 3 * LR / 4] + [_cosine(epoch) for epoch in range(4)]
    assert _rates(cfg) == pytest.approx(expected, rel=1e-12)


def test_without_recount_the_schedule_goes_on_from_the_warmup_epoch():
    cfg = _config(LR_SCHEDULER="single_step", STEPSIZE=(3,), WARMUP_EPOCH=2, WARMUP_RECOUNT=False)
    assert _rates(cfg, 7) == pytest.approx([1e-5, LR / 2, LR, LR / 10, LR / 10, LR / 10, LR / 100])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"LR_SCHEDULER": "single_step", "STEPSIZE": (2,)}, [1, 1, 0.1, 0.1, 0.01]),
        ({"LR_SCHEDULER": "single_step"}, [1, 1, 1, 1, 1]),
        ({"LR_SCHEDULER": "multi_step", "STEPSIZE": (1, 3), "GAMMA": 0.5}, [1, 0.5, 0.5, 0.25]),
    ],
)
def test_steps(settings, expected):
    expected = [LR * factor for factor in expected]
    assert _rates(_config(**settings), len(expected)) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["cosine", "multi_step"])
def test_resumed_schedule_equals_the_uninterrupted(kind, tmp_path):
    cfg = _config(LR_SCHEDULER=kind, STEPSIZE=(3, 5), WARMUP_EPOCH=2)
    expected = _rates(cfg)

    def fresh():
        optimizer = build_optimizer(nn.Linear(2, 2), cfg)
        return optimizer, build_lr_scheduler(optimizer, cfg)

    for stop in (1, 2, 4):
        optimizer, scheduler = fresh()
        for _ in range(stop):
            optimizer.step()
            scheduler.step()
        torch.save((optimizer.state_dict(), scheduler.state_dict()), tmp_path / "state.pt")
        states = torch.load(tmp_path / "state.pt", weights_only=True)
        optimizer, scheduler = fresh()
        optimizer.load_state_dict(states[0])
        scheduler.load_state_dict(states[1])
        rates = []
        for _ in range(stop, EPOCHS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert rates == pytest.approx(expected[stop:])


def test_errors_name_key_and_choices():
    optimizer = build_optimizer(nn.Linear(2, 2), _config())
    with pytest.raises(ChoiceError, match=r"OPTIM\.LR_SCHEDULER 'cosin'\. Did you mean 'cosine'\?"):
        build_lr_scheduler(optimizer, _config(LR_SCHEDULER="cosin"))
    with pytest.raises(ChoiceError, match="Choices: constant, linear"):
        build_lr_scheduler(optimizer, _config(WARMUP_EPOCH=1, WARMUP_TYPE="slow"))
    with pytest.raises(ValueError, match=r"unknown OPTIM\.NAME 'lion'.*amsgrad"):
        build_optimizer(nn.Linear(2, 2), _config(NAME="lion"))
    with pytest.raises(TypeError, match="multi_step, got 3"):
        build_lr_scheduler(optimizer, _config(LR_SCHEDULER="multi_step", STEPSIZE=3))


def test_optimizer_options():
    cfg = _config(NAME="amsgrad", ADAM_BETA1=0.5)
    group = build_optimizer(nn.Linear(2, 2), cfg).param_groups[0]
    assert (group["amsgrad"], group["betas"], group["weight_decay"]) == (True, (0.5, 0.999), 5e-4)
    for name, kind in {"rmsprop": torch.optim.RMSprop, "radam": torch.optim.RAdam}.items():
        assert type(build_optimizer(nn.Linear(2, 2), _config(NAME=name))) is kind
    sgd = build_optimizer(nn.Linear(2, 2), _config(SGD_NESTEROV=True)).param_groups[0]
    assert (sgd["nesterov"], sgd["momentum"], sgd["dampening"]) == (True, 0.9, 0)


def test_staged_rates_and_given_groups():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    cfg = _config(STAGED_LR=True, NEW_LAYERS=("1",))
    base, new = build_optimizer(model, cfg).param_groups
    assert [base["lr"], new["lr"]] == pytest.approx([LR * 0.1, LR])
    assert [tuple(p.shape) for p in new["params"]] == [(4, 3), (4,)]
    assert [tuple(p.shape) for p in base["params"]] == [(3, 2), (3,)]
    with pytest.raises(TypeError, match="STAGED_LR needs a module, got list"):
        build_optimizer([nn.Parameter(torch.zeros(1))], cfg)
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": 7.0}]
    with pytest.warns(UserWarning, match="STAGED_LR is ignored"):
        assert build_optimizer(model, cfg, groups).param_groups[0]["lr"] == 7.0
