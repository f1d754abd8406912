"""What the page of a run is made of: its files, and what is loaded when a section needs it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dplq.errors import UserError
from dplq.evaluation.prediction_table import PredictionTable
from dplq.images.settings import ReadSettings, read_settings
from dplq.io.runs.files import MODEL_FOLDER, RESULTS_FILE
from dplq.io.runs.results import Results, read_results

if TYPE_CHECKING:
    from PIL import Image

    from dplq.io.header import ModelHeader
    from dplq.methods.base import CLIPModel


TOLERANCE = 0.01  # points of accuracy by which two files of one test may differ


@dataclass(frozen=True)
class Options:
    """What a page has.

    Attributes:
        images: pictures, and the paths and groups of images; without them a page names images by
            their line in ``predictions.csv`` alone.
        explanations: sections that run the model.
        root: folder of the dataset, where it is no longer at `DATASET.ROOT`.
        changed: config keys that differ from their defaults, dotted, with their values; None where
            the defaults are not known.
    """

    images: bool = True
    explanations: bool = True
    root: Path | None = None
    changed: Mapping[str, Any] | None = None


def _refuse_other_accuracy(
    path: Path, predictions: PredictionTable, file: Path, results: Results
) -> None:
    """Refuse (UserError) predictions that are not those of the results."""
    known = predictions.labels >= 0
    if results.total is None or not known.all():
        return
    found = 100 * float((predictions.labels == predictions.predictions).mean())
    if abs(found - results.accuracy) > TOLERANCE:
        raise UserError(
            f"{path} has an accuracy of {found:.2f} %, {file.name} {results.accuracy:.2f} %: they "
            "are not of one test. Delete both, and test again (--eval-only)."
        )


@dataclass
class RunPage:
    """A finished test of a run.

    Attributes:
        folder: of the run.
        file: its ``results.json``, or ``results-DATASET-CLASSES-SPLIT.json``.
        results: what that says.
        predictions: of each image; None where the run wrote none.
        options: what the page has.
    """

    folder: Path
    file: Path
    results: Results
    predictions: PredictionTable | None = None
    options: Options = field(default_factory=Options)

    @classmethod
    def read(cls, path: Path, options: Options | None = None) -> RunPage:
        """Return the page of a run's folder, or of one ``results*.json``.

        Raises:
            UserError: the run has no results, or a file is damaged.
        """
        file = path / RESULTS_FILE if path.is_dir() else path
        if not file.is_file():
            raise UserError(
                f"{path} holds no {RESULTS_FILE}: the run has not finished, or has not been "
                "tested. The command that began it resumes it."
            )
        results = read_results(file)
        beside = predictions_of(file)
        table = PredictionTable.read(beside) if beside.is_file() else None
        if table is not None and results.total not in (None, len(table.paths)):
            raise UserError(
                f"{beside} has {len(table.paths):,} images and {file.name} {results.total:,}: they "
                "are not of one test. Delete both, and test again (--eval-only)."
            )
        if table is not None:
            _refuse_other_accuracy(beside, table, file, results)
        return cls(file.parent, file, results, table, options or Options())

    @property
    def config(self) -> dict[str, Any]:
        """The run's config, nested."""
        return self.results.config

    @functools.cached_property
    def metrics(self) -> dict[str, Any] | None:
        """What `summarise` returns of the predictions; None without labels.

        Without predictions those that the results hold: a large test writes no file of predictions.

        Raises:
            UserError: the probabilities are none, or the results hold something else.
        """
        from dplq.evaluation.summary import summarise
        from dplq.report.recorded import recorded_metrics

        table, recorded = self.predictions, self.results.metrics
        if table is None:
            return None if recorded is None else recorded_metrics(recorded, self.file)
        return summarise(table) if (table.labels >= 0).any() else None

    @functools.cached_property
    def checkpoint(self) -> Path | None:
        """The checkpoint that was tested, in the run's folder; None where it is not there.

        Results that do not say which epoch was tested are taken for those of the best one, or else
        of the last.

        Raises:
            UserError: a checkpoint is damaged.
        """
        from dplq.io.checkpoint import find_checkpoint, read_header

        folder, epoch = self.folder / MODEL_FOLDER, self.results.epochs
        with contextlib.suppress(UserError):  # only the best one may have been kept
            return find_checkpoint(folder, epoch)
        try:
            kept = find_checkpoint(folder, None)
        except UserError:  # a test of a model that lies elsewhere, or of none
            return None
        return kept if read_header(kept).get("epoch") == epoch else None

    @property
    def checkpoint_problem(self) -> str:
        """Why there is no checkpoint, in sentences; "" where there is one."""
        if self.checkpoint is not None:
            return ""
        epoch, is_trained = self.results.epochs, self.results.zero_shot is not True
        if not is_trained or epoch == 0:
            return f"{self.results.trainer} is not trained, so there is no checkpoint."
        if any((self.folder / MODEL_FOLDER).glob("*.safetensors")):
            return (
                f"The test is of epoch {epoch}, and the folder of the run has no checkpoint of it, "
                "only of others."
            )
        return (
            "The folder has no checkpoint: the model that was tested lies elsewhere. Test in the "
            "folder of its training (--eval-only with that folder as --output-dir and "
            "--model-dir), and give dplq report the results-*.json that is written there."
        )

    @functools.cached_property
    def header(self) -> ModelHeader | None:
        """The header of the checkpoint; None where there is none.

        Raises:
            UserError: the checkpoint is damaged.
        """
        from dplq.io.checkpoint import read_header
        from dplq.io.header import ModelHeader, check_model_header

        if self.checkpoint is None:
            return None
        header = read_header(self.checkpoint)
        check_model_header(header, self.checkpoint)
        return msgspec.convert(header, ModelHeader)

    @functools.cached_property
    def reading(self) -> ReadSettings:
        """How the run read image files."""
        node = self.config.get("INPUT")
        values = node if isinstance(node, dict) else {}
        return read_settings(type("Input", (), values))

    def image_path(self, path: str) -> Path:
        """Return where an image of ``predictions.csv`` lies; an absolute path is as it is."""
        if self.options.root is not None:
            return self.options.root / path
        data = self.config.get("DATASET")
        root = data.get("ROOT", "") if isinstance(data, dict) else ""
        return Path(str(root)) / path

    def image(self, path: str, edge: int | None = None) -> Image.Image:
        """Return an image of ``predictions.csv`` as the model got it: 8-bit RGB, upright.

        Args:
            path: as ``predictions.csv`` has it.
            edge: as of `read_image`.

        Raises:
            UserError: it is not there, or cannot be read.
        """
        from dplq.images.reader import read_image

        return read_image(self.image_path(path), self.reading, edge=edge)

    def model(self) -> CLIPModel:
        """Return the run's model, on the CPU, in evaluation mode; loaded once.

        Raises:
            UserError: it cannot be loaded, such as without the frozen weights.
        """
        return self._model

    @functools.cached_property
    def _model(self) -> CLIPModel:
        from dplq.methods.load import load

        return load(self.checkpoint or self.folder).eval()


def predictions_of(file: Path) -> Path:
    """Return the ``predictions*.csv`` that goes with a ``results*.json``."""
    return file.with_name(f"predictions{file.stem.removeprefix('results')}.csv")
