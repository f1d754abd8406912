"""Tables of finished runs: ``python -m dplq.results OUT...`` or `collect`, `summarise`, `render`.

A run is a folder that holds a ``results.json`` (written by ``train.py`` when a test ends), or a
Dassl ``log.txt`` as CoOp and MaPLe leave it. Neither torch nor Dassl is imported.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import math
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, harmonic_mean, pstdev
from typing import NamedTuple

from tabulate import tabulate

from dplq.errors import UserError

logger = logging.getLogger(__name__)

FORMATS = ("simple", "github", "latex", "csv")
SUBSETS = ("base", "new", "all")
RESULTS_FILE = "results.json"
SETTINGS_FILE = "settings.txt"  # scripts/common.sh writes it before a run starts
_RESULTS_FORMAT = 1

_LAYOUTS = (
    # scripts/base2new.sh of CoOp and MaPLe: train_base/DATASET/shots_N/TRAINER/CFG/seedS
    re.compile(
        r"(?P<root>.*?)(?:/(?:train|test)_(?P<subset>base|new))?/(?P<dataset>[^/]+)"
        r"/shots_(?P<shots>-?\d+)/(?P<trainer>[^/]+)/(?P<config>[^/]+)/seed(?P<seed>\d+)"
    ),
    # their scripts/xd_test.sh: evaluation/TRAINER/CFG_Nshots/DATASET/seedS
    re.compile(
        r"(?P<root>.*)/(?P<trainer>[^/]+)/(?P<config>[^/]+)_(?P<shots>\d+)shots"
        r"/(?P<dataset>[^/]+)/seed(?P<seed>\d+)"
    ),
)
_LOG_ACCURACY = re.compile(r"^\* accuracy: ([\d.]+)%")
_LOG_SPLIT = re.compile(r"evaluat\w+ on (?:the )?\*?(\w+)\*? set", re.IGNORECASE)


class Setting(NamedTuple):
    """What the rows of one block of the table share."""

    root: str  # the folder above train_base / test_new
    trainer: str
    config: str
    shots: int


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        setting: where it lies, trainer, config folder and shots.
        dataset: name of the dataset.
        subset: "base", "new" or "all": the classes that were tested.
        seed: its seed.
        accuracy: top-1 accuracy in percent.
        rounded: True when read from a log, which prints one decimal.
        folder: the output folder of the run.
    """

    setting: Setting
    dataset: str
    subset: str
    seed: int
    accuracy: float
    rounded: bool
    folder: Path


@dataclass(frozen=True)
class Stat:
    """Mean over `count` seeds and the population standard deviation (None where it has none)."""

    mean: float
    std: float | None
    count: int

    def spread(self, ci95: bool) -> float | None:
        """Return the standard deviation, or with `ci95` half the 95 % interval."""
        if self.std is None or not ci95:
            return self.std
        return 1.96 * self.std / math.sqrt(self.count)


@dataclass(frozen=True)
class Row:
    """One line of the table: a dataset, or the average over the datasets of a setting.

    Attributes:
        setting: where the runs lie, trainer, config folder and shots.
        dataset: name of the dataset, or for example "average of 3".
        seeds: for every subset present the sorted seeds.
        stats: any of "base", "new", "H" and "all".
        rounded: True when a run was read from a log.
    """

    setting: Setting
    dataset: str
    seeds: Mapping[str, tuple[int, ...]]
    stats: Mapping[str, Stat]
    rounded: bool


def collect(paths: Iterable[str | os.PathLike[str]]) -> list[Run]:
    """Read every finished run below the given folders.

    A run that cannot be read, or has not finished, is skipped with a warning that names it.

    Args:
        paths: folders; one that lies inside another is not counted twice.

    Returns:
        The runs, in the order of their folders.

    Raises:
        UserError: a path is no folder, or no finished run was found.
    """
    paths = [Path(path) for path in paths]
    for path in paths:
        if not path.is_dir():
            raise UserError(f"no folder {path}: give output folders, for example output/base2new")
    runs = {}
    for folder, read in _candidates(paths):
        if folder in runs:
            continue
        try:
            runs[folder] = read(folder)
        except (OSError, ValueError) as error:
            logger.warning("skipped %s: %s", folder, error)
    if not runs:
        looked = ", ".join(str(path) for path in paths)
        raise UserError(
            f"no finished run ({RESULTS_FILE}, or a log.txt with a test accuracy) below {looked}"
        )
    return list(runs.values())


