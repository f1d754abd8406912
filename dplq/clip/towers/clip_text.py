"""CLIP's causal text transformer.

docs/method.md, "Forward pass" step 4 and "Exact identities" 1 (tokens after the last EOT are not
computed). It runs open_clip's own residual blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dplq.clip.blocks import call_block, is_supported, run_blocks
from dplq.clip.memory import blocks_per_chunk
from dplq.clip.modules import TextTransformer
from dplq.clip.packed_text import PackedTexts, forward_packed
from dplq.clip.tokenizer import eot_index
from dplq.clip.towers.base import TextTower, Tokenizer, computed_length, project


class CausalText(TextTower):
    """CLIP's text tower, pooled at EOT.

    Args:
        module: open_clip's `TextTransformer`, or its `CLIP`.
        tokenizer: texts to ids, zero after EOT.
        prefix: of the module's names in open_clip's model.
        eos_id: of EOT; None where it has the largest id, as in CLIP's vocabulary.
    """

    causal, ignores_padding = True, True

    def __init__(
        self, module: nn.Module, tokenizer: Tokenizer, prefix: str, eos_id: int | None = None
    ) -> None:
        super().__init__(module, tokenizer)
        self.text: TextTransformer = _declared(module)
        self.width = self.text.token_embedding.embedding_dim
        self.layers = len(self.text.transformer.resblocks)
        self.context_length = self.text.positional_embedding.shape[0]
        self.prefix, self.eos_id = prefix, eos_id
        self.supports_packing = all(map(is_supported, self.text.transformer.resblocks))
        if not self.supports_packing:
            self.lacks_blocks = "the blocks of its text tower are not CLIP's"

    def end(self, tokens: Tensor) -> Tensor:
        """Return the position of EOT."""
        return eot_index(tokens if self.eos_id is None else (tokens == self.eos_id).int())

    @property
    def embedding(self) -> nn.Embedding:
        """Return the module that embeds words."""
        return self.text.token_embedding

    def encode(
        self, embeddings: Tensor, end: Tensor, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return features at EOT; later tokens are not computed."""
        text = self.text
        assert text.attn_mask is not None
        # The mask is causal: tokens after the last EOT cannot change the feature.
        length = computed_length(end, embeddings.shape[1])
        position = text.positional_embedding
        x = embeddings[:, :length].to(position.dtype) + position[:length]
        forward = partial(call_block, text.transformer, text.attn_mask[:length, :length])
        x = run_blocks(
            text.transformer.resblocks,
            x,
            deep_prompts,
            prompt_start=self.prompt_start,
            forward=forward,
            forward_last=forward,
        )
        pooled = text.ln_final(x[torch.arange(x.shape[0], device=x.device), end])
        return project(pooled, text.text_projection)

    def block_names(self) -> list[str]:
        """Return the names of the residual blocks."""
        return [f"{self.prefix}transformer.resblocks.{i}" for i in range(self.layers)]

    def prefix_states(self, tokens: Tensor) -> list[Tensor]:
        """Return the states of a text's first tokens (L,) before the blocks 1, 2, ...."""
        text = self.text
        assert text.attn_mask is not None  # a later token would change these states
        x = self.embed(tokens[None]) + text.positional_embedding[: len(tokens)]
        mask = text.attn_mask[: len(tokens), : len(tokens)]
        states = []
        for block in text.transformer.resblocks[:-1]:
            x = call_block(text.transformer, mask, block, x)
            states.append(x[0])
        return states

    def pack(self, tokens: Tensor, n_ctx: int) -> PackedTexts:
        """Pack whole texts (K, L)."""
        first = self.prompt_start + n_ctx
        eot = self.end(tokens)
        length = int(eot.max()) + 1
        tokens = tokens[:, first:length]
        position = self.text.positional_embedding[first:length]
        embedded = self.embed(tokens.to(position.device)) + position
        return PackedTexts(tokens, embedded, eot - first, first)

    def encode_packed(
        self,
        sos: Tensor,
        context: Tensor,
        texts: PackedTexts,
        deep_prompts: Sequence[Tensor] = (),
        chunk: int | str = "auto",
    ) -> Tensor:
        """Return features of all (image, class) pairs."""
        text = self.text
        blocks, position = text.transformer.resblocks, text.positional_embedding
        batch, n_ctx, _ = context.shape
        sos = (sos.to(position.dtype) + position[:1]).expand(batch, -1, -1)
        context = context.to(position.dtype) + position[1 : 1 + n_ctx]
        shared = texts.prefix.to(position.dtype).expand(batch, -1, -1)
        prefix = torch.cat([sos, context, shared], dim=1)
        if isinstance(chunk, str):
            count = blocks_per_chunk(texts.packed, texts.attn_mask.shape[-1], batch, len(blocks))
        else:
            count = max(chunk * len(texts.packed) // len(texts.class_index), 1)
        states = forward_packed(blocks, texts, prefix, deep_prompts, count)
        return project(text.ln_final(states), text.text_projection)


def _declared(module: Any) -> TextTransformer:
    return module
