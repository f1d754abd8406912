"""What a run prints of itself: the settings that were changed, and where everything is."""

from __future__ import annotations

import shlex
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dplq.io.imports import import_words
from dplq.io.runs.files import (
    MODEL_FOLDER,
    PREDICTIONS_FILE,
    PREDICTIONS_OF_TESTS,
    RESULTS_FILE,
    TESTS,
)

WIDTH = 100
UNSAID = ("OUTPUT_DIR", "DATASET.NAME", "TRAINER.NAME", "SEED")  # they stand in the first line
FILES = {  # what is in the folder of a run -> patterns of its names
    "log": ("log.txt*",),
    "checkpoint": (f"{MODEL_FOLDER}/model-*",),
    "results": (RESULTS_FILE, TESTS),
    "predictions": (PREDICTIONS_FILE, PREDICTIONS_OF_TESTS),
}


def settings_text(cfg: Any) -> str:
    """Return the keys of a config that differ from their defaults, a line for each section."""
    from dplq.host.changed import changed_settings

    sections: dict[str, list[str]] = defaultdict(list)
    for key, value in changed_settings(cfg, cfg.TRAINER.NAME).items():
        if key not in UNSAID:
            section, _, name = key.rpartition(".")
            sections[section or key].append(f"{name} {value}" if section else str(value))
    lines = [
        f"{cfg.TRAINER.NAME} on {cfg.DATASET.NAME}, seed {cfg.SEED}: {cfg.OUTPUT_DIR}",
        "Settings that differ from their defaults (log.txt has all):",
    ]
    for section, changed in sections.items():
        text = f"  {section}: {', '.join(changed)}"
        lines += textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines)


def places_text(trainer: Any, model_dir: str, imports: Sequence[str] = ()) -> str:
    """Return where the files of a run are, and which commands come next.

    Args:
        trainer: a trainer of this project that has ended.
        model_dir: of a test: the folder of the training run; "" after a training.
        imports: modules that the run has imported, as the commands must.
    """
    folder = Path(trainer.cfg.OUTPUT_DIR)
    lines = [f"The run is in {folder}:"]
    for what, patterns in FILES.items():
        found = sorted(
            (path for pattern in patterns for path in folder.glob(pattern)),
            key=lambda path: path.stat().st_mtime,
        )
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            lines.append(f"  {what:<12} {found[-1].relative_to(folder)}{more}")
    model = Path(model_dir or folder)
    own = import_words(imports)
    commands = [["dplq", "report", str(folder), *own]]
    if any((model / MODEL_FOLDER).glob("model-*")):
        commands.insert(0, ["dplq", "predict", str(model), "IMAGES", *own])
    return "\n".join([*lines, "Next:", *(f"  {shlex.join(command)}" for command in commands)])
