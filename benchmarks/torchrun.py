"""Compare the time of a training step on several processes with that on one.

python benchmarks/torchrun.py [--processes 1 2] [--trainer QuaternionPrompt] [--batch 32]

The demo model is trained on the demo images with the same whole batch by each number of processes,
in turns; a process has one CPU thread, or a GPU of its own. The time of a step, with that of
reading its images, is the log's; the fastest tenth of all steps counts, which other load on the
machine changes little. The last column is how far the weights are from those of the first number.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dplq.io import checkpoint

ROOT = Path(__file__).resolve().parent.parent
TIMES = re.compile(r"^epoch \[(\d+)/.* time ([\d.]+) .* data ([\d.]+) ", re.MULTILINE)
EPOCHS = 4


def train(folder: Path, processes: int, args: argparse.Namespace) -> list[tuple[float, float]]:
    """Train once; return the seconds of every step after the first epoch, and of its reading."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    keys = {"DATALOADER.TRAIN_X.BATCH_SIZE": args.batch, "OPTIM.MAX_EPOCH": EPOCHS}
    keys |= {"TRAIN.PRINT_FREQ": 1, "TEST.NO_TEST": True, "DATALOADER.NUM_WORKERS": 0}
    keys |= {"DATASET.SUBSAMPLE_CLASSES": "base", "DATASET.NUM_SHOTS": 16}
    command = [
        *(sys.executable, "-m", *launcher, str(ROOT / "train.py"), "--trainer", args.trainer),
        *("--dataset-config-file", "demo_aerial", "--config-file", "demo", "--seed", "1"),
        *("--output-dir", str(folder)),
        *(str(word) for pair in keys.items() for word in pair),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    steps = TIMES.findall((folder / "log.txt").read_text())
    return [(float(step), float(data)) for epoch, step, data in steps if epoch != "1"]


def weights(folder: Path) -> np.ndarray:
    """Return all learned numbers of a run."""
    path = folder / "prompt_learner" / f"model-{EPOCHS}.safetensors"
    tensors = checkpoint.read(path)[0]
    return np.concatenate([tensors[name].double().numpy().ravel() for name in sorted(tensors)])


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--trainer", default="QuaternionPrompt")
    parser.add_argument("--batch", type=int, default=32, help="images of all processes together")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    times: dict[int, list[tuple[float, float]]] = {count: [] for count in args.processes}
    learned = {}
    with tempfile.TemporaryDirectory() as place:
        for index in range(args.rounds):
            for count in args.processes:
                folder = Path(place) / f"{count}-{index}"
                times[count] += train(folder, count, args)
                learned[count] = weights(folder)
    first = args.processes[0]
    print("| processes | step, ms | of it reading, ms | ratio | weights differ by |")
    print("|---|---|---|---|---|")
    base = 0.0
    for count, steps in times.items():
        step, data = (np.quantile(values, 0.1) * 1000 for values in zip(*steps, strict=True))
        base = base or step
        away = np.linalg.norm(learned[count] - learned[first]) / np.linalg.norm(learned[first])
        print(f"| {count} | {step:.0f} | {data:.0f} | {base / step:.2f} | {away:.0e} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
