"""What an image tower and a text tower must provide.

A tower is an adapter: it holds a module of open_clip's model and runs it with prompts. It is no
`nn.Module` itself, so the model's state dict stays open_clip's, and a copied backbone copies its
towers with its modules. What a tower does not support it states in words (`lacks`); the method that
needs it refuses the model with these words (`dplq.methods.needs`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dplq.clip.packed_text import PackedTexts
from dplq.errors import UserError

Tokenizer = Callable[[Sequence[str]], Tensor]  # texts -> ids (N, L) long, padded


class ImageTower:
    """Base of all image towers; by itself one that takes no prompts.

    Args:
        module: open_clip's image tower, `visual` of its model.

    Attributes:
        width: of its tokens, d_v; 0 without tokens.
        layers: number of its blocks; 0 without tokens.
        lacks: why it takes no prompts, such as "its image tower is a ResNet, which has no tokens";
            "" where it takes them, shallow and deep.
        lacks_blocks: why its weights cannot be changed block by block; "" where they can.
        grad_checkpointing: whether activations are recomputed, block by block.
    """

    width: int = 0
    layers: int = 0
    lacks: str = ""
    lacks_blocks: str = ""
    grad_checkpointing: bool = False

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the weights that the images meet first."""
        return next(p.dtype for p in self.module.parameters() if p.is_floating_point())

    def encode(
        self, images: Tensor, prompts: Tensor | None = None, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return un-normalised features (B, d) of images in the tower's dtype.

        Prompts are context: patches and class token attend to them, and pooling leaves them out.

        Args:
            images: CLIP-normalised, (B, 3, H, W), of the tower's size.
            prompts: (n, d_v) or (B, n, d_v), appended to all tokens of the image, after the
                positional embedding; None: nothing.
            deep_prompts: before block l = 1..len(deep_prompts) the prompts are replaced by
                deep_prompts[l - 1], of the same shapes; no rows leave the block's tokens unchanged.
        """
        raise NotImplementedError

    def block_names(self) -> list[str]:
        """Return the blocks' names in the module."""
        return []


class TextTower:
    """Base of all text towers; by itself one that takes no prompts.

    A text is `prompt_start` tokens of a start marker, then the context, the class name and what
    follows it, an end marker, padding. A tower provides, for prompts:

    * `embedding`: the module of the word embeddings, and from it `embed`, which a method mixes with
      learned ones: without position, token type or the norm after them. `encode` adds these by
      position.
    * `end`: for every text the position that `encode` needs beside the embeddings: the last token
      that is no padding. From it come the pooled token and the padding mask (positions <= end).
    * `encode`: embeddings and ends to features. It may be given fewer positions than
      `context_length`: the callers cut what is behind the longest text where `ignores_padding`.
    * `count`: tokens of a text itself, without markers and padding.
    * `layers` blocks, before which deep prompts replace the tokens from `prompt_start` on.

    Args:
        module: open_clip's text tower, or its CLIP, whose attributes the tower's parts are.
        tokenizer: texts to padded ids; copies of a backbone share it.

    Attributes:
        width: of its tokens, d_t; 0 where it takes no prompts.
        layers: number of its blocks; 0 where it takes no prompts.
        context_length: the most tokens of a text.
        lacks: why it takes no prompts; "" where it takes them.
        lacks_blocks: why its weights cannot be changed block by block; "" where they can.
        causal: whether a token attends to itself and earlier tokens only.
        ignores_padding: whether tokens after `end` cannot change a feature.
        supports_packing: whether `pack` and `encode_packed` can be used; only a causal tower.
        prompt_start: position of the first context token: 1 after a start marker, 0 without one.
    """

    width: int = 0
    layers: int = 0
    context_length: int = 0
    lacks: str = ""
    lacks_blocks: str = ""
    causal: bool = False
    ignores_padding: bool = False
    supports_packing: bool = False
    prompt_start: int = 1

    def __init__(self, module: nn.Module, tokenizer: Tokenizer) -> None:
        self.module, self.tokenizer = module, tokenizer

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return ids (N, L) long, padded; L is `context_length`, or that of the longest text.

        Raises:
            UserError: a text is too long, or the tokenizer cannot be had.
        """
        return self.tokenizer(texts)

    def end(self, tokens: Tensor) -> Tensor:
        """Return the position of each text's last token, (N,) long, of ids (N, L)."""
        raise NotImplementedError

    def count(self, tokens: Tensor) -> Tensor:
        """Return the tokens of each text without markers and padding, (N,) long, of ids (N, L)."""
        return self.end(tokens) - self.prompt_start

    def embed(self, tokens: Tensor) -> Tensor:
        """Return word embeddings (N, L, d_t) of ids (N, L)."""
        return self.embedding(tokens)

    def vocabulary(self) -> Tensor:
        """Return the embeddings (V, d_t) of all words of the vocabulary.

        Raises:
            UserError: the tower takes no prompts, so embeds no words for others.
        """
        if self.lacks:
            raise UserError(f"The vocabulary cannot be had: {self.lacks}.")
        return self.embedding.weight

    @property
    def embedding(self) -> nn.Embedding:
        """Return the module that embeds words."""
        raise NotImplementedError

    def words(self, ids: Sequence[int]) -> list[str]:
        """Return the words of ids, as the tokenizer writes them, without marks of word ends.

        Raises:
            UserError: the tokenizer cannot be had.
        """
        known: Any = self.tokenizer
        return known.words(ids)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Return un-normalised features (N, d) of ids (N, L)."""
        return self.encode(self.embed(tokens), self.end(tokens))

    def encode(
        self, embeddings: Tensor, end: Tensor, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return un-normalised features (N, d) of embedded texts.

        Args:
            embeddings: (N, L, d_t), from `embed`, with learned tokens in it.
            end: (N,), from `end`.
            deep_prompts: before block l = 1..len(deep_prompts) the tokens from `prompt_start` on
                are replaced by deep_prompts[l - 1], (n, d_t) or one per text (N, n, d_t); no rows
                leave the block's tokens unchanged.
        """
        raise NotImplementedError

    def block_names(self) -> list[str]:
        """Return the blocks' names in open_clip's model."""
        return []

    def prefix_states(self, tokens: Tensor) -> list[Tensor]:
        """Return the states (L, d_t) of a causal text's first tokens before the blocks 1, 2, ..."""
        raise NotImplementedError

    def pack(self, tokens: Tensor, n_ctx: int) -> PackedTexts:
        """Pack ids (K, L) of whole texts with `n_ctx` context tokens."""
        raise NotImplementedError

    def encode_packed(
        self,
        sos: Tensor,
        context: Tensor,
        texts: PackedTexts,
        deep_prompts: Sequence[Tensor] = (),
        chunk: int | str = "auto",
    ) -> Tensor:
        """Return features (B, K, d); arguments as of `Backbone.encode_packed_text`."""
        raise NotImplementedError


def computed_length(end: Tensor, given: int) -> int:
    """Return how many positions a tower computes: those up to the longest text's end.

    A graph that is traced cannot depend on the value of `end`, and a training step on a GPU must
    not wait for it: there all that are given, which are trimmed where the texts have prompts.

    Args:
        end: position of each text's last token, (N,) long.
        given: number of positions of the embedded texts.
    """
    if torch.compiler.is_compiling() or (end.is_cuda and torch.is_grad_enabled()):
        return given
    return int(end.max()) + 1


def project(pooled: Tensor, projection: Tensor | nn.Module | None) -> Tensor:
    """Return features in the joint space of text and image."""
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection
