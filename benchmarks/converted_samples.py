"""Table of what converting real images to other kinds of file changes: pixels, logits, accuracy.

python benchmarks/converted_samples.py [--shared ../shared] [--datasets BTMRI RSSCN7 WHURS19]
    [--trainers ZeroshotCLIP LinearProbe QuaternionPrompt] [--shots 4] [--epochs 3]

The samples in SHARED/data are converted into temporary folders (`conversions.py`); names and
folders are kept. The trainers run as `train.py` runs them, on the originals and on each conversion,
with the small CLIP and domain encoder in SHARED/instrument. All runs use one split: that drawn on
the originals, as a table of paths without extension (`DATASET.SPLIT_FILE`). A run is compared with
that on the originals; where a border is made transparent, with that on PNGs with a black border.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train
from benchmarks.conversions import CONVERSIONS, convert, largest_difference
from dplq import datasets

PROJECT = Path(__file__).resolve().parent.parent
DATASETS = ("BTMRI", "RSSCN7", "WHURS19")
GREY = ("BTMRI",)
TRAINERS = ("ZeroshotCLIP", "LinearProbe", "QuaternionPrompt")
ORIGINAL = "original (JPEG)"


class Tested(NamedTuple):
    """The test of a run: stem of every image, its label, its logits."""

    stems: list[str]
    labels: np.ndarray
    logits: np.ndarray

    @property
    def correct(self) -> int:
        """Number of images whose largest logit is that of their label."""
        return int((self.logits.argmax(1) == self.labels).sum())


class Row(NamedTuple):
    """A line of the table: a run, compared with that of the same pixels in other files.

    Attributes:
        dataset, trainer, conversion: of the run.
        pixel: largest difference of any pixel, over all images.
        correct, total: test images.
        images: difference in correct images.
        predictions: number of images with another prediction.
        logit: largest difference of any logit.
    """

    dataset: str
    trainer: str
    conversion: str
    pixel: int
    correct: int
    total: int
    images: int
    predictions: int
    logit: float


def write_table(root: Path, name: str, path: Path, shots: int) -> None:
    """Write the split that is drawn on a folder as a table of paths without extension.

    Args:
        root: `DATASET.ROOT`.
        name: of the dataset.
        path: of the table.
        shots: training images per class; the others are left out of the table.
    """
    dataset = getattr(datasets, name).at(str(root))
    split = dataset.load_split()
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "split"))
        used: dict[int, int] = {}
        for part in split._fields:
            for item in getattr(split, part):
                used[item.label] = used.get(item.label, 0) + (part == "train")
                if part != "train" or used[item.label] <= shots:
                    stem = os.path.splitext(item.path)[0]
                    rows.writerow((stem, item.path.split("/")[0], part))


def run(arguments: list[str]) -> Tested:
    """Train and test in this process; return what the test gave."""
    log = io.StringIO()
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        trainer: Any = train.build(train.build_parser().parse_args(arguments))
        trainer.train()
        trainer.set_model_mode("eval")
    stems: list[str] = []
    labels, logits = [], []
    with torch.no_grad():
        for batch in trainer.test_loader:
            images, label = trainer.parse_batch_test(batch)
            stems += [os.path.splitext(os.path.basename(path))[0] for path in batch["impath"]]
            labels.append(label.cpu().numpy())
            logits.append(trainer.model_inference(images).float().cpu().numpy())
    return Tested(stems, np.concatenate(labels), np.concatenate(logits))


def arguments_for(
    trainer: str, name: str, root: Path, table: Path, out: Path, models: Path, epochs: int
) -> list[str]:
    """Return the command line of a run."""
    settings = ["MODEL.BACKBONE.NAME", f"local-dir:{models / 'clip_scale100'}"]
    settings += ["INPUT.SIZE", "(112, 112)", "DATASET.SPLIT_FILE", str(table)]
    if trainer == "QuaternionPrompt":
        settings += ["DOMAIN.ENCODER", f"local-dir:{models / 'domain_mae'}"]
        settings += ["TRAINER.QUATERNIONPROMPT.PROMPT_DEPTH", "4", "OPTIM.MAX_EPOCH", str(epochs)]
    return [
        *("--root", str(root), "--trainer", trainer, "--seed", "1", "--output-dir", str(out)),
        *("--config-file", str(PROJECT / f"configs/trainers/{trainer}/demo.yaml")),
        *("--dataset-config-file", str(PROJECT / f"configs/datasets/{name.lower()}.yaml")),
        *settings,
    ]


def compare(dataset: str, trainer: str, conversion: str, pixel: int, *tests: Tested) -> Row:
    """Return the line of a run.

    Args:
        dataset: of the run, as `trainer` and `conversion`.
        trainer: of the run.
        conversion: of the run.
        pixel: largest difference of any pixel.
        *tests: that of the run, and that to compare it with.
    """
    one, other = tests
    if one.stems != other.stems:
        raise RuntimeError(f"{dataset}, {conversion}: other images are tested")
    changed = one.logits.argmax(1) != other.logits.argmax(1)
    return Row(
        *(dataset, trainer, conversion, pixel, one.correct, len(one.stems)),
        one.correct - other.correct,
        int(changed.sum()),
        float(np.abs(one.logits - other.logits).max()),
    )


def measure(name: str, shared: Path, args: argparse.Namespace, folder: Path) -> list[Row]:
    """Return the lines of one dataset.

    Args:
        name: of the dataset.
        shared: has the folders `data` and `instrument`.
        args: of the command line.
        folder: for what is written.
    """
    originals = folder / "originals"
    shutil.copytree(shared / "data" / name, originals / name)
    table = folder / "split.csv"
    write_table(originals, name, table, args.shots)

    def test(trainer: str, root: Path, options: Sequence[str]) -> Tested:
        out = folder / "output" / root.name / trainer
        models = (shared / "instrument").resolve()
        arguments = arguments_for(trainer, name, root, table, out, models, args.epochs)
        return run([*arguments, *options])

    roots = {"": originals}
    tests = {("", trainer): test(trainer, originals, ()) for trainer in args.trainers}
    rows = [compare(name, t, ORIGINAL, 0, tests["", t], tests["", t]) for t in args.trainers]
    for number, conversion in enumerate(CONVERSIONS):
        if conversion.grey_only and name not in GREY:
            continue
        root = roots[conversion.name] = folder / f"conversion_{number}"
        print(f"{name}: {conversion.name}", file=sys.stderr)
        convert(originals, root, conversion)
        pixel = largest_difference(root, roots[conversion.origin], conversion.settings)
        for trainer in args.trainers:
            tested = tests[conversion.name, trainer] = test(trainer, root, conversion.options)
            same_pixels = tests[conversion.origin, trainer]
            rows.append(compare(name, trainer, conversion.name, pixel, tested, same_pixels))
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """Return the lines as a Markdown table."""
    titles = ("dataset", "trainer", "files", "largest difference of a pixel", "accuracy", "correct")
    titles += ("difference in images", "other predictions", "largest difference of a logit")
    lines = [titles, ("---",) * len(titles)]
    lines += [
        (
            *(row.dataset, row.trainer, row.conversion, str(row.pixel)),
            *(f"{100 * row.correct / row.total:.1f} %", f"{row.correct} of {row.total}"),
            *(f"{row.images:+d}" if row.images else "0", str(row.predictions), f"{row.logit:.1e}"),
        )
        for row in rows
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    """Run the command line; return 1 if a conversion changes more than one image."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--datasets", nargs="+", default=DATASETS, choices=DATASETS)
    parser.add_argument("--trainers", nargs="+", default=TRAINERS, choices=TRAINERS)
    parser.add_argument("--shots", type=int, default=4, help="training images per class")
    parser.add_argument("--epochs", type=int, default=3, help="of QuaternionPrompt")
    args = parser.parse_args()
    rows: list[Row] = []
    for name in args.datasets:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(name, args.shared.resolve(), args, Path(folder))
    print(markdown(rows), end="")
    return int(any(abs(row.images) > 1 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
