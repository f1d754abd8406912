"""Time and memory of `dplq results` on many finished runs.

    python benchmarks/results.py [--runs 10000] [--classes 30] [-- --by trainer]

Writes results.json files like those of a sweep (20 trainers, 10 datasets, base and new classes,
shots and seeds as many as are needed) into a temporary folder, and times the whole command in a
process of its own. The baseline is `json.loads` of the same files, whose content is not looked at.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

TRAINERS, DATASETS, SHOTS = 20, 10, (1, 2, 4, 8, 16)
PARTS = {"train_base": "base", "test_new": "new"}
BASELINE = (
    "import json, pathlib, sys;"
    "sum(len(json.loads(p.read_bytes())) for p in pathlib.Path(sys.argv[1]).rglob('results.json'))"
)


def content(classes: int, images: int = 1500) -> dict[str, Any]:
    """Return a results.json of a test of random probabilities."""
    import numpy as np

    from dplq.evaluation.hits import encode_hits
    from dplq.evaluation.prediction_table import PredictionTable
    from dplq.evaluation.summary import summarise

    drawn = np.random.default_rng(0)
    probabilities = drawn.dirichlet(np.ones(classes), images).astype(np.float32)
    labels = drawn.integers(0, classes, images)
    names = tuple(f"class {number}" for number in range(classes))
    table = PredictionTable(
        paths=[f"{number}.jpg" for number in range(images)],
        labels=labels,
        predictions=probabilities.argmax(axis=1),
        groups=[""] * images,
        classes=names,
        probabilities=probabilities,
    )
    metrics = summarise(table, with_intervals=False)
    return {
        **{"format": 1, "split": "test", "split_hash": "0" * 32, "macro_f1": 50.0},
        "per_class_accuracy": dict.fromkeys(names, 50.0),
        "metrics": metrics,
        "total": images,
        "hits": encode_hits(labels, table.predictions),
        "seconds": {"train": 100.0, "test": 3.0, "step": 0.125},
        **{"learnable_parameters": 2147104, "precision": "fp32", "device": "cpu"},
        "config": {f"SECTION_{n}": {f"KEY_{k}": k for k in range(20)} for n in range(20)},
    }


def write_runs(out: Path, runs: int, classes: int) -> int:
    """Write that many results.json files; return the size of one."""
    plain, numbers = content(classes), random.Random(0)
    size = 0
    for trainer, dataset, part, shots, seed in itertools.islice(_places(), runs):
        folder = out / "base2new" / part / f"dataset_{dataset}/shots_{shots}"
        folder = folder / f"Trainer{trainer}/vit_b16/seed{seed}"
        folder.mkdir(parents=True)
        own = {
            **{"trainer": f"Trainer{trainer}", "dataset": f"Dataset{dataset}", "shots": shots},
            **{"subsample": PARTS[part], "seed": seed, "accuracy": numbers.uniform(20, 99)},
        }
        size = (folder / "results.json").write_text(json.dumps(plain | own, indent=1))
    return size


def _places() -> Iterator[tuple[int, int, str, int, int]]:
    for seed in itertools.count(1):
        for shots, dataset, trainer, part in itertools.product(
            SHOTS, range(DATASETS), range(TRAINERS), PARTS
        ):
            yield trainer, dataset, part, shots, seed


def seconds_of(command: Sequence[str]) -> tuple[float, float]:
    """Return wall time and CPU time of a command, which must succeed."""
    began, used = time.perf_counter(), _cpu_seconds()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, _cpu_seconds() - used


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=30)
    parser.add_argument("more", nargs="*", help="flags of dplq results, after --")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        size = write_runs(Path(folder), args.runs, args.classes)
        print(f"{args.runs:,} runs, {size / 1000:.0f} kB each")
        baseline = seconds_of([sys.executable, "-c", BASELINE, folder])
        ours = seconds_of([sys.executable, "-m", "dplq.results", folder, *args.more])
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    for name, (wall, cpu) in (("json.loads of all files", baseline), ("dplq results", ours)):
        print(f"{name}: {wall:.1f} s, {cpu:.1f} s of CPU")
    print(f"ratio {ours[0] / baseline[0]:.2f}, of CPU {ours[1] / baseline[1]:.2f}")
    print(f"peak memory of both: {memory:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
