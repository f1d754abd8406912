"""Batches of a model's input, made of image files or of images, by worker processes.

What cannot be read is reported beside the batch that it would be part of, so that it stops nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dplq.errors import UserError

from .model_input import ModelInput
from .preprocessing import CPU, Normalizer, split_transform
from .reader import ImageFacts, convert_image, read_with_facts

ImageSource = str | os.PathLike[str] | Image.Image


class Refused(NamedTuple):
    """An image that cannot be used: its position among all, and the error."""

    at: int
    error: UserError


@dataclass
class Batch:
    """Consecutive images.

    Attributes:
        indices: their positions among all; those of images that cannot be read are left out.
        images: (B, 3, H, W), float32; None where none can be read.
        refused: those that cannot be read.
        facts: what the files among the images hold, and what was done to them.
    """

    indices: list[int]
    images: Tensor | None
    refused: list[Refused]
    facts: list[ImageFacts]


class _Read(NamedTuple):
    """An image that was read: its position among all, its tensor, and what its file holds."""

    at: int
    image: Tensor
    facts: ImageFacts | None


class _Pixels(Dataset):
    """Images as RGB, after the steps that are taken one image at a time; a picklable dataset."""

    def __init__(self, sources: Sequence[ImageSource], given: ModelInput, steps: Any) -> None:
        self.sources, self.settings, self.steps = sources, given.reading, steps

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> _Read | Refused:
        source, facts = self.sources[index], None
        try:
            if isinstance(source, Image.Image):
                image = convert_image(source, self.settings)
            else:
                image, facts = read_with_facts(source, self.settings)
            return _Read(index, self.steps(image), facts)
        except UserError as error:
            return Refused(index, error)


def _collate(samples: list[_Read | Refused]) -> Batch:
    read = [sample for sample in samples if isinstance(sample, _Read)]
    refused = [sample for sample in samples if isinstance(sample, Refused)]
    return Batch(
        [one.at for one in read],
        torch.stack([one.image for one in read]) if read else None,
        refused,
        [one.facts for one in read if one.facts is not None],
    )


def _ignore_interrupts(_worker: int) -> None:
    """Leave Ctrl-C to the main process, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def image_batches(
    sources: Sequence[ImageSource],
    given: ModelInput,
    *,
    batch_size: int = 64,
    workers: int = 0,
    device: torch.device = CPU,
) -> Iterator[Batch]:
    """Yield images in batches, in their order, preprocessed as `ModelInput.transform` does.

    Args:
        sources: paths of image files, or PIL images.
        given: the preprocessing.
        batch_size: images in a batch; fewer where some cannot be read, and in the last one.
        workers: processes that read and resize; 0: this one.
        device: of the batches.
    """
    steps, last = split_transform(given.of_rgb())
    normalize = Normalizer(last, device) if last else None
    loader = DataLoader(
        _Pixels(sources, given, steps),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_interrupts if workers else None,
        generator=torch.Generator(),  # the loader draws a seed, which nothing here uses
    )
    for batch in loader:
        if batch.images is not None:
            images = batch.images
            batch.images = images.to(device) if normalize is None else normalize(images)
        yield batch
