"""Faster data loaders: the images of Dassl's loaders in the same order, bit for bit.

`accelerate_loader` accepts the loaders of the real Dassl and of the fallback. Its result

* reads images by `dplq.images.reader` as the config says, and through `dplq.images.cache` where
  `DATALOADER.IMAGE_CACHE` requests it;
* transfers uint8 pixels from worker processes, a quarter of the size of normalised values, and
  normalises whole batches, on the GPU if that is their device;
* keeps the worker processes of the training loader from one epoch to the next;
* seeds Python, NumPy and torch in every worker anew for every epoch, so that an epoch does not
  depend on the age of the workers, and a resumed run repeats it.

Dassl itself pins memory where the images go to a GPU; that is kept.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from tqdm import tqdm

from dplq.errors import UserError
from dplq.images.cache import ImageCache, cache_for
from dplq.images.preprocessing import CPU, Normalizer, split_transform
from dplq.images.reader import ImageFile
from dplq.images.settings import DEFAULTS, ReadSettings, read_settings
from dplq.training.distributed import own_rows
from dplq.training.seeding import seed_worker

REFUSED = "refused"  # key of what a worker says of an image that cannot be read


class AcceleratedImages(Dataset):
    """The dataset of a Dassl loader, with an image cache and seeded worker processes.

    Args:
        images: Dassl's `DatasetWrapper`.
        cache: holds decoded copies of its images; None: the original files are decoded.
        settings: of the reader.

    Attributes:
        originals: Dassl's items, with the paths of the original files.
        epoch_seed: of the current epoch, in memory shared with the workers.
    """

    def __init__(
        self, images: Any, cache: ImageCache | None = None, settings: ReadSettings = DEFAULTS
    ) -> None:
        self.images, self.cache, self.settings = images, cache, settings
        self.originals = images.data_source
        paths = {item.impath: item.impath for item in self.originals}
        self.images.data_source = self._items(paths, settings)
        self.epoch_seed = torch.zeros((), dtype=torch.int64).share_memory_()
        self._is_cached = False
        self._seeded_with: int | None = None  # in a worker process

    def fill_cache(self) -> None:
        """Copy every image into the cache; the copies are read from then on."""
        if self.cache is None or self._is_cached:
            return
        copies = self.cache.copies(str(item.impath) for item in self.originals)
        # a copy is plain 8-bit RGB; only its size may be above the default limit
        plain = ReadSettings(max_pixels=self.settings.max_pixels)
        self.images.data_source = self._items(copies, plain)
        self._is_cached = True

    def _items(self, paths: Mapping[str, str], settings: ReadSettings) -> list[Any]:
        """Return Dassl's items with other paths, which say how they are read."""
        return [
            type(item)(
                ImageFile(paths[item.impath], settings), item.label, item.domain, item.classname
            )
            for item in self.originals
        ]

    def __len__(self) -> int:
        return len(self.originals)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self._seed_worker()
        try:
            return {**self.images[index], "impath": str(self.originals[index].impath)}
        except UserError as error:
            if get_worker_info() is None:
                raise
            return {REFUSED: str(error)}

    def _seed_worker(self) -> None:
        """Seed this worker process once per epoch."""
        worker = get_worker_info()
        seed = int(self.epoch_seed)
        if worker is not None and self._seeded_with != seed:
            self._seeded_with = seed
            seed_worker(seed, worker.id)


class AcceleratedLoader(DataLoader):
    """A loader of `AcceleratedImages`.

    Attributes:
        normalizer: normalises the batches' pixels; None where the dataset does it.
        divides_batches: keep of every batch the part of this process.
    """

    dataset: AcceleratedImages
    normalizer: Normalizer | None = None
    divides_batches = False

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]  # only iterated over
        self.dataset.fill_cache()
        if self.num_workers:
            # DataLoader draws a seed too, but persistent workers get that of the first epoch only
            self.dataset.epoch_seed.random_()
        batches = super().__iter__()
        return map(partial(_finish_batch, self.normalizer, self.divides_batches), batches)

    def close(self) -> None:
        """End the worker processes that persist; another pass starts new ones.

        Where the garbage collector ends them it waits 5 s for each.
        """
        passes: Any = self._iterator
        self._iterator = None
        if passes is not None:
            passes._shutdown_workers()


