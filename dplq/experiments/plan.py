"""A plan: the runs of an experiment, each a command line, in an order that satisfies all needs.

Each run is recorded in its folder as the scripts record theirs (``settings.txt``), so that either
continues what the other began.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from dplq.errors import UserError, few
from dplq.io.protocols import CONFIGS
from dplq.io.runs.files import MODEL_FOLDER, RESULTS_FILE, SETTINGS_FILE

CURE = "Give another --out, or remove that folder to make its run again."
# `-c` adds the current folder as "".
START = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from dplq.__main__ import main; sys.exit(main())"
)
POLYNOMIAL = 0x04C11DB7  # of the checksum of POSIX


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

    @property
    def title(self) -> str:
        """Return what it is, such as ``train on the base classes of demo_aerial, seed 1``."""
        action = "train" if self.model is None else "test"
        classes = "all" if self.classes == "all" else f"the {self.classes}"
        return f"{action} on {classes} classes of {self.dataset}, seed {self.seed}"

    @property
    def is_finished(self) -> bool:
        """Return whether its results are there."""
        path = self.folder / RESULTS_FILE
        return path.is_file() and path.stat().st_size > 0

    @property
    def holds_work(self) -> bool:
        """Return whether its folder has a result or a model, and not logs alone."""
        return _holds_work(self.folder)

    @property
    def command(self) -> list[str]:
        """Return the command line, for any current directory."""
        arguments: dict[str, object] = {
            "--seed": self.seed,
            "--trainer": self.trainer,
            "--dataset-config-file": self._dataset_file,
            "--config-file": self._config_file,
            "--output-dir": self.folder,
        }
        if self.data is not None:
            arguments["--root"] = self.data
        test = [] if self.model is None else ["--eval-only", "--model-dir", str(self.model)]
        keys = {"DATASET.NUM_SHOTS": self.shots, "DATASET.SUBSAMPLE_CLASSES": self.classes}
        words = [str(word) for pair in arguments.items() for word in pair]
        options = [str(word) for pair in (*keys.items(), *self.options) for word in pair]
        return [*_dplq(), "train", *words, *test, *options]

    def settings(self) -> str:
        """Return what determines its result, a line each; a tested model has to be finished."""
        lines = [
            f"dataset {self.dataset} (file {posix_checksum(self._dataset_file)})",
            f"trainer {self.trainer}",
            f"config {self.config} (file {posix_checksum(self._config_file)})",
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
        recorded = recorded or RecordedSettings()
        wanted = self.settings().splitlines()
        had = recorded.of_work(self.folder)
        if had is not None:
            if not had:
                raise UserError(
                    f"{self.folder} holds files but no {SETTINGS_FILE}: how they were made is "
                    f"unknown. {CURE}"
                )
            _refuse_difference(self.folder, had, wanted)
        for other, settings in recorded.of_seeds(self.folder.parent):  # seeds are averaged
            _refuse_difference(other, settings, wanted, but=("seed ", "model "))

    @cached_property
    def _dataset_file(self) -> Path:
        return CONFIGS / "datasets" / f"{self.dataset}.yaml"

    @cached_property
    def _config_file(self) -> Path:
        return CONFIGS / "trainers" / self.trainer / f"{self.config}.yaml"


@dataclass(frozen=True)
class Plan:
    """The runs of an experiment, in their order, and the folders that its table is made of."""

    runs: Sequence[Run] = field(default_factory=list)
    folders: Sequence[Path] = field(default_factory=list)


def _dplq() -> list[str]:
    """Return the words that start `dplq` in a new process with this one's modules.

    ``-m`` puts the current folder on the path, where another Dassl may be.
    """
    if any(os.path.abspath(entry) == os.getcwd() for entry in sys.path):
        return [sys.executable, "-m", "dplq"]
    return [sys.executable, "-c", START]


def posix_checksum(path: Path) -> str:
    """Return a file's checksum and size as the command ``cksum`` prints them."""
    content = path.read_bytes()
    length = len(content)
    size = length.to_bytes((length.bit_length() + 7) // 8, "little")
    crc = 0
    for byte in content + size:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ POLYNOMIAL if crc & 0x80000000 else crc << 1
        crc &= 0xFFFFFFFF
    return f"{crc ^ 0xFFFFFFFF} {length}"


def _holds_work(folder: Path) -> bool:
    return any(os.path.lexists(f"{folder}/{name}") for name in (RESULTS_FILE, MODEL_FOLDER))


def _refuse_difference(
    folder: Path, had: list[str], wanted: list[str], but: tuple[str, ...] = ()
) -> None:
    changed = [*_without(had, wanted, but, "there"), *_without(wanted, had, but, "now")]
    if changed:
        raise UserError(f"{folder} was made with other settings ({few(changed)}). {CURE}")


def _without(
    lines: list[str], others: list[str], but: tuple[str, ...], where: str
) -> Iterator[str]:
    """Yield the lines that are not among the others, marked with where they are."""
    for line in lines:
        if line not in others and not line.startswith(but or "\n"):
            yield f"{where}: {line}"


class RecordedSettings:
    """The settings of runs that have done work, as their folders record them; each read once."""

    def __init__(self) -> None:
        self.of_work = cache(_recorded_settings)
        self.of_seeds = cache(self._of_seeds)

    def _of_seeds(self, folder: Path) -> list[tuple[Path, list[str]]]:
        """Return the folders of seeds in a folder that hold work, and their settings."""
        try:
            names = sorted(name for name in os.listdir(folder) if name.startswith("seed"))
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = [(folder / name, self.of_work(folder / name)) for name in names]
        return [(path, settings) for path, settings in found if settings]


def _recorded_settings(folder: Path) -> list[str] | None:
    """Return the lines of a folder's ``settings.txt``, [] without; None where no work is done."""
    if not _holds_work(folder):
        return None
    try:
        text = (folder / SETTINGS_FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.rstrip("\n").splitlines()
