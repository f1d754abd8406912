"""How long short runs take that are forked from a process with the imports, and ones that import.

    python benchmarks/preload.py [--seeds 4] [--jobs 1]

Zero-shot CLIP and a linear probe on demo_aerial, base to new, as one `dplq run` each way, and the
same again. The baseline is the engine's option `preload=false`. The predictions have to be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dplq.errors import UserError
from dplq.io.exit_code import exit_code

ROOT = Path(__file__).resolve().parents[1]
TRAINERS = ("ZeroshotCLIP", "LinearProbe")
ROUNDS = 2


def seconds(preload: bool, seeds: int, jobs: int, out: Path) -> tuple[float, float]:
    """Return the seconds and the processor seconds of a sweep."""
    options = [f"jobs={jobs}", f"preload={str(preload).lower()}"]
    command = [
        *(sys.executable, "-m", "dplq", "run", "base2new", "demo_aerial", "--out", str(out)),
        *("--trainers", *TRAINERS, "--seeds", *map(str, range(1, seeds + 1))),
        *("--engine", "local", "--engine-options", *options, "--", "TRAIN.FEATURE_CACHE", "0"),
    ]
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed", done.stderr[-2000:])
    after = os.times()
    processor = after.children_user + after.children_system
    return (
        time.perf_counter() - began,
        processor - before.children_user - before.children_system,
    )


def predictions(out: Path) -> dict[str, bytes]:
    """Return the content of every predictions.csv below a folder."""
    files = sorted(out.rglob("predictions.csv"))
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def measure(seeds: int, jobs: int) -> dict[str, float]:
    """Return the least of the seconds each way, and their ratios."""
    times: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        seconds(True, 1, 1, Path(folder, "first"))  # draws the demo's images
        for number in range(ROUNDS):
            made = {}
            for preload in (False, True):
                out = Path(folder, f"{preload}{number}")
                times[preload].append(seconds(preload, seeds, jobs, out))
                made[preload] = predictions(out)
            if made[True] != made[False]:
                raise UserError("the predictions differ")
    anew, forked = (tuple(map(min, zip(*times[way], strict=True))) for way in (False, True))
    return {
        "runs": float(len(made[True])),
        "seconds, imported": anew[0],
        "seconds, forked": forked[0],
        "ratio": anew[0] / forked[0],
        "processor seconds, imported": anew[1],
        "processor seconds, forked": forked[1],
        "ratio of processor seconds": anew[1] / forked[1],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args(argv)
    print(json.dumps(measure(args.seeds, args.jobs), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
