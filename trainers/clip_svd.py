"""Trainer of CLIP-SVD: learned singular values (Koleilat et al., TMLR 2025)."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.deltas.clip_svd import CLIPSVDModel

from ._engine.deltas import DeltaTrainer


@register_trainer
class CLIPSVD(DeltaTrainer):
    """Singular values of the matrices of both towers."""

    model_class = CLIPSVDModel
    prec = "amp"
    records_steps = True
