"""Trainer of 2SFS: LayerNorms, then a classifier (Farina et al., CVPR 2025)."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.deltas.two_stage import TwoStageModel

from ._engine.deltas import DeltaTrainer


@register_trainer
class TwoStage(DeltaTrainer):
    """LayerNorms of both towers, then one row for each class; each stage has its own schedule."""

    model_class = TwoStageModel
    model: TwoStageModel
    prec = "amp"

    @property
    def first_stage(self) -> int:
        """The epochs of the first stage."""
        return round(self.keys.FIRST_STAGE * self.max_epoch)

    def before_epoch(self) -> None:
        """Begin the second stage where its first epoch does."""
        super().before_epoch()
        if self.epoch == self.first_stage:
            self.model.begin_second_stage()

    def schedule_position(self) -> tuple[int, int]:
        """Return the epoch in this stage, and how many the stage has."""
        first = self.first_stage
        if self.epoch < first:
            return self.epoch, first
        return self.epoch - first, self.max_epoch - first