def _candidates(paths):
    """Yield every folder that holds a run, with the function that reads it."""
    for path in paths:
        for name, folders, files in os.walk(path.resolve()):
            folders.sort()
            if RESULTS_FILE in files:
                yield Path(name), _read_results
            elif "log.txt" in files:
                yield Path(name), _read_logs


def _read_results(folder: Path) -> Run:
    path = folder / RESULTS_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{RESULTS_FILE} is not valid JSON ({error})") from None
    if not isinstance(data, dict) or data.get("format") != _RESULTS_FORMAT:
        raise ValueError(f'{RESULTS_FILE} does not say "format": {_RESULTS_FORMAT}')
    for key, kind in {
        "trainer": str,
        "dataset": str,
        "subsample": str,
        "shots": int,
        "seed": int,
        "accuracy": (int, float),
    }.items():
        if not isinstance(data.get(key), kind):
            raise ValueError(f"{RESULTS_FILE} has no valid '{key}'")
    if data["subsample"] not in SUBSETS:
        raise ValueError(f"{RESULTS_FILE}: 'subsample' is none of {', '.join(SUBSETS)}")
    if not 0 <= data["accuracy"] <= 100:
        raise ValueError(f"{RESULTS_FILE}: 'accuracy' is not between 0 and 100")
    if data.get("split", "test") != "test":
        raise ValueError(f"{RESULTS_FILE} is about the {data['split']} split, not test")
    root, config = _place(folder)
    return Run(
        setting=Setting(root, data["trainer"], config, data["shots"]),
        dataset=data["dataset"],
        subset=data["subsample"],
        seed=data["seed"],
        accuracy=float(data["accuracy"]),
        rounded=False,
        folder=folder,
    )


def _match_layout(folder: Path) -> re.Match[str] | None:
    matches = (layout.fullmatch(folder.as_posix()) for layout in _LAYOUTS)
    return next(filter(None, matches), None)


def _place(folder: Path) -> tuple[str, str]:
    """Return the experiment's folder and the config folder's name."""
    match = _match_layout(folder)
    if match:
        return match["root"] or "/", match["config"]
    if re.fullmatch(r"seed\d+", folder.name):
        folder = folder.parent
    return folder.parent.as_posix(), folder.name


def _read_logs(folder: Path) -> Run:
    match = _match_layout(folder)
    if (folder / SETTINGS_FILE).exists():
        raise ValueError(f"not finished (a log.txt but no {RESULTS_FILE})")
    if match is None:
        raise ValueError("log.txt is not in a folder DATASET/shots_N/TRAINER/CONFIG/seedS")
    groups = match.groupdict()
    return Run(
        setting=Setting(
            groups["root"] or "/", groups["trainer"], groups["config"], int(groups["shots"])
        ),
        dataset=groups["dataset"],
        subset=groups.get("subset") or "all",
        seed=int(groups["seed"]),
        accuracy=_last_accuracy(folder),
        rounded=True,
        folder=folder,
    )


def _last_accuracy(folder: Path) -> float:
    accuracy = None
    # Dassl starts log.txt-DATE when a run is started again, so the last name is the newest.
    for path in sorted(folder.glob("log.txt*")):
        is_test = True
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            split = _LOG_SPLIT.search(line)
            if split:
                is_test = split[1] != "val"
            found = _LOG_ACCURACY.match(line)
            if found and is_test:
                accuracy = float(found[1])
    if accuracy is None:
        raise ValueError("log.txt has no test accuracy: the run has not finished")
    return accuracy


def summarise(runs: Iterable[Run]) -> list[Row]:
    """Pair base and new runs by seed and average over seeds (PROTOCOL section 6).

    The mean of H is the harmonic mean of the averaged base and new accuracy, over the seeds that
    have both; its standard deviation is that of the per-seed harmonic means. Missing runs and
    unequal seed sets are reported as warnings.

    Args:
        runs: what `collect` returns.

    Returns:
        One row per setting and dataset; after the rows of a setting with several datasets, their
        average (left out, with a warning, where a dataset lacks a value).
    """
    rows = []
    for setting, datasets in sorted(_by_setting(runs).items()):
        block = [
            _row(setting, dataset, datasets[dataset]) for dataset in sorted(datasets, key=str.lower)
        ]
        rows += block
        if len(block) > 1:
            average = _average(block)
            rows += [average] if average.stats else []
    return rows


def _by_setting(runs: Iterable[Run]) -> dict[Setting, dict[str, dict[str, dict[int, Run]]]]:
    """Return the runs as [setting][dataset][subset][seed]."""
    table = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for run in runs:
        kept = table[run.setting][run.dataset][run.subset].setdefault(run.seed, run)
        if kept is not run:
            logger.warning("the same run twice: %s is used, %s is not", kept.folder, run.folder)
    return table


