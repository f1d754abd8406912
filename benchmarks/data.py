"""Compare images per second of our data path and of torchvision's.

python benchmarks/data.py [--images 400] [--rounds 3] [--workers 2] [--batch 32] [--json FILE]

Both load the same JPEG files (400x400, generated at the start, 20 classes) with the training
transforms of CLIP ViT-B/16: random resized crop to 224, bicubic, scale 0.08 to 1; random flip; to
tensor; normalise. Plain is `ImageFolder` in a `DataLoader`. Ours is a declared dataset in Dassl's
loader, as the trainers use it, once for every `DATALOADER.IMAGE_CACHE`. A round is one epoch of
each, one after the other; the results are medians over the rounds. The first epoch, which fills the
caches, is excluded, and its time is reported separately.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms as T
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dplq.host.dassl import ensure_dassl
from dplq.images.cache import MODES
from dplq.training.loaders import accelerate_loader

SIZE, CLASSES = 224, 20
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def write_images(folder: Path, count: int, side: int = 400) -> None:
    """Write noisy colour images of about 65 kB, the decoding cost of an aerial photograph."""
    random = np.random.default_rng(0)
    for index in range(count):
        coarse = random.integers(0, 256, (50, 50, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
        grain = random.integers(-12, 13, smooth.shape)
        path = folder / f"class_{index % CLASSES:02d}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)


def plain_loader(folder: Path, args: argparse.Namespace) -> DataLoader:
    """Return the loader one would write with torchvision alone."""
    steps = [
        T.RandomResizedCrop(SIZE, interpolation=InterpolationMode.BICUBIC),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize(MEAN, STD),
    ]
    return DataLoader(
        ImageFolder(str(folder), T.Compose(steps)),
        batch_size=args.batch,
        shuffle=True,
        drop_last=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
    )


def our_loader(folder: Path, args: argparse.Namespace, cache: str) -> DataLoader:
    """Return our trainers' training loader over all images in the folder."""
    ensure_dassl()
    from dassl.config import get_cfg_default
    from dassl.data.data_manager import build_data_loader
    from dassl.data.transforms import build_transform

    from dplq.datasets.own_images import OwnImages
    from dplq.host.config import extend_cfg

    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.DATASET.ROOT, cfg.SEED = str(folder), 1
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (SIZE, SIZE), "bicubic"
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = MEAN, STD
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.IMAGE_CACHE = args.workers, cache
    with contextlib.redirect_stdout(io.StringIO()):
        data = OwnImages(cfg)
        loader = build_data_loader(
            cfg,
            sampler_type="RandomSampler",
            data_source=[*data.train_x, *data.val, *data.test],
            batch_size=args.batch,
            tfm=build_transform(cfg, is_train=True),
            is_train=True,
        )
    return accelerate_loader(loader, cfg, is_train=True)


def epoch(loader: Iterable[Any]) -> tuple[int, float]:
    """Run one epoch; return its number of images and its seconds."""
    started, images = time.perf_counter(), 0
    for batch in loader:
        images += len(batch["img"] if isinstance(batch, dict) else batch[0])
    return images, time.perf_counter() - started


def measure(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Return images per second, ratio to plain and first-epoch seconds per loader."""
    loaders = {"plain": plain_loader(folder, args)}
    loaders |= {f"ours, cache '{mode}'": our_loader(folder, args, mode) for mode in MODES}
    first = {name: epoch(loader)[1] for name, loader in loaders.items()}
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(args.rounds):
        for name, loader in loaders.items():
            images, seconds = epoch(loader)
            speeds[name].append(images / seconds)
    # Other load on the machine is about the same within a round: ratio per round, then median.
    ratio = {
        name: statistics.median(a / b for a, b in zip(own, speeds["plain"], strict=True))
        for name, own in speeds.items()
    }
    return {
        name: {
            "images_per_second": statistics.median(speeds[name]),
            "ratio_to_plain": ratio[name],
            "first_epoch_seconds": first[name],
        }
        for name in loaders
    }


def main() -> None:
    """Run the command line: measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", default="", help="also write the results to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DPLQ_CACHE"] = f"{folder}/cache"
        write_images(Path(folder, "images"), args.images)
        found = measure(args, Path(folder, "images"))
    for name, row in found.items():
        print(
            f"{name:24s} {row['images_per_second']:7.0f} images/s, {row['ratio_to_plain']:.2f} of "
            f"plain (first epoch {row['first_epoch_seconds']:.1f} s)"
        )
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
