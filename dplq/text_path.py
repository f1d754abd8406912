"""The text tower for all (image, class) pairs at the price of the class names alone.

A causal text tower sees only backwards, so what stands before the class name is the same for all
classes, and most of it for all images (METHOD.md, "Exact identities that make it fast", 1-4 and 6):

* nothing after EOT is run;
* ``[SOS, context]`` is run once per image in layer 0; from layer 1 to J-1 its inputs are constants,
  so there and in all later layers it is run once;
* the tokens between context and names that all texts share ("of a") are run once per image;
* only the names, ``. EOT`` included, are run for every pair, ragged: the classes are sorted by
  length, and classes of one length attend as one block;
* the last layer is computed at EOT alone.

The result is that of the plain tower, not an approximation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dplq.blocks import causal_mask, finish, look, project


class ClassTexts(nn.Module):
    """What follows the context in the texts of K classes.

    Args:
        tokens: (K, L), token ids from the first place after the context on.
        embedded: (K, L, d_t), their embeddings, with position.
        eot: (K,), place of each text's EOT, counted as in `tokens`.

    Attributes:
        common: (1, C, d_t), the first tokens, where all texts agree; each class keeps one at least.
        own: (1, S, d_t), all other tokens up to EOT, class after class, sorted by length.
        lengths: number of own tokens of each class, sorted.
        ends: (K,), where in `own` each class's EOT is, in the sorted order.
        rank: (K,), place of each class in the sorted order.
    """

    def __init__(self, tokens: Tensor, embedded: Tensor, eot: Tensor) -> None:
        super().__init__()
        tokens, eot, device = tokens.cpu(), eot.cpu(), embedded.device
        agree = (tokens == tokens[:1]).all(dim=0).long().cumprod(dim=0)
        shared = min(int(agree.sum()), int(eot.min()))
        count = (eot - shared + 1).tolist()
        order = sorted(range(len(count)), key=count.__getitem__)
        rows = [row for row in order for _ in range(count[row])]
        places = [shared + place for row in order for place in range(count[row])]
        self.lengths = [count[row] for row in order]
        ends = torch.tensor(self.lengths).cumsum(0) - 1
        rank = torch.tensor(order).argsort()
        self.register_buffer("common", embedded[:1, :shared], persistent=False)
        self.register_buffer("own", embedded[rows, places][None], persistent=False)
        self.register_buffer("ends", ends.to(device), persistent=False)
        self.register_buffer("rank", rank.to(device), persistent=False)


class Trail:
    """What the classes' own tokens look back at: per layer keys and values (B or 1, P, h, e)."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []


def lay_trail(
    blocks: Sequence[nn.Module],
    sos: Tensor,
    context: Tensor,
    common: Tensor,
    deep_prompts: Sequence[Tensor],
) -> Trail:
    """Run everything before the class names.

    Args:
        blocks: the tower's residual blocks.
        sos: (1, 1, d), with position.
        context: (B or 1, n, d), with position.
        common: (1, C, d), with position.
        deep_prompts: for layers 1, 2, ...: (n, d), or no rows to leave the layer alone.
    """
    trail = Trail()
    ahead = torch.cat([sos.expand(len(context), -1, -1), context], dim=1)
    sees = causal_mask(ahead.shape[1], 0, ahead.device)
    common_sees = causal_mask(common.shape[1], ahead.shape[1], ahead.device)
    for layer, block in enumerate(blocks):
        keys, values = project(block, ahead, "kv")
        if common.shape[1]:
            queries, more_keys, more_values = project(block, common)
            keys, values = _append(keys, more_keys), _append(values, more_values)
        trail.keys.append(keys)
        trail.values.append(values)
        if layer + 1 == len(blocks):
            break
        if common.shape[1]:
            common, queries = (t.expand(len(keys), *t.shape[1:]) for t in (common, queries))
            common = finish(block, common, look(queries, keys, values, common_sees))
        new = deep_prompts[layer] if layer < len(deep_prompts) else ahead[0, :0]
        if len(new):
            # SOS sees itself alone: one state for all images, on which nothing learned acts.
            first = _advance(block, ahead[:1, :1], sees[:1, :1])
            ahead = torch.cat([first, new.to(first.dtype)[None]], dim=1)
        else:
            ahead = _advance(block, ahead, sees)
    return trail


