"""CoCoOp: conditional context optimisation (Zhou et al., CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Generator, Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.host.dassl import register_trainer
from dplq.methods.base import Prompts
from dplq.methods.init import bottleneck, initial_context
from dplq.methods.learned import Design, LearnedCLIP
from dplq.methods.public_checkpoints import FIXED_TOKENS, PublicLayout

from ._engine.base import PromptTrainer

REDUCTION = 16  # of the meta-net's hidden layer


class CoCoOpLearner(nn.Module):
    """A context that each image shifts: c + h(x), h a two-layer net of the image feature x."""

    def __init__(self, context: Tensor, embed_dim: int, generator: Generator) -> None:
        super().__init__()
        self.ctx = nn.Parameter(context)
        hidden = max(embed_dim // REDUCTION, 1)
        self.meta_net = bottleneck(embed_dim, hidden, context.shape[1], generator)

    def forward(self, features: Tensor) -> Prompts:
        """Contexts for images with the L2-normalised features (B, d)."""
        return Prompts(self.ctx + self.meta_net(features)[:, None, None])


@dataclass(frozen=True)
class CoCoOpSettings:
    """What a CoCoOp model is made of.

    Attributes:
        n_ctx: context length, where no words give it.
        ctx_init: words that initialise the context, one token for each; "": random.
    """

    n_ctx: int = 16
    ctx_init: str = ""


class CoCoOpModel(LearnedCLIP):
    """CLIP with a text context that is conditioned on the image."""

    method, settings_class = "CoCoOp", CoCoOpSettings

    def design(self, clip: Backbone, classes: int, given: CoCoOpSettings, rng: Generator) -> Design:
        """One context and its meta-net."""
        prefix, context = initial_context(clip, given.n_ctx, given.ctx_init, rng, whole=True)
        learner = CoCoOpLearner(context, clip.embed_dim, rng)
        return Design(replace(given, n_ctx=len(context)), learner, prefix, len(context))

    def prompts(self, images: Tensor) -> Prompts:
        """Prompts for a batch of CLIP-normalised images (B, 3, H, W)."""
        return self.prompt_learner(self.image_features(images))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, 3, H, W), whose features are computed once."""
        features = self.image_features(images)
        return self.logits(features, self.text_features(self.prompt_learner(features)))


@register_trainer
class CoCoOp(PromptTrainer):
    """CoOp's context, shifted by a small net of the image feature."""

    node = "COCOOP"
    model_class = CoCoOpModel
    public = PublicLayout(
        "prompt_learner",
        {
            "ctx": "ctx",
            r"meta_net\.linear1\.(weight|bias)": r"meta_net.0.\1",
            r"meta_net\.linear2\.(weight|bias)": r"meta_net.2.\1",
            **FIXED_TOKENS,
        },
    )
