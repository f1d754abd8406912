"""CLIP without training: class names in one text per dataset, or in an ensemble of texts.

Radford et al., ICML 2021. The texts are those of CoOp's zero-shot trainers.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.clip.templates import ensemble_features, select_templates
from dplq.host.dassl import register_trainer
from dplq.methods.base import PromptedCLIP

from ._engine.frozen import FrozenTrainer

DEFAULT_TEMPLATE = "a photo of a {}."
# CoOp's, for datasets of host trees, which carry no `template`.
TEMPLATES = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
}


class ZeroshotModel(PromptedCLIP):
    """CLIP whose classes are the averaged features of fixed texts.

    Args:
        clip: the CLIP backbone.
        classnames: K class names; an underscore is read as a space.
        templates: texts with ``{}`` for the name.
    """

    method = "ZeroshotCLIP"

    def __init__(self, clip: Backbone, classnames: list[str], templates: list[str]) -> None:
        settings = {"templates": templates}
        super().__init__(clip, nn.Identity(), classnames, prefix="", n_ctx=0, settings=settings)

    def set_classnames(self, classnames: list[str]) -> None:
        """Classify into these classes from now on."""
        features = ensemble_features(
            self.clip, classnames, self.settings["templates"], normalize_each=True
        )
        self.register_buffer("classes", features.unsqueeze(0), persistent=False)  # (1, K, d)
        self.classnames = list(classnames)

    def prompts(self, images: Tensor) -> None:
        """There are none."""

    def text_features(self, prompts: None) -> Tensor:
        """L2-normalised features (1, K, d) of the classes."""
        return self.classes


@register_trainer
class ZeroshotCLIP(FrozenTrainer):
    """The un-prompted CLIP, with the dataset's own text."""

    node = "ZEROSHOTCLIP"
    fixed_epochs = 0

    def dataset_template(self) -> str:
        """The text of this dataset: its class's `template`, else CoOp's, else the usual one."""
        own = getattr(self.dm.dataset, "template", "")
        return own or TEMPLATES.get(self.cfg.DATASET.NAME, DEFAULT_TEMPLATE)

    def templates(self) -> list[str]:
        """The texts whose features are averaged."""
        return [self.dataset_template()]

    def build_prompt_model(self, clip: Backbone, classnames: list[str], seed: int) -> nn.Module:
        """Return the model; the features of its texts are computed at once, on the device."""
        templates = self.templates()
        print(f"Texts ({len(templates)}): {' | '.join(templates)}")
        return ZeroshotModel(clip.to(self.device), classnames, templates)

    def load_model(self, directory: str, epoch: int | None = None) -> Any:
        """Do nothing: nothing was learned that could be loaded."""
        print(f"{type(self).__name__} learns nothing: no model is loaded")


@register_trainer
class ZeroshotCLIP2(ZeroshotCLIP):
    """The same with 7 general texts more, whose features are averaged."""

    def templates(self) -> list[str]:
        """OpenAI's selection for ImageNet; for another dataset its own text too."""
        own = [] if self.cfg.DATASET.NAME == "ImageNet" else [self.dataset_template()]
        return select_templates() + own
