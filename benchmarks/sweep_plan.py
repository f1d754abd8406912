"""Time and memory of planning a sweep of 10,000 runs, and of starting a run through `dplq run`.

    python benchmarks/sweep_plan.py [--starts 5]

The plan is that of a sweep file of two protocols and settings, eight datasets and trainers, five
numbers of shots and seven seeds. A start is the time from the command
to the first line of a stand-in for training, through `dplq run`, the script and directly. Processor
time is what counts on a machine with other load; the time of a start is the least of several.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dplq.io.exit_code import exit_code

ROOT = Path(__file__).resolve().parents[1]
SWEEP = """
protocols: [base2new, few-shot]
datasets: [rsscn7, aid, whurs19, ucm, nwpu, patternnet, mlrsnet, rsicd]
trainers: [CoOp, CoCoOp, KgCoOp, ProGrad, MaPLe, PromptSRC, DCPL, QuaternionPrompt]
shots: [1, 2, 4, 8, 16]
seeds: [1, 2, 3, 4, 5, 6, 7]
settings:
  plain: {}
  slow: {OPTIM.LR: 0.0001, depth: 3}
exclude:
  - {protocol: few-shot, trainer: CoCoOp, shots: 16}
out: OUT
"""
STAND_IN = """#!/bin/sh
for word in "$@"; do
    case $word in
        *train.py) date +%s.%N > {began}; exit 1 ;;
    esac
done
exec {python} "$@"
"""


def plan() -> dict[str, Any]:
    """Return how long the plan takes in this process, and the memory that it needs."""
    began, cpu = time.perf_counter(), time.process_time()
    from dplq.experiments.requests.request import make_plan
    from dplq.experiments.requests.sweep import read_sweep

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sweep.yaml")
        path.write_text(SWEEP)
        made = make_plan(read_sweep(path, Path(folder)).requests)
    return {
        "runs": len(made.runs),
        "seconds": time.perf_counter() - began,
        "processor seconds": time.process_time() - cpu,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "torch imported": "torch" in sys.modules,
    }


def starts(number: int) -> dict[str, float]:
    """Return the seconds until training starts, by the way it is started; the least of several."""
    with tempfile.TemporaryDirectory() as folder:
        python, began = Path(folder, "python"), Path(folder, "began")
        python.write_text(STAND_IN.format(began=began, python=sys.executable))
        python.chmod(0o755)
        given = os.environ | {"PYTHON": str(python), "DPLQ_PYTHON": str(python)}
        environment = given | {"OUT": f"{folder}/out", "TRAINER": "CoOp"}
        own = ["base2new", "demo_aerial", "--trainers", "CoOp", "--seeds", "1"]
        out = ["--out", f"{folder}/out"]
        commands = {
            "train.py": [str(python), str(ROOT / "train.py")],
            "dplq run": [sys.executable, "-m", "dplq", "run", *own, *out],
            "script": ["bash", str(ROOT / "scripts/base2new.sh"), "demo_aerial", "1"],
        }
        return {
            name: min(_start(command, environment, began) for _ in range(number))
            for name, command in commands.items()
        }


def _start(command: Sequence[str], environment: dict[str, str], began: Path) -> float:
    began.unlink(missing_ok=True)
    now = time.time()
    subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
    return float(began.read_text()) - now


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=5)
    args = parser.parse_args(argv)
    print(json.dumps({"plan": plan(), "seconds to the start": starts(args.starts)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
