"""Base of the trainers of heads: features once, then the fit."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any, ClassVar

from dplq.clip.backbone import Backbone
from dplq.methods.base import CLIPModel
from dplq.methods.heads.base import HeadModel
from dplq.methods.heads.fitting import FitData, Steps
from dplq.training.distributed import copy_from_main

from .base import build_optimizer_of
from .domain import load_domain
from .features import compute_features, training_images
from .frozen import FrozenTrainer
from .schedule import check_warm_up, rate_of
from .texts import dataset_template
from .train_images import class_weights
from .trained_on import tested_items
from .val_images import tested_too

logger = logging.getLogger(__name__)


class HeadTrainer(FrozenTrainer):
    """Base of the trainers whose model is fitted to features.

    The features of every training image are computed once, of the image itself or of VIEWS
    augmented views, those of the val images once. TRAINER.<NAME>.PREC is the encoders' precision;
    a head is fitted in fp32.
    """

    model_class: ClassVar[type[HeadModel]]
    model: HeadModel
    fixed_epochs = 1

    def model_settings(self) -> dict[str, Any]:
        """Return the config keys, and the dataset's template where texts are used."""
        settings = super().model_settings()
        if hasattr(self.model_class.settings_class, "templates"):
            settings["templates"] = [dataset_template(self)]
        return settings

    def build_prompt_model(self, clip: Backbone, classnames: list[str], seed: int) -> CLIPModel:
        """Return the model, with the domain encoder of ``cfg.DOMAIN`` if FEATURES needs it."""
        settings, clip = self.model_settings(), clip.to(self.device)
        has_domain = self.model_class.reads_domain(settings)
        domain = load_domain(self.cfg, clip, "default") if has_domain else None
        return self.model_class(clip, domain, classnames, seed=seed, **settings)

    def report_training_images(self) -> None:
        """Print what the user should know of the training images."""
        super().report_training_images()
        if self.cfg.TRAIN.CLASS_WEIGHTS and not self.model_class.balances:
            name = type(self).__name__
            logger.warning("TRAIN.CLASS_WEIGHTS is not used: %s minimises no loss.", name)

    def run_epoch(self) -> None:
        """Compute all features, and fit the head to them."""
        started = time.perf_counter()
        views, features_of = self.keys.VIEWS, self.model.features
        loader = training_images(self, augmented=views > 0)
        val = compute_features(self, [self.val_loader], features_of) if self._uses_val() else None
        self._seed("train", 0)  # after val, which draws numbers: the views are the same without it
        with self.counting_cached():
            train = compute_features(self, [loader] * max(views, 1), features_of)
        data = FitData(
            train=train,
            val=val,
            class_weights=class_weights(self),
            steps=self._steps(),
        )
        chosen = self.model.fit(data)  # each process the same
        copy_from_main(self.model.prompt_learner)
        if chosen:
            values = ", ".join(f"{name} is {value:g}" for name, value in chosen.items())
            print(f"{type(self).__name__}: {values}")
        if val is not None:
            self._warn_of_replaced(chosen)
        self.train_seconds = time.perf_counter() - started

    def _warn_of_replaced(self, chosen: Mapping[str, float]) -> None:
        """Name the hyperparameters that the config sets, and the choice on val replaced."""
        own = {field.name: field.default for field in fields(self.model_class.settings_class)}
        for name, value in chosen.items():
            key = name.upper()
            given = self.keys.get(key, own[name])
            if given not in (own[name], value):
                logger.warning(
                    "TRAINER.%s.%s is %g, and not used: %g was chosen on val. SELECT fixed uses "
                    "what is set.",
                    *(self.node, key, given, value),
                )

    def passes(self) -> int:
        """Return the number of views of every image."""
        return max(self.keys.VIEWS, 1)

    def _uses_val(self) -> bool:
        """Return whether hyperparameters are chosen on val images, which are no test images."""
        if self.keys.SELECT == "fixed" or not self.model_class.chooses:
            return False
        val = self.dm.dataset.val
        if val and not tested_too(val, tested_items(self)):
            return True
        reason = "test images" if val else "absent"
        logger.warning("The val images are %s: nothing is chosen on them.", reason)
        return False

    def _steps(self) -> Steps | None:
        """Return how gradient steps are made, for heads that need them."""
        if not self.optimizes:
            return None
        cfg = self.cfg
        check_warm_up(cfg.OPTIM, cfg.OPTIM.MAX_EPOCH, "run")
        return Steps(
            optimizer=partial(build_optimizer_of, given=cfg.OPTIM),
            rate=partial(
                rate_of, epochs=cfg.OPTIM.MAX_EPOCH, given=cfg.OPTIM, base_lr=cfg.OPTIM.LR
            ),
            epochs=cfg.OPTIM.MAX_EPOCH,
            batch_size=cfg.DATALOADER.TRAIN_X.BATCH_SIZE,
            generator=self.model.noise_generator,
        )


class TrainedHeadTrainer(HeadTrainer):
    """Base of the trainers of heads that make the gradient steps of ``cfg.OPTIM``."""

    optimizes = True
