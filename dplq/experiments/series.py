"""Runs that differ in seed, classes and test data alone: what a protocol makes its plan of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dplq.experiments.plan import Run
from dplq.experiments.protocols import has_property
from dplq.io.protocols import is_built_in

OF_ONE_DATASET = ("DATASET.SPLIT_FILE", "DATASET.COLUMNS.", "DATASET.GROUP")


@dataclass(frozen=True)
class Series:
    """A trainer with a config on a dataset.

    Attributes:
        dataset: a file of ``configs/datasets``, without its ending.
        trainer: a folder of ``configs/trainers``.
        config: a file in it, without its ending.
        seeds: of the runs.
        out: folder of all results.
        shots: training images per class; -1 for all.
        data: folder of the datasets, which built-in ones are not in; None: there is none.
        options: config keys and values.
        variant: name of the options, a part of the folder's name; "" for none.
        imports: modules of a user's own.
    """

    dataset: str
    trainer: str
    config: str
    seeds: Sequence[int]
    out: Path
    shots: int = 16
    data: Path | None = None
    options: tuple[tuple[str, str], ...] = ()
    variant: str = ""
    imports: tuple[str, ...] = ()

    @cached_property
    def config_folder(self) -> str:
        """Return the name of the config's folder, in which no other options are."""
        return f"{self.config}@{self.variant}" if self.variant else self.config

    @cached_property
    def place(self) -> Path:
        """Return the folder of training runs, relative to that of their kind."""
        return Path(self.dataset, f"shots_{self.shots}", self.trainer, self.config_folder)

    @cached_property
    def names_any_class(self) -> bool:
        """Return whether the trainer can classify classes that it was not trained on."""
        return has_property(self.trainer, "any_classes")

    @property
    def notes(self) -> list[str]:
        """Return what is to be known of the trainer."""
        if self.names_any_class:
            return []
        return [f"{self.trainer} cannot name other classes than its own: no test on them"]

    def train(self, folder: Path, seed: int, classes: str) -> Run:
        """Return a training run, in the folder of its seed below another."""
        return self._run(folder, seed, classes, self.dataset, None)

    def test(self, folder: Path, trained: Run, classes: str, dataset: str = "") -> Run:
        """Return the test of a training run, on its own dataset where no other is named."""
        return self._run(folder, trained.seed, classes, dataset or self.dataset, trained.folder)

    @property
    def own_keys(self) -> list[str]:
        """Return the given config keys that say how the images of its own dataset are split."""
        return [key for key, value in self.options if _is_of_one_dataset(key, value)]

    def _run(self, folder: Path, seed: int, classes: str, dataset: str, model: Path | None) -> Run:
        own = self.own_keys if dataset != self.dataset else ()
        return Run(
            folder=folder / f"seed{seed}",
            dataset=dataset,
            trainer=self.trainer,
            config=self.config,
            seed=seed,
            shots=self.shots,
            classes=classes,
            data=None if is_built_in(dataset) else self.data,
            model=model,
            options=tuple(pair for pair in self.options if pair[0] not in own),
            imports=self.imports,
        )


def _is_of_one_dataset(key: str, value: str) -> bool:
    """Return whether a config key makes sense for the files of one dataset alone."""
    return key.startswith(OF_ONE_DATASET) and value != "none"
