"""The prompt learner: context and domain feature -> language prompts and vision prompts.

Paper section "Domain prompt learning with quaternion networks"; the equations, the reference
behaviour and every switch are in METHOD.md, "Forward pass" and "Oddities of the release".
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from dplq.errors import UserError, suggest
from dplq.methods.base import Prompts
from dplq.methods.init import bottleneck, linear, small
from dplq.methods.quaternion import QuaternionLinear

LAYERS = ("quaternion", "dense")
FUSIONS = ("sum", "axes")
NOISE_SCALES = ("image", "batch")


@dataclass(frozen=True)
class PromptOptions:
    """The switches of METHOD.md, "Oddities of the release".

    Attributes:
        fusion: "sum" adds the domain signal to the context and puts the sum on two imaginary
            axes; "axes" puts the context on the real axis, the domain signal on the first
            imaginary one.
        residual: add the quaternion layers' output, times a gain that starts at 0, to plain
            prompts instead of replacing them.
        noise: Gaussian noise on the language prompt in training.
        noise_scale: standard deviation of the noise, "image": the mean of each image's feature;
            "batch": one mean over all features of the batch.
        noise_at_test: noise at test time too.
        clone_init: all vision quaternion layers start equal.
        layer: "quaternion", or "dense" for ordinary linear layers in their place (an ablation).
    """

    fusion: str = "sum"
    residual: bool = False
    noise: bool = True
    noise_scale: str = "image"
    noise_at_test: bool = False
    clone_init: bool = False
    layer: str = "quaternion"

    def __post_init__(self) -> None:
        for key in ("residual", "noise", "noise_at_test", "clone_init"):
            value = getattr(self, key)
            if not isinstance(value, bool):  # a word such as "false" would count as true
                raise UserError(f"{key.upper()} is {value!r}; write True or False.")
        words = (("fusion", FUSIONS), ("noise_scale", NOISE_SCALES), ("layer", LAYERS))
        for key, choices in words:
            if getattr(self, key) not in choices:
                value = getattr(self, key)
                raise UserError(f"{key.upper()} '{value}' is unknown.{suggest(value, choices)}")


PRESETS = {
    "default": PromptOptions(),
    "reference": PromptOptions(noise_scale="batch", noise_at_test=True, clone_init=True),
}
PRESET_NORMALIZE = {"default": "native", "reference": "clip"}


def resolve_options(preset: str = "default", **switches: object) -> PromptOptions:
    """Options of a preset with single switches replaced; a switch that is None keeps the preset's.

    Raises:
        UserError: unknown preset or value.
        TypeError: unknown switch.
    """
    check_preset(preset)
    given = {key: value for key, value in switches.items() if value is not None}
    values = {f.name: getattr(PRESETS[preset], f.name) for f in fields(PromptOptions)}
    return PromptOptions(**{**values, **given})


def check_preset(preset: str) -> str:
    """Return `preset` if it exists, else raise a UserError that lists the choices."""
    if preset not in PRESETS:
        raise UserError(f"PRESET '{preset}' is unknown.{suggest(preset, PRESETS)}")
    return preset


class PromptLearner(nn.Module):
    """Everything that is learned, and nothing that is frozen.

    Args:
        context: (n, d_t), the initial context c.
        vision_width: d_v.
        domain_dim: d_f, width of the pooled domain feature; 0: there is none.
        prompt_depth: J >= 1; layers 0..J-1 of both towers receive prompts.
        options: the method's switches.
        generator: source of the random initial weights; None takes torch's global one.

    Raises:
        UserError: a width the quaternion layers cannot split into four components.
    """

    def __init__(
        self,
        context: Tensor,
        *,
        vision_width: int,
        domain_dim: int,
        prompt_depth: int,
        options: PromptOptions | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        n_ctx, text_width = context.shape
        self.options = options = options or PromptOptions()
        for width in (text_width, vision_width):
            if width % 4:
                raise UserError(
                    f"This backbone's width {width} is not a multiple of 4, "
                    "so its prompts cannot be read as quaternions. Choose another backbone."
                )

        # How much of the quaternion is not zero, and where it stands (METHOD.md, step 3; fusion).
        live, axes = (text_width, "jk") if options.fusion == "sum" else (2 * text_width, "ri")

        def mixing(outputs: int) -> nn.Module:
            if options.layer == "dense":
                return linear(live, outputs, generator)
            return QuaternionLinear(2 * live, outputs, components=axes, generator=generator)

        deep = range(prompt_depth - 1)
        self.ctx = nn.Parameter(context.detach().clone().float())
        self.deep_text = nn.ParameterList([small(n_ctx, text_width, generator) for _ in deep])
        hidden = max(text_width // 16, 1)
        self.meta_net = None
        if domain_dim:
            self.meta_net = bottleneck(domain_dim, hidden, text_width, generator)
        self.language = mixing(text_width)
        self.vision_proj = linear(text_width, vision_width, generator)
        self.vision = nn.ModuleList([mixing(vision_width) for _ in deep])
        if options.clone_init:
            for layer in self.vision:
                layer.load_state_dict(self.vision[0].state_dict())
        if options.residual:
            self.deep_vision = nn.ParameterList(
                [small(n_ctx, vision_width, generator) for _ in deep]
            )
            self.language_gain = nn.Parameter(torch.zeros(()))
            self.vision_gain = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in deep])

    def forward(self, domain_features: Tensor | None, noise: Tensor | None = None) -> Prompts:
        """Turn the batch's domain features into prompts for both towers.

        Args:
            domain_features: (B, d_f), pooled; None if the learner was made without.
            noise: (B, d_t), the noise e_b to add to the language prompt, already scaled.
        """
        if domain_features is None:
            signal = torch.zeros_like(self.ctx[:1]).unsqueeze(0)  # (1, 1, d_t)
        else:
            signal = self.meta_net(domain_features).unsqueeze(1)  # (B, 1, d_t)
        noisy = signal if noise is None else signal + noise.unsqueeze(1)
        language = self.language(self._fuse(self.ctx, noisy))
        deep_vision = [
            layer(self._fuse(text, signal))
            for layer, text in zip(self.vision, self.deep_text, strict=True)
        ]
        if self.options.residual:
            language = self.ctx + self.language_gain * language
            deep_vision = [
                plain + gain * prompt
                for plain, gain, prompt in zip(
                    self.deep_vision, self.vision_gain, deep_vision, strict=True
                )
            ]
        vision = self.vision_proj(self.ctx)
        return Prompts(language.unsqueeze(1), list(self.deep_text), vision, deep_vision)

    def _fuse(self, text: Tensor, signal: Tensor) -> Tensor:
        """What of the quaternion input [r | i | j | k] is not zero, for text (n, d_t) and signal.

        "sum" gives j and k, the halves of text + signal, (B, n, d_t); "axes" gives r = text and
        i = signal, (B, n, 2 d_t), with the signal (B, 1, d_t).
        """
        if self.options.fusion == "sum":
            return text + signal
        text, signal = torch.broadcast_tensors(text, signal)
        return torch.cat([text, signal], dim=-1)

    def draw_noise(
        self, domain_features: Tensor, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Draw the noise e_b (B, d_t) of this batch, or None where the options want none."""
        width = self.ctx.shape[1]
        return draw_noise(domain_features, width, self.options, self.training, generator)


def draw_noise(
    features: Tensor,
    width: int,
    options: PromptOptions,
    training: bool,
    generator: torch.Generator | None = None,
) -> Tensor | None:
    """Draw noise (B, width) whose scale is a mean of features (B, d), or None if it is off."""
    if not options.noise or not (training or options.noise_at_test):
        return None
    if options.noise_scale == "batch":
        scale = features.mean()
    else:
        scale = features.mean(dim=1, keepdim=True)
    like = {"dtype": features.dtype, "device": features.device}
    return scale * torch.randn((len(features), width), generator=generator, **like)
