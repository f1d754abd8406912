"""Finished runs: finding and parsing their results.

A run is a folder that holds a ``results.json`` (written by ``train.py`` when a test ends), or a
Dassl ``log.txt`` as CoOp and MaPLe write it. Neither torch nor Dassl is imported.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from dplq.errors import UserError, few, printable
from dplq.evaluation.fit import fit_problem
from dplq.evaluation.hits import decode_hits
from dplq.io.runs.files import RESULTS_FILE, SETTINGS_FILE
from dplq.io.runs.results import SUBSETS as TESTED
from dplq.io.runs.results import Results, read_results
from dplq.io.validation.paths import is_file, name_problem, user_path
from dplq.results import ACCURACY, METRICS

logger = logging.getLogger(__name__)

GENERALISED = ("gen. base", "gen. new")  # the halves of a test of all classes together
SUBSETS = (*TESTED, *GENERALISED)
PAIRS = {"H": ("base", "new"), "gen. H": GENERALISED}  # harmonic means, and what they are of
# What results.json of earlier versions, and logs, do not say of their trainer.
ZERO_SHOT = ("ZeroshotCLIP", "ZeroshotCLIP2")
CLOSED_SET = ("LinearProbe",)

COSTS = {  # name -> key in results.json
    "learnable_parameters": "learnable_parameters",
    "seconds_per_step": "seconds.step",
    "peak_memory_mib": "peak_memory_mib",
    "checkpoint_bytes": "checkpoint_bytes",
}
# which say nothing of the method where frozen features were read from the cache
CACHED_COSTS = ("seconds_per_step", "peak_memory_mib")

# CoOp's own scripts have the folder nctx16_cscFalse_ctpend below that of the config.
_TRAINED = (
    r"(?P<trainer>[^/]+)/(?P<config>[^/]+)_(?P<shots>-?\d+)shots(?:/(?P<variant>nctx\d+_[^/]+))?"
)
_TARGET = r"(?P<dataset>(?!nctx\d+_)[^/]+)"
_LAYOUTS = (
    # scripts/base2new.sh of CoOp and MaPLe: train_base/DATASET/shots_N/TRAINER/CFG/seedS
    re.compile(
        r"(?P<root>.*?)(?:/(?:train|test)_(?P<subset>base|new|all))?/(?P<dataset>[^/]+)"
        r"/shots_(?P<shots>-?\d+)/(?P<trainer>[^/]+)/(?P<config>[^/]+)/seed(?P<seed>\d+)"
    ),
    # their scripts/xd_test.sh and scripts/coop/eval.sh: evaluation/TRAINER/CFG_Nshots/DATASET/seedS
    re.compile(rf"(?P<root>.*/evaluation(?:/[^/]+)*?)/{_TRAINED}/{_TARGET}/seed(?P<seed>\d+)"),
    # their scripts/coop/main.sh and xd_train.sh: DATASET/TRAINER/CFG_Nshots/seedS
    re.compile(rf"(?P<root>.*?)/(?P<dataset>[^/]+)/{_TRAINED}/seed(?P<seed>\d+)"),
    # that of xd_test.sh in a folder of another name
    re.compile(rf"(?P<root>.*)/{_TRAINED}/{_TARGET}/seed(?P<seed>\d+)"),
)
_LOG_ACCURACY = re.compile(r"^\* accuracy: ([\d.]+)%")
_LOG_SPLIT = re.compile(r"evaluat\w+ on (?:the )?\*?(\w+)\*? set", re.IGNORECASE)


class Tested(NamedTuple):
    """What was tested, and which images were right; two runs are of the same images, or differ."""

    split: str  # its hash
    total: int
    hits: str  # as `decode_hits` reads it


class Setting(NamedTuple):
    """Experiment, trainer, config and shots, which the rows of a block share."""

    root: str  # the folder above train_base / test_new
    trainer: str
    config: str
    shots: int


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        setting: its folder, trainer, config folder and shots.
        dataset: name of the dataset.
        subset: one of `SUBSETS`: the classes that were tested.
        seed: its seed.
        accuracy: top-1 accuracy in percent, or another of `METRICS`.
        metrics: those of `METRICS` that it has, in percent.
        rounded: True when read from a log, which prints one decimal.
        folder: the output folder of the run.
        costs: any of `COSTS`; nothing when read from a log, none of `CACHED_COSTS` where `cached`.
        device: device and precision, e.g. "cpu, fp32"; "" when read from a log.
        zero_shot: its trainer uses no training image.
        any_classes: its trainer can name classes that it was not trained on.
        cached: its training took frozen features from the cache.
        problem: of its training, as `fit_problem` has it; mostly "".
        tested: its images, where results.json says which were right.
        split: hash of the dataset's split; "" where it is not known.
        config: of the run; empty where it is not known.
    """

    setting: Setting
    dataset: str
    subset: str
    seed: int
    accuracy: float
    rounded: bool
    folder: Path
    metrics: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    device: str = ""
    zero_shot: bool = False
    any_classes: bool = True
    cached: bool = False
    problem: str = ""
    tested: Tested | None = None
    split: str = ""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def one_each(
    runs: Iterable[Run], warning: str, key_of: Callable[[Run], Any] | None = None
) -> dict[Any, Run]:
    """Return the runs by key, in their order; of two with one key the second is left out.

    Args:
        runs: what `collect` returns.
        warning: beginning of the line about a run that is left out.
        key_of: None: setting, dataset, subset and seed.
    """
    found: dict[Any, Run] = {}
    for run in runs:
        key = key_of(run) if key_of else (run.setting, run.dataset, run.subset, run.seed)
        kept = found.setdefault(key, run)
        if kept is not run:
            logger.warning("%s: %s is used, %s is not", warning, kept.folder, run.folder)
    return found


