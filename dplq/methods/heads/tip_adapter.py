"""Tip-Adapter and Tip-Adapter-F: a cache of training images (Zhang et al., ECCV 2022)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.io.checkpoint import damaged
from dplq.methods.heads.base import TextHead, TextHeadSettings
from dplq.methods.heads.fitting import FitData, choose
from dplq.methods.heads.trained import ChosenEpochSettings, TrainedHead
from dplq.methods.registry import register_method
from dplq.methods.settings import MethodSettings, option

TRIED = {"beta": 200, "alpha": 20}  # values on val, evenly spaced
SMALLEST = 0.1


@dataclass(frozen=True)
class TipAdapterSettings(TextHeadSettings):
    """Settings of Tip-Adapter."""

    alpha: float = option(1.17, "weight of the cache, if not chosen on val", minimum=0)
    beta: float = option(1.0, "sharpness of the affinity, if not chosen on val", minimum=0)
    max_alpha: float = option(3.0, "ALPHA is chosen below this", above=SMALLEST)
    max_beta: float = option(7.0, "BETA is chosen below this", above=SMALLEST)


@dataclass(frozen=True)
class TipAdapterFSettings(TipAdapterSettings, ChosenEpochSettings):
    """Settings of Tip-Adapter-F."""

    adam_eps: float = option(
        1e-4, "eps of the optimiser, where it is Adam or AdamW", above=0, maximum=1
    )


@register_method
class TipAdapterModel(TextHead):
    """Zero-shot logits and the labels of similar training images, added."""

    method = "TipAdapter"
    settings_class: ClassVar[type[MethodSettings]] = TipAdapterSettings

    def initial(self, classes: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return an empty cache: keys (N, d) and their labels (N,); alpha and beta."""
        labels = torch.zeros(0, dtype=torch.long)
        numbers = {name: torch.zeros(()) for name in ("alpha", "beta")}
        return {"keys": torch.zeros(0, width), "labels": labels, **numbers}

    def check_classes(
        self,
        tensors: dict[str, Tensor],
        learned: Sequence[str] | None,
        path: str | os.PathLike[str],
    ) -> None:
        """Refuse other classes as the base does, and labels that are those of no class."""
        super().check_classes(tensors, learned, path)
        labels = tensors.get("labels", torch.zeros(0)).flatten().tolist()
        if not all(0 <= label < len(self.classnames) for label in labels):
            raise damaged(path, "the labels of its images are not those of its classes")

    def match_sizes(self, tensors: dict[str, Tensor], learned: Sequence[str] | None) -> None:
        """Hold a cache of as many images as are to be loaded."""
        images, own = tensors.get("labels", torch.zeros(0)).numel(), self.prompt_learner
        own.put(keys=own.keys.new_zeros(images, own.keys.shape[1]))
        own.put(labels=own.labels.new_zeros(images))

    def solve(self, data: FitData) -> dict[str, Any]:
        """Fill the cache with the mean of every image's views; choose beta and alpha on val."""
        self.fill(data)
        return self.search(data)

    def fill(self, data: FitData) -> None:
        """Put the training images into the cache; give alpha and beta their fixed values."""
        fixed = {name: torch.tensor(self.settings[name]) for name in ("alpha", "beta")}
        keys, labels = self.joint(data.train.mean()), data.train.labels
        self.prompt_learner.put(keys=keys, labels=labels, **fixed)

    @torch.no_grad()
    def search(self, data: FitData) -> dict[str, Any]:
        """Choose beta and alpha on val; return them."""
        learned, val = self.prompt_learner, data.val
        if val is None:
            return {}
        tried = {name: self._values(name) for name in TRIED}
        features = val.mean()
        text, affinity = self.cosine_logits(features, self.text), self.affinity(features)

        @lru_cache(maxsize=1)  # the pairs come with beta outermost
        def cache(beta: float) -> Tensor:
            return self.cache_logits(affinity, beta)

        pairs = product(tried["beta"], tried["alpha"])
        beta, alpha = choose(
            "(beta, alpha)", pairs, lambda pair: text + pair[1] * cache(pair[0]), val.labels
        )
        learned.put(alpha=torch.tensor(alpha), beta=torch.tensor(beta))
        return {"alpha": alpha, "beta": beta}

    def _values(self, name: str) -> list[float]:
        steps = TRIED[name]
        reach = self.settings[f"max_{name}"] - SMALLEST
        return [round(SMALLEST + reach * step / steps, 6) for step in range(steps)]

    def affinity(self, features: Tensor) -> Tensor:
        """Return cosines (B, N) of features (B, d) with the keys, which training may change."""
        return self.joint(features) @ self.prompt_learner.keys.T

    def cache_logits(self, affinity: Tensor, beta: Tensor | float) -> Tensor:
        """Return the cache's logits (B, K) of affinities (B, N)."""
        classes = F.one_hot(self.prompt_learner.labels, len(self.classnames))
        return (beta * (affinity - 1)).exp() @ classes.to(affinity.dtype)

    def classify(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, d)."""
        learned = self.prompt_learner
        cache = self.cache_logits(self.affinity(features), learned.beta)
        return self.cosine_logits(features, self.text) + learned.alpha * cache


@register_method
class TipAdapterFModel(TrainedHead, TipAdapterModel):
    """Tip-Adapter whose keys are trained; the epoch is chosen on val, not on test images."""

    method, settings_class = "TipAdapterF", TipAdapterFSettings
    learned = ("keys",)
    chooses = True

    def solve(self, data: FitData) -> dict[str, Any]:
        """Train the keys at the fixed alpha and beta; then choose these on val."""
        self.fill(data)
        return {**self.descend(data), **self.search(data)}
