"""The text tower for all (image, class) pairs at the price of the class names alone.

A causal text tower sees only backwards, so what stands before the class name is the same for all
classes (METHOD.md, "Exact identities that make it fast", 1-4 and 6). Here many classes share one
sequence, which begins with what they all begin with:

    [SOS, context, "of a" | river . EOT | storage tank . EOT | ... ]

A mask lets each class see the beginning and itself; each token keeps the position that it has in
its own text. So nothing after EOT is run, the beginning is run once for a whole block of classes,
names of different lengths need no padding, and the last layer is computed at EOT alone. The result
is that of the plain tower, not an approximation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dplq.clip.blocks import advance, read, run_blocks

ROOM = 128  # tokens of classes in a block, about; in longer ones more products are masked out
MULTIPLE = 8  # attention kernels want masks whose rows are a multiple of this
BEGINNING, EMPTY = -1, -2  # stand for no class


class ClassTexts(nn.Module):
    """What follows the context in the texts of K classes, packed into N blocks.

    Args:
        tokens: (K, L'), token ids from the first place after the context on.
        embedded: (K, L', d_t), their embeddings, with position.
        eot: (K,), place of each text's EOT, counted as in `tokens`.
        before: number of tokens before these, SOS and context.

    Attributes:
        common: (1, C, d_t), the first tokens, where all texts agree; each class keeps one at least.
        own: (N, T, d_t), all other tokens up to EOT, class after class; zero where none is left.
        sees: (N, 1, L, L), which tokens a token of a block sees, L = before + C + T.
        ends: (N, M), where in its block each class's EOT is; 0 where there is no class more.
        valid: (K,), where each class is in the flat `ends`.
    """

    def __init__(self, tokens: Tensor, embedded: Tensor, eot: Tensor, before: int) -> None:
        super().__init__()
        tokens, eot, device = tokens.cpu(), eot.cpu(), embedded.device
        agree = (tokens == tokens[:1]).all(dim=0).long().cumprod(dim=0)
        shared = min(int(agree.sum()), int(eot.min()))
        counts = (eot - shared + 1).tolist()
        blocks = share_out(counts, ROOM)
        first = before + shared
        length = first + max(sum(counts[k] for k in block) for block in blocks)
        length = math.ceil(length / MULTIPLE) * MULTIPLE

        owner = torch.full((len(blocks), length), EMPTY)
        owner[:, :first] = BEGINNING
        most, valid = max(map(len, blocks)), []
        ends = torch.zeros(len(blocks), most, dtype=torch.long)
        own = embedded.new_zeros(len(blocks), length - first, embedded.shape[-1])
        for row, block in enumerate(blocks):
            place = first
            for column, k in enumerate(block):
                here = slice(place, place + counts[k])
                owner[row, here] = k
                own[row, place - first : here.stop - first] = embedded[k, shared : eot[k] + 1]
                ends[row, column] = here.stop - 1
                valid.append(row * most + column)
                place = here.stop
        same = (owner[:, :, None] == owner[:, None]) | (owner[:, None] == BEGINNING)
        self.register_buffer("common", embedded[:1, :shared], persistent=False)
        self.register_buffer("own", own, persistent=False)
        self.register_buffer("sees", same.tril()[:, None].to(device), persistent=False)
        self.register_buffer("ends", ends.to(device), persistent=False)
        self.register_buffer("valid", torch.tensor(valid, device=device), persistent=False)


def share_out(counts: Sequence[int], room: int) -> list[list[int]]:
    """Split classes of so many tokens, in their order, into blocks of about `room`, evenly."""
    total = sum(counts)
    blocks: list[list[int]] = [[] for _ in range(math.ceil(total / room))]
    before = 0
    for k, count in enumerate(counts):
        blocks[before * len(blocks) // total].append(k)
        before += count
    return [block for block in blocks if block]


def run_classes(
    blocks: Sequence[nn.Module],
    texts: ClassTexts,
    beginning: Tensor,
    deep_prompts: Sequence[Tensor],
    chunk: int,
) -> Tensor:
    """States (B, K, d) of all classes at EOT after the last residual block.

    With gradients, more than one chunk means that nothing of them is kept for the backward pass,
    which runs each again.

    Args:
        blocks: the tower's residual blocks.
        texts: the classes.
        beginning: (B or 1, P, d), what all texts begin with: SOS, context and `texts.common`.
        deep_prompts: for layers 1, 2, ...: (n, d), or no rows to leave the layer alone.
        chunk: blocks of classes that are run at once.
    """
    states = []
    for start in range(0, len(texts.own), chunk):
        here = slice(start, start + chunk)
        parts = (texts.own[here], texts.sees[here], texts.ends[here])
        if chunk < len(texts.own) and torch.is_grad_enabled():
            # Nothing in a tower is random, so there is no generator's state to keep.
            state = checkpoint(
                _run_packed, blocks, beginning, deep_prompts, *parts,
                use_reentrant=False, preserve_rng_state=False,
            )  # fmt: skip
        else:
            state = _run_packed(blocks, beginning, deep_prompts, *parts)
        states.append(state)
    return torch.cat(states, dim=1).index_select(1, texts.valid)


def _run_packed(
    blocks: Sequence[nn.Module],
    beginning: Tensor,
    deep_prompts: Sequence[Tensor],
    own: Tensor,
    sees: Tensor,
    ends: Tensor,
) -> Tensor:
    """States (B, N M, d) at `ends` of N blocks of classes; arguments as in `ClassTexts`."""
    batch, count = len(beginning), len(own)
    x = torch.cat(
        [
            beginning[:, None].expand(-1, count, -1, -1),
            own.to(beginning.dtype).expand(batch, -1, -1, -1),
        ],
        dim=2,
    ).flatten(0, 1)
    mask = torch.zeros_like(sees, dtype=x.dtype).masked_fill_(~sees, float("-inf"))
    asks = mask.gather(2, ends[:, None, :, None].expand(-1, -1, -1, mask.shape[-1]))
    if count > 1:
        mask, asks = (part.repeat(batch, 1, 1, 1) for part in (mask, asks))
    places = ends.repeat(batch, 1)
    x = run_blocks(
        blocks,
        x,
        deep_prompts,
        first=1,
        step=lambda block, x: advance(block, x, mask),
        last=lambda block, x: read(block, x, places, asks),
    )
    return x.unflatten(0, (batch, count)).flatten(1, 2)
