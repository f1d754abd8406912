"""Trainer of GDPL: quaternion prompts and weight deltas (Cao et al., Nexus 2025)."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.deltas.gdpl import GDPLModel

from ._engine.domain import DomainTrainer


@register_trainer
class GDPL(DomainTrainer):
    """QuaternionPrompt with coupled low-rank changes of both towers."""

    model_class = GDPLModel
    prec = "fp32"
    records_steps = True
