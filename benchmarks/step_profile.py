"""Where a step's time goes: kernels, launching, computing, waits for the device.

    python benchmarks/step_profile.py [--sides ours plain] [--classes 23] [--batch 4]

On a GPU our step is profiled twice, launched kernel by kernel and as a CUDA graph.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from benchmarks.step_sides import build_ours, build_side, class_names, inputs, stepper
from dplq.training.precision import resolve_precision

WARM_UP = 8
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")
COLUMNS = ("side", "launched", "B", "K", "wall ms", "computing ms", "share", "kernels", "waits")


def measure(step: Callable[[], Any], device: torch.device, repeats: int) -> dict[str, float]:
    """Return what a step takes, means of so many.

    Returns:
        "wall ms"; "computing ms", the sum over the kernels; "share" of it in the wall time;
        "kernels", copies and fills included; "waits" of the host for the device.
    """
    for _ in range(WARM_UP):
        step()
    _wait(device)
    began = time.perf_counter()
    for _ in range(repeats):
        step()
    _wait(device)
    wall = (time.perf_counter() - began) / repeats
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiled:
        for _ in range(repeats):
            step()
    _wait(device)
    on_device = torch.autograd.DeviceType.CUDA
    kernels = [event for event in profiled.events() if event.device_type == on_device]
    calls = Counter(event.name for event in profiled.events() if event.device_type != on_device)
    busy = sum(event.device_time for event in kernels) / 1e6 / repeats
    return {
        "wall ms": wall * 1e3,
        "computing ms": busy * 1e3,
        "share": busy / wall,
        "kernels": len(kernels) / repeats,
        "waits": sum(calls[name] for name in WAITS) / repeats,
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sides", nargs="+", choices=("ours", "plain"), default=["ours", "plain"])
    add("--classes", nargs="+", type=int, default=[23])
    add("--batch", nargs="+", type=int, default=[4])
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--precision", choices=("fp32", "amp", "bf16"), default="bf16")
    add("--repeats", type=int, default=10)
    add("--tiny", action="store_true", help="tiny models, for a quick test")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    precision, ours = (
        resolve_precision(args.precision, device),
        build_ours(args.tiny, device, "auto"),
    )
    rows = []
    for batch in args.batch:
        for classes in args.classes:
            images, labels = inputs(ours, batch, classes)
            for name in args.sides:
                side = build_side(name, ours)
                side.set_classes(class_names(classes))
                for graph in (
                    (False, True) if name == "ours" and device.type == "cuda" else (False,)
                ):
                    step = stepper(side, "train", images, labels, precision, graph=graph)
                    found = measure(step, device, args.repeats)
                    one = {"side": name, "launched": "graph" if graph else "one by one"}
                    rows.append({**one, "B": batch, "K": classes, **found})
    print(tabulate([[row[key] for key in COLUMNS] for row in rows], COLUMNS, floatfmt=".2f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
