"""Trainer of the linear probe: logistic regression on CLIP's image features.

Radford et al., ICML 2021, section 3.2; few-shot as in CoOp (lpclip/linear_probe.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

import torch
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from tqdm import tqdm

from dplq.errors import UserError
from dplq.host.dassl import register_trainer
from dplq.methods.linear_probe import LinearProbeModel
from dplq.methods.logistic import DEFAULT_C, Labelled, fit_best, linear_layer

from ._engine.frozen import FrozenTrainer

logger = logging.getLogger(__name__)


@register_trainer
class LinearProbe(FrozenTrainer):
    """Logistic regression on un-augmented training images; its C is chosen on val."""

    model_class = LinearProbeModel
    model: LinearProbeModel
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
        val = self._features(self.val_loader) if self._has_validation_set() else None
        best = fit_best(self._features(images), val, self.cfg.TRAIN.CLASS_WEIGHTS or None)
        print(f"Linear probe: C is {best.C:g}")
        self.model.settings["C"] = best.C
        weight, bias = map(torch.from_numpy, linear_layer(best))
        self.model.prompt_learner.load_state_dict({"weight": weight, "bias": bias})
        self.train_seconds = time.perf_counter() - started

    def _has_validation_set(self) -> bool:
        """Return whether val images exist that are not the test images, as in some trees."""
        val = {item.impath for item in self.dm.dataset.val or ()}
        if val and val.isdisjoint(item.impath for item in self.dm.dataset.test):
            return True
        reason = "test images" if val else "absent"
        logger.warning("The val images are %s: C is not chosen, but %g.", reason, DEFAULT_C)
        return False

    @torch.no_grad()
    def _features(self, loader: Iterable[dict[str, Any]]) -> Labelled:
        """Return CLIP's features (N, d) of all images, and their labels (N,).

        Raises:
            UserError: a feature is nan or infinite.
        """
        features, labels = [], []
        for batch in tqdm(loader, desc="features", leave=False):
            images, label = self.parse_batch_test(batch)
            with self.precision.autocast():
                features.append(self.model.features(images).double().cpu())
            labels.append(label.cpu())
        found = torch.cat(features)
        if bad := int((~torch.isfinite(found).all(dim=1)).sum()):
            advice = "The weights of the CLIP are at fault."
            if self.precision.name != "fp32":
                advice = (
                    f"Use TRAINER.{self.node}.PREC fp32 (with another --output-dir, or "
                    "--overwrite); if they stay so, the weights of the CLIP are at fault."
                )
            raise UserError(
                f"CLIP's features of {bad} of {len(found)} images are nan or infinite: nothing is "
                f"fitted. {advice}"
            )
        return found.numpy(), torch.cat(labels).numpy()
