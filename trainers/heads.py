"""Trainers of heads: classifiers on the features of frozen encoders, each described by its method.

What they share, from the features to the choice on val, is `HeadTrainer`.
"""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.heads.clap import CLAPModel
from dplq.methods.heads.clip_adapter import CLIPAdapterModel
from dplq.methods.heads.gda import GDAModel
from dplq.methods.heads.linear_probe import LinearProbeModel
from dplq.methods.heads.lp_plus_plus import LPPlusPlusModel
from dplq.methods.heads.ss_text import SSTextModel
from dplq.methods.heads.task_res import TaskResModel
from dplq.methods.heads.text_map import TextMapModel
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


@register_trainer
class LPPlusPlus(HeadTrainer):
    """A linear probe with learned weights of the text logits."""

    model_class = LPPlusPlusModel


@register_trainer
class CLAP(TrainedHeadTrainer):
    """A linear probe that starts from the class texts and stays near them."""

    model_class = CLAPModel


@register_trainer
class TaskRes(TrainedHeadTrainer):
    """A learned residual of the classes' text features."""

    model_class = TaskResModel


@register_trainer
class CLIPAdapter(TrainedHeadTrainer):
    """A small net beside the image feature."""

    model_class = CLIPAdapterModel


@register_trainer
class SSText(HeadTrainer):
    """Text-informed class means in closed form."""

    model_class = SSTextModel


@register_trainer
class TextMap(HeadTrainer):
    """A linear map from image features to the texts of their classes."""

    model_class = TextMapModel
