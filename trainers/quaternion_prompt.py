"""QuaternionPrompt: domain prompt learning with quaternion networks (Cao et al., CVPR 2024)."""

from __future__ import annotations

from dataclasses import fields

from torch import nn

from dplq.clip.backbone import Backbone
from dplq.host.dassl import register_trainer
from dplq.methods.prompt_learner import PromptOptions
from dplq.methods.quaternion_prompt import QuaternionPromptCLIP

from ._engine.domain import DomainTrainer, load_domain


@register_trainer
class QuaternionPrompt(DomainTrainer):
    """A frozen domain encoder steers CLIP's text and vision prompts through quaternion layers."""

    node = "QUATERNIONPROMPT"

    def build_prompt_model(self, clip: Backbone, classnames: list[str], seed: int) -> nn.Module:
        """Return the model of METHOD.md, "Forward pass", with the config's switches."""
        keys = self.keys
        encoder = load_domain(self.cfg, clip, keys.PRESET)
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
