"""CoCa's text tower: CLIP's, with a class token behind the longest possible text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dplq.clip.blocks import expand_to_batch, forward_at, forward_block, run_blocks
from dplq.clip.towers.base import Tokenizer, project
from dplq.clip.towers.clip_text import CausalText


class CoCaText(CausalText):
    """CoCa's text tower, pooled at an appended class token.

    That token attends to the text up to EOT and, as the published weights were trained, to one
    token more (open_clip's `correct_cls_mask` is False). The rest of the padding is not computed.
    """

    ignores_padding = False  # one token of padding counts

    def __init__(self, module: nn.Module, tokenizer: Tokenizer, prefix: str) -> None:
        super().__init__(module, tokenizer, prefix)
        own: Any = module
        self.class_token: nn.Parameter = own.cls_emb
        self.context_length: int = own.context_length
        self.lacks = self.lacks_blocks
        self.supports_packing = False
        self.is_shifted = not getattr(own, "correct_cls_mask", False)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Return the features of whole texts, by open_clip's own forward pass."""
        features = self.module(tokens)
        return features[0] if isinstance(features, tuple) else features

    def encode(
        self, embeddings: Tensor, end: Tensor, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return features at the class token."""
        text = self.text
        position = text.positional_embedding
        length = min(int(end.max()) + 1 + self.is_shifted, embeddings.shape[1])
        tokens = embeddings[:, :length].to(position.dtype) + position[:length]
        own = (self.class_token + position[-1])[None]
        x = torch.cat([tokens, expand_to_batch(own, tokens)], dim=1)
        attends = self._attends(end, length)
        mask = x.new_zeros(attends.shape).masked_fill_(~attends, float("-inf"))
        last = x.new_full((len(x), 1), length, dtype=torch.long)
        x = run_blocks(
            text.transformer.resblocks,
            x,
            deep_prompts,
            prompt_start=self.prompt_start,
            forward=partial(forward_block, mask=mask),
            forward_last=partial(forward_at, positions=last, mask=mask[:, :, -1:]),
        )
        return project(text.ln_final(x[:, 0]), text.text_projection)

    def _attends(self, end: Tensor, length: int) -> Tensor:
        """Return which of L text tokens and the class token attend to which, (N, 1, L+1, L+1)."""
        index = torch.arange(length + 1, device=end.device)
        attends = (index[:, None] >= index).expand(len(end), -1, -1).clone()
        attends[:, -1] = index <= end[:, None] + self.is_shifted
        # The class token attends to itself, but in shifted masks only where the text is full.
        attends[:, -1, -1] = end == self.context_length - 1 if self.is_shifted else True
        return attends[:, None]