def _row(setting: Setting, dataset: str, subsets: Mapping[str, Mapping[int, Run]]) -> Row:
    accuracies = {
        subset: {seed: runs[seed].accuracy for seed in sorted(runs)}
        for subset, runs in subsets.items()
    }
    stats = {subset: _stat(values.values()) for subset, values in accuracies.items()}
    base, new = accuracies.get("base", {}), accuracies.get("new", {})
    pairs = [(base[seed], new[seed]) for seed in base if seed in new]
    if pairs:
        per_seed = _stat([harmonic_mean(pair) for pair in pairs])
        mean = harmonic_mean([fmean(column) for column in zip(*pairs, strict=True)])
        stats["H"] = Stat(mean, per_seed.std, per_seed.count)
    _warn_unpaired(dataset, subsets)
    return Row(
        setting=setting,
        dataset=dataset,
        seeds={subset: tuple(values) for subset, values in accuracies.items()},
        stats=stats,
        rounded=any(run.rounded for runs in subsets.values() for run in runs.values()),
    )


def _stat(values: Iterable[float]) -> Stat:
    values = list(values)
    return Stat(fmean(values), pstdev(values), len(values))


def _warn_unpaired(dataset: str, subsets: Mapping[str, Mapping[int, Run]]) -> None:
    for have, lack, swap in (
        ("base", "new", ("/train_base/", "/test_new/")),
        ("new", "base", ("/test_new/", "/train_base/")),
    ):
        for seed, run in sorted(subsets.get(have, {}).items()):
            if seed in subsets.get(lack, {}):
                continue
            folder = run.folder.as_posix()
            expected = folder.replace(*swap)
            where = f" in {expected}" if expected != folder else f" to go with {folder}"
            logger.warning(
                "%s, seed %d: no finished run on the %s classes%s; H leaves this seed out",
                *(dataset, seed, lack, where),
            )


def _average(block: Sequence[Row]) -> Row:
    """Return the mean over datasets; H is that of the averaged base and new accuracy."""
    setting = block[0].setting
    label = f"{setting.trainer}, {setting.config}, {setting.shots} shots"
    stats = {}
    for subset in SUBSETS:
        lacking = [row.dataset for row in block if subset not in row.stats]
        if not lacking:
            stats[subset] = Stat(fmean(row.stats[subset].mean for row in block), None, len(block))
        elif len(lacking) < len(block):
            logger.warning(
                "%s: no average of '%s', which lacks %s", label, subset, ", ".join(lacking)
            )
    if "base" in stats and "new" in stats:
        mean = harmonic_mean([stats["base"].mean, stats["new"].mean])
        stats["H"] = Stat(mean, None, len(block))
    seed_sets = {seeds for row in block for seeds in row.seeds.values()}
    if stats and len(seed_sets) > 1:
        lists = " / ".join(" ".join(map(str, seeds)) for seeds in sorted(seed_sets))
        logger.warning("%s: the average mixes different seeds (%s)", label, lists)
    return Row(
        setting=setting,
        dataset=f"average of {len(block)}",
        seeds=block[0].seeds if len(seed_sets) == 1 else {},
        stats=stats,
        rounded=any(row.rounded for row in block),
    )


def render(rows: Sequence[Row], fmt: str = "simple", *, ci95: bool = False) -> str:
    """Lay the rows out as one table.

    Args:
        rows: what `summarise` returns.
        fmt: one of `FORMATS`. "csv" has one column per number and no note; in "latex" the note
            is a comment.
        ci95: show half the 95 % interval, 1.96 std / sqrt(seeds), in place of std.

    Returns:
        The table and, except for "csv", the note that says what the numbers are.

    Raises:
        UserError: `fmt` is unknown.
    """
    if fmt not in FORMATS:
        raise UserError(f"unknown table format '{fmt}'. Choices: {', '.join(FORMATS)}.")
    if fmt == "csv":
        return _render_csv(rows, ci95)
    columns = _columns(rows)
    is_latex = fmt == "latex"
    body = [
        [*_labels(row, rows, is_latex), *(_cell(row.stats.get(c), ci95, is_latex) for c in columns)]
        for row in rows
    ]
    table = tabulate(
        body,
        headers=[*_label_names(rows), *columns],
        tablefmt="latex_raw" if is_latex else fmt,
        disable_numparse=True,
    )
    note = footnote(rows, ci95=ci95).splitlines()
    return "\n".join([table, "", *(f"% {line}" if is_latex else line for line in note)])


