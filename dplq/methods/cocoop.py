"""CoCoOp: conditional context optimisation (Zhou et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Generator, Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.methods.base import PromptedCLIP, Prompts
from dplq.methods.init import bottleneck, initial_context, seeded_generator
from dplq.methods.public_checkpoints import context_and_net
from dplq.methods.registry import register_method
from dplq.methods.settings import MethodSettings, option


@dataclass(frozen=True)
class CoCoOpSettings(MethodSettings):
    """Settings of CoCoOp."""

    n_ctx: int = option(16, "context length, where no words set it", minimum=1)
    ctx_init: str = option("", "words that initialise the context, one token each; empty: random")


class CoCoOpLearner(nn.Module):
    """A context shifted by each image: c + h(x), h a two-layer net of the image feature x."""

    def __init__(self, context: Tensor, embed_dim: int, generator: Generator) -> None:
        super().__init__()
        self.ctx = nn.Parameter(context)
        width = context.shape[1]
        self.meta_net = bottleneck(embed_dim, width, generator, base_width=embed_dim)

    def forward(self, features: Tensor) -> Prompts:
        """Return contexts for images with the L2-normalised features (B, d)."""
        return Prompts(self.ctx + self.meta_net(features)[:, None, None])


@register_method
class CoCoOpModel(PromptedCLIP):
    """CLIP with a text context that is conditioned on the image.

    Args:
        clip: the CLIP backbone.
        classnames: K class names.
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `CoCoOpSettings`.
    """

    method, settings_class = "CoCoOp", CoCoOpSettings
    needs_images = False
    needs = ("text prompts",)
    public = context_and_net(lambda context: 1)

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given, generator = CoCoOpSettings(**settings), seeded_generator(seed)
        self.check_support(clip, asdict(given))
        prefix, context = initial_context(clip, given, generator, whole=True)
        given = replace(given, n_ctx=len(context))
        learner = CoCoOpLearner(context, clip.embed_dim, generator)
        super().__init__(
            clip, learner, classnames, settings=asdict(given), prefix=prefix, n_ctx=given.n_ctx
        )

    def prompts(self, images: Tensor) -> Prompts:
        """Return the prompts for a batch of CLIP-normalised images (B, 3, H, W)."""
        return self.prompt_learner(self.image_features(images))

    def image_features(
        self, images: Tensor, prompts: Prompts | None = None, *, adapted: bool = True
    ) -> Tensor:
        """Return CLIP's L2-normalised image features (B, d), which no prompt changes."""
        return super().image_features(images, adapted=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, 3, H, W), whose features are computed once."""
        features = self.image_features(images)
        return self.logits(features, self.text_features(self.prompt_learner(features)))
