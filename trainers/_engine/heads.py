"""Base of the trainers of heads: features once, then the fit."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

import torch
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from torch import Tensor
from tqdm import tqdm

from dplq.clip.backbone import Backbone
from dplq.errors import UserError
from dplq.host.dassl import prepare_worker
from dplq.methods.base import CLIPModel
from dplq.methods.heads.base import HeadModel
from dplq.methods.heads.fitting import FitData, Labelled, Steps
from dplq.training.loaders import accelerate_loader

from .base import build_optimizer_of, rate_of
from .domain import load_domain
from .frozen import FrozenTrainer
from .templates import dataset_template
from .train_images import class_weights

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
        self._seed("train", 0)
        data = FitData(
            train=self._train_features(),
            val=self._features([self.val_loader]) if self._uses_val() else None,
            class_weights=class_weights(self),
            steps=self._steps(),
        )
        chosen = self.model.fit(data)
        learner = self.model.prompt_learner
        self.learnable_parameters = sum(p.numel() for p in learner.parameters())
        if chosen:
            values = ", ".join(f"{name} is {value:g}" for name, value in chosen.items())
            print(f"{type(self).__name__}: {values}")
        self.train_seconds = time.perf_counter() - started

    def _uses_val(self) -> bool:
        """Return whether hyperparameters are chosen on val images, which are no test images."""
        if self.keys.SELECT == "fixed":
            return False
        val = {item.impath for item in self.dm.dataset.val or ()}
        if val and val.isdisjoint(item.impath for item in self.dm.dataset.test):
            return True
        reason = "test images" if val else "absent"
        logger.warning("The val images are %s: nothing is chosen on them.", reason)
        return False

    def _steps(self) -> Steps | None:
        """Return how gradient steps are made, for heads that need them."""
        if not self.optimizes:
            return None
        cfg = self.cfg
        return Steps(
            optimizer=partial(build_optimizer_of, given=cfg.OPTIM),
            rate=partial(rate_of, given=cfg.OPTIM, base_lr=cfg.OPTIM.LR),
            epochs=cfg.OPTIM.MAX_EPOCH,
            batch_size=cfg.DATALOADER.TRAIN_X.BATCH_SIZE,
            generator=self.model.noise_generator,
        )

    def _train_features(self) -> Labelled:
        """Return the features of the training images, in the order of the dataset."""
        views = self.keys.VIEWS
        loader = build_data_loader(
            self.cfg,
            data_source=self.dm.dataset.train_x,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            tfm=build_transform(self.cfg, is_train=views > 0),
            is_train=False,
        )
        quick = accelerate_loader(
            loader,
            self.cfg,
            device=self.device,
            is_train=views > 0,
            prepare_worker=prepare_worker,
        )
        return self._features([quick] * max(views, 1))

    @torch.no_grad()
    def _features(self, loaders: Iterable[Iterable[dict[str, Any]]]) -> Labelled:
        """Return the features of all images, a view for each loader.

        Raises:
            UserError: a feature is nan or infinite.
        """
        views: list[Tensor] = []
        for loader in loaders:
            features, labels = [], []
            for batch in tqdm(loader, desc="features", leave=False):
                images, label = self.parse_batch_test(batch)
                with self.precision.autocast():
                    features.append(self.model.features(images))
                labels.append(label)
            views.append(torch.cat(features))
        found = torch.stack(views)
        if bad := int((~torch.isfinite(found).all(dim=2)).any(dim=0).sum()):
            advice = "The weights of the encoders are at fault."
            if self.precision.name != "fp32":
                advice = (
                    f"Use TRAINER.{self.node}.PREC fp32 (with another --output-dir, or "
                    "--overwrite); if they stay so, the weights of the encoders are at fault."
                )
            raise UserError(
                f"The features of {bad} of {found.shape[1]} images are nan or infinite: nothing is "
                f"fitted. {advice}"
            )
        return Labelled(found, torch.cat(labels))


class TrainedHeadTrainer(HeadTrainer):
    """Base of the trainers of heads that make the gradient steps of ``cfg.OPTIM``."""

    optimizes = True
