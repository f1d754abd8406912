"""Access to the attention inside a tower, for recording it or for hiding tokens from it.

The towers compute attention by `F.scaled_dot_product_attention` (some blocks by
`F.multi_head_attention_forward`). A `TorchFunctionMode` replaces these calls while a tower encodes,
so that the towers themselves stay as fast as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dplq.clip.towers import ImageTower, TextTower

Hide = Callable[[int, int, int], Tensor | None]  # call, queries, keys -> (queries, keys) bool
Encode = Callable[..., Tensor]


class AttentionCalls(TorchFunctionMode):
    """The attention computed in this context, by the number of the call.

    Args:
        record: keep the probabilities, as part of the autograd graph.
        hide: returns which keys a query of a call does not see (True: hidden); None: nothing.

    Attributes:
        count: calls so far.
        probabilities: of the calls, (N, heads, queries, keys) each, where they are recorded.
    """

    def __init__(self, *, record: bool = False, hide: Hide | None = None) -> None:
        super().__init__()
        self.record, self.hide = record, hide
        self.count, self.probabilities = 0, list[Tensor]()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Replace the attention calls, and nothing else."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._attend_as_module(func, args, kwargs)
        return func(*args, **kwargs)

    def _hidden(self, queries: int, keys: int, like: Tensor) -> Tensor | None:
        """Return the additive mask of a call (queries, keys), and count the call."""
        call, self.count = self.count, self.count + 1
        hidden = self.hide and self.hide(call, queries, keys)
        if hidden is None:
            return None
        return _additive(~hidden.to(like.device), like)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **others: Any,
    ) -> Tensor:
        """Return multi-head attention (N, heads, queries, e) of (N, heads, tokens, e)."""
        shape = query.shape[-2], key.shape[-2]
        mask = _additive(attn_mask, query)
        if is_causal:
            mask = _additive(query.new_ones(shape, dtype=torch.bool).tril(), query)
        hidden = self._hidden(*shape, query)
        if hidden is not None:
            mask = hidden if mask is None else mask + hidden
        if not self.record:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=dropout_p, scale=scale, **others
            )
        scores = query @ key.mT * (scale or 1 / math.sqrt(query.shape[-1]))
        probabilities = (scores if mask is None else scores + mask).softmax(dim=-1)
        self._keep(probabilities)
        return probabilities @ value

    def _keep(self, probabilities: Tensor) -> None:
        if torch.is_grad_enabled() and not probabilities.requires_grad:
            probabilities.requires_grad_()
        self.probabilities.append(probabilities)

    def _attend_as_module(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the attention of `nn.MultiheadAttention`, tokens first: (tokens, N, d)."""
        query, key = args[:2]
        hidden = self._hidden(len(query), len(key), query)
        if hidden is not None:
            mask = _additive(kwargs.get("attn_mask"), query)
            kwargs = kwargs | {"attn_mask": hidden if mask is None else mask + hidden}
        if not self.record:
            return func(*args, **kwargs)
        needed = {"need_weights": True, "average_attn_weights": False}
        output, weights = func(*args, **(kwargs | needed))
        self.probabilities.append(weights.detach())  # the output does not depend on this copy
        return output, weights if kwargs.get("need_weights", True) else None


def _additive(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Return a mask that is added to the scores; a boolean one is True where a key takes part."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    zeros = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill(~mask, -math.inf)


@contextmanager
def replaced_encode(
    tower: ImageTower | TextTower, make: Callable[[Encode], Encode]
) -> Iterator[None]:
    """Replace a tower's `encode` in this context by `make(encode)`.

    Activations are not recomputed in it, as a second pass would run outside.
    """
    checkpointing = getattr(tower, "grad_checkpointing", None)
    if checkpointing:
        tower.grad_checkpointing = False  # type: ignore[union-attr]  # of image towers
    setattr(tower, "encode", make(tower.encode))  # noqa: B010  # an instance's own, for a while
    try:
        yield
    finally:
        del tower.encode
        if checkpointing:
            tower.grad_checkpointing = True  # type: ignore[union-attr]  # as above
