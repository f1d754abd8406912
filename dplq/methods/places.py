"""Paths of a run's frozen parts, as its results files record them.

Checkpoints hold the names of files and folders only, so that they may be copied. The results files
beside them hold the run's config, which says where those were.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dplq.domain.arguments import several
from dplq.errors import UserError
from dplq.io.files import checkout
from dplq.io.runs.files import MODEL_FOLDER, RESULTS_FILE, TESTS
from dplq.io.runs.results import read_results
from dplq.io.spec import Spec

# Entries of a header -> the config keys whose values may be, or end in, a path.
KEYS = {
    "backbone": ("MODEL.BACKBONE.NAME", "MODEL.INIT_WEIGHTS"),
    "domain": ("DOMAIN.ENCODER", "DOMAIN.WEIGHTS"),
}


def with_recorded_places(spec: Spec, entry: str, checkpoint: Path) -> Spec:
    """Return a checkpoint's record with the paths at which its run had the part.

    Args:
        spec: the record.
        entry: its key in the header, "backbone" or "domain".
        checkpoint: the file; without a run's folder around it nothing is added.
    """
    parts = spec.parts or (spec,)
    is_local = any(part.weights or part.folder for part in parts)
    folder = checkpoint.absolute().parent
    if not is_local or folder.name != MODEL_FOLDER:
        return spec
    run = folder.parent
    found: list[list[str]] = [[] for _ in parts]
    for config in _configs(run):
        for key in KEYS[entry]:
            values = _texts(config, key)
            for places, own in zip(found, _of_each(values, len(parts)), strict=True):
                places += [path for value in own for path in _paths(value, config, run)]
    located = tuple(
        replace(part, places=tuple(places)) for part, places in zip(parts, found, strict=True)
    )
    return replace(spec, parts=located) if spec.parts else located[0]


def _configs(run: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the configs in a run's results files: the run's own, then those of its tests."""
    for path in (run / RESULTS_FILE, *sorted(run.glob(TESTS))):
        try:
            yield read_results(path).config
        except UserError:  # not finished, or damaged: then the user says where the files are
            continue


def _texts(config: Mapping[str, Any], key: str) -> list[str]:
    """Return the texts at a dotted key of a config, a text or a list."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    values = several(value) if isinstance(value, (str, list)) else []
    return [text for text in values if isinstance(text, str)]


def _of_each(values: list[str], count: int) -> list[list[str]]:
    """Return the values of each of several encoders, which are listed in their order."""
    return [[value] for value in values] if len(values) == count else [values] * count


def _paths(value: str, config: Mapping[str, Any], run: Path) -> list[str]:
    """Return the paths that a value may mean: a path, ``local-dir:PATH`` or ``NAME:PATH``."""
    path = os.path.expanduser(value.rpartition(":")[2])
    if not path or os.path.isabs(path):
        return [path] if path else []
    starts = [Path(), *_start(config, run), *filter(None, [checkout()])]
    return [str(start / path) for start in starts]


def _start(config: Mapping[str, Any], run: Path) -> list[Path]:
    """Return the folder in which the run was started, if its own folder tells."""
    given = "".join(_texts(config, "OUTPUT_DIR")[:1])
    folder, output = run.resolve(), Path(os.path.normpath(given))
    levels = len(output.parts)
    if not given or output.is_absolute() or folder.parts[-levels:] != output.parts:
        return []
    return [folder.parents[levels - 1]]