def _append(ahead: Tensor, more: Tensor) -> Tensor:
    batch = max(len(ahead), len(more))
    return torch.cat([t.expand(batch, *t.shape[1:]) for t in (ahead, more)], dim=1)


def _advance(block: nn.Module, x: Tensor, sees: Tensor) -> Tensor:
    return finish(block, x, look(*project(block, x), sees))


def run_names(
    blocks: Sequence[nn.Module],
    own: Tensor,
    lengths: Sequence[int],
    ends: Tensor,
    trail: Trail,
    batch: int,
) -> Tensor:
    """Run the own tokens of K' classes; returns the states (B, K', d) at EOT after the last block.

    Args:
        blocks: the tower's residual blocks.
        own: (1, S', d), class after class.
        lengths: number of tokens of each class; equal ones stand together.
        ends: (K',), where in `own` each class's EOT is.
        trail: what they look back at.
        batch: B, or 1 if all images share their texts.
    """
    groups = [
        (len(list(run)), causal_mask(length, 0, own.device)) for length, run in groupby(lengths)
    ]
    x = own
    for layer, block in enumerate(blocks):
        queries, keys, values = project(block, x)
        ahead = trail.keys[layer], trail.values[layer]
        attended = _look_back(queries, keys, values, *ahead, groups, batch)
        x = x.expand(batch, -1, -1)
        if layer + 1 == len(blocks):
            x, attended = x[:, ends], attended[:, ends]
        x = finish(block, x, attended)
    return x


def run_classes(
    blocks: Sequence[nn.Module],
    texts: ClassTexts,
    trail: Trail,
    *,
    batch: int,
    chunk: int,
    dtype: torch.dtype,
) -> Tensor:
    """States (B, K, d) of all classes at EOT, in chunks of classes that are run one by one.

    With gradients, more than one chunk means that nothing of them is kept for the backward pass,
    which runs each again.
    """
    states, first = [], 0
    for start in range(0, len(texts.lengths), chunk):
        lengths = texts.lengths[start : start + chunk]
        own = texts.own[:, first : first + sum(lengths)].to(dtype)
        ends = texts.ends[start : start + chunk] - first
        first += sum(lengths)
        arguments = (blocks, own, lengths, ends, trail, batch)
        if len(lengths) < len(texts.lengths) and torch.is_grad_enabled():
            # Nothing in a tower is random, so there is no generator's state to keep.
            state = checkpoint(run_names, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            state = run_names(*arguments)
        states.append(state)
    return torch.cat(states, dim=1)[:, texts.rank]


def _look_back(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    ahead_keys: Tensor,
    ahead_values: Tensor,
    groups: Sequence[tuple[int, Tensor]],
    batch: int,
) -> Tensor:
    """Attention of all names, (B, S, heads, e), to the trail (B or 1, P, heads, e) and themselves.

    Runs of names of one length are blocks of their own: (count, what their tokens see).
    """
    before = ahead_keys.shape[1]
    queries = queries * queries.shape[-1] ** -0.5
    # (B, heads, S, P): all names against the trail in one product
    far = queries.transpose(1, 2) @ ahead_keys.permute(0, 2, 3, 1)
    far = far.expand(batch, -1, -1, -1)
    weights_far, near_out, start = [], [], 0
    for count, sees in groups:
        length = len(sees)
        here = slice(start, start + count * length)
        start += count * length
        q, k, v = (
            part[:, here].unflatten(1, (count, length)).transpose(2, 3)
            for part in (queries, keys, values)
        )  # (B or 1, count, heads, length, e)
        near = (q @ k.transpose(-1, -2)).masked_fill(~sees, float("-inf"))
        near = near.expand(batch, -1, -1, -1, -1)
        apart = far[:, :, here].unflatten(2, (count, length)).transpose(1, 2)
        scores = torch.cat([apart, near], dim=-1)
        exact = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.softmax(dim=-1, dtype=exact).to(v.dtype)
        weights_far.append(weights[..., :before].transpose(1, 2).flatten(2, 3))
        near_out.append((weights[..., before:] @ v).transpose(2, 3).flatten(1, 2))
    seen = torch.cat(weights_far, dim=2) @ ahead_values.transpose(1, 2)  # (B, heads, S, e)
    return seen.transpose(1, 2) + torch.cat(near_out, dim=1)
