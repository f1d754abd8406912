"""Time and memory of finding out what a sweep of 10,000 runs has done.

    python benchmarks/sweep_scan.py [--runs 10000] [--finished 0.9] [--out FOLDER]

A tree of folders is made, as runs leave them: finished, interrupted, failed early and absent ones.
"States" is what the plan's listing needs, "start" all that is checked before the first run starts
(states, and each folder's settings against those of the plan). Processor time is what counts on a
machine with other load.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dplq.experiments.engines.local import LocalEngine
from dplq.experiments.execute import Execution
from dplq.experiments.plan import Plan, Run
from dplq.experiments.progress import Lines
from dplq.experiments.signals import Signals
from dplq.experiments.state import scan
from dplq.io.exit_code import exit_code
from dplq.io.protocols import CONFIGS
from dplq.io.runs.files import MODEL_FOLDER, RESULTS_FILE, RESUME_FILE, RUN_FILE, SETTINGS_FILE

RESULTS = json.dumps({"hits": "0f" * 7000})  # about the size of a run's on the demo
SEEDS, SHOTS = (1, 2, 3), (1, 2, 4, 8, 16)


def make_runs(out: Path, number: int) -> list[Run]:
    """Return so many runs: of base-to-new, over trainers and shots, and as many datasets as needed.

    Args:
        out: folder of all results.
        number: of runs.
    """
    files = sorted((CONFIGS / "trainers").glob("*/*.yaml"))
    configs = {path.parent.name: path.stem for path in files}
    datasets = sorted(path.stem for path in (CONFIGS / "datasets").glob("*.yaml"))
    runs: list[Run] = []
    for sweep in range(number):  # more than there are datasets: other folders
        for dataset in datasets:
            for trainer, config in configs.items():
                for shots in SHOTS:
                    place = Path(dataset) / f"shots_{shots}" / trainer / config
                    base, new = (out / f"{sweep}" / part / place for part in ("base", "new"))
                    for seed in SEEDS:
                        folder, rest = base / f"seed{seed}", (dataset, trainer, config, seed, shots)
                        runs.append(Run(folder, *rest, "base"))
                        runs.append(Run(new / f"seed{seed}", *rest, "new", model=folder))
                        if len(runs) >= number:
                            return runs[:number]
    return runs


def make_folders(runs: Sequence[Run], finished: float) -> None:
    """Write the files of the first runs; those after them are interrupted, failed, and absent.

    Args:
        runs: of the plan.
        finished: share of them.
    """
    done = int(len(runs) * finished)
    some = (len(runs) - done) // 3
    for index, run in enumerate(runs[: done + 2 * some]):
        (run.folder / MODEL_FOLDER).mkdir(parents=True)
        for name in ("log.txt", ".lock", RUN_FILE):
            (run.folder / name).write_text("{}")
        if index < done:
            (run.folder / RESULTS_FILE).write_text(RESULTS)
            (run.folder / SETTINGS_FILE).write_text(f"{run.settings()}\n")
        elif index < done + some:
            (run.folder / MODEL_FOLDER / RESUME_FILE).touch()
            if run.model is None or run.model.joinpath(RESULTS_FILE).is_file():
                (run.folder / SETTINGS_FILE).write_text(f"{run.settings()}\n")
        else:
            (run.folder / MODEL_FOLDER).rmdir()


def timed(action: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return what an action returns, with its seconds and the process's peak of memory so far."""
    began, cpu = time.perf_counter(), time.process_time()
    result = action()
    return result, {
        "seconds": time.perf_counter() - began,
        "processor seconds": time.process_time() - cpu,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure(out: Path, number: int, finished: float) -> dict[str, Any]:
    """Return the figures of a sweep.

    Args:
        out: an empty folder.
        number: of runs.
        finished: share of them.
    """
    runs = make_runs(out, number)
    make_folders(runs, finished)
    found, states = timed(lambda: scan(runs))
    counts = Counter(one.state.value for one in found)
    start = Execution(Plan(runs), LocalEngine(), Signals(), None, Lines(brief=True)).begin
    _, began = timed(start)
    return {"runs": number, "found": dict(counts), "states": states, "start": began}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--finished", type=float, default=0.9, help="share; default: 0.9")
    parser.add_argument("--out", type=Path, help="folder for the tree (default: a temporary one)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        print(json.dumps(measure(Path(folder), args.runs, args.finished), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
