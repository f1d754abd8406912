"""Sequence packing of class texts: shared prefix, block-diagonal causal mask.

In a causal text tower a token attends to earlier tokens only, so all that precedes the class name
is the same for all classes (docs/method.md, "Exact identities", 1-4 and 6). Many classes therefore
share one sequence:

    [SOS, context, "of a" | river . EOT | storage tank . EOT | ... ]

The attention mask lets the tokens of a class attend to the prefix and to earlier tokens of their
own class; each token keeps the positional embedding of its own text. Nothing after EOT is
computed, the prefix is computed once per block of classes, names of different lengths need no
padding, and the last layer is computed at EOT only. The result equals that of separate sequences;
nothing is approximated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dplq.clip.blocks import forward_at, forward_block, run_blocks
from dplq.clip.modules import ResidualBlock

TOKENS_PER_BLOCK = 128  # about; longer blocks waste more products on masked entries
MULTIPLE = 8  # attention kernels require mask rows of a multiple of this
PREFIX, PADDING = -1, -2  # segment ids of tokens that belong to no class


class PackedTexts(nn.Module):
    """Texts of K classes after the context, packed into N sequences ("blocks").

    Args:
        tokens: (K, L'), token ids from the first position after the context on.
        embedded: (K, L', d_t), their embeddings, positional embedding included.
        eot: (K,), position of each text's EOT, counted as in `tokens`.
        offset: number of tokens before these: SOS and context.

    Attributes:
        prefix: (1, C, d_t), the first tokens, which all texts share; each class keeps at least one
            of its own.
        packed: (N, T, d_t), all other tokens up to EOT, class after class; zero where padded.
        attn_mask: (N, 1, L, L), True where a query attends to a key, L = offset + C + T.
        eot_index: (N, M), position of each class's EOT in its block; 0 where padded.
        class_index: (K,), position of each class in the flattened `eot_index`.
    """

    prefix: Tensor
    packed: Tensor
    attn_mask: Tensor
    eot_index: Tensor
    class_index: Tensor

    def __init__(self, tokens: Tensor, embedded: Tensor, eot: Tensor, offset: int) -> None:
        super().__init__()
        tokens, eot, device = tokens.cpu(), eot.cpu(), embedded.device
        agree = (tokens == tokens[:1]).all(dim=0).long().cumprod(dim=0)
        shared = min(int(agree.sum()), int(eot.min()))
        counts = (eot - shared + 1).tolist()
        blocks = split_into_blocks(counts, TOKENS_PER_BLOCK)
        start = offset + shared
        length = start + max(sum(counts[k] for k in block) for block in blocks)
        length = math.ceil(length / MULTIPLE) * MULTIPLE

        segments = torch.full((len(blocks), length), PADDING)
        segments[:, :start] = PREFIX
        most, classes = max(map(len, blocks)), []
        ends = torch.zeros(len(blocks), most, dtype=torch.long)
        packed = embedded.new_zeros(len(blocks), length - start, embedded.shape[-1])
        for row, block in enumerate(blocks):
            position = start
            for column, k in enumerate(block):
                own = slice(position, position + counts[k])
                segments[row, own] = k
                packed[row, position - start : own.stop - start] = embedded[k, shared : eot[k] + 1]
                ends[row, column] = own.stop - 1
                classes.append(row * most + column)
                position = own.stop
        mask = block_diagonal_causal_mask(segments)[:, None]
        self.register_buffer("prefix", embedded[:1, :shared], persistent=False)
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("attn_mask", mask.to(device), persistent=False)
        self.register_buffer("eot_index", ends.to(device), persistent=False)
        self.register_buffer("class_index", torch.tensor(classes, device=device), persistent=False)


def block_diagonal_causal_mask(segments: Tensor) -> Tensor:
    """Return the mask (N, L, L) of segment ids (N, L): own segment and prefix, earlier tokens."""
    same = (segments[:, :, None] == segments[:, None]) | (segments[:, None] == PREFIX)
    return same.tril()


def split_into_blocks(counts: Sequence[int], size: int) -> list[list[int]]:
    """Split classes evenly into blocks of about `size` tokens, in their order.

    Args:
        counts: tokens of each class.
        size: wanted tokens per block.

    Returns:
        Class indices of each block.
    """
    total = sum(counts)
    blocks: list[list[int]] = [[] for _ in range(math.ceil(total / size))]
    before = 0
    for k, count in enumerate(counts):
        blocks[before * len(blocks) // total].append(k)
        before += count
    return [block for block in blocks if block]


def forward_packed(
    blocks: Sequence[ResidualBlock],
    texts: PackedTexts,
    prefix: Tensor,
    deep_prompts: Sequence[Tensor],
    chunk: int,
) -> Tensor:
    """Return the hidden states of all classes at EOT after the last residual block.

    With gradients, more than one chunk means activation checkpointing: the backward pass
    recomputes each chunk.

    Args:
        blocks: the tower's residual blocks.
        texts: the classes.
        prefix: (B or 1, P, d), the tokens shared by all texts: SOS, context and `texts.prefix`.
        deep_prompts: for layers 1, 2, ...: (n, d), or no rows to leave a layer's tokens unchanged.
        chunk: packed blocks per forward pass.

    Returns:
        (B, K, d).
    """
    states = []
    for start in range(0, len(texts.packed), chunk):
        part = slice(start, start + chunk)
        inputs = (texts.packed[part], texts.attn_mask[part], texts.eot_index[part])
        if chunk < len(texts.packed) and torch.is_grad_enabled():
            # No tower draws random numbers, so no generator state needs to be kept.
            state = checkpoint(
                _forward_chunk, blocks, prefix, deep_prompts, *inputs,
                use_reentrant=False, preserve_rng_state=False,
            )  # fmt: skip
        else:
            state = _forward_chunk(blocks, prefix, deep_prompts, *inputs)
        states.append(state)
    return torch.cat(states, dim=1).index_select(1, texts.class_index)


def _forward_chunk(
    blocks: Sequence[ResidualBlock],
    prefix: Tensor,
    deep_prompts: Sequence[Tensor],
    packed: Tensor,
    attn_mask: Tensor,
    eot: Tensor,
) -> Tensor:
    """Return the states (B, N M, d) at `eot` of N packed blocks; shapes as in `PackedTexts`."""
    batch, count = prefix.shape[0], len(packed)
    x = torch.cat(
        [
            prefix[:, None].expand(-1, count, -1, -1),
            packed.to(prefix.dtype).expand(batch, -1, -1, -1),
        ],
        dim=2,
    ).flatten(0, 1)
    mask = torch.zeros_like(attn_mask, dtype=x.dtype).masked_fill_(~attn_mask, float("-inf"))
    eot_mask = mask.gather(2, eot[:, None, :, None].expand(-1, -1, -1, mask.shape[-1]))
    if count > 1:
        mask, eot_mask = (part.repeat(batch, 1, 1, 1) for part in (mask, eot_mask))
    positions = eot.repeat(batch, 1)
    x = run_blocks(
        blocks,
        x,
        deep_prompts,
        prompt_start=1,
        forward=lambda block, x: forward_block(block, x, mask),
        forward_last=lambda block, x: forward_at(block, x, positions, eot_mask),
    )
    return x.unflatten(0, (batch, count)).flatten(1, 2)
