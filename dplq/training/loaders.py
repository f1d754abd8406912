"""Dassl's data loaders made quicker: the same images in the same order, bit for bit.

`quicken` works on the loaders of the real Dassl and of the fallback alike. It

* reads images through `dplq.images.cache`, where `DATALOADER.IMAGE_CACHE` asks for it;
* has worker processes hand over bytes, a quarter of what the normalised numbers take in shared
  memory, and normalises whole batches, on the GPU if they go there;
* keeps the worker processes of the training loader from one epoch to the next;
* seeds Python, NumPy and torch in every worker anew for every epoch, so that an epoch is the same
  whether the workers are new or old, and a resumed run repeats it.

Dassl itself asks for pinned memory where the images go to a GPU; that is kept.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision import transforms as T

from dplq.images.cache import ImageCache, cache_for

CPU = torch.device("cpu")


def to_pixels(image: Image.Image) -> Tensor:
    """RGB image to (H, W, 3), uint8."""
    return torch.from_numpy(np.array(image))


class ByteCrop(T.RandomResizedCrop):
    """Random resized crop by torch's arithmetic on bytes: twice as quick as Pillow's.

    It draws the same crops. Of their bytes fewer than one in a hundred differs, by 1 or 2 of 255
    (measured on photographs; more, up to 5, where noise is made much smaller).
    """

    def forward(self, img: Image.Image) -> Image.Image:
        """Crop and resize one RGB image."""
        top, left, height, width = self.get_params(img, self.scale, self.ratio)
        crop = np.array(img.crop((left, top, left + width, top + height)))
        pixels = torch.from_numpy(crop)[None].permute(0, 3, 1, 2)  # channels last: no copy
        mode = self.interpolation.value
        resized = F.interpolate(pixels, self.size, mode=mode, antialias=True)
        return Image.fromarray(resized[0].permute(1, 2, 0).contiguous().numpy())

    @classmethod
    def in_place_of(cls, step: Any) -> Any:
        """The same crop in bytes where `step` is one that can be done so; else `step`."""
        if type(step) is not T.RandomResizedCrop or step.interpolation.value == "nearest":
            return step
        return cls(step.size, step.scale, step.ratio, step.interpolation)


class Normalizer:
    """`ToTensor` and `Normalize` for batches of pixels: a table has their results for 0 to 255.

    Args:
        steps: transforms that work on every value of a channel by itself.
        device: where the numbers are wanted.
    """

    def __init__(self, steps: list[Any], device: torch.device = CPU) -> None:
        ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
        self.table = T.Compose(steps)(Image.fromarray(ramp)).reshape(3, 256).to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3), uint8, to (B, 3, H, W), float32, on the device."""
        if self.table.device.type != "cpu":
            return self.gather(pixels.to(self.table.device, non_blocking=True))
        out = np.empty((pixels.shape[0], 3, *pixels.shape[1:3]), np.float32)
        for image, planes in zip(pixels.numpy(), out, strict=True):
            for c, values in enumerate(self.table.numpy()):
                np.take(values, image[:, :, c], out=planes[c], mode="clip")
        return torch.from_numpy(out)

    def gather(self, pixels: Tensor) -> Tensor:
        """The same for pixels that are on the device; on a CPU four times as slow."""
        planes = [values[pixels[..., c].long()] for c, values in enumerate(self.table)]
        return torch.stack(planes, dim=1)


def split_transform(transform: Any, crop_bytes: bool = False) -> tuple[Any, list[Any]]:
    """What is done image by image, up to bytes, and a `ToTensor` and `Normalize` at the end.

    The second is empty, and the first is `transform`, where it does not end in these two. With
    `crop_bytes` a random resized crop becomes a `ByteCrop`.
    """
    steps = list(transform.transforms) if isinstance(transform, T.Compose) else []
    if [type(step) for step in steps[-2:]] != [T.ToTensor, T.Normalize]:
        return transform, []
    first = [ByteCrop.in_place_of(step) if crop_bytes else step for step in steps[:-2]]
    return T.Compose([*first, to_pixels]), steps[-2:]


class QuickImages(Dataset):
    """Dassl's dataset of a loader, with a cache, and with seeds for worker processes.

    Args:
        images: Dassl's `DatasetWrapper`.
        cache: where its images are read from; None: from their own files.
    """

    def __init__(self, images: Any, cache: ImageCache | None = None) -> None:
        self.images, self.cache = images, cache
        self.originals = images.data_source
        self.epoch_seed = torch.zeros((), dtype=torch.int64).share_memory_()
        self.seeded_with: int | None = None

    def fill_cache(self) -> None:
        """Have a copy of every image in the cache; from here on these are read."""
        if self.cache is None or self.images.data_source is not self.originals:
            return
        copies = self.cache.copies(item.impath for item in self.originals)
        self.images.data_source = [
            type(item)(copies[item.impath], item.label, item.domain, item.classname)
            for item in self.originals
        ]

    def __len__(self) -> int:
        return len(self.originals)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self._seed_worker()
        return {**self.images[index], "impath": self.originals[index].impath}

    def _seed_worker(self) -> None:
        worker = get_worker_info()
        seed = int(self.epoch_seed)
        if worker is None or self.seeded_with == seed:
            return
        self.seeded_with = seed
        random.seed(seed + worker.id)  # this and the next are DataLoader's own seeds
        torch.manual_seed(seed + worker.id)
        np.random.seed(np.random.SeedSequence((seed, worker.id)).generate_state(4))


class QuickLoader(DataLoader):
    """A loader of `QuickImages`; `normalizer` turns their pixels into numbers, if it is there."""

    normalizer: Normalizer | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.dataset.fill_cache()
        if self.num_workers:
            # DataLoader makes this draw too, but for workers that live on only in the first epoch
            self.dataset.epoch_seed.random_()
        batches = super().__iter__()
        return batches if self.normalizer is None else map(self._normalized, batches)

    def _normalized(self, batch: dict[str, Any]) -> dict[str, Any]:
        views = batch["img"]  # several with K_TRANSFORMS
        several = isinstance(views, list)
        numbers = [self.normalizer(view) for view in (views if several else [views])]
        return {**batch, "img": numbers if several else numbers[0]}


def quicken(
    loader: DataLoader, cfg: Any, *, is_train: bool, device: torch.device = CPU
) -> QuickLoader:
    """A loader that gives what `loader` gives, sooner; `loader` stays as it is.

    Args:
        loader: of Dassl's.
        cfg: the whole config; see `dplq.images.cache.cache_for`.
        is_train: training images, and worker processes that live on.
        device: where the images are wanted; on a GPU they are handed over there.

    Raises:
        UserError: `DATALOADER.IMAGE_CACHE` has another value.
    """
    workers, images, cache = loader.num_workers, copy.copy(loader.dataset), cache_for(cfg, is_train)
    crop_bytes = cache is not None and not cache.exact
    images.transform, last_steps = split_transform(images.transform, crop_bytes)
    quick = QuickLoader(
        QuickImages(images, cache),
        batch_size=loader.batch_size,
        sampler=loader.sampler,
        drop_last=loader.drop_last,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        num_workers=workers,
        persistent_workers=is_train and workers > 0,
        # where there are workers the global generator is `QuickLoader`'s business
        generator=torch.Generator() if workers else None,
    )
    if last_steps:
        quick.normalizer = Normalizer(last_steps, device)
    return quick
