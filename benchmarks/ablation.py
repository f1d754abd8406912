"""Ablation of the method on the demo domain, as one table.

    python benchmarks/ablation.py [--jobs 2] [--seeds 1 2 3] [--table docs/ablation.md]

Every row changes one setting of the shipped default (configs/trainers/QuaternionPrompt/demo.yaml)
and is one call of scripts/base2new.sh per seed on demo_aerial. Finished runs below --out are
reused, as by the script; remove that folder after a change of the method.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
NODE = "TRAINER.QUATERNIONPROMPT."
TRAINER, DATASET = "QuaternionPrompt", "demo_aerial"
MARKS = ("<!-- table -->", "<!-- end -->")
# name of the row: settings that differ from the default
VARIANTS: dict[str, dict[str, str]] = {
    "default": {},
    "without domain feature": {"DOMAIN.ENCODER": "none"},
    "CLIP's own feature as domain feature": {"DOMAIN.ENCODER": "clip"},
    "dense layers, not quaternion": {"LAYER": "dense"},
    "fusion axes": {"FUSION": "axes"},
    "residual": {"RESIDUAL": "True"},
    "fusion axes, residual": {"FUSION": "axes", "RESIDUAL": "True"},
    "without noise": {"NOISE": "False"},
    "depth 1": {"PROMPT_DEPTH": "1"},
    "depth 3": {"PROMPT_DEPTH": "3"},
    "preset reference": {"PRESET": "reference"},
}


def train_and_test(name: str, settings: dict[str, str], seed: int, out: Path) -> dict:
    """Run one seed of one row.

    Returns:
        Accuracy in percent on base and new classes, H, and the number of learnable parameters.

    Raises:
        RuntimeError: a run failed; the message contains the end of its output.
    """
    folder = out / name.replace(" ", "_").replace(",", "").replace("'", "")
    options = [
        word
        for key, value in settings.items()
        for word in (key if "." in key else NODE + key, value)
    ]
    command = ["bash", "scripts/base2new.sh", DATASET, str(seed), "--", *options]
    given = {"OUT": str(folder), "PYTHON": sys.executable, "TRAINERS": TRAINER}
    given |= {"CFG": "demo", "SHOTS": "16"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | given, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    place = f"{DATASET}/shots_16/{TRAINER}/demo/seed{seed}/results.json"
    base, new = (
        json.loads((folder / "base2new" / part / place).read_text())
        for part in ("train_base", "test_new")
    )
    return {
        "base": base["accuracy"],
        "new": new["accuracy"],
        "H": 2 * base["accuracy"] * new["accuracy"] / (base["accuracy"] + new["accuracy"]),
        "parameters": base["learnable_parameters"],
    }


def row(name: str, runs: Sequence[dict]) -> list[str]:
    """Return a row of the table: mean ± standard deviation over seeds, percent."""
    cells = []
    for key in ("base", "new", "H"):
        values = [result[key] for result in runs]
        cells.append(f"{np.mean(values):.1f} ± {np.std(values):.1f}")
    return [name, *cells, f"{runs[0]['parameters']:,}"]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="parallel runs")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "output/ablation", help="folder of the runs"
    )
    parser.add_argument("--table", type=Path, help="write the table between the marks of this file")
    args = parser.parse_args()
    args.out = args.out.resolve()
    if args.table and MARKS[0] not in args.table.read_text():
        parser.error(f"{args.table} has no lines {' and '.join(MARKS)} for the table")
    os.environ["OMP_NUM_THREADS"] = str(max(os.cpu_count() // args.jobs, 1))
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the published table is from the CPU
    tasks = [(name, seed) for name in VARIANTS for seed in args.seeds]
    first = tasks.pop(0)  # alone: it draws the demo's images
    results = {first: train_and_test(first[0], VARIANTS[first[0]], first[1], args.out)}
    with ThreadPoolExecutor(args.jobs) as pool:
        waiting = {
            task: pool.submit(train_and_test, task[0], VARIANTS[task[0]], task[1], args.out)
            for task in tasks
        }
        for task, future in tqdm(waiting.items(), desc="runs"):
            results[task] = future.result()
    rows = [row(name, [results[name, seed] for seed in args.seeds]) for name in VARIANTS]
    header = ("variant", "base %", "new %", "H %", "learnable parameters")
    table = tabulate(rows, header, tablefmt="github", disable_numparse=True)
    print(table)
    if args.table:
        write_table(args.table, table)


def write_table(path: Path, table: str) -> None:
    """Replace the text between the two lines `MARKS`."""
    first, last = MARKS
    head, rest = path.read_text().split(first, 1)
    path.write_text(f"{head}{first}\n\n{table}\n\n{last}{rest.split(last, 1)[1]}")


if __name__ == "__main__":
    main()
