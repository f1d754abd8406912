"""Prompt learner of QuaternionPrompt: context and domain feature -> prompts of both towers.

Paper section "Domain prompt learning with quaternion networks"; the equations, the reference
behaviour and every switch are in docs/method.md, "Forward pass" and "Oddities of the release".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dplq.errors import UserError
from dplq.methods.base import Prompts
from dplq.methods.domain_head import DomainHead, statistics
from dplq.methods.init import bottleneck, clone_first, linear, random_tokens
from dplq.methods.presets import PRESETS, PresetSettings, draw_noise
from dplq.methods.quaternion import QuaternionLinear
from dplq.methods.settings import JointPromptSettings, option
from dplq.methods.text_map import TextMap

LAYERS = ("quaternion", "dense")
FUSIONS = ("sum", "axes")
STARTS = ("random", "words")


@dataclass(frozen=True)
class QuaternionPromptSettings(PresetSettings, JointPromptSettings):
    """Settings of QuaternionPrompt; docs/method.md, "Variants", explains the switches."""

    preset: str = option(
        "default",
        "default, reference (the authors' release), or residual_head",
        choices=tuple(PRESETS),
    )
    fusion: str | None = option(
        None, "sum, or axes (context and domain on two axes)", choices=FUSIONS
    )
    residual: bool | None = option(None, "add to plain prompts instead of replacing them")
    layer: str | None = option(None, "quaternion, or dense (ablation)", choices=LAYERS)
    text_init: str | None = option(
        None, "deep text prompts start random, or as the states of CTX_INIT's words", choices=STARTS
    )
    standardize: bool | None = option(
        None, "domain features with mean 0 and deviation 1 over the training images"
    )
    head_weight: float | None = option(
        None, "weight of a linear head among the trained classes; 0: no head", minimum=0, maximum=1
    )
    zeroshot_weight: float | None = option(
        None, "weight of un-prompted CLIP among other classes; 0: none", minimum=0, maximum=1
    )
    map_weight: float | None = option(
        None, "weight of a linear map to texts among other classes; 0: none", minimum=0, maximum=1
    )
    domain_dim: int = option(0, "width of the domain feature, d_f; 0: none", is_key=False)

    @property
    def learns_from_features(self) -> bool:
        """Whether something is fitted to the training images' features; of resolved settings."""
        return bool(self.standardize or self.head_weight or self.map_weight)

    def unused_switches(self, depth: int, has_domain: bool) -> dict[str, str]:
        """Return the switches that another setting disables, each with the reason."""
        reasons = super().unused_switches(depth, has_domain)
        if depth == 1:
            reasons["text_init"] = "PROMPT_DEPTH 1 leaves no deeper layers"
        if not has_domain:
            reasons["standardize"] = "there is no domain feature"
        return reasons


