"""Throughput of several runs at once on one GPU, or on the CPU.

    python benchmarks/packing.py [--at-once 1 2 4 8 16] [--device gpu] [-- KEY VALUE ...]

Each number of runs at once is a plan of as many training runs, seeds 1, 2, ..., through the engine
`local`. Steps per second are those of all runs together, from the seconds per step that each run
records: start-up, which a long run hardly notices, does not count. Runs per hour include it. Frozen
features are computed in every run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dplq.experiments.engines import open_engine
from dplq.experiments.engines.gpus import list_gpus
from dplq.experiments.execute import execute
from dplq.experiments.plan import Plan, Run
from dplq.io.exit_code import exit_code
from dplq.io.runs.results import Results, read_results

# The seeds of a number are those of the number before, which would leave their features behind.
COLD = (("TRAIN.FEATURE_CACHE", "0"),)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--at-once", nargs="+", type=int, default=[1, 2, 4, 8, 16], metavar="N")
    add("--device", choices=("gpu", "cpu"), default="gpu", help="gpu: the first that is visible")
    add("--trainer", default="QuaternionPrompt")
    add("--dataset", default="demo_aerial", help="a file of configs/datasets")
    add("--config", default="demo", help="a file of configs/trainers/TRAINER")
    add("--data", type=Path, help="folder of the datasets; built-in ones need none")
    add("--shots", type=int, default=16)
    add("--out", type=Path, default=Path("output/benchmarks/packing"))
    add("opts", nargs="*", metavar="KEY VALUE", help="after --: config keys for all runs")
    return parser


def measure(args: argparse.Namespace, number: int) -> dict[str, Any]:
    """Return what so many runs at once achieve; {} if one failed.

    Args:
        args: of the command line.
        number: of runs.
    """
    folder = args.out.absolute() / f"{number}_at_once"
    shutil.rmtree(folder, ignore_errors=True)  # what is finished would not be measured
    options = (*COLD, *zip(args.opts[::2], args.opts[1::2], strict=True))
    runs = [
        Run(
            *(folder / f"seed{seed}", args.dataset, args.trainer, args.config),
            *(seed, args.shots, "base"),
            data=args.data and args.data.absolute(),
            options=options,
        )
        for seed in range(1, number + 1)
    ]
    where: dict[str, Any] = {"jobs": number}
    if args.device == "gpu":
        where |= {"per_gpu": number, "gpus": list_gpus()[0].name}
    began = time.perf_counter()
    code = execute(Plan(runs), open_engine("local", where))
    seconds = time.perf_counter() - began
    if code:
        return {}
    return row(number, seconds, [read_results(run.folder / "results.json") for run in runs])


def row(number: int, seconds: float, results: Sequence[Results]) -> dict[str, Any]:
    """Return the figures of a number of runs at once.

    Args:
        number: of runs.
        seconds: from the first start to the last end.
        results: of the runs.
    """
    steps = [result.seconds.step for result in results]
    return {
        "at once": number,
        "seconds": seconds,
        "runs per hour": number * 3600 / seconds,
        "steps per second": sum(1 / step for step in steps if step),
        "MiB of a run": max(result.peak_memory_mib or 0 for result in results),
        "device": results[0].device,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the figures as a table in Markdown, with the ratio to the first row."""
    lines = ["| at once | runs per hour | steps per second | ratio | MiB of a run |"]
    lines.append("|---:|---:|---:|---:|---:|")
    for line in rows:
        ratio = line["steps per second"] / rows[0]["steps per second"]
        lines.append(
            f"| {line['at once']} | {line['runs per hour']:.1f} | {line['steps per second']:.2f} "
            f"| {ratio:.2f} | {line['MiB of a run']:,.0f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if len(args.opts) % 2:
        parser.error(f"config keys come in pairs KEY VALUE; {args.opts[-1]} has no partner")
    if args.device == "gpu" and not list_gpus():
        parser.error("nvidia-smi finds no GPU; --device cpu measures the CPU")
    rows = []
    for number in args.at_once:
        figures = measure(args, number)
        if not figures:
            print(f"error: {number} runs at once: one failed, as for want of memory")
            break
        rows.append(figures)
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "packing.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if rows:
        print(f"\nOn: {rows[0]['device']}\n{table(rows)}")
    return 0 if len(rows) == len(args.at_once) else 1


if __name__ == "__main__":
    sys.exit(exit_code(main))
