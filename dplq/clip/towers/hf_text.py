"""Hugging Face's text towers inside open_clip: BERT, RoBERTa, XLM-R, mT5, NLLB.

BiomedCLIP and UniMed-CLIP have such a tower (PubMedBERT). It is bidirectional, and its padding is
masked, so a text can run at the length of the longest one instead of at 256: nothing changes.
Learned prompts take the place of word embeddings; position, token type and the norm after them are
the model's own. Deep prompts replace the tokens between its layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dplq.clip.blocks import check_deep_prompts, replace_tokens
from dplq.clip.towers.base import TextTower, Tokenizer, computed_length

LAYERS = ("encoder.layer", "block", "layers")  # of BERT and RoBERTa, T5, NLLB
WITHOUT_START = frozenset({"mt5", "t5"})  # model types whose texts begin with their first word


class HFText(TextTower):
    """A text tower of the transformers library.

    Args:
        module: open_clip's `HFTextEncoder`.
        tokenizer: texts to padded ids.
        context_length: tokens of the longest text.
    """

    lacks_blocks = "its text tower is a Hugging Face model, not CLIP's transformer"
    ignores_padding = True

    def __init__(self, module: nn.Module, tokenizer: Tokenizer, context_length: int) -> None:
        super().__init__(module, tokenizer)
        self.encoder: Any = module
        self.context_length = context_length
        self.width = self._embedding.embedding_dim
        self.layers = len(self._blocks)
        self.prompt_start = int(self._config.model_type not in WITHOUT_START)

    @property
    def _transformer(self) -> Any:
        return self.encoder.transformer

    @property
    def _config(self) -> Any:
        return self.encoder.config

    @property
    def _embedding(self) -> Any:
        return self._transformer.get_input_embeddings()

    @property
    def _blocks(self) -> nn.ModuleList:
        for path in LAYERS:
            try:
                blocks: Any = self._transformer.get_submodule(path)
            except AttributeError:
                continue
            return blocks
        raise AttributeError(f"{self._config.model_type} has no layers in {', '.join(LAYERS)}")

    def end(self, tokens: Tensor) -> Tensor:
        """Return the position of each text's last token, (N,) long, of ids (N, L)."""
        positions = torch.arange(tokens.shape[-1], device=tokens.device)
        return torch.where(tokens != self._config.pad_token_id, positions, 0).amax(dim=-1)

    def count(self, tokens: Tensor) -> Tensor:
        """Return the tokens of each text without markers and padding, (N,) long."""
        return self.end(tokens) - self.prompt_start  # the last token is the end marker

    def embed(self, tokens: Tensor) -> Tensor:
        """Return word embeddings; position, type and norm are added by `encode`."""
        return self._embedding(tokens)

    def encode(
        self, embeddings: Tensor, end: Tensor, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return features; tokens behind the longest text are not computed."""
        check_deep_prompts(deep_prompts, self.layers)
        length = computed_length(end, embeddings.shape[1])
        positions = torch.arange(length, device=end.device)
        mask = (positions <= end[:, None]).long()
        with self._replacing(deep_prompts):
            output = self._transformer(
                inputs_embeds=embeddings[:, :length].to(self.dtype), attention_mask=mask
            )
        projected: Tensor = self.encoder.proj(self._pool(output, mask))
        return projected

    def _pool(self, output: Any, mask: Tensor) -> Tensor:
        pooler: Any = self.encoder.pooler
        if type(pooler).__name__ == "MaxPooler":  # open_clip's own fails on the mask's dtype
            states: Tensor = output.last_hidden_state
            return states.masked_fill(mask[..., None] == 0, float("-inf")).amax(dim=1)
        return pooler(output, mask)

    @contextmanager
    def _replacing(self, deep_prompts: Sequence[Tensor]) -> Iterator[None]:
        """Replace tokens before the layers 1, 2, ... of the model's own forward pass."""
        handles = []

        def hook_of(prompts: Tensor) -> Any:
            def hook(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
                return replace_tokens(given[0], prompts, self.prompt_start), *given[1:]

            return hook

        try:
            for block, prompts in zip(self._blocks[1:], deep_prompts, strict=False):
                if prompts.shape[-2]:
                    handles.append(block.register_forward_pre_hook(hook_of(prompts)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the frozen weights."""
        return self._embedding.weight.dtype
