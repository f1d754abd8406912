"""Trainers of zero-shot CLIP, with one text per dataset or an ensemble (Radford et al., ICML 2021).

The texts are those of CoOp's zero-shot trainers.
"""

from __future__ import annotations

from typing import Any

from dplq.clip.backbone import Backbone
from dplq.clip.templates import check_template, select_templates
from dplq.host.dassl import register_trainer
from dplq.methods.base import CLIPModel
from dplq.methods.zeroshot import ZeroshotModel
from dplq.training.distributed import is_main

from ._engine.frozen import FrozenTrainer
from ._engine.texts import dataset_template


@register_trainer
class ZeroshotCLIP(FrozenTrainer):
    """The un-prompted CLIP, with the dataset's own text."""

    model_class = ZeroshotModel
    fixed_epochs = 0

    def own_text(self) -> str:
        """Return TEMPLATE, or the text of this dataset.

        Raises:
            UserError: TEMPLATE has no place for the class name.
        """
        text = self.keys.TEMPLATE or dataset_template(self)
        check_template(text, f"TRAINER.{self.node}.TEMPLATE")
        return text

    def templates(self) -> list[str]:
        """Return the texts whose features are averaged."""
        return [self.own_text()]

    def model_settings(self) -> dict[str, Any]:
        """Return the templates, which follow from TEMPLATE and the dataset."""
        templates = self.templates()
        print(f"Texts ({len(templates)}): {' | '.join(templates)}")
        return {"templates": templates}

    def build_prompt_model(self, clip: Backbone, classnames: list[str], seed: int) -> CLIPModel:
        """Return the model, which encodes its texts as it is made: on the device."""
        return super().build_prompt_model(clip.to(self.device), classnames, seed)

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Do nothing: nothing was learned that could be loaded."""
        print(f"{type(self).__name__} learns nothing: no model is loaded")

    def test(self, split: str | None = None) -> float:
        """Evaluate as the base does; keep a checkpoint, so that `dplq.load` can open the run."""
        accuracy = super().test(split)
        if not is_main():
            return accuracy
        folder = self.model_dir(self.output_dir)
        others = [path for path in folder.glob("*") if path.name != "model-0.safetensors"]
        if split is None and self.output_dir and not others:  # not into a trained run's folder
            path = folder / "model-0.safetensors"
            self.model.save(path, trainer=type(self).__name__, epoch=0, val_result=None)
        return accuracy


@register_trainer
class ZeroshotCLIP2(ZeroshotCLIP):
    """Zero-shot CLIP with an ensemble of prompt templates."""

    node = "ZEROSHOTCLIP"

    def templates(self) -> list[str]:
        """Return OpenAI's selection for ImageNet; for another dataset its own text too."""
        own = [] if self.cfg.DATASET.NAME == "ImageNet" else [self.own_text()]
        return select_templates() + own
