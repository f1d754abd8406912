"""``.onnx``: written by torch.onnx, with the record among its metadata."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path

import torch.onnx
from torch.export import ExportedProgram

from dplq.errors import UserError, few, one_line
from dplq.io.atomic import atomic_write

RECORD = "dplq"  # key of the metadata
PACKAGES = ("onnx", "onnxscript")
TALKING = ("torch.onnx", "onnxscript")  # loggers, of what it could not simplify
MOST_BYTES = 2 * 1000**3  # a protobuf holds no more


def check_packages() -> None:
    """Refuse (UserError) where a package that writes ONNX is not installed, or torch is too old."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX files need {few(missing)}: pip install {' '.join(missing)}, or export to .pt2."
        )
    if "dynamo" not in signature(torch.onnx.export).parameters:
        raise UserError(
            f"torch {torch.__version__} is too old to write ONNX files: update it, or "
            "export to .pt2."
        )


def write(program: ExportedProgram, path: Path, record: str) -> None:
    """Write a program and its record.

    Raises:
        UserError: an operator has no counterpart in ONNX, or the weights are too many.
    """
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > MOST_BYTES:
        raise UserError(
            f"{path} is not written: one ONNX file holds 2 GB, and these are "
            f"{size / 1000**3:.1f} GB of weights. Export to .pt2."
        )
    with _quiet():
        try:
            written = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                verbose=False,
            )
        except Exception as error:  # whatever the exporter raises about an operator
            raise UserError(
                f"{path} is not written: ONNX lacks an operation of this model "
                f"({one_line(error)}). Export to .pt2."
            ) from error
    assert written is not None  # the dynamo exporter always returns it
    written.model.metadata_props[RECORD] = record
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        written.save(temporary, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the exporter's advice to its own developers."""
    levels = {name: logging.getLogger(name).level for name in TALKING}
    for name in TALKING:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