def warn_of_mixed_data(runs: Iterable[Run]) -> None:
    """Warn of datasets of one name whose runs are of several splits, such as two own datasets.

    Args:
        runs: of one line of a table, or of one curve.
    """
    found: dict[str, dict[str, Path]] = {}
    for run in runs:
        if run.split:
            found.setdefault(run.dataset, {}).setdefault(run.split, run.folder)
    for dataset, folders in found.items():
        if len(folders) > 1:
            logger.warning(
                "%s: these runs are of %d splits or sets of images, and are averaged or joined as "
                "if they were of one; one run of each: %s. Give the folders of one",
                *(dataset, len(folders), few(sorted(map(str, folders.values())), 3)),
            )


def collect(paths: Iterable[str | os.PathLike[str]], metric: str = ACCURACY) -> list[Run]:
    """Read every finished run below the given folders.

    A run that cannot be read, or has not finished, is skipped with a warning that names it.

    Args:
        paths: folders; one inside another is not counted twice.
        metric: one of `METRICS`, which stands for the accuracy; a run without it is skipped.

    Returns:
        The runs, in the order of their folders.

    Raises:
        UserError: a path is no folder, or no finished run was found.
    """
    roots = [user_path(path, "OUT") for path in paths]
    for root in roots:
        if not root.is_dir():
            raise UserError(f"no folder {root}: give output folders, for example output/base2new")
    runs: dict[Path, list[Run]] = {}
    for folder, read in _candidates(roots):
        if folder in runs:
            continue
        try:
            _require_printable(folder)
            runs[folder] = read(folder, metric)
        except (OSError, ValueError, UserError) as error:
            logger.warning("skipped %s: %s", printable(str(folder)), error)
    if not runs:
        searched = ", ".join(map(str, roots))
        raise UserError(
            f"no finished run ({RESULTS_FILE}, or a log.txt with a test accuracy) below {searched}"
        )
    return [run for found in runs.values() for run in found]


def _require_printable(folder: Path) -> None:
    """Raise ValueError if a name on a run's path cannot stand in a table."""
    for name in folder.parts:
        if problem := name_problem(name):
            raise ValueError(f"the name '{printable(name)}' {problem}")


def _warn_of_folder(error: OSError) -> None:
    name = printable(os.fsdecode(error.filename))
    logger.warning("%s cannot be searched: %s", name, error.strerror)


def _candidates(paths: Iterable[Path]) -> Iterator[tuple[Path, Any]]:
    """Yield the folder of every run, with the function that parses it."""
    for path in paths:
        for name, folders, files in os.walk(path.resolve(), onerror=_warn_of_folder):
            folders.sort()
            if RESULTS_FILE in files:
                yield Path(name), _read_results
            elif "log.txt" in files:
                yield Path(name), _read_logs


def _read_results(folder: Path, metric: str) -> list[Run]:
    """Parse a results.json; a generalised test is two runs, one for each half.

    Raises:
        UserError: it is not valid.
        ValueError: it is about another split than test, or has no such metric.
    """
    results = read_results(folder / RESULTS_FILE)
    if results.split != "test":
        raise ValueError(f"{RESULTS_FILE} is about the {results.split} split, not test")
    root, config = _experiment(folder)
    trainer, layout, trained = results.trainer, match_layout(folder), results.train_accuracy
    metrics, of_accuracy = _metrics(results), metric == ACCURACY
    if metric not in metrics:
        raise ValueError(f"{RESULTS_FILE} has no {metric}: test again to have it")
    values: dict[str, dict[str, float]] = {results.subsample: metrics}
    if of_accuracy and results.generalised and layout and layout.groupdict().get("subset") == "all":
        both = (results.generalised.base, results.generalised.new)
        values = {half: {ACCURACY: v} for half, v in zip(GENERALISED, both, strict=True)}
    return [
        Run(
            setting=Setting(root, trainer, config, results.shots),
            dataset=results.dataset,
            subset=subset,
            seed=results.seed,
            accuracy=of_subset[metric],
            rounded=False,
            folder=folder,
            metrics=of_subset,
            costs=_costs(results),
            device=", ".join(filter(None, (results.device, results.precision))),
            zero_shot=_known(results.zero_shot, trainer in ZERO_SHOT),
            any_classes=_known(results.any_classes, trainer not in CLOSED_SET),
            cached=bool(results.seconds.cached_batches),
            problem=fit_problem(trained.start, trained.end) if trained else "",
            tested=_tested(results) if of_accuracy and subset not in GENERALISED else None,
            split=results.split_hash or "",
            config=results.config,
        )
        for subset, of_subset in values.items()
    ]


