"""Linear probe: logistic regression on the image features of the frozen CLIP.

Radford et al., ICML 2021, section 3.2; few-shot as in CoOp (lpclip/linear_probe.py).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from typing import Any

import torch
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from torch import Tensor, nn
from tqdm import tqdm

from dplq.clip.backbone import Backbone
from dplq.errors import UserError
from dplq.host.dassl import register_trainer
from dplq.io import checkpoint
from dplq.methods.base import PromptedCLIP
from dplq.methods.logistic import DEFAULT_STRENGTH, Labelled, choose, linear_layer

from ._engine.frozen import FrozenTrainer

logger = logging.getLogger(__name__)


class LinearProbeModel(PromptedCLIP):
    """CLIP's image tower under a linear layer, not yet fitted, which knows no class names."""

    method = "LinearProbe"
    structure = ()

    def __init__(self, clip: Backbone, classnames: list[str], *, seed: int | None = None) -> None:
        head = nn.Linear(clip.embed_dim, len(classnames)).requires_grad_(False)
        super().__init__(clip, head, classnames, prefix="", n_ctx=0, settings={})

    def set_classnames(self, classnames: list[str]) -> None:
        """Name the classes of the layer."""
        self.classnames = list(classnames)

    def features(self, images: Tensor) -> Tensor:
        """Features (B, d) of images, as they come from CLIP, float32."""
        return self.clip.encode_image(images).to(self.learner_dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of CLIP-normalised images (B, 3, H, W)."""
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):  # it would round the logits
            return self.prompt_learner(features)

    def load(self, path: str | os.PathLike) -> dict[str, Any]:
        """Read a file that `save` wrote into this model; return its header.

        Raises:
            UserError: it was trained for other classes, or on another backbone.
        """
        _, header = checkpoint.read(path)
        if header.get("method") == self.method and header["classnames"] != self.classnames:
            raise UserError(
                f"{path} is a linear probe for the classes {_some(header['classnames'])}. It "
                f"cannot tell others apart (now: {_some(self.classnames)}): test it on its "
                "own classes, or use a trainer that reads class names, such as ZeroshotCLIP."
            )
        return super().load(path)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f", ... ({len(names)})" if len(names) > 4 else "")


@register_trainer
class LinearProbe(FrozenTrainer):
    """Logistic regression on un-augmented training images; its C is chosen on val."""

    node = "LINEARPROBE"
    model_class = LinearProbeModel
    fixed_epochs = 1

    def run_epoch(self) -> None:
        """Fit the linear layer."""
        started = time.perf_counter()
        images = build_data_loader(
            self.cfg,
            data_source=self.dm.dataset.train_x,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            tfm=build_transform(self.cfg, is_train=False),
            is_train=False,
        )
        val = self._features(self.val_loader) if self._may_choose() else None
        best = choose(self._features(images), val)
        print(f"Linear probe: C is {best.C:g}")
        self.model.settings["C"] = best.C
        weight, bias = map(torch.from_numpy, linear_layer(best))
        self.model.prompt_learner.load_state_dict({"weight": weight, "bias": bias})
        self.train_seconds = time.perf_counter() - started

    def _may_choose(self) -> bool:
        """Are there val images that are not the test images, as they are in some trees?"""
        val = {item.impath for item in self.dm.dataset.val or ()}
        if val and val.isdisjoint(item.impath for item in self.dm.dataset.test):
            return True
        reason = "test images" if val else "absent"
        logger.warning("The val images are %s: C is not chosen, but %g.", reason, DEFAULT_STRENGTH)
        return False

    @torch.no_grad()
    def _features(self, loader: Iterable[dict[str, Any]]) -> Labelled:
        """CLIP's features (N, d) of all images, and their labels (N,)."""
        features, labels = [], []
        for batch in tqdm(loader, desc="features", leave=False):
            images, label = self.parse_batch_test(batch)
            with self.precision.autocast():
                features.append(self.model.features(images).double().cpu())
            labels.append(label.cpu())
        return torch.cat(features).numpy(), torch.cat(labels).numpy()
