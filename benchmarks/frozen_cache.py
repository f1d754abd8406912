"""A sweep with and without frozen features that are kept for all its runs, side by side.

    python benchmarks/frozen_cache.py                            # ViT-B/16, MAE ViT-B: minutes
    python benchmarks/frozen_cache.py --tiny --settings 3        # smoke test (seconds)
    python benchmarks/frozen_cache.py --device cuda --batch 4 --steps 92 --workers 8

Every setting is trained twice, from the same seed: with TRAIN.FEATURE_CACHE 0, and with a cache
that begins empty. Its first setting fills the cache, the others find their features there. The
table has the median time of a step, data loading included, and beside it the time that a run needs
once for the digests of its frozen encoders; on a CPU without worker processes, time of the process.
Learned weights are compared bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dplq.plugin  # noqa: F401  (registers trainers and datasets)
from benchmarks.step_sides import class_names
from dplq.domain.encoder import CLIP_MEAN, CLIP_STD
from dplq.host.config import extend_cfg
from dplq.trainers._engine import domain, frozen
from dplq.training.loaders import ProgressLoader, accelerate_loader

CLASSES, SIDE = 23, 320  # of the images, JPEGs of this side
RATES = (0.002, 0.0035, 0.005, 0.0075, 0.01)
MOST = 100.0  # GB
TRAINERS = {  # trainer -> values of a key that its settings differ in, beside the learning rate
    "QuaternionPrompt": ("PROMPT_DEPTH", (9, 3)),
    "CoOp": ("N_CTX", (4, 16)),
    "CoCoOp": ("N_CTX", (4, 8)),
}


def write_images(folder: Path, classes: list[str], count: int) -> None:
    """Write `count` coloured JPEGs, smooth as photographs are, in a folder for each class."""
    random = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            coarse = Image.fromarray(random.integers(0, 256, (20, 20, 3)).astype("uint8"))
            image = coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            image.save(folder / name / f"{index}.jpg", quality=90)


def config(args: argparse.Namespace, trainer: str, setting: dict[str, Any], limit: float) -> Any:
    """Return the config of one run."""
    from dassl.config import get_cfg_default

    cfg, size = get_cfg_default(), 32 if args.tiny else 224
    extend_cfg(cfg)
    cfg.TRAINER.NAME, cfg.DATASET.NAME, cfg.DATASET.ROOT = trainer, "OwnImages", str(args.data)
    cfg.DATASET.NUM_SHOTS, cfg.DATASET.CHECK_IMAGES, cfg.TEST.NO_TEST = -1, False, True
    cfg.SEED, cfg.OPTIM.MAX_EPOCH, cfg.OPTIM.NAME = 1, 1, "sgd"
    cfg.USE_CUDA = args.device == "cuda"
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (size, size), "bicubic"
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = CLIP_MEAN, CLIP_STD
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 1 if trainer == "CoCoOp" else args.batch
    cfg.DATALOADER.NUM_WORKERS, cfg.TRAIN.FEATURE_CACHE = args.workers, limit
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PRETRAINED = args.backbone, False
    cfg.DOMAIN.ENCODER = "test_vit" if args.tiny else "mae_vit_base_patch16"
    cfg.DOMAIN.PRETRAINED = False
    node = cfg.TRAINER[trainer.upper()]
    node.CTX_INIT, node.PREC = ("a photo of a" if trainer == "QuaternionPrompt" else ""), "fp32"
    for key, value in setting.items():
        if key == "LR":
            cfg.OPTIM.LR = value
        else:
            node[key] = min(value, 2) if args.tiny else value
    return cfg


def train(cfg: Any, steps: int) -> tuple[float, float, dict[str, Tensor]]:
    """Make one epoch of so many steps.

    Returns:
        Seconds of a step, seconds for the digests of the frozen encoders, learned weights.
    """
    from dassl.data.data_manager import build_data_loader
    from dassl.data.transforms import build_transform
    from dassl.engine import build_trainer

    trainer = build_trainer(cfg)
    batch = cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    loader = accelerate_loader(
        build_data_loader(
            cfg,
            sampler_type="RandomSampler",
            data_source=trainer.dm.dataset.train_x[: steps * batch],
            batch_size=batch,
            tfm=build_transform(cfg, is_train=True),
        ),
        cfg,
        is_train=True,
        device=trainer.device,
    )
    trainer.train_loader_x = ProgressLoader(trainer.with_frozen_features(loader, draws=True), 1)
    trainer.epoch = 0
    trainer.before_epoch()
    is_alone = trainer.device.type == "cpu" and not cfg.DATALOADER.NUM_WORKERS
    clock = time.process_time if is_alone else time.perf_counter  # others may use the CPU too
    began = clock()
    if trainer.frozen is not None:
        trainer.frozen.read("", 0)  # makes the digests, which every run makes once
    digests = clock() - began
    synchronize(trainer.device)
    began = clock()
    trainer.run_epoch()
    synchronize(trainer.device)
    seconds = clock() - began
    state = trainer.model.prompt_learner.state_dict()
    return seconds / steps, digests, {name: value.cpu().clone() for name, value in state.items()}


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def frozen_parts_built_once() -> Iterator[None]:
    """Build equal CLIPs and domain encoders once for all runs, which do not change them."""
    with (
        mock.patch.object(frozen, "load_backbone", functools.cache(frozen.load_backbone)),
        mock.patch.object(domain, "load_domain_encoder", built_once(domain.load_domain_encoder)),
    ):
        yield


def built_once(load: Any) -> Any:
    """Return `load`, which is called once: all runs have the same encoder."""
    made: list[Any] = []

    def loaded(*args: Any, **keys: Any) -> Any:
        if not made:
            made.append(load(*args, **keys))
        return made[0]

    return loaded


def compare(args: argparse.Namespace, trainer: str) -> tuple[list[Any], bool]:
    """Train every setting on both sides; return a row of the table, and whether all are equal."""
    key, values = TRAINERS[trainer]
    settings = [{"LR": rate, key: value} for value, rate in itertools.product(values, RATES)][
        : args.settings
    ]
    plain, kept, digests, equal = [], [], [], []
    for number, setting in enumerate(settings, start=1):
        weights = []
        for limit, times in ((0.0, plain), (MOST, kept)):
            with contextlib.redirect_stdout(io.StringIO()):
                seconds, digest, state = train(config(args, trainer, setting, limit), args.steps)
            times.append(seconds)
            weights.append(state)
            digests += [digest] if limit else []
        equal.append(
            all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
        )
        print(
            f"{trainer} {number}/{len(settings)} {setting}: {plain[-1]:.3f} s a step without, "
            f"{kept[-1]:.3f} s with; weights {'equal' if equal[-1] else 'DIFFER'}",
            file=sys.stderr,
        )
    without, first, known = statistics.median(plain), kept[0], statistics.median(kept[1:])
    row = [trainer, args.steps, without, first, known, without / known]
    row += [sum(plain) / sum(kept), statistics.median(digests), f"{sum(equal)} of {len(equal)}"]
    return row, all(equal)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 1 if weights differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=list(TRAINERS))
    parser.add_argument("--settings", type=int, default=10, choices=range(2, 11), metavar="2-10")
    parser.add_argument("--steps", type=int, default=2, help="of each run")
    parser.add_argument("--batch", type=int, default=4, help="images; CoCoOp's is 1")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tiny", action="store_true", help="tiny models")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        args.data, args.backbone = Path(folder) / "data", "ViT-B/16"
        if args.tiny:
            from tests.tiny import tiny_clip_config, write_clip_dir

            args.backbone = write_clip_dir(Path(folder) / "clip", tiny_clip_config())
        images = args.steps * args.batch // CLASSES + 1
        write_images(args.data, class_names(CLASSES), 4 * images)
        given = {"DPLQ_CACHE": str(Path(folder) / "cache")}
        with mock.patch.dict(os.environ, given), frozen_parts_built_once():
            rows, equal = zip(*(compare(args, trainer) for trainer in args.trainers), strict=True)
    heads = ["", "steps", "without, s", "filling, s", "known, s", "without / known"]
    heads += ["sweep: without / with", "digests, s", "weights bit-equal"]
    print(tabulate(rows, heads, floatfmt=".3g", tablefmt="github"))
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