def _metrics(results: Results) -> dict[str, float]:
    """Return those of `METRICS` that a results.json holds, in percent."""
    of_probabilities = {
        name: 100 * value
        for name in METRICS
        if isinstance(value := (results.metrics or {}).get(name), (int, float))
        and not isinstance(value, bool)
        and 0 <= value <= 1
    }
    return {**of_probabilities, ACCURACY: results.accuracy}


def _tested(results: Results) -> Tested | None:
    """Return which images were right, where they are independent: not those of patients or sites.

    Raises:
        ValueError: they contradict their number.
    """
    if not results.hits or not results.total or not results.split_hash:
        return None
    decode_hits(results.hits, results.total)
    intervals = (results.metrics or {}).get("intervals")
    if isinstance(intervals, dict) and intervals.get("over") == "groups":
        return None
    return Tested(results.split_hash, results.total, results.hits)


def _known(said: bool | None, otherwise: bool) -> bool:
    return otherwise if said is None else said


def _costs(results: Results) -> dict[str, float]:
    """Return those of `COSTS` that a results.json holds, and that are the method's own."""
    left_out = CACHED_COSTS if results.seconds.cached_batches else ()
    costs = {name: attrgetter(key)(results) for name, key in COSTS.items() if name not in left_out}
    return {name: float(value) for name, value in costs.items() if value is not None}


def match_layout(folder: Path) -> re.Match[str] | None:
    """Match a run's folder: groups root, dataset, shots, trainer, config, seed, maybe subset."""
    matches = (layout.fullmatch(folder.as_posix()) for layout in _LAYOUTS)
    return next(filter(None, matches), None)


def _config_of(match: re.Match[str]) -> str:
    """Return the name of a config folder, with what CoOp's scripts/coop/main.sh adds to it."""
    return "_".join(filter(None, (match["config"], match.groupdict().get("variant"))))


def _experiment(folder: Path) -> tuple[str, str]:
    """Return the experiment's folder and the config folder's name."""
    match = match_layout(folder)
    if match:
        return match["root"] or "/", _config_of(match)
    if re.fullmatch(r"seed\d+", folder.name):
        folder = folder.parent
    return folder.parent.as_posix(), folder.name


def _read_logs(folder: Path, metric: str) -> list[Run]:
    """Parse a Dassl log; raise ValueError where its run has not finished."""
    match = match_layout(folder)
    if metric != ACCURACY:
        raise ValueError(f"a log.txt has no {metric}")
    if (folder / SETTINGS_FILE).exists():
        raise ValueError(f"not finished (a log.txt but no {RESULTS_FILE})")
    if match is None:
        raise ValueError("log.txt is not in a folder DATASET/shots_N/TRAINER/CONFIG/seedS")
    groups = match.groupdict()
    accuracy = _last_accuracy(folder)
    run = Run(
        setting=Setting(
            groups["root"] or "/", groups["trainer"], _config_of(match), int(groups["shots"])
        ),
        dataset=groups["dataset"],
        subset=groups.get("subset") or "all",
        seed=int(groups["seed"]),
        accuracy=accuracy,
        rounded=True,
        folder=folder,
        metrics={ACCURACY: accuracy},
        zero_shot=groups["trainer"] in ZERO_SHOT,
        any_classes=groups["trainer"] not in CLOSED_SET,
    )
    return [run]


def _last_accuracy(folder: Path) -> float:
    """Return the last test accuracy in a folder's logs."""
    accuracy = None
    # Dassl starts log.txt-DATE when a run is started again, so the last name is the newest.
    for path in sorted(folder.glob("log.txt*")):
        is_test = True
        is_file(path)  # raises for a pipe, which would never end
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            split = _LOG_SPLIT.search(line)
            if split:
                is_test = split[1] != "val"
            found = _LOG_ACCURACY.match(line)
            if found and is_test:
                accuracy = float(found[1])
    if accuracy is not None and not 0 <= accuracy <= 100:
        raise ValueError(f"log.txt has a test accuracy of {accuracy} %")
    if accuracy is None:
        raise ValueError("log.txt has no test accuracy: the run has not finished")
    return accuracy