def _collate(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    """Return a batch, or the first of its samples that a worker could not read."""
    return next((sample for sample in samples if REFUSED in sample), None) or collate(samples)


def _finish_batch(
    normalizer: Normalizer | None, divides: bool, batch: dict[str, Any]
) -> dict[str, Any]:
    if REFUSED in batch:  # raised in a worker it would be a traceback of the worker's
        raise UserError(batch[REFUSED])
    batch = own_rows(batch) if divides else batch
    return batch if normalizer is None else _normalize_batch(normalizer, batch)


def _normalize_batch(normalizer: Normalizer, batch: dict[str, Any]) -> dict[str, Any]:
    """Return `batch` with its ``img``, one tensor or a list of views, normalised."""
    views = batch["img"]  # a list with K_TRANSFORMS > 1
    images = [normalizer(view) for view in views] if isinstance(views, list) else normalizer(views)
    return {**batch, "img": images}


def accelerate_loader(
    loader: DataLoader,
    cfg: Any,
    *,
    is_train: bool,
    device: torch.device = CPU,
    prepare_worker: Callable[[int], None] | None = None,
) -> AcceleratedLoader:
    """Return a faster loader of the same batches; `loader` is unchanged.

    Args:
        loader: of Dassl.
        cfg: the whole config; see `dplq.images.cache.cache_for`.
        is_train: whether these are training images, whose worker processes persist.
        device: of the batches; they are moved there if it is a GPU.
        prepare_worker: called in each worker process with its index before it reads; picklable.

    Raises:
        UserError: unknown `DATALOADER.IMAGE_CACHE`, or a bad key of the reader.
    """
    images: Any = copy.copy(loader.dataset)
    workers, cache = loader.num_workers, cache_for(cfg, is_train)
    crop_bytes = cache is not None and not cache.exact
    images.transform, last_steps = split_transform(images.transform, crop_bytes)
    accelerated = AcceleratedLoader(
        AcceleratedImages(images, cache, read_settings(cfg.INPUT)),
        batch_size=loader.batch_size,
        sampler=loader.sampler,
        drop_last=loader.drop_last,
        collate_fn=partial(_collate, loader.collate_fn),
        pin_memory=loader.pin_memory,
        num_workers=workers,
        worker_init_fn=prepare_worker if workers else None,
        persistent_workers=is_train and workers > 0,
        # with workers, `AcceleratedLoader` makes the draw from the global generator
        generator=torch.Generator() if workers else None,
    )
    if last_steps:
        accelerated.normalizer = Normalizer(last_steps, device)
    return accelerated


def some_batches(loader: AcceleratedLoader, first: int, step: int) -> AcceleratedLoader:
    """Return a loader of every so many-th batch of a loader, whose images alone are read.

    Args:
        loader: of images in a fixed order, which are not augmented.
        first: index of its first batch.
        step: from each of its batches to the next.
    """
    batches: Any = islice(loader.batch_sampler, first, None, step)  # type: ignore[arg-type]
    some = AcceleratedLoader(
        loader.dataset,
        batch_sampler=list(batches),
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        num_workers=loader.num_workers,
        worker_init_fn=loader.worker_init_fn,
        generator=loader.generator,
    )
    some.normalizer = loader.normalizer
    return some


class WrappedLoader:
    """A data loader around another one, whose other attributes it has.

    Args:
        loader: the other one.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # not yet set while a copy is being made
            raise AttributeError(name)
        return getattr(self.loader, name)


class ProgressLoader(WrappedLoader):
    """Data loader with a progress bar on stderr, or a line an epoch where that is no terminal.

    Args:
        loader: the data loader.
        print_freq: Dassl prints a log line every so many batches.
    """

    def __init__(self, loader: Any, print_freq: int) -> None:
        super().__init__(loader)
        self.print_freq = print_freq

    def __iter__(self) -> Iterator[Any]:
        if not sys.stderr.isatty():
            yield from self._counted()
            return
        with tqdm(total=len(self), desc="train", leave=False, mininterval=0.5) as bar:
            for index, batch in enumerate(self.loader, start=1):
                if index % self.print_freq == 0 or len(self) < self.print_freq:
                    bar.clear()  # Dassl prints a line after this batch; keep the two apart
                yield batch
                bar.update()

    def _counted(self) -> Iterator[Any]:
        """Yield the batches, then print how long they took."""
        began = time.perf_counter()
        yield from self.loader
        seconds = time.perf_counter() - began
        print(f"train: {len(self):,} batches in {seconds:.1f} s", file=sys.stderr)
