"""Predictions of a model for image files, images and tensors."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn

from dplq.errors import UserError, shown
from dplq.images.batches import ImageSource, Refused, image_batches
from dplq.images.reader import ImageFacts
from dplq.images.summary import Summary

if TYPE_CHECKING:
    from dplq.methods.base import CLIPModel

logger = logging.getLogger(__name__)
Images: TypeAlias = ImageSource | Tensor | Iterable[ImageSource | Tensor]
SOURCES = (str, os.PathLike, Image.Image)
EXPECTED = "give paths, PIL images or tensors, one or a list of them."


@dataclass(frozen=True)
class Prediction:
    """What a model says of an image.

    Attributes:
        label: the most probable class.
        probability: of that class, 0 to 1.
        top: the most probable classes with their probabilities, best first.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


@dataclass
class Scores:
    """Results of a batch.

    Attributes:
        indices: positions of its images among all; those that cannot be read are left out.
        logits: (B, K), float32, on the CPU.
        features: adapted image features (B, d), float32, on the CPU; None where not requested.
        refused: images that cannot be read.
        facts: what the files among the images hold, and what was done to them.
    """

    indices: list[int]
    logits: Tensor
    features: Tensor | None
    refused: list[Refused]
    facts: list[ImageFacts]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set a model to eval mode in this context, without gradients; then restore every module.

    No inference mode: text features are kept from one call to the next, and training could not use
    its tensors.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def predict(
    model: CLIPModel, images: Images, *, topk: int | None, batch_size: int, workers: int
) -> list[Prediction]:
    """Return what `CLIPModel.predict` does."""
    classes = len(model.classnames)
    if topk is not None and (not isinstance(topk, Integral) or not 1 <= topk <= classes):
        raise UserError(
            f"topk is {topk}; it must be a whole number from 1 to {classes}, the number of classes."
        )
    if batch_size < 1 or workers < 0:
        raise UserError(
            f"batch_size is {batch_size}, workers {workers}; they must be at least 1 and 0."
        )
    logits: list[Tensor] = []
    summary = Summary()
    with evaluating(model):
        for is_tensor, part in _runs(images):
            if is_tensor:
                logits += [
                    _checked(model(batch)) for batch in _tensor_batches(model, part, batch_size)
                ]
                continue
            for scores in score_files(model, part, batch_size=batch_size, workers=workers):
                for refused in scores.refused:
                    raise refused.error
                logits.append(scores.logits)
                summary.update(scores.facts)
    if problem := summary.range_warning(model.input.reading):
        logger.warning("%s It is that of `model.input.reading`.", problem)
    return [_prediction(row, model.classnames, topk) for batch in logits for row in batch]


def score_files(
    model: CLIPModel,
    sources: Sequence[ImageSource],
    *,
    batch_size: int,
    workers: int,
    with_features: bool = False,
) -> Iterator[Scores]:
    """Yield the logits of image files batch by batch; for use in `evaluating`.

    Args:
        model: on its device.
        sources: paths of image files, or PIL images.
        batch_size: images in a batch.
        workers: processes that read images; 0: this one.
        with_features: return adapted image features, too, at the price of a second pass.

    Raises:
        UserError: logits are nan or infinite.
    """
    device = model.clip.logit_scale.device
    batches = image_batches(
        sources, model.input, batch_size=batch_size, workers=workers, device=device
    )
    for batch in batches:
        if batch.images is None:
            yield Scores([], torch.empty(0, len(model.classnames)), None, batch.refused, [])
            continue
        logits = _checked(model(batch.images))
        found = model.image_features(batch.images).float().cpu() if with_features else None
        yield Scores(batch.indices, logits, found, batch.refused, batch.facts)


def probabilities(logits: Tensor) -> Tensor:
    """Return the softmax (..., K), float32, of logits."""
    return logits.float().softmax(dim=-1)


def ranking(logits: Tensor, count: int | None = None) -> Tensor:
    """Return the classes of the highest logits, best first, (..., K or count); of equals the first.

    Not of probabilities, which are equal where logits still differ.
    """
    return logits.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def _checked(logits: Tensor) -> Tensor:
    """Return logits on the CPU, once they are found to be finite."""
    logits = logits.float().cpu()
    if bad := int((~logits.isfinite().all(dim=1)).sum()):
        raise UserError(
            f"The logits of {bad} of the {len(logits)} images of a batch are nan or infinite: the "
            "weights of the CLIP or of the domain encoder are at fault, or the precision; load the "
            "model in fp32."
        )
    return logits


def _prediction(logits: Tensor, classnames: Sequence[str], topk: int | None) -> Prediction:
    shares, order = probabilities(logits).tolist(), ranking(logits, topk).tolist()
    top = tuple((classnames[k], shares[k]) for k in order)
    return Prediction(*top[0], top)


def _runs(images: Images) -> Iterator[tuple[bool, list[Any]]]:
    """Yield images in runs of one kind, in their order: (whether they are tensors, the images).

    Raises:
        UserError: something is neither.
    """
    if isinstance(images, (*SOURCES, Tensor)):
        images = [images]
    if not isinstance(images, Iterable):
        raise UserError(f"images is {shown(images)}; {EXPECTED}")
    listed: list[Any] = list(images)
    for index, image in enumerate(listed):
        if not isinstance(image, (*SOURCES, Tensor)):
            raise UserError(f"images[{index}] is {shown(image)}; {EXPECTED}")
    for is_tensor, run in groupby(listed, lambda image: isinstance(image, Tensor)):
        yield is_tensor, list(run)


def _tensor_batches(model: CLIPModel, tensors: list[Tensor], size: int) -> Iterator[Tensor]:
    """Yield batches (B, 3, H, W) on the model's device."""
    device = model.clip.logit_scale.device
    for tensor in tensors:
        if tensor.dim() not in (3, 4) or tensor.shape[-3] != 3 or not tensor.is_floating_point():
            raise UserError(
                f"images has a tensor of shape {tuple(tensor.shape)} and dtype {tensor.dtype}; a "
                "preprocessed image is (3, H, W), a batch (B, 3, H, W), as model.preprocess "
                "makes them."
            )
    rows = [tensor if tensor.dim() == 4 else tensor[None] for tensor in tensors]
    if len({row.shape[1:] for row in rows}) > 1:
        raise UserError("images has tensors of several sizes: model.preprocess makes them equal.")
    for part in torch.cat(rows).split(size):
        yield part.to(device)
