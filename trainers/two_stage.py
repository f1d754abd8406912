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
        """The epochs of the first stage; of two epochs or more each stage has one at least."""
        share, epochs = self.keys.FIRST_STAGE, self.max_epoch
        first = round(share * epochs)
        return min(max(first, 1), epochs - 1) if 0 < share < 1 < epochs else first

    def before_train(self) -> None:
        """Begin as the base does; say which stage a single epoch leaves out."""
        share = self.keys.FIRST_STAGE
        if 0 < share < 1 == self.max_epoch:
            left_out = "classifier is" if self.first_stage else "LayerNorms are"
            print(
                f"One epoch has one stage: the {left_out} not trained "
                f"(TRAINER.{self.node}.FIRST_STAGE {share:g})"
            )
        super().before_train()

    def before_epoch(self) -> None:
        """Begin the second stage where its first epoch does."""
        super().before_epoch()
        if self.epoch == self.first_stage:
            self.model.begin_second_stage()

    def stages(self) -> dict[str, int]:
        """Return the epochs of both stages."""
        first = self.first_stage
        return {"first stage": first, "second stage": self.max_epoch - first}
