"""Trainers of heads: classifiers on the features of frozen encoders, each described by its method.

What they share, from the features to the choice on val, is `HeadTrainer`.
"""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.heads.gda import GDAModel
from dplq.methods.heads.linear_probe import LinearProbeModel
from dplq.methods.heads.tip_adapter import TipAdapterFModel, TipAdapterModel

from ._engine.heads import HeadTrainer, TrainedHeadTrainer


@register_trainer
class LinearProbe(HeadTrainer):
    """Logistic regression on image features."""

    model_class = LinearProbeModel


@register_trainer
class GDA(HeadTrainer):
    """A Gaussian discriminant beside zero-shot CLIP."""

    model_class = GDAModel


@register_trainer
class TipAdapter(HeadTrainer):
    """A cache of training images beside zero-shot CLIP."""

    model_class = TipAdapterModel


@register_trainer
class TipAdapterF(TrainedHeadTrainer):
    """Tip-Adapter with trained keys."""

    model_class = TipAdapterFModel
