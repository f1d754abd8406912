"""Compare `dplq predict` with a run's test loop; its memory; killed and started again.

python benchmarks/predict.py [--images 2000] [--many 10000] [--json FILE]

Speed: zero-shot CLIP of the demo, where reading files costs as much as it ever does, on files of 64
to 96 pixels. The test loop is that of a run, Dassl's with our loader; the other one writes its CSV
file, too. Both take a quarter of the files in turns, and processor time counts, which other load on
the machine changes little.

Memory and killing: the command itself, as a process, on small files; the peak of its resident set
for `--images` and for `--many` files, and whether what a killed one has written, continued, is what
one that was left alone writes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dplq.cli.prediction.inputs import InputImage
from dplq.cli.prediction.loop import classify
from dplq.cli.prediction.output import AllClasses
from dplq.cli.prediction.progress import Progress
from dplq.clip.backbone import load_backbone
from dplq.evaluation.prediction_table import PredictionTable
from dplq.host.dassl import ensure_dassl
from dplq.methods.base import CLIPModel
from dplq.methods.prediction import evaluating
from dplq.methods.registry import create_model
from dplq.training.loaders import accelerate_loader

PROJECT = Path(__file__).resolve().parent.parent
NAMES = ("farmland", "forest", "river", "lake", "beach", "harbor", "desert", "island")
BATCH, PARTS = 100, 4


def write_images(folder: Path, count: int, sides: tuple[int, int]) -> list[str]:
    """Write noisy JPEG files of these sides, from the smallest to the largest, again and again."""
    random, paths = np.random.default_rng(0), []
    folder.mkdir()
    for index in range(count):
        side = sides[0] + index % (sides[1] - sides[0] + 1)
        pixels = random.integers(0, 256, (side, side + index % 9, 3), dtype=np.uint8)
        paths.append(str(folder / f"{index:06}.jpg"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


def test_loader(paths: list[str], size: int) -> Any:
    """Return the test loader of a run."""
    ensure_dassl()
    from dassl.config import get_cfg_default
    from dassl.data.data_manager import build_data_loader
    from dassl.data.datasets import Datum
    from dassl.data.transforms import build_transform

    from dplq.host.config import extend_cfg

    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (size, size), "bicubic"
    cfg.INPUT.TRANSFORMS, cfg.DATALOADER.NUM_WORKERS = ("normalize",), 0
    with contextlib.redirect_stdout(io.StringIO()):
        plain = build_data_loader(
            cfg,
            data_source=[Datum(path, 0, 0, NAMES[0]) for path in paths],
            batch_size=BATCH,
            tfm=build_transform(cfg, is_train=False),
            is_train=False,
        )
    return accelerate_loader(plain, cfg, is_train=False)


def run_test(model: CLIPModel, paths: list[str], _out: Path) -> list[int]:
    """Return the predictions of a test loop."""
    found: list[int] = []
    for batch in test_loader(paths, model.clip.image_size):
        found += model(batch["img"]).argmax(dim=1).tolist()
    return found


def run_predict(model: CLIPModel, paths: list[str], out: Path) -> list[int]:
    """Return the predictions that `dplq predict` writes."""
    images = [InputImage(path) for path in paths]
    with AllClasses(out, model.classnames) as output:
        progress = Progress(len(images), quiet=True)
        problems = classify(model, images, output, None, progress, batch_size=BATCH, workers=0)
    assert not problems
    return PredictionTable.read(out).predictions.tolist()


def measure_speed(model: CLIPModel, paths: list[str], folder: Path) -> dict[str, float]:
    """Return images per second of processor time of both, and their ratio."""
    sides = {"test loop": run_test, "predict": run_predict}
    seconds = dict.fromkeys(sides, 0.0)
    part = len(paths) // PARTS
    for number in range(PARTS + 1):
        own = paths[max(number - 1, 0) * part :][:part]
        results = []
        for name in sorted(sides, reverse=bool(number % 2)):
            began = time.process_time()
            results.append(sides[name](model, own, folder / f"{number}.csv"))
            seconds[name] += (time.process_time() - began) * bool(number)  # the first warms up
        assert results[0] == results[1]
    speeds = {name: PARTS * part / spent for name, spent in seconds.items()}
    return {**speeds, "ratio": speeds["predict"] / speeds["test loop"]}


def command(checkpoint: Path, images: Path, out: Path) -> list[str]:
    """Return a command line of `dplq predict`."""
    return [
        *(sys.executable, "-m", "dplq", "predict", str(checkpoint), str(images)),
        *("--out", str(out), "--batch-size", str(BATCH), "--quiet"),
    ]


def peak_memory(words: list[str]) -> float:
    """Run a command; return the peak of its resident set in MiB."""
    child = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_maxrss / 1024


def killed_after(words: list[str], out: Path, rows: int) -> int:
    """Kill a command once it has written so many rows; return how many are there."""
    child = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.DEVNULL)
    while not out.exists() or out.read_bytes().count(b"\n") < rows:
        assert child.poll() is None
        time.sleep(0.05)
    child.kill()
    child.wait()
    return out.read_bytes().count(b"\n") - 1


def main() -> None:
    """Run the command line: measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--json", default="", help="also write the results to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = create_model("ZeroshotCLIP", load_backbone("demo"), NAMES)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary, evaluating(model):
        folder = Path(temporary)
        model.save(checkpoint := folder / "model.safetensors")
        paths = write_images(folder / "few", args.images, (64, 96))
        found |= measure_speed(model, paths, folder)
        few, many = folder / "few.csv", folder / "many.csv"
        found["MiB, few"] = peak_memory(command(checkpoint, folder / "few", few))
        write_images(folder / "many", args.many, (16, 24))
        found["MiB, many"] = peak_memory(command(checkpoint, folder / "many", many))
        words = command(checkpoint, folder / "many", folder / "cut.csv")
        found["rows when killed"] = killed_after(words, folder / "cut.csv", args.many // 3)
        subprocess.run(words, cwd=PROJECT, stdout=subprocess.DEVNULL, check=True)
        whole, cut = PredictionTable.read(many), PredictionTable.read(folder / "cut.csv")
        assert whole.paths == cut.paths
        assert (whole.predictions == cut.predictions).all()
        found["largest difference"] = float(np.abs(whole.probabilities - cut.probabilities).max())
    for name, value in found.items():
        print(f"{name:20s} {value:,.3f}")
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
