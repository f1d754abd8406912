"""Writing a model as a ``.pt2`` or ``.onnx`` file, after a comparison with the model itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from dplq import __version__
from dplq.errors import UserError, one_line, shown
from dplq.export import onnx_file, pt2_file
from dplq.export.trace import trace

if TYPE_CHECKING:
    from dplq.methods.base import CLIPModel

WRITERS: Mapping[str, Callable[[ExportedProgram, Path, str], None]] = {
    ".pt2": pt2_file.write,
    ".onnx": onnx_file.write,
}
CHECKED_BATCH = 3  # of the comparison, another than the trace's
TOLERANCE = 1e-4  # of the largest logit


def write(
    model: CLIPModel, path: Path, batch_size: int | None, information: Mapping[str, Any]
) -> None:
    """Write a classifier; arguments and errors as of `CLIPModel.export`."""
    if path.suffix not in WRITERS:
        raise UserError(f"{path} is no name for an export: end it in {' or '.join(WRITERS)}.")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size is {shown(batch_size)}; it must be 1 or more, or None (any).")
    if path.suffix == ".onnx":
        onnx_file.check_packages()
    _check_weights(model)
    training = {module: module.training for module in model.modules()}
    try:
        with torch.autocast("cpu", enabled=False):
            program = _traced(model.eval(), batch_size)
            _compare(program, model, batch_size)
    finally:
        for module, mode in training.items():
            module.training = mode
    content = {**_record(model, batch_size), **information}
    WRITERS[path.suffix](program, path, json.dumps(content, allow_nan=False))


def _check_weights(model: CLIPModel) -> None:
    scale = model.clip.logit_scale
    if scale.device.type != "cpu" or model.clip.dtype != torch.float32:
        raise UserError(
            f"An export is made in float32 on a CPU, and this model is {model.clip.dtype} on "
            f"{scale.device}: call model.float().cpu() first, or load it anew."
        )


def _traced(model: CLIPModel, batch_size: int | None) -> ExportedProgram:
    """Return the traced program.

    Raises:
        UserError: it cannot be traced, or draws random numbers.
    """
    images = _images(model, batch_size or 2)
    with torch.no_grad():
        folded = model.folded()
        first, second = folded(images), folded(images)
    if not torch.equal(first, second):
        raise UserError(
            f"This {model.method} model draws random numbers at test time (noise_at_test), which "
            "an exported program cannot repeat: export one that was trained without."
        )
    try:
        program = trace(folded, images, any_batch=batch_size is None)
    except Exception as error:  # whatever torch.export raises about the model's code
        raise UserError(
            f"A {model.method} model on {model.clip.spec.name} cannot be exported: torch.export "
            f"does not trace it ({one_line(error)})."
        ) from error
    return program


def _images(model: CLIPModel, count: int) -> Tensor:
    size = model.clip.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


@torch.no_grad()
def _compare(program: ExportedProgram, model: CLIPModel, batch_size: int | None) -> None:
    """Refuse (UserError) a program whose logits are not the model's."""
    images = _images(model, batch_size or CHECKED_BATCH)
    expected, found = model(images), program.module()(images)
    difference = (found - expected).abs().max().item()
    if not difference <= TOLERANCE * expected.abs().max().item():
        raise UserError(
            f"This {model.method} model cannot be exported: the program's logits differ from the "
            f"model's by {difference:.2g}."
        )


def _record(model: CLIPModel, batch_size: int | None) -> dict[str, Any]:
    """Return what a user of the file needs to know."""
    clip = model.clip
    return {
        "dplq": __version__,
        "method": model.method,
        "backbone": clip.spec.header()["name"],
        "classes": model.classnames,
        "batch_size": batch_size,
        "input": {
            "name": "images",
            "shape": ["batch" if batch_size is None else batch_size, 3, *[clip.image_size] * 2],
            **_preprocessing(model),
        },
        "output": {"name": "logits", "probabilities": "softmax"},
    }


def _preprocessing(model: CLIPModel) -> dict[str, Any]:
    """Return how an image becomes the input."""
    given = model.input
    return {
        "resize_mode": given.resize_mode,
        "interpolation": given.interpolation,
        "mean": list(given.mean),
        "std": list(given.std),
        "instance_norm": given.instance_norm,
        "reading": asdict(given.reading),
    }
