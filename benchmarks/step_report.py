"""The results as a table, a figure and JSON."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from dplq.io.atomic import atomic_write
from dplq.trainers._engine.environment import device_name, git_commit, versions

logger = logging.getLogger(__name__)
EXTRAPOLATED = "extrapolated, linear in K"
MEMORY_GUESS = "memory extrapolated, linear in K"
COLUMNS = ("what", "B", "K", "side", "seconds", "images/s", "time / ours", "peak MiB of the step",
           "absolute MiB", "GFLOP", "% of bound", "how")  # fmt: skip
Row = dict[str, Any]


def line(row: Row) -> str:
    """Return the progress line of a measured row."""
    head = f"{row['what']:5} B={row['batch']:<3} K={row['classes']:<5} {row['side']:13}"
    if row["seconds"] is None:
        return f"{head} {row['how']}"
    memory = row["memory"]
    step = f", {memory['step']:,.0f} MiB" if memory else ""
    return f"{head} {row['seconds']:.4g} s{step} ({row['how']})"


def check_line(check: Row) -> str:
    """Return one equality check as a sentence."""
    size = f"{check['what']} B={check['batch']} K={check['classes']}"
    part = "" if check["whole batch"] else " (first image)"
    gradients = f", gradients {check['gradients']:.1e}" if "gradients" in check else ""
    verdict = "same" if check["passed"] else "NOT THE SAME"
    figures = f"logits {check['logits']:.1e}{gradients}"
    return f"{size}{part}: ours against {check['against']}, relative: {figures}: {verdict}"


def complete(rows: list[Row], peak: float) -> None:
    """Add ratios, and extrapolate unmeasured values linearly in K.

    A row is extrapolated from its side's two largest measured K of the same batch, and marked.
    """
    for row in rows:
        found = row["memory"]
        row["memory_step"], row["memory_absolute"] = (
            found[key] if found else None for key in ("step", "absolute")
        )
    for row in rows:
        alike = [r for r in rows if all(r[k] == row[k] for k in ("what", "batch", "side"))]
        if row["seconds"] is None:
            row["seconds"] = _line_at(row["classes"], alike, "seconds")
            row["how"] = EXTRAPOLATED if row["seconds"] is not None else row["how"]
        wanted = row["memory"] is None and row["how"] != "measured"
        row["memory_guess"] = None
        if wanted:
            row["memory_guess"] = _line_at(row["classes"], alike, "memory_step")
    for row in rows:
        seconds, ours = row["seconds"], _find(rows, row, "ours")
        row["images_per_second"] = row["batch"] / seconds if seconds else None
        row["bound_seconds"] = row["flops"] / peak
        row["fraction_of_bound"] = row["bound_seconds"] / seconds if seconds else None
        row["time_over_ours"] = seconds / ours["seconds"] if seconds and ours else None


def _line_at(classes: int, rows: Iterable[Row], key: str) -> float | None:
    """Extrapolate from the two largest measured K to `classes`; None without them."""
    points = {row["classes"]: row[key] for row in rows if _measured(row, key)}
    if len(points) < 2:
        return None
    (k0, v0), (k1, v1) = sorted(points.items())[-2:]
    return v1 + (v1 - v0) / (k1 - k0) * (classes - k1)


def _measured(row: Row, key: str) -> bool:
    return row[key] is not None and row["how"] == "measured"


def _find(rows: Iterable[Row], like: Row, side: str) -> Row | None:
    size = ("what", "batch", "classes")
    return next((r for r in rows if r["side"] == side and all(r[k] == like[k] for k in size)), None)


def summary(rows: list[Row]) -> list[str]:
    """Return the ratios of interest as sentences."""
    told = []
    for ours in (row for row in rows if row["side"] == "ours"):
        size = f"{ours['what']}, B = {ours['batch']}, K = {ours['classes']}"
        plain, cached = (_find(rows, ours, name) for name in ("plain", "ours, cached"))
        if plain and plain["seconds"]:
            sign = "" if plain["how"] == "measured" else f" ({plain['how']})"
            told.append(f"{size}: plain / ours {plain['seconds'] / ours['seconds']:.2f}{sign}")
            if cached:
                ratio = plain["seconds"] / cached["seconds"]
                told.append(f"{size}: plain / ours with cached domain features {ratio:.2f}{sign}")
            memory = plain["memory_step"] or plain["memory_guess"]
            if memory and ours["memory_step"]:
                sign = "" if plain["memory_step"] else f" ({MEMORY_GUESS})"
                ratio = memory / ours["memory_step"]
                told.append(f"{size}: peak memory of the step, plain / ours {ratio:.2f}{sign}")
        maple, domain = (_find(rows, ours, name) for name in ("maple", "domain"))
        if ours["what"] == "train" and maple and maple["seconds"]:
            ratio = ours["seconds"] / (maple["seconds"] + domain["seconds"])
            sign = "" if maple["how"] == "measured" else f" ({maple['how']})"
            told.append(f"{size}: ours / (MaPLe's step + domain encoder) {ratio:.2f}{sign}")
    return told


def table(rows: Iterable[Row]) -> str:
    """Return all rows as a Markdown table."""

    def cells(row: Row) -> tuple:
        guess = row["memory_guess"]
        step = f"~ {guess:,.0f}" if guess else _number(row["memory_step"], ",.0f")
        how = f"{row['how']}; {MEMORY_GUESS}" if guess else row["how"]
        share = row["fraction_of_bound"]
        return (
            *(row[key] for key in ("what", "batch", "classes", "side")),
            _number(row["seconds"], ".4g"),
            _number(row["images_per_second"], ".3g"),
            _number(row["time_over_ours"], ".2f"),
            step,
            _number(row["memory_absolute"], ",.0f"),
            f"{row['flops'] / 1e9:,.0f}",
            _number(share and 100 * share, ".0f"),
            how,
        )

    aligned = ["left" if name in ("what", "side", "how") else "right" for name in COLUMNS]
    body = [cells(row) for row in rows]
    return tabulate(body, COLUMNS, tablefmt="github", colalign=aligned, disable_numparse=True)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def finish(bench: Any) -> None:
    """Print the table and write ``step.json``, ``step.md`` and ``step.png`` below ``--out``."""
    complete(bench.rows, bench.peak)
    told, checks = summary(bench.rows), [check_line(check) for check in bench.checks]
    machine = {
        "device": device_name(bench.device),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "precision": bench.precision.name,
        "peak_flops_per_second": bench.peak,
        "git_commit": git_commit(),
        "versions": versions(),
    }
    options = {key: str(v) if isinstance(v, Path) else v for key, v in vars(bench.options).items()}
    options.pop("peers")  # a path of this machine
    head = (
        f"{machine['device']}, {machine['threads']} threads, {machine['precision']}, "
        f"torch {torch.__version__}, matrix product {bench.peak / 1e9:,.0f} GFLOP/s"
    )
    text = "\n".join([head, "", table(bench.rows), "", *(f"- {t}" for t in (*told, *checks)), ""])
    print(f"\n{text}")
    content = {"format": 1, "machine": machine, "options": options, "rows": bench.rows}
    content |= {"checks": bench.checks, "summary": told}
    folder = bench.options.out
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "step.json", json.dumps(content, indent=1))
    _write(folder / "step.md", text)
    draw(bench.rows, folder / "step.png")


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def draw(rows: list[Row], path: Path) -> None:
    """Plot seconds and memory over K, a column per batch; open marks: extrapolated."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("No figure: pip install matplotlib")
        return
    sizes = list(dict.fromkeys((row["what"], row["batch"]) for row in rows))
    figure = Figure(figsize=(4.6 * len(sizes), 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(sizes), squeeze=False)
    units = {"seconds": "seconds", "memory_step": "peak memory of the step (MiB)"}
    for column, size in enumerate(sizes):
        here = [row for row in rows if (row["what"], row["batch"]) == size]
        for axes, (key, unit) in zip(panels[:, column], units.items(), strict=True):
            _curves(axes, here, key)
            scale = "log" if axes.lines else "linear"  # memory may not have been measured
            axes.set(xscale=scale, yscale=scale, xlabel="classes", ylabel=unit)
            axes.set_title(f"{size[0]}, B = {size[1]}")
            axes.grid(alpha=0.3)
        panels[0, column].legend(fontsize="small")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _curves(axes: Any, rows: list[Row], key: str) -> None:
    for number, side in enumerate(dict.fromkeys(row["side"] for row in rows)):
        points = []
        for row in rows:
            value = row[key] or (row["memory_guess"] if key == "memory_step" else None)
            if row["side"] == side and value:
                points.append((row["classes"], value, _measured(row, key)))
        points.sort()
        colour = f"C{number}"
        if not points:
            continue
        axes.plot([p[0] for p in points], [p[1] for p in points], color=colour, label=side)
        for classes, value, measured in points:
            face = colour if measured else "none"
            axes.plot(classes, value, "o", color=colour, markerfacecolor=face)
