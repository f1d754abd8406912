"""Ablation of the method on the demo domain, as one table.

    python benchmarks/ablation.py [--jobs 2] [--seeds 1 2 3] [--table docs/ablation.md]
    python benchmarks/ablation.py --around residual_head --table docs/residual_head.md

Every row changes one setting of a shipped config (configs/trainers/QuaternionPrompt/demo.yaml, or
demo_residual_head.yaml) and is one call of scripts/base2new.sh per seed on demo_aerial. Finished
runs below --out are reused, as by the script; remove that folder after a change of the method.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.script_runs import ROOT, base2new, check_marks, in_parallel, write_table
from dplq.errors import UserError

NODE = "TRAINER.QUATERNIONPROMPT."
TRAINER, DATASET = "QuaternionPrompt", "demo_aerial"
Variants = dict[str, dict[str, str]]  # name of the row: settings that differ from the config
DEFAULT: Variants = {
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
RESIDUAL_HEAD: Variants = {
    "residual_head": {},
    "without the head": {"HEAD_WEIGHT": "0"},
    "the head alone decides": {"HEAD_WEIGHT": "1"},
    "without the map": {"MAP_WEIGHT": "0"},
    "un-prompted CLIP in place of the map": {"MAP_WEIGHT": "0", "ZEROSHOT_WEIGHT": "0.5"},
    "the map alone decides": {"MAP_WEIGHT": "1"},
    "domain feature not standardised": {"STANDARDIZE": "False"},
    "deep text prompts start random": {"TEXT_INIT": "random"},
    "no residual, starts random": {"RESIDUAL": "False", "TEXT_INIT": "random"},
    "CLIP's own feature as domain feature": {"DOMAIN.ENCODER": "clip"},
    "SGD with the default's learning rate": {"OPTIM.NAME": "sgd", "OPTIM.LR": "0.0035"},
}
GROUPS = {"default": ("demo", DEFAULT), "residual_head": ("demo_residual_head", RESIDUAL_HEAD)}


def train_and_test(name: str, config: str, settings: dict[str, str], seed: int, out: Path) -> dict:
    """Run one seed of one row.

    Returns:
        Accuracy in percent on base and new classes, H, and the number of learnable parameters.

    Raises:
        RuntimeError: a run failed; the message contains the end of its output.
    """
    folder = out / name.replace(" ", "_").replace(",", "").replace("'", "")
    options = {key if "." in key else NODE + key: value for key, value in settings.items()}
    given = {"OUT": str(folder), "TRAINERS": TRAINER, "CFG": config, "SHOTS": "16"}
    base2new(DATASET, [seed], options, given)
    place = f"{DATASET}/shots_16/{TRAINER}/{config}/seed{seed}/results.json"
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
    parser.add_argument("--around", choices=GROUPS, default="default", help="the config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="parallel runs")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "output/ablation", help="folder of the runs"
    )
    parser.add_argument("--table", type=Path, help="write the table between the marks of this file")
    args = parser.parse_args()
    args.out = args.out.resolve() / args.around
    config, variants = GROUPS[args.around]
    try:
        if args.table:
            check_marks(args.table)
    except UserError as error:
        parser.error(str(error))
    tasks = {
        (name, seed): partial(train_and_test, name, config, variants[name], seed, args.out)
        for name in variants
        for seed in args.seeds
    }
    results = {}
    for task, result in in_parallel(tasks, args.jobs):
        if isinstance(result, RuntimeError):
            raise result
        results[task] = result
    rows = [row(name, [results[name, seed] for seed in args.seeds]) for name in variants]
    header = ("variant", "base %", "new %", "H %", "learnable parameters")
    table = tabulate(rows, header, tablefmt="github", disable_numparse=True)
    print(table)
    if args.table:
        write_table(args.table, table)


if __name__ == "__main__":
    main()
