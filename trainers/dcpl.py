"""Trainer of DCPL: domain-controlled prompt learning (Cao et al., AAAI 2024)."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.dcpl import DCPLModel

from ._engine.domain import DomainTrainer


@register_trainer
class DCPL(DomainTrainer):
    """A frozen domain encoder shifts MaPLe's language prompts, and the image features."""

    model_class = DCPLModel
    prec = "fp16"
    records_steps = True
