"""Trainer of CLIP-LoRA: low-rank adaptation (Zanella and Ben Ayed, CVPR workshops 2024)."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.deltas.clip_lora import CLIPLoRAModel

from ._engine.deltas import DeltaTrainer


@register_trainer
class CLIPLoRA(DeltaTrainer):
    """A low-rank change of the attention matrices of both towers."""

    model_class = CLIPLoRAModel
    prec = "amp"
    records_steps = True
