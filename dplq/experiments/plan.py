"""A plan: the runs of an experiment, each a command line, in an order that satisfies all needs.

Each run is recorded in its folder as the scripts record theirs (``settings.txt``), so that either
continues what the other began.
"""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from dplq.errors import UserError, few
from dplq.experiments.recorded import RecordedSettings, has_results, holds_work
from dplq.experiments.requests.values import for_any_folder
from dplq.io.files import checkout
from dplq.io.imports import import_words
from dplq.io.protocols import CONFIGS, config_file
from dplq.io.runs.files import RESULTS_FILE

PYTHON_VARIABLE = "DPLQ_PYTHON"  # the program that runs are started with, if not this one
# `-c` adds the current folder as "".
START = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from dplq.__main__ import main; sys.exit(main())"
)
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # the bits of a byte


@dataclass(frozen=True)
class Run:
    """A training run, or with a model the test of one.

    Attributes:
        folder: of its results.
        dataset: a file of ``configs/datasets``, without its ending.
        trainer: a folder of ``configs/trainers``.
        config: a file in it, without its ending.
        seed: of the run.
        shots: training images per class; -1 for all.
        classes: "all", "base" or "new".
        data: folder of the datasets; None: a built-in dataset, which needs none.
        model: folder of the training run that is tested; None: this is one.
        options: config keys and values.
        imports: modules with trainers and datasets of a user's own, as `located` returns them.
    """

    folder: Path
    dataset: str
    trainer: str
    config: str
    seed: int
    shots: int
    classes: str
    data: Path | None = None
    model: Path | None = None
    options: tuple[tuple[str, str], ...] = ()
    imports: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Return what it is, such as ``train on the base classes of demo_aerial, seed 1``."""
        action = "train" if self.model is None else "test"
        classes = "all" if self.classes == "all" else f"the {self.classes}"
        return f"{action} on {classes} classes of {self.dataset}, seed {self.seed}"

    @property
    def is_finished(self) -> bool:
        """Return whether its results are there."""
        return has_results(self.folder)

    @property
    def holds_work(self) -> bool:
        """Return whether its folder has a result or a model, and not logs alone."""
        return holds_work(self.folder)

    @property
    def command(self) -> list[str]:
        """Return the command line, for any current directory."""
        return [*train_command(), *self.words]

    @property
    def words(self) -> list[str]:
        """Return the arguments of ``dplq train``, for any current directory."""
        arguments: dict[str, object] = {} if self.data is None else {"--root": self.data}
        dataset_file, config_file = self.config_files
        arguments |= {
            "--seed": self.seed,
            "--trainer": self.trainer,
            "--dataset-config-file": dataset_file,
            "--config-file": config_file,
            "--output-dir": self.folder,
        }
        test = [] if self.model is None else ["--model-dir", str(self.model), "--eval-only"]
        words = [str(word) for pair in arguments.items() for word in pair]
        return [*words, *test, *import_words(self.imports), *self.keys]

    @property
    def keys(self) -> list[str]:
        """Return the config keys and values of the command line, one after the other."""
        keys = {"DATASET.NUM_SHOTS": self.shots, "DATASET.SUBSAMPLE_CLASSES": self.classes}
        given = ((key, for_any_folder(key, value)) for key, value in self.options)
        return [str(word) for pair in (*keys.items(), *given) for word in pair]

    def settings(self) -> str:
        """Return what determines its result, a line each; a tested model has to be finished."""
        dataset_sum, config_sum = map(_config_checksum, self.config_files)
        lines = [
            f"dataset {self.dataset} (file {dataset_sum})",
            f"trainer {self.trainer}",
            f"config {self.config} (file {config_sum})",
            f"data {self.data or ''}",
            f"shots {self.shots}",
            f"classes {self.classes}",
            f"seed {self.seed}",
        ]
        if self.model is not None:  # retraining a model invalidates the tests of the old one
            lines.append(f"model {RESULTS_FILE} {posix_checksum(self.model / RESULTS_FILE)}")
        return "\n".join([*lines, *(f"{key} {value}" for key, value in self.options)])

    def check_folder(self, recorded: RecordedSettings | None = None) -> None:
        """Refuse a folder, or seeds beside it, made with other settings.

        Args:
            recorded: what was read of the folders before, for many runs that nobody changes.

        Raises:
            UserError: they were.
        """
        lines = self.settings().splitlines()
        (recorded or RecordedSettings()).check(self.folder, lines, self.model)

    @cached_property
    def config_files(self) -> tuple[Path, Path]:
        """Return the config files of the dataset and of the trainer."""
        place = f"trainers/{self.trainer}"
        return config_file("datasets", self.dataset), config_file(place, self.config)


@dataclass(frozen=True)
class TableRequest:
    """A table of results at the end.

    Attributes:
        title: of the table, where there are several.
        folders: that it is made of; those that are not there are left out.
        flags: of ``dplq results``.
    """

    title: str
    folders: Sequence[Path]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The runs of an experiment.

    Attributes:
        runs: in an order in which a run follows the one whose model it tests.
        folders: of the tables.
        tables: at the end.
        notes: what is to be known of the plan, a line each.
        out: folder of all results; None: they have none in common.
    """

    runs: Sequence[Run] = field(default_factory=list)
    folders: Sequence[Path] = field(default_factory=list)
    tables: Sequence[TableRequest] = ()
    notes: Sequence[str] = ()
    out: Path | None = None


