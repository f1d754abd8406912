"""Features of images, computed once: for a run, and for all runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from torch import Tensor
from tqdm import tqdm

from dplq.errors import UserError
from dplq.host.dassl import prepare_worker
from dplq.host.terminal import log_only
from dplq.methods.heads.fitting import Labelled
from dplq.training.distributed import world_size
from dplq.training.feature_cache import GB
from dplq.training.frozen.description import describe
from dplq.training.frozen.features import FrozenFeatures
from dplq.training.loaders import accelerate_loader

from .environment import preparation, versions


def training_images(trainer: Any, *, augmented: bool = False) -> Any:
    """Return a loader of the training images in the dataset's order, each once.

    Args:
        trainer: a `FrozenTrainer` with its data.
        augmented: transform the images as in training, not as in a test.
    """
    cfg = trainer.cfg
    with log_only():  # Dassl describes the transforms
        loader = build_data_loader(
            cfg,
            data_source=trainer.dm.dataset.train_x,
            batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
            tfm=build_transform(cfg, is_train=augmented),
            is_train=False,
        )
    quick = accelerate_loader(
        loader, cfg, device=trainer.device, is_train=augmented, prepare_worker=prepare_worker
    )
    return trainer.with_frozen_features(quick, draws=augmented)


@torch.no_grad()
def compute_features(
    trainer: Any,
    loaders: Iterable[Iterable[dict[str, Any]]],
    features_of: Callable[[Tensor], Tensor],
) -> Labelled:
    """Return the features of all images, a view for each loader.

    Args:
        trainer: a `FrozenTrainer`.
        loaders: of the same images in the same order.
        features_of: returns features (B, d) of images (B, 3, H, W).

    Raises:
        UserError: a feature is nan or infinite.
    """
    views: list[Tensor] = []
    for loader in loaders:
        features, labels = [], []
        for batch in tqdm(loader, desc="features", leave=False, disable=None):
            images, label = trainer.parse_batch_test(batch)
            with trainer.precision.autocast():
                features.append(features_of(images))
            labels.append(label)
        views.append(torch.cat(features))
    found = torch.stack(views)
    if bad := int((~torch.isfinite(found).all(dim=2)).any(dim=0).sum()):
        advice = "The weights of the encoders are at fault."
        if trainer.precision.name != "fp32":
            advice = (
                f"Use TRAINER.{trainer.node}.PREC fp32 (with another --output-dir, or "
                "--overwrite); if they stay so, the weights of the encoders are at fault."
            )
        raise UserError(
            f"The features of {bad} of {found.shape[1]} images are nan or infinite: nothing is "
            f"fitted. {advice}"
        )
    return Labelled(found, torch.cat(labels))


def frozen_features(trainer: Any) -> FrozenFeatures | None:
    """Return the features of a run that are kept for others; None where none are.

    A compiled model computes its features in kernels with other last bits, and several processes
    of one run have a part of each batch.
    """
    cfg, model = trainer.cfg, trainer.model
    if not (cfg.TRAIN.FEATURE_CACHE and model.frozen_inputs) or cfg.MODEL.COMPILE:
        return None
    if world_size() > 1:
        return None
    facts = {
        **preparation(cfg, trainer.precision),
        "checkpointing": cfg.MODEL.GRAD_CHECKPOINTING,
        "packages": versions(),
        "builder": describe(build_transform),  # host trees change it
    }
    limit = round(cfg.TRAIN.FEATURE_CACHE * GB)
    dtype = trainer.precision.compute or trainer.precision.frozen
    return FrozenFeatures(model, facts, limit, trainer.passes, dtype)
