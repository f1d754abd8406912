"""Loader whose batches carry the features that are known of their images.

Before a pass its batches are drawn once more than needed, so that it is known which images come in
which order, and from which random numbers their views are made. Then the generators are put back,
and the pass is made as without this loader; or, where the model needs no pixels and all features
are known, no image is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dplq.training.frozen.batch import FrozenBatch, without_pixels
from dplq.training.frozen.description import describe, describe_images
from dplq.training.frozen.features import FrozenFeatures, KnownPass, digest_of
from dplq.training.loaders import AcceleratedLoader, WrappedLoader
from dplq.training.seeding import RandomState

FROZEN = "frozen"  # key of a batch: its `FrozenBatch`


class Pass(NamedTuple):
    """A pass over a loader that is about to begin.

    Attributes:
        views: digest of what decides the views.
        batches: indices of the images.
        before: state of the generators before anything is drawn.
        start: state after order and seed are drawn.
    """

    views: str
    batches: list[list[int]]
    before: RandomState
    start: RandomState


class FrozenLoader(WrappedLoader):
    """A loader with known features.

    Args:
        loader: of the images.
        source: returns the features of the run; None where they are not kept.
        draws: whether its transforms draw random numbers.
        only_without_images: leave the loader as it is where images are needed all the same.
    """

    def __init__(
        self,
        loader: AcceleratedLoader,
        source: Callable[[], FrozenFeatures | None],
        *,
        draws: bool,
        only_without_images: bool = False,
    ) -> None:
        super().__init__(loader)
        self.draws = draws
        self._source, self._only_without_images = source, only_without_images

    def __iter__(self) -> Iterator[dict[str, Any]]:
        features = self._source()
        if features is None or (self._only_without_images and not features.skips_images):
            return iter(self.loader)
        return self._pass(features)

    def _pass(self, features: FrozenFeatures) -> Iterator[dict[str, Any]]:
        before = RandomState.now()
        planned = self._plan(features, before)
        if planned is None:
            before.restore()
            yield from self.loader
            return
        images = sum(map(len, planned.batches))
        known = features.read(planned.views, images)
        is_complete = set(known.features) == set(features.model.frozen_inputs)
        if self._is_stateful and known.end is None:
            is_complete = False
        try:
            if features.skips_images and is_complete:
                yield from self._without_images(features, planned, known)
            else:
                yield from self._with_images(features, planned, known)
        finally:
            features.detach()

    @property
    def _is_stateful(self) -> bool:
        """Return whether the views of a batch depend on what was drawn in this process before."""
        return self.draws and not self.loader.num_workers

    def _plan(self, features: FrozenFeatures, before: RandomState) -> Pass | None:
        """Draw order and seed as the loader will; None where nothing can be known of the pass."""
        seed = int(torch.empty((), dtype=torch.int64).random_())  # of the workers, or of DataLoader
        sampler: Any = self.loader.batch_sampler
        batches = [list(batch) for batch in sampler]
        start = RandomState.now()
        dataset = self.loader.dataset
        items = dataset.originals
        if self.draws and self.loader.num_workers and seed == int(dataset.epoch_seed):
            return None  # workers that are given the same seed again are not seeded anew
        if not features.has_place(sum(map(len, batches)), self._passes(features)):
            return None  # before all images are read for their digests
        try:
            digests = [[features.image_digest(str(items[i].impath)) for i in b] for b in batches]
        except OSError:
            return None  # the loader says which image cannot be read
        facts: dict[str, Any] = {
            "images": digests,
            "transforms": describe_images(dataset.images),
            "normalizer": describe(self.loader.normalizer),
            "cache": dataset.cache is not None and not dataset.cache.exact,
        }
        if self._is_stateful:
            facts["random"] = start.digest()
        elif self.draws:
            facts["random"] = [self.loader.num_workers, seed]
        return Pass(digest_of(facts), batches, before, start)

    def _without_images(
        self, features: FrozenFeatures, planned: Pass, known: KnownPass
    ) -> Iterator[dict[str, Any]]:
        """Yield the batches of a pass without their pixels."""
        features.files.log_once(
            logging.INFO,
            "Frozen features are read from %s: images are not decoded.",
            features.files.folder,
        )
        items, first = self.loader.dataset.originals, 0
        for indices in planned.batches:
            rows = slice(first, first := first + len(indices))
            yield {
                "img": without_pixels(len(indices), features.device),
                "label": torch.tensor([items[i].label for i in indices]),
                "domain": torch.tensor([items[i].domain for i in indices]),
                "impath": [str(items[i].impath) for i in indices],
                "index": torch.tensor(indices),
                FROZEN: FrozenBatch(_rows(known, rows)),
            }
        if self._is_stateful:
            if RandomState.now() != planned.start:
                raise RuntimeError(
                    f"{type(features.model).__name__} draws from global generators in a step: set "
                    "its needs_images"
                )
            assert known.end is not None  # else the pass is not complete
            known.end.restore()

    def _with_images(
        self, features: FrozenFeatures, planned: Pass, known: KnownPass
    ) -> Iterator[dict[str, Any]]:
        """Yield the batches of a pass; keep what is computed on the way."""
        planned.before.restore()
        items, first, is_as_planned = self.loader.dataset.originals, 0, True
        paths = [[str(items[i].impath) for i in indices] for indices in planned.batches]
        computed: list[dict[str, Tensor]] = []
        if known.features:
            text = "Frozen features are read from %s."
            features.files.log_once(logging.INFO, text, features.files.folder)
        for batch in self.loader:
            number = len(computed)
            is_as_planned &= number < len(paths) and list(batch["impath"]) == paths[number]
            rows = slice(first, first := first + len(batch["impath"]))
            frozen = FrozenBatch(_rows(known, rows) if is_as_planned else {})
            fetched = RandomState.now() if self._is_stateful else None
            yield {**batch, FROZEN: frozen}
            computed.append(frozen.computed)
            if fetched is not None and RandomState.now() != fetched:
                is_as_planned = False  # the step drew, and the views to come are others
        if is_as_planned and len(computed) == len(paths):
            end = RandomState.now() if self._is_stateful else None
            found = {
                name: [part[name] for part in computed]
                for name in features.model.frozen_inputs
                if all(name in part for part in computed)
            }
            features.write(planned.views, found, end, self._passes(features))

    def _passes(self, features: FrozenFeatures) -> int:
        """Return how many passes of this kind a run makes."""
        return features.passes() if self.draws else 1


def _rows(known: KnownPass, rows: slice) -> dict[str, Tensor]:
    return {name: features[rows] for name, features in known.features.items()}
