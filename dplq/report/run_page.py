"""What the page of a run is made of: its files, and what is loaded when a section needs it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dplq.errors import UserError
from dplq.images.settings import ReadSettings, read_settings
from dplq.io.runs.files import RESULTS_FILE
from dplq.io.runs.results import Results, read_results

if TYPE_CHECKING:
    from PIL import Image

    from dplq.methods.base import PromptedCLIP


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
    predictions: Any | None = None
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
        return cls(file.parent, file, read_results(file), None, options or Options())

    @property
    def config(self) -> dict[str, Any]:
        """The run's config, nested."""
        return self.results.config

    @functools.cached_property
    def reading(self) -> ReadSettings:
        """How the run read image files."""
        node = self.config.get("INPUT")
        values = node if isinstance(node, dict) else {}
        return read_settings(type("Input", (), values))

    def image_path(self, path: str) -> Path:
        """Return where an image of ``predictions.csv`` lies."""
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

    def model(self) -> PromptedCLIP:
        """Return the run's model, on the CPU, in evaluation mode; loaded once.

        Raises:
            UserError: it cannot be loaded, such as without the frozen weights.
        """
        return self._model

    @functools.cached_property
    def _model(self) -> PromptedCLIP:
        from dplq.methods.load import load

        return load(self.folder).eval()
