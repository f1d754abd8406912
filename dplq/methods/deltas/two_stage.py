"""2SFS: LayerNorms first, then a classifier (Farina et al., CVPR 2025).

The LayerNorms of the residual blocks learn. The release lists ln_pre, ln_post and ln_final as well,
but freezes them again before training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dplq.clip.adapt import norm_weights
from dplq.clip.backbone import Backbone
from dplq.methods.deltas.base import DeltaModel, Deltas, DeltaSettings, Replaced
from dplq.methods.registry import register_method
from dplq.methods.settings import option
from dplq.methods.trained_names import trained_rows


@dataclass(frozen=True)
class TwoStageSettings(DeltaSettings):
    """Settings of two-stage few-shot adaptation."""

    first_stage: float = option(
        0.6, "share of the epochs in which the LayerNorms learn", minimum=0, maximum=1
    )


class TwoStageLearner(nn.Module):
    """The blocks' LayerNorms, and from the second stage on a row (d,) for every trained class.

    Attributes:
        stage: 1 or 2, part of the state: it says whether the classifier is in use.
    """

    stage: Tensor

    def __init__(self, deltas: Deltas, classes: int, width: int) -> None:
        super().__init__()
        self.deltas = deltas
        self.classifier = nn.Parameter(torch.zeros(classes, width))
        self.register_buffer("stage", torch.ones((), dtype=torch.int64))


@register_method
class TwoStageModel(DeltaModel):
    """CLIP with learned LayerNorms, and a classifier that starts at their text features.

    Classes that were not trained are told by the text features of the learned LayerNorms, beside
    the classifier's rows for those that were ("selective inference").

    Args:
        clip: the CLIP backbone.
        classnames: K class names; underscores become spaces.
        seed: not used: training starts at the frozen weights.
        **settings: fields of `TwoStageSettings`.

    Attributes:
        trained: the classes of the classifier's rows.
    """

    method, settings_class = "TwoStage", TwoStageSettings

    prompt_learner: TwoStageLearner

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given = TwoStageSettings(**settings)
        self.check_support(clip, asdict(given))
        deltas = Deltas({name: Replaced(clip.weight(name)) for name in norm_weights(clip)})
        learner = TwoStageLearner(deltas, len(classnames), clip.embed_dim)
        super().__init__(clip, learner, classnames, settings=asdict(given), deltas=deltas)
        self.trained = list(self.classnames)

    @torch.no_grad()
    def begin_second_stage(self) -> None:
        """Start the classifier at the text features; the LayerNorms stay from now on."""
        self._classify(self.classnames)
        self.prompt_learner.classifier.copy_(self.text_features()[0])
        self.prompt_learner.stage.fill_(2)

    def _classify(self, classnames: Sequence[str]) -> None:
        """Make the classifier's rows those of these classes, all zero."""
        self.trained = list(classnames)
        rows = self.prompt_learner.classifier
        rows.data = rows.new_zeros(len(self.trained), rows.shape[1])  # an optimiser may hold it

    def learned_beside_weights(self) -> list[str]:
        """Return the classifier, from the second stage on."""
        return super().learned_beside_weights() if self.prompt_learner.stage > 1 else []

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of CLIP-normalised images (B, 3, H, W)."""
        if self.folded_text is not None or self.prompt_learner.stage < 2:
            return super().forward(images)
        learns = self.prompt_learner.training  # the classifier alone
        with torch.set_grad_enabled(torch.is_grad_enabled() and not learns):
            features = self.image_features(images)
        return self.logits(features, F.normalize(self._rows(), dim=-1).unsqueeze(0))

    def constant_text(self) -> Tensor | None:
        """Return the classifier's rows (1, K, d), once it is in use."""
        if self.prompt_learner.stage < 2:
            return super().constant_text()
        return F.normalize(self._rows(), dim=-1).unsqueeze(0)

    def _rows(self) -> Tensor:
        """Return a row (K, d) for every class: learned where it was trained, else its text."""
        rows = self.prompt_learner.classifier
        if self.classnames == self.trained:
            return rows
        with torch.no_grad():
            text = self.text_features()[0]
        places = trained_rows(self.classnames, self.trained)
        return torch.stack(
            [
                feature if place is None else rows[place]
                for place, feature in zip(places, text, strict=True)
            ]
        )

    @property
    def learned_classes(self) -> list[str]:
        """Return the classes of the classifier's rows."""
        return self.trained

    def match_sizes(self, tensors: dict[str, Tensor], learned: Sequence[str] | None) -> None:
        """Give the classifier a row for each class that was trained."""
        if learned is not None:
            self._classify(learned)
