"""Benchmark the training step and evaluation against plain code and the originals.

    python benchmarks/step.py [--peers FOLDER] [--what train eval] [--classes 10 23 45 100 1000]

Usage and results: benchmarks/README.md. Exit code 1: the sides do not compute the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from benchmarks import step_meters as meters
from benchmarks import step_report as report
from benchmarks.step_checks import against_plain, against_release, exact_fp32
from benchmarks.step_originals import TREES, Original
from benchmarks.step_plain import InParts
from benchmarks.step_sides import (
    Side,
    build_ours,
    build_side,
    class_names,
    inputs,
    shape_run,
    stepper,
)
from dplq.clip.memory import ACTIVATIONS_PER_LAYER
from dplq.training.precision import resolve_precision
from dplq.training.step_graph import WARM_UP

SIDES = ("ours", "plain", *TREES)
WHOLE = "measured"
PARTS = "in parts: one image's texts measured, in class chunks, counted for each image"
GROWS = "not run"


class Bench:
    """Builds the sides once and measures them at each size.

    Args:
        options: the parsed command line.
        arguments: the command line as given, for child processes.
    """

    def __init__(self, options: argparse.Namespace, arguments: Sequence[str]) -> None:
        self.options, self.arguments = options, list(arguments)
        self.device = torch.device(options.device)
        self.precision = resolve_precision(options.precision, self.device)
        self.ours = build_ours(options.tiny, self.device, options.text_chunk)
        if options.compile:
            self.ours.compile(mode=options.compile)
        self.depth = self.ours.settings["prompt_depth"]
        self.sides: dict[str, Side] = {}
        self.rows: list[dict[str, Any]] = []
        self.checks: list[dict[str, Any]] = []
        self.peak = 0.0

    def side(self, name: str) -> Side:
        """Return the side of that name, built on first use."""
        if name not in self.sides:
            if name in TREES:
                tree = self.options.peers / TREES[name]
                self.sides[name] = Original(name, tree, self.ours, self.depth)
            else:
                self.sides[name] = build_side(name, self.ours)
        return self.sides[name]

    def names(self, what: str) -> list[str]:
        """Return the names of the sides to measure, ours first."""
        names = list(self.options.sides)
        if what == "eval" and self.options.cached_features and "ours" in names:
            names.insert(1, "ours, cached")
        return [*names, "domain"]

    def find_peak(self) -> None:
        """Measure the rate of a large matrix product and keep the best so far."""
        dtype = self.precision.compute or torch.float32
        size = 256 if self.options.tiny else 0
        self.peak = max(self.peak, meters.peak_rate(self.device, dtype, size))

    def run(self) -> None:
        """Measure all sizes of the command line."""
        self.find_peak()
        for what in self.options.what:
            batches = self.options.batch if what == "train" else self.options.eval_batch
            for batch in batches:
                for classes in self.options.classes:
                    self.measure(what, batch, classes)
        self.find_peak()

    def measure(self, what: str, batch: int, classes: int) -> None:
        """Measure one size: FLOPs, equality, seconds in alternation, memory."""
        images, labels = inputs(self.ours, batch, classes)
        sides = {name: self.side(name) for name in self.names(what)}
        rows = {}
        for name, side in sides.items():
            side.set_classes(class_names(classes))
            side.train(what == "train").prepare(images)
            flops = meters.count_flops(side, shape_run(side, what), (images, labels))
            rows[name] = {"what": what, "batch": batch, "classes": classes, "side": name}
            rows[name] |= {"flops": flops, "how": self._how(side, what, batch, classes, flops)}
        self._check(sides, rows, images, labels)
        jobs = {
            name: self._parts(side, rows[name], images, labels)
            for name, side in sides.items()
            if rows[name]["how"] != GROWS
        }
        times: dict[str, list[float]] = {name: [] for name in jobs}
        for turn in range(-self.options.warmup, self.options.repeats):
            for name, parts in jobs.items():
                if turn < 0 and rows[name]["how"] == PARTS:  # slow, and `_check` has warmed it up
                    continue
                sides[name].train(what == "train")  # "ours" and "ours, cached" share a model
                passed = meters.seconds_of_parts(parts, self.device)
                if turn >= 0:
                    times[name].append(passed)
        for name, row in rows.items():
            row["rounds"] = times.get(name, [])
            row["seconds"] = median(row["rounds"]) if row["rounds"] else None
            row["memory"] = self._memory(sides[name], row, images, labels)
            self.rows.append(row)
            print(report.line(row), flush=True)

    def _how(self, side: Side, what: str, batch: int, classes: int, flops: int) -> str:
        """Return how a side is measured: as a whole if memory and time allow."""
        if side.name.startswith("ours") or side.name == "domain":
            return WHOLE
        clip, options = self.ours.clip, self.options
        tokens = (batch if side.texts_per_image else 1) * classes * clip.context_length
        layers = clip.text_layers * ACTIVATIONS_PER_LAYER if what == "train" else 2
        needed = tokens * clip.text_width * layers * 4
        allowed = options.memory * meters.GIB or 0.8 * meters.available_bytes(self.device)
        if needed <= allowed and flops / self.peak <= options.limit:
            return WHOLE
        return PARTS if side.name == "plain" else GROWS

    def _parts(
        self, side: Side, row: dict[str, Any], images: Tensor, labels: Tensor
    ) -> list[meters.Part]:
        """Return the functions to time, and how often each counts."""
        if row["how"] == WHOLE:
            graph = self.options.graph and side.name.startswith("ours")
            return [(1, stepper(side, row["what"], images, labels, self.precision, graph=graph))]
        upstream = None
        if row["what"] == "train":
            # The cost does not depend on the gradient's values; `_check` passes the true one.
            upstream = torch.zeros(row["classes"], device=self.device)
            upstream[0], upstream[1:] = -1, 1 / max(row["classes"] - 1, 1)
        return InParts(side.model, images, upstream, self.precision.autocast).parts

    def _check(self, sides: dict[str, Side], rows: dict, images: Tensor, labels: Tensor) -> None:
        if "ours" not in sides:
            return
        size = {key: rows["ours"][key] for key in ("what", "batch", "classes")}
        found = []
        if "plain" in sides:
            whole = rows["plain"]["how"] == WHOLE
            pair = sides["ours"], sides["plain"]
            with exact_fp32():
                found.append(against_plain(*pair, size["what"], images, labels, whole))
        if "dplq" in sides and rows["dplq"]["how"] == WHOLE:
            with exact_fp32():
                found.append(against_release(sides["ours"], sides["dplq"], images))
        for check in found:
            self.checks.append({**size, **check})
            print(report.check_line(self.checks[-1]), flush=True)

    def _memory(
        self, side: Side, row: dict[str, Any], images: Tensor, labels: Tensor
    ) -> dict[str, Any] | None:
        """Measure peak memory: on a GPU here, without a graph; on a CPU in a separate process."""
        # A compiled step also allocates outside of its run.
        skipped = self.options.no_memory or self.options.compile
        if skipped or row["how"] != WHOLE or side.name == "domain":
            return None
        if self.device.type == "cuda":
            side.train(row["what"] == "train").zero_grad()
            step = stepper(side, row["what"], images, labels, self.precision)
            return meters.memory(step, self.device)
        size = (side.name, row["what"], str(row["batch"]), str(row["classes"]))
        side.zero_grad()
        meters.trim()  # the other process needs the memory
        command = [sys.executable, __file__, *self.arguments, "--memory-of", *size]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"memory of {' '.join(size)}: failed\n{done.stderr[-2000:]}", file=sys.stderr)
            return None
        return json.loads(done.stdout.splitlines()[-1])

    def memory_of(self, name: str, what: str, batch: int, classes: int) -> dict[str, Any]:
        """Measure the peak memory of one side's step in this fresh process."""
        side = self.side(name)
        for warm_up in (True, False):
            size = (1, 2) if warm_up else (batch, classes)
            images, labels = inputs(self.ours, *size)
            side.set_classes(class_names(size[1]))
            step = stepper(side, what, images, labels, self.precision)
            if warm_up:  # excludes thread pools, kernels and the optimiser
                step()
        side.zero_grad()
        return meters.memory(step, self.device)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--what", nargs="+", choices=("train", "eval"), default=["train", "eval"])
    add("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    add(
        "--peers",
        type=Path,
        help="folder with the originals' checkouts: " + ", ".join(TREES.values()),
    )
    add("--batch", nargs="+", type=int, default=[4], help="images per training step (4)")
    add("--eval-batch", nargs="+", type=int, default=[24], help="images per evaluation (24)")
    add("--classes", nargs="+", type=int, default=[10, 23, 45, 100, 1000])
    add("--cached-features", action="store_true", help="also evaluate ours with them precomputed")
    add("--text-chunk", type=_chunk, default="auto", help="for ours: auto, or a number of classes")
    add("--compile", default="", help="for ours: a mode of torch.compile, as MODEL.COMPILE")
    add(
        "--graph",
        action=argparse.BooleanOptionalAction,
        help="for ours: training steps as a CUDA graph, as TRAIN.CUDA_GRAPH (default: on a GPU, "
        "without --compile)",
    )
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--precision", choices=("fp32", "amp", "bf16"), default="fp32")
    add("--repeats", type=int, default=3)
    add("--warmup", type=int, default=1)
    add("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    add("--limit", type=float, default=150, help="skip steps that take more seconds (150)")
    add("--memory", type=float, default=0, help="GiB limit per step (80 %% of free memory)")
    add("--no-memory", action="store_true", help="do not measure memory")
    add("--out", type=Path, default=Path("output/benchmarks/step"), help="folder of the results")
    add("--tiny", action="store_true", help="tiny models, for a quick test")
    add("--memory-of", nargs=4, help=argparse.SUPPRESS)  # used by a child process
    options = parser.parse_args(arguments)
    if "ours" not in options.sides:
        parser.error("--sides needs ours: everything is compared with it")
    if options.graph is None:
        options.graph = options.device.startswith("cuda") and not options.compile
    if options.graph:
        options.warmup = max(options.warmup, WARM_UP + 1)  # then a step is recorded
    return options


def _chunk(word: str) -> int | str:
    return word if word == "auto" else int(word)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 1 if sides that should be equal are not."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    bench = Bench(options, arguments)
    if options.memory_of:
        name, what, *size = options.memory_of
        print(json.dumps(bench.memory_of(name, what, *map(int, size))))
        return 0
    for name, tree in TREES.items():
        if name in options.sides and not (options.peers and (options.peers / tree).is_dir()):
            options.sides.remove(name)
            print(f"{name}: no checkout of {tree} below --peers: skipped", file=sys.stderr)
    bench.run()
    report.finish(bench)
    return 0 if all(check["passed"] for check in bench.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
