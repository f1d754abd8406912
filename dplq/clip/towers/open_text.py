"""open_clip's text transformers that are not CLIP's: SigLIP, CLIPA, MobileCLIP, CoCa.

`BidirectionalText` has no mask at all: its tokens attend to padding too, as these models were
trained. So the full length must run; a shorter one would be another feature. `ClassTokenText`
(CoCa) is causal and pooled at a class token behind the text, which attends to no padding but the
first: it runs at the length of the longest text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dplq.clip.blocks import call_block, run_blocks
from dplq.clip.hub_tokenizer import HubTokenizer
from dplq.clip.modules import Transformer
from dplq.clip.tokenizer import eot_index
from dplq.clip.towers.base import TextTower, Tokenizer, computed_length, project
from dplq.clip.towers.clip_text import CausalText

POOLS = ("first", "last", "argmax", "eos")


class BidirectionalText(TextTower):
    """A text transformer without any mask, pooled at one position.

    Args:
        module: open_clip's `TextTransformer`, or its `CLIP`.
        tokenizer: texts to padded ids.
        pool: open_clip's `pool_type`.
    """

    lacks_blocks = "its text tower is not CLIP's causal transformer"

    def __init__(self, module: Any, tokenizer: Tokenizer, pool: str) -> None:
        super().__init__(module, tokenizer)
        self.text, self.pool = module, pool
        if pool not in POOLS:
            self.lacks = f"its text tower pools by '{pool}'"
        self.width = self.text.token_embedding.embedding_dim
        self.layers = len(self.text.transformer.resblocks)
        self.context_length = self.text.context_length

    @property
    def prompt_start(self) -> int:  # type: ignore[override] # known once the tokenizer is loaded
        """Return the position of the first context token."""
        return _prompt_start(self.tokenizer)

    def end(self, tokens: Tensor) -> Tensor:
        """Return the position of each text's last token, (N,) long, of ids (N, L)."""
        hub = self.tokenizer
        return hub.end(tokens) if isinstance(hub, HubTokenizer) else eot_index(tokens)

    def count(self, tokens: Tensor) -> Tensor:
        """Return the tokens of each text without markers and padding, (N,) long."""
        hub = self.tokenizer
        return hub.count(tokens) if isinstance(hub, HubTokenizer) else super().count(tokens)

    def embed(self, tokens: Tensor) -> Tensor:
        """Return word embeddings (N, L, d_t) of ids (N, L)."""
        return self.text.token_embedding(tokens)

    def encode(
        self, embeddings: Tensor, end: Tensor, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return features of whole texts (N, context_length, d_t): padding takes part."""
        assert embeddings.shape[1] == self.context_length
        position = self.text.positional_embedding
        x = embeddings.to(position.dtype) + position
        x = _run(self.text.transformer, x, None, deep_prompts, self.prompt_start)
        place = {"first": torch.zeros_like(end), "last": end.new_full((), -1)}.get(self.pool, end)
        pooled = x[torch.arange(x.shape[0], device=x.device), place]
        return project(self.text.ln_final(pooled), self.text.text_projection)


class ClassTokenText(CausalText):
    """CoCa's causal text transformer, with a class token behind the text."""

    ignores_padding, lacks_blocks = False, "its text tower appends a class token"

    def __init__(self, module: Any, tokenizer: Tokenizer, prefix: str) -> None:
        super().__init__(module, tokenizer, prefix)
        self.context_length = module.context_length  # it has one position more
        self.supports_packing = False  # of texts only, each followed by a class token of its own
        self.whole = module

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Return features (N, d) of ids (N, L), whose id 0 ("!", too) counts as padding."""
        features = self.whole(tokens)
        return features[0] if isinstance(features, tuple) else features

    def encode(
        self, embeddings: Tensor, end: Tensor, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return features at the class token, at the length of the longest text."""
        text, position = self.whole, self.whole.positional_embedding
        # The published models' mask is one position late, so the first padding token takes part.
        last = end if getattr(text, "correct_cls_mask", False) else end + 1
        length = min(computed_length(last, embeddings.shape[1]), self.context_length)
        token = text.cls_emb.expand(embeddings.shape[0], 1, -1)
        x = torch.cat([embeddings[:, :length].to(position.dtype), token], dim=1)
        x = x + torch.cat([position[:length], position[-1:]])
        mask = self._mask(last, length).to(x.dtype)
        heads = text.transformer.resblocks[0].attn.num_heads
        mask = mask.repeat_interleave(heads, dim=0)
        x = _run(text.transformer, x, mask, deep_prompts, self.prompt_start)
        return project(text.ln_final(x[:, -1]), text.text_projection)

    def _mask(self, last: Tensor, length: int) -> Tensor:
        """Return the additive mask (N, length + 1, length + 1): earlier tokens, up to `last`."""
        positions = torch.arange(length + 1, device=last.device)
        keys = positions.clone()
        keys[-1] = self.context_length  # where the class token stands
        seen = keys <= last[:, None]
        if getattr(self.whole, "correct_cls_mask", False):
            seen[:, -1] = True
        allowed = seen[:, None] & (positions <= positions[:, None])
        return torch.zeros(allowed.shape, device=last.device).masked_fill(~allowed, float("-inf"))


class HubCausalText(CausalText):
    """CLIP's causal transformer with a tokenizer of the hub (the worldwide models)."""

    lacks_blocks = "its texts do not begin as CLIP's do"

    def __init__(
        self, module: nn.Module, tokenizer: HubTokenizer, prefix: str, eos_id: int | None
    ) -> None:
        super().__init__(module, tokenizer, prefix, eos_id)
        self.supports_packing = False  # the shared prefix is made for one start marker

    @property
    def prompt_start(self) -> int:  # type: ignore[override] # known once the tokenizer is loaded
        """Return the position of the first context token."""
        return _prompt_start(self.tokenizer)

    def count(self, tokens: Tensor) -> Tensor:
        """Return the tokens of each text without markers and padding, (N,) long."""
        hub = self.tokenizer
        return hub.count(tokens) if isinstance(hub, HubTokenizer) else super().count(tokens)


def _prompt_start(tokenizer: Tokenizer) -> int:
    return tokenizer.markers[0] if isinstance(tokenizer, HubTokenizer) else 1


def _run(
    transformer: Transformer,
    x: Tensor,
    mask: Tensor | None,
    deep_prompts: Sequence[Tensor],
    prompt_start: int,
) -> Tensor:
    """Run all blocks on `x` (N, L, d_t) with an additive mask, whole in every layer."""
    forward = partial(call_block, transformer, mask)
    return run_blocks(
        transformer.resblocks,
        x,
        deep_prompts,
        prompt_start=prompt_start,
        forward=forward,
        forward_last=forward,
    )
