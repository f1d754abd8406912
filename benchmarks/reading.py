"""Compare images per second of our image reader and of plain Pillow.

python benchmarks/reading.py [--rounds 15] [--images 20] [--json FILE]

Plain is `PIL.Image.open(path).convert("RGB")`. Both decode the same files, generated at the start:
JPEG RGB of three sizes, and 16-bit grey and RGB PNG. A round decodes all files of a kind with each,
in turns, file by file, and counts processor time, which other load on the machine changes little;
the ratio is that of a round's times, its median over the rounds is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.image_kinds import write_png16
from dplq.images.reader import read_image


def picture(side: int, seed: int) -> np.ndarray:
    """Return a noisy colour picture, (side, side, 3) of 0 to 1."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    return np.clip(smooth / 255 + random.normal(0, 0.03, smooth.shape), 0, 1)


def write_jpeg(path: Path, side: int, seed: int) -> None:
    """Write an 8-bit colour JPEG."""
    Image.fromarray((picture(side, seed) * 255).astype(np.uint8)).save(path, quality=90)


def write_grey16(path: Path, side: int, seed: int) -> None:
    """Write a 16-bit grey PNG."""
    Image.fromarray((picture(side, seed)[..., 0] * 65535).astype(np.uint16)).save(path)


def write_colour16(path: Path, side: int, seed: int) -> None:
    """Write a 16-bit colour PNG."""
    write_png16(path, (picture(side, seed) * 65535).astype(np.uint16))


KINDS: dict[str, tuple[Callable[[Path, int, int], None], int, str]] = {
    "JPEG RGB, 256 px": (write_jpeg, 256, ".jpg"),
    "JPEG RGB, 400 px": (write_jpeg, 400, ".jpg"),
    "JPEG RGB, 1000 px": (write_jpeg, 1000, ".jpg"),
    "16-bit grey PNG, 512 px": (write_grey16, 512, ".png"),
    "16-bit RGB PNG, 512 px": (write_colour16, 512, ".png"),
}


def plain(path: str) -> Image.Image:
    """Decode as before there was a reader."""
    with Image.open(path) as image:
        return image.convert("RGB")


def measure(paths: list[str], rounds: int) -> dict[str, float]:
    """Return images per second of both, and the ratio of ours to plain."""
    sides = {"plain": plain, "ours": read_image}
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        seconds = dict.fromkeys(sides, 0.0)
        for path in paths:
            for name in sorted(sides, reverse=bool(number % 2)):  # each is first in half the rounds
                began = time.process_time()
                sides[name](path)
                seconds[name] += time.process_time() - began
        if number:  # the first round warms up
            for name in sides:
                speeds[name].append(len(paths) / seconds[name])
    ratios = [ours / other for ours, other in zip(speeds["ours"], speeds["plain"], strict=True)]
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {**medians, "ratio": statistics.median(ratios)}


def main() -> None:
    """Run the command line: measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--json", default="", help="also write the results to this file")
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, (write, side, suffix) in KINDS.items():
            paths = [Path(folder, f"{side}_{i}{suffix}") for i in range(args.images)]
            for i, path in enumerate(paths):
                write(path, side, i)
            row = found[kind] = measure([str(path) for path in paths], args.rounds)
            print(
                f"{kind:24s} plain {row['plain']:6.0f}/s, ours {row['ours']:6.0f}/s, "
                f"ratio {row['ratio']:.3f}"
            )
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
