"""Trainer of PromptSRC: self-regulating prompts (Khattak et al., ICCV 2023)."""

from __future__ import annotations

from torch import Tensor

from dplq.host.dassl import register_trainer
from dplq.io.checkpoint import check_tensors
from dplq.methods.aggregation import GaussianAverage
from dplq.methods.promptsrc import PromptSRCModel

from ._engine.base import PromptTrainer
from ._engine.resume import RESUME_FILE


@register_trainer
class PromptSRC(PromptTrainer):
    """Prompts of both towers that agree with the frozen CLIP; the epochs' weights are averaged."""

    model_class = PromptSRCModel
    model: PromptSRCModel
    prec = "fp16"
    records_steps = True

    def build_model(self) -> None:
        """Build as the base does, with an average of no epochs yet."""
        keys = self.keys
        self.average = GaussianAverage(self.cfg.OPTIM.MAX_EPOCH, keys.GPA_MEAN, keys.GPA_STD)
        super().build_model()

    def after_epoch(self) -> None:
        """Average before the epoch is validated and saved; the last one ends with the average."""
        learner = self.model.prompt_learner
        self.average.add(self.epoch, learner.state_dict())
        if self.epoch + 1 == self.max_epoch:
            learner.load_state_dict(self.average.state)
            print("The weights are now the Gaussian average of all epochs' weights")
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("best_val compares them with each earlier epoch's own weights")
        super().after_epoch()

    def extra_state(self) -> dict[str, Tensor]:
        """The average so far."""
        return self.average.state

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on with the average of an interrupted run."""
        check_tensors(self.model.prompt_learner.state_dict(), tensors, RESUME_FILE)
        self.average.state = tensors
