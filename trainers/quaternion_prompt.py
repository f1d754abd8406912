"""QuaternionPrompt: domain prompt learning with quaternion networks (Cao et al., CVPR 2024)."""

from __future__ import annotations

from dataclasses import fields

from torch import nn

from dplq.backbones import Backbone
from dplq.dassl_compat import register_trainer
from dplq.domain_encoders import load_domain_encoder
from dplq.model import QuaternionPromptCLIP
from dplq.prompts import PRESET_NORMALIZE, PromptOptions, check_preset

from .base import PromptTrainer


@register_trainer
class QuaternionPrompt(PromptTrainer):
    """A frozen domain encoder steers CLIP's text and vision prompts through quaternion layers."""

    node = "QUATERNIONPROMPT"

    def build_prompt_model(self, clip: Backbone, classnames: list[str], seed: int) -> nn.Module:
        """Return the model of METHOD.md, "Forward pass", with the config's switches."""
        keys, domain = self.keys, self.cfg.DOMAIN
        encoder = None
        if domain.ENCODER != "none":
            print(f"Loading domain encoder ({domain.ENCODER})")
            encoder = load_domain_encoder(
                domain.ENCODER,
                weights=domain.WEIGHTS,
                feature=domain.FEATURE,
                normalize=domain.NORMALIZE or PRESET_NORMALIZE[check_preset(keys.PRESET)],
                pretrained=domain.PRETRAINED,
                backbone=clip,
            )
        switches = {field.name: keys[field.name.upper()] for field in fields(PromptOptions)}
        return QuaternionPromptCLIP(
            clip,
            encoder,
            classnames,
            n_ctx=keys.N_CTX,
            ctx_init=keys.CTX_INIT,
            prompt_depth=keys.PROMPT_DEPTH,
            preset=keys.PRESET,
            domain_dim=0 if encoder is None else None,
            seed=seed,
            **switches,
        )
