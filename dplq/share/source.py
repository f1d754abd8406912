"""What is shared of a run or a checkpoint: its state, settings, classes and numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from dplq.errors import UserError, few
from dplq.io import checkpoint
from dplq.io.header import check_model_header
from dplq.io.runs.files import MODEL_FOLDER, RESULTS_FILE, TESTS
from dplq.io.runs.folder import recorded_identity
from dplq.io.runs.results import Results, read_results
from dplq.io.shared import CONFIG, METRICS, PROMPTS, is_whole, shared_prompts
from dplq.io.validation.local_paths import without_folders
from dplq.io.validation.paths import user_path
from dplq.io.validation.schema import convert, read_json
from dplq.methods.load import checkpoint_in
from dplq.methods.registry import METHODS, OWN_METHOD

# Of a results file; predictions, devices and file names stay here.
NUMBERS = (
    *("trainer", "dataset", "subsample", "split", "split_hash", "shots", "seed", "epochs"),
    *("accuracy", "error_rate", "macro_f1", "per_class_accuracy", "total", "correct"),
    *("generalised", "zero_shot", "any_classes", "train_accuracy", "learnable_parameters"),
    *("metrics", "precision", "versions"),
)
# Of a header; what begins with "/" or "~" there is no path, and changes the logits.
TEXTS = ("method", "settings", "classnames", "trainer", "split", "activation")


@dataclass
class Source:
    """A checkpoint, and what the folder of its run tells of it.

    Attributes:
        path: the checkpoint.
        tensors: its learnable state.
        header: its header, without local paths.
        tests: numbers of each results file, JSON-able.
        config: of the run, without local paths; empty where it is not known.
        dataset: that it was trained on; "" where that is not known.
        shots: training images per class; below 1 all.
        notes: what was changed or left out, in sentences.
        is_changed: a local path in the header was replaced, so the file cannot be copied.
    """

    path: Path
    tensors: dict[str, Tensor]
    header: dict[str, Any]
    tests: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    dataset: str = ""
    shots: int = 0
    notes: list[str] = field(default_factory=list)
    is_changed: bool = False

    @property
    def any_classes(self) -> bool:
        """Whether the model can name classes that it was not trained on."""
        return METHODS[self.header["method"]].any_classes


def read_source(given: str, epoch: int | None = None) -> Source:
    """Return what is shared of a run's folder, a checkpoint or a shared model.

    Args:
        given: as a user gave it.
        epoch: of a run, if not its best or last.

    Raises:
        UserError: there is no checkpoint of this project, or a file of the run is damaged.
    """
    path = user_path(given, "RUN|CHECKPOINT")
    if path.is_dir() and epoch is None and (shared := shared_prompts(path)):
        path = shared
    elif path.is_dir():
        path, _ = checkpoint_in(path, epoch, ())
    elif epoch is not None:
        raise UserError(f"--epoch is for the folder of a run, and {path} is none.")
    tensors, header = checkpoint.read(path)
    check_model_header(header, path)
    if header["method"] not in METHODS:
        raise UserError(
            f"{path} holds a model of the unknown method {header['method']!r}. {OWN_METHOD}"
        )
    cleaned, changed = without_folders(header, kept=TEXTS)
    source = Source(path, tensors, cleaned, is_changed=bool(changed))
    if path.parent.name == MODEL_FOLDER:
        _read_tests(source, path.parent.parent)
    elif path.name == PROMPTS and is_whole(path.parent):
        _read_shared(source, path.parent)
    if source.config:
        kept = _text_settings(source.config, header["method"])
        source.config, found = without_folders(source.config, kept=kept)
        changed += found
    if changed:
        names = few(changed, 6)
        source.notes.append(f"File names stand in place of local paths in {names}.")
    return source


def _text_settings(config: dict[str, Any], method: str) -> set[str]:
    """Return the keys of a run's config that are the method's settings."""
    trainers = config.get("TRAINER")
    names = [one.name.upper() for one in fields(METHODS[method].settings_class)]
    nodes = trainers if isinstance(trainers, dict) else {}
    return {f"TRAINER.{node}.{name}" for node in nodes for name in names}


class _SharedConfig(msgspec.Struct):
    """What a shared model's config.json says of its run; earlier versions wrote no data."""

    run: dict[str, Any] = msgspec.field(default_factory=dict)
    dataset: str = ""
    shots: int = 0


def _read_shared(source: Source, folder: Path) -> None:
    """Read the numbers and the run's config beside a shared checkpoint."""
    path = folder / METRICS
    tests: list[dict[str, Any]] = read_json(path, list[dict[str, Any]], max_bytes=1 << 24)
    for test in tests:
        checked: Results = convert({"format": 1, **test}, Results, where=str(path))
        source.dataset, source.shots = checked.dataset, checked.shots
        source.tests.append({key: test[key] for key in NUMBERS if key in test})
    said: _SharedConfig = read_json(folder / CONFIG, _SharedConfig, max_bytes=1 << 24)
    source.config = said.run
    if said.dataset:
        source.dataset, source.shots = said.dataset, said.shots


def _read_tests(source: Source, run: Path) -> None:
    """Read whose run it is, and the results files that belong to the checkpoint."""
    if (identity := recorded_identity(run)) is not None:
        source.dataset, source.shots = identity.dataset, identity.shots
    own, others = run / RESULTS_FILE, sorted(run.glob(TESTS))
    for path in [*([own] if own.is_file() else []), *others]:
        checked = read_results(path)
        content: dict[str, Any] = read_json(path, dict[str, Any], max_bytes=1 << 24)
        tested, saved = content.get("epochs"), source.header.get("epoch")
        if tested is not None and saved is not None and tested != saved:
            source.notes.append(
                f"{path.name} is left out: it is of epoch {tested}, and the checkpoint of {saved}."
            )
            continue
        if path == own:
            source.config = checked.config
            source.dataset, source.shots = checked.dataset, checked.shots
        source.tests.append({key: content[key] for key in NUMBERS if key in content})
