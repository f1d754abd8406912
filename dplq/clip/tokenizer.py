"""CLIP's byte-pair tokenizer: texts to padded token ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dplq.clip.installed import open_clip
from dplq.errors import UserError, shown

if TYPE_CHECKING:  # importing open_clip takes seconds, so only the functions that need it do
    from open_clip import SimpleTokenizer


@cache
def make_tokenizer(clean: str) -> SimpleTokenizer:
    """Return open_clip's tokenizer; `clean` names its text normalisation, such as ``lower``."""
    package = open_clip()

    return package.SimpleTokenizer(clean=clean)


def tokenize(tokenizer: SimpleTokenizer, texts: Sequence[str], length: int, model: str) -> Tensor:
    """Return token ids, (N, length) long, zero after EOT.

    Args:
        tokenizer: from `make_tokenizer`.
        texts: N texts.
        length: context length, SOS and EOT included.
        model: name of the model, for the error.

    Raises:
        UserError: a text needs more than `length` tokens.
    """
    tokens = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in zip(tokens, texts, strict=True):
        ids = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
        if len(ids) > length:
            raise UserError(
                f"the text {shown(text, 500)} has {len(ids)} tokens (SOS and EOT included), but "
                f"{model} accepts at most {length}; shorten the class name, CTX_INIT or N_CTX"
            )
        row[: len(ids)] = torch.tensor(ids)
    return tokens


def eot_index(tokens: Tensor) -> Tensor:
    """Return the position of EOT, (...) long, in token ids (..., L).

    EOT has the largest id of CLIP's vocabulary.
    """
    return tokens.argmax(dim=-1)
