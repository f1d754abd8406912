"""Trainer of BiomedCoOp: context optimisation with texts of a language model (CVPR 2025)."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.prompts.biomedcoop import BiomedCoOpModel

from ._engine.base import PromptTrainer


@register_trainer
class BiomedCoOp(PromptTrainer):
    """A learned context, regularised by an ensemble of texts."""

    model_class = BiomedCoOpModel
    records_steps = True
    model: BiomedCoOpModel

    def before_train(self) -> None:
        """Begin as the base does; texts that are missing are reported before the first step."""
        with self.own_keys():
            self.model.reference_text()
        super().before_train()
