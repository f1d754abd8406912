"""Compare the time of a training step on several processes with that on one.

python benchmarks/torchrun.py [--processes 1 2] [--trainer QuaternionPrompt] [--batch 16]

The demo model is trained on the demo images with the same whole batch by each number of processes,
in turns; a process has one CPU thread, and frozen features are computed in every run. The medians
are those of the first process's steps, without the reading of images: time, and processor time,
which other load on the machine changes little. The last column is how far the weights are from
those of the first number.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dplq.io import checkpoint

TIMES = re.compile(r"^step ([\d.]+) ([\d.]+)$", re.MULTILINE)
EPOCHS, WARMUP, WORKER = 2, 2, "worker"


def work(argv: list[str]) -> int:
    """Run train.py as one of the processes; it prints the time of every step."""
    import dplq.plugin  # noqa: F401
    from dplq.cli import train
    from dplq.trainers import PromptTrainer

    step = PromptTrainer.forward_backward

    def timed(self: Any, batch: dict[str, Any]) -> Any:
        began, used = time.perf_counter(), time.process_time()
        numbers = step(self, batch)
        print(f"step {time.perf_counter() - began:.6f} {time.process_time() - used:.6f}")
        return numbers

    PromptTrainer.forward_backward = timed  # type: ignore[method-assign]
    return train.main(argv)


def train(folder: Path, processes: int, args: argparse.Namespace) -> list[tuple[float, float]]:
    """Train once; return the seconds, and processor seconds, of every step after the first."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    keys = {"DATALOADER.TRAIN_X.BATCH_SIZE": args.batch, "OPTIM.MAX_EPOCH": EPOCHS}
    keys |= {"TRAIN.PRINT_FREQ": 1, "TEST.NO_TEST": True, "DATALOADER.NUM_WORKERS": 0}
    keys |= {"DATASET.SUBSAMPLE_CLASSES": "base", "DATASET.NUM_SHOTS": 16}
    keys |= {"TRAIN.FEATURE_CACHE": 0}  # which one process would read, and several never do
    command = [
        *(sys.executable, "-m", *launcher, __file__, WORKER, "--trainer", args.trainer),
        *("--dataset-config-file", "demo_aerial", "--config-file", "demo", "--seed", "1"),
        *("--output-dir", str(folder)),
        *(str(word) for pair in keys.items() for word in pair),
    ]
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=threads)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found = TIMES.findall(done.stdout)[WARMUP:]
    return [(float(seconds), float(used)) for seconds, used in found]


def weights(folder: Path) -> np.ndarray:
    """Return all learned numbers of a run."""
    path = folder / "prompt_learner" / f"model-{EPOCHS}.safetensors"
    tensors = checkpoint.read(path)[0]
    return np.concatenate([tensors[name].double().numpy().ravel() for name in sorted(tensors)])


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == [WORKER]:
        return work(given[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--trainer", default="QuaternionPrompt")
    parser.add_argument("--batch", type=int, default=16, help="images of all processes together")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args(given)
    times: dict[int, list[tuple[float, float]]] = {count: [] for count in args.processes}
    learned = {}
    with tempfile.TemporaryDirectory() as place:
        for index in range(args.rounds):
            for count in args.processes:
                folder = Path(place) / f"{count}-{index}"
                times[count] += train(folder, count, args)
                learned[count] = weights(folder)
    first = args.processes[0]
    print("| processes | step, ms | ratio | processor time, ms | ratio | weights differ by |")
    print("|---|---|---|---|---|---|")
    medians = {count: 1000 * np.median(steps, axis=0) for count, steps in times.items()}
    for count, (step, used) in medians.items():
        faster = medians[first] / medians[count]
        away = np.linalg.norm(learned[count] - learned[first]) / np.linalg.norm(learned[first])
        print(
            f"| {count} | {step:.0f} | {faster[0]:.2f} | {used:.0f} | {faster[1]:.2f} "
            f"| {away:.0e} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