def footnote(rows: Sequence[Row], *, ci95: bool = False) -> str:
    """Return the lines under the table: what the numbers in `rows` are."""
    spread = "95 % interval, 1.96 std / sqrt(seeds)" if ci95 else "population standard deviation"
    lines = [f"Top-1 accuracy in %: mean +- {spread} over seeds (std is np.std, population)."]
    if "H" in _columns(rows):
        lines.append(
            "H: harmonic mean of the averaged base and new accuracy, as in published tables, over"
            " the seeds that have both; its +- is over the per-seed harmonic means."
        )
    if any(_is_average(row) for row in rows):
        lines.append("average: mean over datasets; its H is that of the two averages.")
    if any(row.rounded for row in rows):
        lines.append("*: from accuracies that a log.txt gives rounded (one decimal as a rule).")
    return "\n".join(lines)


def _is_average(row: Row) -> bool:
    return any(stat.std is None for stat in row.stats.values())


def _columns(rows: Sequence[Row]) -> list[str]:
    present = {name for row in rows for name in row.stats}
    columns = ["base", "new", "H"] if present & {"base", "new"} else []
    return columns + ["all"] * ("all" in present)


def _label_names(rows: Sequence[Row]) -> list[str]:
    has_roots = len({row.setting.root for row in rows}) > 1
    return ["output"] * has_roots + ["trainer", "config", "shots", "dataset", "seeds"]


def _labels(row: Row, rows: Sequence[Row], is_latex: bool) -> list[str]:
    values = {
        "output": _shorten(row.setting.root),
        "trainer": row.setting.trainer,
        "config": row.setting.config,
        "shots": str(row.setting.shots),
        "dataset": row.dataset + "*" * row.rounded,
        "seeds": _seed_text(row.seeds),
    }
    labels = [values[name] for name in _label_names(rows)]
    return [re.sub(r"([_%&#$])", r"\\\1", label) for label in labels] if is_latex else labels


def _shorten(root: str) -> str:
    path, here = Path(root), Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else root


def _seed_text(seeds: Mapping[str, tuple[int, ...]]) -> str:
    texts = {subset: " ".join(map(str, seeds[subset])) for subset in SUBSETS if subset in seeds}
    if len(set(texts.values())) <= 1:
        return next(iter(texts.values()), "mixed")
    return ", ".join(f"{subset} {text}" for subset, text in texts.items())


def _cell(stat: Stat | None, ci95: bool, is_latex: bool) -> str:
    if stat is None:
        return "-"
    spread = stat.spread(ci95)
    if spread is None:
        return f"{stat.mean:.2f}"
    return (
        f"${stat.mean:.2f} \\pm {spread:.2f}$" if is_latex else f"{stat.mean:.2f} +- {spread:.2f}"
    )


def _render_csv(rows: Sequence[Row], ci95: bool) -> str:
    columns = _columns(rows)
    spread_name = "ci95" if ci95 else "std"
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    numbers = [f"{name}_{what}" for name in columns for what in ("mean", spread_name)]
    writer.writerow(
        ["output", "trainer", "config", "shots", "dataset", "seeds", *numbers, "rounded"]
    )
    for row in rows:
        values = []
        for name in columns:
            stat = row.stats.get(name)
            pair = (stat.mean, stat.spread(ci95)) if stat else (None, None)
            values += ["" if value is None else f"{value:.4f}" for value in pair]
        labels = [_shorten(row.setting.root), *row.setting[1:], row.dataset, _seed_text(row.seeds)]
        writer.writerow([*labels, *values, "yes" if row.rounded else "no"])
    return out.getvalue().rstrip("\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(
        prog="python -m dplq.results",
        description="Print base, new and H (or all-class) accuracy of every finished run below the"
        " folders OUT: mean +- population standard deviation (np.std) over seeds. H is the"
        " harmonic mean of the averaged base and new accuracy; its deviation is over seeds.",
        epilog="Runs are folders DATASET/shots_N/TRAINER/CONFIG/seedS below train_base and test_new"
        " with a results.json, or with only a log.txt as CoOp and MaPLe write it (rounded).",
    )
    parser.add_argument("out", nargs="+", metavar="OUT", help="folder to search, e.g. output")
    parser.add_argument("--format", choices=FORMATS, default="simple", help="default: simple")
    parser.add_argument(
        "--ci95",
        action="store_true",
        help="95 %% interval, 1.96 std / sqrt(seeds), in place of the standard deviation",
    )
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        rows = summarise(collect(args.out))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(render(rows, args.format, ci95=args.ci95))
    if args.format == "csv":
        print(footnote(rows, ci95=args.ci95), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