def merge(plans: Iterable[Plan]) -> Plan:
    """Return one plan of several; what they share is done once.

    Raises:
        UserError: two of their runs differ, but have the same folder.
    """
    runs: dict[Path, Run] = {}
    folders: dict[Path, None] = {}
    tables: list[TableRequest] = []
    notes: dict[str, None] = {}
    for plan in plans:
        for run in plan.runs:
            same = runs.setdefault(run.folder, run)
            if same is not run and same != run:
                raise UserError(
                    f"Two runs would share the folder {run.folder}, but differ "
                    f"({few(_differences(same, run))}): give their settings other names."
                )
        folders |= dict.fromkeys(plan.folders)
        notes |= dict.fromkeys(plan.notes)
        tables += plan.tables
    return Plan(list(runs.values()), list(folders), tables, list(notes))


def replaced_files(runs: Iterable[Run]) -> list[str]:
    """Return a line for each config file of a user's own that the project has one like."""
    used = dict.fromkeys(path for run in runs for path in run.config_files)
    found = []
    for path in used:
        name = "/".join(path.parts[-2:] if path.parent.name == "datasets" else path.parts[-3:])
        if path != CONFIGS / name and (CONFIGS / name).is_file():
            found.append(f"{path} is used in place of the project's own configs/{name}")
    return found


def _differences(one: Run, other: Run) -> list[str]:
    """Return the settings of two runs that only one of them has, or the names of other fields."""
    options = sorted(set(one.options) ^ set(other.options))
    names = ("dataset", "trainer", "config", "seed", "shots", "classes", "data", "model", "imports")
    fields = [name for name in names if getattr(one, name) != getattr(other, name)]
    return [*fields, *(f"{key} {value}" for key, value in options)]


def train_command() -> list[str]:
    """Return the words that start `dplq train` with this process's modules, in any folder.

    In a checkout that is its train.py; else not ``-m``, which puts the current folder on the path,
    where another Dassl may be. `PYTHON_VARIABLE` names another program than this one.
    """
    python = os.environ.get(PYTHON_VARIABLE) or sys.executable
    root = checkout()
    if root is not None and (root / "train.py").is_file():
        return [python, str(root / "train.py")]
    return [python, "-c", START, "train"]


def is_own_python() -> bool:
    """Return whether runs are started with the Python of this process."""
    given = os.environ.get(PYTHON_VARIABLE)
    if given is None or not (found := shutil.which(given)) or not sys.executable:
        return given is None
    same_folder = os.path.realpath(os.path.dirname(found)) == os.path.realpath(
        os.path.dirname(sys.executable)
    )
    return same_folder and os.path.samefile(found, sys.executable)


def posix_checksum(path: Path) -> str:
    """Return a file's checksum and size as the command ``cksum`` prints them."""
    content = path.read_bytes()
    length = len(content)
    size = length.to_bytes((length.bit_length() + 7) // 8, "little")
    # zlib's polynomial is the same; its bits run the other way, and its register starts with ones
    crc = zlib.crc32((content + size).translate(REVERSED), 0xFFFFFFFF)
    return f"{int(f'{crc:032b}'[::-1], 2)} {length}"


def _config_checksum(path: Path) -> str:
    """Return the checksum of a config file, which many runs share."""
    status = path.stat()
    return _checksum_of(path, status.st_mtime_ns, status.st_size)


@cache
def _checksum_of(path: Path, modified: int, size: int) -> str:
    return posix_checksum(path)
