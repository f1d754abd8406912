"""Measure whichever Dassl is importable: ``python run_toy.py IMAGES OUT`` writes OUT/facts.json.

`test_real_dassl.py` runs it under the real one and under the fallback and compares.
"""

from __future__ import annotations

import json
import pickle
import random
import sys
from pathlib import Path

import dassl.optim.lr_scheduler as schedules
import numpy as np
import torch
import toys
from dassl.config import get_cfg_default
from dassl.data import DataManager
from dassl.data.samplers import build_sampler
from dassl.data.transforms import build_transform
from dassl.evaluation import build_evaluator
from dassl.metrics import compute_accuracy, compute_distance_matrix
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import MetricMeter, read_image, save_checkpoint, set_random_seed
from torch.optim.lr_scheduler import LRScheduler

PIPELINES = [
    ("random_resized_crop", "random_flip", "normalize"),
    ("random_resized_crop", "random_flip", "colorjitter", "randomgrayscale", "gaussian_blur"),
    ("random_crop", "cutout", "normalize", "gaussian_noise"),
    ("random_translation", "random_flip", "instance_norm"),
    ("center_crop", "normalize"),
]
OPTIMS = [
    {"LR_SCHEDULER": "cosine"},
    {"LR_SCHEDULER": "cosine", "WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant"},
    {"LR_SCHEDULER": "cosine", "WARMUP_EPOCH": 3, "WARMUP_TYPE": "linear"},
    {"LR_SCHEDULER": "cosine", "WARMUP_EPOCH": 2, "WARMUP_RECOUNT": False},
    {"LR_SCHEDULER": "single_step", "STEPSIZE": (3,), "WARMUP_EPOCH": 1},
    {"LR_SCHEDULER": "single_step"},
    {"LR_SCHEDULER": "multi_step", "STEPSIZE": (2, 5), "WARMUP_EPOCH": 2, "NAME": "adamw"},
]


def mend_real_warmup() -> None:
    """The real warm-up passes `verbose`, which torch 2.7 dropped."""
    base = getattr(schedules, "_BaseWarmupScheduler", None)
    if base is None:
        return

    def init(self, optimizer, successor, warmup_epoch, last_epoch=-1, verbose=False):
        self.successor, self.warmup_epoch = successor, warmup_epoch
        LRScheduler.__init__(self, optimizer, last_epoch)

    base.__init__ = init


def learning_rates(settings: dict) -> list[float]:
    cfg = get_cfg_default().OPTIM
    cfg.NAME, cfg.LR, cfg.MAX_EPOCH = "sgd", 0.1, 8
    for key, value in settings.items():
        cfg[key] = value
    optimizer = build_optimizer(torch.nn.Linear(2, 2), cfg)
    scheduler = build_lr_scheduler(optimizer, cfg)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def transformed(cfg, choices, is_train: bool) -> list[float]:
    pipeline = build_transform(cfg, is_train=is_train, choices=choices)
    set_random_seed(3)
    image = read_image(f"{cfg.DATASET.ROOT}/red_0.png")
    return [*pipeline(image).flatten().tolist(), random.random(), torch.rand(1).item()]


def drawn(data, name: str) -> list:
    set_random_seed(4)
    sampler = build_sampler(name, data_source=data, batch_size=4, n_domain=2, n_ins=2)
    return [list(map(int, sampler)), list(map(int, sampler)), len(sampler), random.random()]


def evaluated(cfg) -> dict:
    cfg = cfg.clone()
    cfg.TEST.PER_CLASS_RESULT = cfg.TEST.COMPUTE_CMAT = True
    evaluator = build_evaluator(cfg, lab2cname=dict(enumerate(toys.CLASSES)))
    generator = torch.Generator().manual_seed(0)
    for size in (7, 5):
        scores = torch.rand(size, 3, generator=generator)
        evaluator.process(scores, torch.randint(0, 3, (size,), generator=generator))
    return {name: float(value) for name, value in evaluator.evaluate().items()}


def main(images: Path, out: Path) -> None:
    mend_real_warmup()
    cfg = toys.toy_config(images, out)
    facts: dict = {"defaults": get_cfg_default().dump()}
    facts["rates"] = [learning_rates(settings) for settings in OPTIMS]
    facts["train_tensors"] = [transformed(cfg, names, True) for names in PIPELINES]
    facts["test_tensors"] = [transformed(cfg, names, False) for names in PIPELINES]

    set_random_seed(2)
    dataset = DataManager(cfg).dataset
    facts["sample"] = [Path(item.impath).name for item in dataset.train_x]
    facts["classnames"] = dataset.classnames
    samplers = ("RandomDomainSampler", "SeqDomainSampler", "RandomClassSampler", "RandomSampler")
    facts["drawn"] = {name: drawn(dataset.train_x, name) for name in samplers}
    (out / "datums.pkl").write_bytes(pickle.dumps({"train": dataset.train_x}))

    facts["evaluated"] = evaluated(cfg)
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.2, 0.3, 0.5]])
    top = compute_accuracy(scores, torch.tensor([1, 2, 0]))
    facts["accuracy"] = [value.tolist() for value in top]
    facts["distances"] = [
        np.round(compute_distance_matrix(scores, scores[:2] + 1, metric).numpy(), 5).tolist()
        for metric in ("euclidean", "cosine")
    ]
    meter = MetricMeter()
    meter.update({"loss": 1.0, "acc": torch.tensor(50.0)})
    meter.update({"loss": 2.0})
    facts["meter"] = str(meter)

    for name, changes in {
        "ToyX": ["TEST.FINAL_MODEL", "best_val"],
        "ToyXU": ["TRAIN.COUNT_ITER", "train_u", "DATALOADER.RETURN_IMG0", True],
    }.items():
        run = cfg.clone()
        run.TRAINER.NAME, run.OUTPUT_DIR = name, str(out / name)
        run.merge_from_list(changes)
        print(f"@@@ {name}")
        trainer = toys.train_toy(run)
        print("@@@ end")
        folder = out / name / "toy_net"
        facts[name] = {
            "losses": trainer.history,
            "accuracy": trainer.test(),
            "best": float(trainer.best_result),
            "files": sorted(path.name for path in folder.iterdir()),
            "pointer": (folder / "checkpoint").read_text(),
            "folders": sorted(path.name for path in (out / name).iterdir()),
            "random": [random.random(), torch.rand(1).item()],
        }

    warm = cfg.OPTIM.clone()
    warm.WARMUP_EPOCH = 1
    optimizer = build_optimizer(trainer.model, warm)
    state = {
        "state_dict": {f"module.{k}": v for k, v in trainer.model.state_dict().items()},
        "epoch": 1,
        "optimizer": optimizer.state_dict(),
        "scheduler": build_lr_scheduler(optimizer, warm).state_dict(),
        "val_result": 50.0,
    }
    save_checkpoint(state, str(out / "warm"))
    (out / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
