"""Samplers by name, with the real Dassl's draws from the same generator state."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import RandomSampler, Sampler, SequentialSampler
from yacs.config import CfgNode

from dassl.utils import InputError, check_availability


def _indices_by(data_source: Sequence[Any], attribute: str) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(data_source):
        groups[getattr(item, attribute)].append(index)
    return dict(groups)


class _ListSampler(Sampler):
    """Sampler that draws the indices of an epoch as one list, in `draw`."""

    def __init__(self) -> None:
        # an epoch's length is known only by drawing one, as Dassl does
        self.length = len(self.draw())

    def draw(self) -> list[int]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        return iter(self.draw())

    def __len__(self) -> int:
        return self.length


class RandomDomainSampler(_ListSampler):
    """Batches of N random domains, the same number of random images of each.

    The epoch ends when a domain has too few images left.

    Args:
        data_source: list of Datum.
        batch_size: a multiple of the number of domains in a batch.
        n_domain: N; None, 0 or less: all domains.
    """

    def __init__(self, data_source: Sequence[Any], batch_size: int, n_domain: int | None):
        self.domain_dict = _indices_by(data_source, "domain")
        self.domains = list(self.domain_dict)
        self.n_domain = n_domain if n_domain and n_domain > 0 else len(self.domains)
        if batch_size % self.n_domain:
            raise InputError(
                f"batch size {batch_size} is not a multiple of the {self.n_domain} domains in it"
            )
        self.n_img_per_domain = batch_size // self.n_domain
        smallest = min(map(len, self.domain_dict.values()))
        if smallest < self.n_img_per_domain:
            raise InputError(
                f"a batch needs {self.n_img_per_domain} images of each domain, "
                f"but one domain has only {smallest}"
            )
        super().__init__()

    def choose_domains(self) -> list[int]:
        """Return the domains of the next batch."""
        return random.sample(self.domains, self.n_domain)

    def draw(self) -> list[int]:
        """Draw an epoch."""
        left = dict(self.domain_dict)
        drawn: list[int] = []
        enough = True
        while enough:
            for domain in self.choose_domains():
                chosen = random.sample(left[domain], self.n_img_per_domain)
                drawn += chosen
                left[domain] = [i for i in left[domain] if i not in chosen]
                enough = enough and len(left[domain]) >= self.n_img_per_domain
        return drawn


class SeqDomainSampler(RandomDomainSampler):
    """Batches of all domains, in sorted order, the same number of random images of each.

    Args:
        data_source: list of Datum.
        batch_size: a multiple of the number of domains.
    """

    def __init__(self, data_source: Sequence[Any], batch_size: int):
        super().__init__(data_source, batch_size, None)

    def choose_domains(self) -> list[int]:
        """Return all domains, sorted."""
        return sorted(self.domains)


class RandomClassSampler(_ListSampler):
    """Batches of random classes, `n_ins` random images of each.

    Args:
        data_source: list of Datum.
        batch_size: at least `n_ins`; the number of classes is batch_size // n_ins.
        n_ins: images per class; a class that has fewer is drawn with repetition.
    """

    def __init__(self, data_source: Sequence[Any], batch_size: int, n_ins: int):
        if batch_size < n_ins:
            raise InputError(f"batch size {batch_size} is smaller than N_INS {n_ins}")
        self.n_ins = n_ins
        self.ncls_per_batch = batch_size // n_ins
        self.index_dic = _indices_by(data_source, "label")
        if len(self.index_dic) < self.ncls_per_batch:
            raise InputError(
                f"a batch needs {self.ncls_per_batch} classes (batch size {batch_size} // N_INS "
                f"{n_ins}), the data has {len(self.index_dic)}"
            )
        super().__init__()

    def draw(self) -> list[int]:
        """Draw an epoch."""
        chunks = {label: self._chunks(indices) for label, indices in self.index_dic.items()}
        available = list(chunks)
        drawn: list[int] = []
        while len(available) >= self.ncls_per_batch:
            for label in random.sample(available, self.ncls_per_batch):
                drawn += chunks[label].pop(0)
                if not chunks[label]:
                    available.remove(label)
        return drawn

    def _chunks(self, indices: list[int]) -> list[list[int]]:
        """Shuffle a class's images and cut them into groups of n_ins; the rest is dropped."""
        indices = list(indices)
        if len(indices) < self.n_ins:
            indices = np.random.choice(indices, size=self.n_ins, replace=True).tolist()
        random.shuffle(indices)
        whole = len(indices) - len(indices) % self.n_ins
        return [indices[start : start + self.n_ins] for start in range(0, whole, self.n_ins)]


def build_sampler(
    sampler_type: str,
    cfg: CfgNode | None = None,
    data_source: Sequence[Any] = (),
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> Sampler:
    """Build the sampler of that name.

    Args:
        sampler_type: one of those below.
        cfg: unused, for Dassl's callers.
        data_source: list of Datum.
        batch_size: images in a batch.
        n_domain: for RandomDomainSampler.
        n_ins: for RandomClassSampler.
    """
    makers = {
        "RandomSampler": lambda: RandomSampler(data_source),
        "SequentialSampler": lambda: SequentialSampler(data_source),
        "RandomDomainSampler": lambda: RandomDomainSampler(data_source, batch_size, n_domain),
        "SeqDomainSampler": lambda: SeqDomainSampler(data_source, batch_size),
        "RandomClassSampler": lambda: RandomClassSampler(data_source, batch_size, n_ins),
    }
    check_availability(sampler_type, makers, "sampler")
    return makers[sampler_type]()