class PromptLearner(nn.Module):
    """Learnable state of QuaternionPrompt.

    Args:
        context: (n, d_t), the initial context c.
        settings: resolved ones; `prompt_depth` is J >= 1, layers 0..J-1 of both towers receive
            prompts; `domain_dim` is d_f, the width of the pooled domain feature, 0 for none.
        vision_width: d_v.
        generator: source of the random initial weights; None takes torch's global one.
        deep_text: the initial deep text prompts p_1..p_{J-1}, each (n, d_t); None: random.

    Attributes:
        mean: (d_f,), of the domain features of the training images (`standardize`).
        std: (d_f,), their standard deviation.

    Raises:
        UserError: a width the quaternion layers cannot split into four components.
    """

    fitted: Tensor
    mean: Tensor
    std: Tensor
    head: DomainHead
    text_map: TextMap

    def __init__(
        self,
        context: Tensor,
        settings: QuaternionPromptSettings,
        *,
        vision_width: int,
        generator: torch.Generator | None = None,
        deep_text: Sequence[Tensor] | None = None,
    ) -> None:
        super().__init__()
        n_ctx, text_width = context.shape
        self.settings = settings
        for width in (text_width, vision_width):
            if width % 4:
                raise UserError(
                    f"This backbone's width {width} is not a multiple of 4, "
                    "so its prompts cannot be split into quaternions. Choose another backbone."
                )

        # The part of the quaternion that is not zero (docs/method.md, "Forward pass" 3; fusion).
        is_sum = settings.fusion == "sum"
        inputs, components = (text_width, "jk") if is_sum else (2 * text_width, "ri")

        def mixing(outputs: int) -> nn.Module:
            if settings.layer == "dense":
                return linear(inputs, outputs, generator)
            return QuaternionLinear(2 * inputs, outputs, components=components, generator=generator)

        deep = range(settings.prompt_depth - 1)
        self.ctx = nn.Parameter(context.detach().clone().float())
        drawn = [random_tokens(n_ctx, text_width, generator) for _ in deep]
        start = drawn if deep_text is None else map(nn.Parameter, deep_text)
        self.deep_text = nn.ParameterList(start)
        self.meta_net: nn.Module | None = None
        if settings.domain_dim:
            self.meta_net = bottleneck(
                settings.domain_dim, text_width, generator, base_width=text_width
            )
        if settings.learns_from_features:
            self.register_buffer("fitted", torch.zeros(()))  # 1 once `fit_features` was called
        if settings.domain_dim and settings.standardize:
            self.register_buffer("mean", torch.zeros(settings.domain_dim))
            self.register_buffer("std", torch.ones(settings.domain_dim))
        self.language = mixing(text_width)
        self.vision_proj = linear(text_width, vision_width, generator)
        self.vision = nn.ModuleList([mixing(vision_width) for _ in deep])
        if settings.clone_init:
            clone_first(self.vision)
        if settings.residual:
            self.deep_vision = nn.ParameterList(
                [random_tokens(n_ctx, vision_width, generator) for _ in deep]
            )
            self.language_gain = nn.Parameter(torch.zeros(()))
            self.vision_gain = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in deep])

    def forward(self, domain_features: Tensor | None, noise: Tensor | None = None) -> Prompts:
        """Return the prompts of both towers for the batch's domain features.

        Args:
            domain_features: (B, d_f), pooled; None if the learner was made without.
            noise: (B, d_t), the noise e_b to add to the language prompt, already scaled.
        """
        if domain_features is None:
            signal = torch.zeros_like(self.ctx[:1]).unsqueeze(0)  # (1, 1, d_t)
        else:
            assert self.meta_net is not None  # made where domain_dim is not 0
            if self.settings.standardize:
                domain_features = (domain_features - self.mean) / self.std
            signal = self.meta_net(domain_features).unsqueeze(1)  # (B, 1, d_t)
        noisy = signal if noise is None else signal + noise.unsqueeze(1)
        language = self.language(self._fuse(self.ctx, noisy))
        deep_vision = [
            layer(self._fuse(text, signal))
            for layer, text in zip(self.vision, self.deep_text, strict=True)
        ]
        if self.settings.residual:
            language = self.ctx + self.language_gain * language
            deep_vision = [
                plain + gain * prompt
                for plain, gain, prompt in zip(
                    self.deep_vision, self.vision_gain, deep_vision, strict=True
                )
            ]
        vision = self.vision_proj(self.ctx)
        return Prompts(language.unsqueeze(1), list(self.deep_text), vision, deep_vision)

    def set_statistics(self, domain_features: Tensor) -> None:
        """Keep the mean and the deviation of the training images' domain features (N, d_f).

        The buffers keep their device and dtype.
        """
        mean, std = statistics(domain_features.float())
        self.mean.copy_(mean)
        self.std.copy_(std)

    def _fuse(self, text: Tensor, signal: Tensor) -> Tensor:
        """Return the part of the quaternion input [r | i | j | k] that is not zero.

        With text (n, d_t) and signal (B, 1, d_t): "sum" has j and k, the halves of text + signal,
        (B, n, d_t); "axes" has r = text and i = signal, (B, n, 2 d_t).
        """
        if self.settings.fusion == "sum":
            return text + signal
        text, signal = torch.broadcast_tensors(text, signal)
        return torch.cat([text, signal], dim=-1)

    def draw_noise(
        self, domain_features: Tensor, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Draw the noise e_b (B, d_t) of this batch; None where the settings switch it off."""
        width = self.ctx.shape[1]
        return draw_noise(domain_features, width, self.settings, self.training, generator)
