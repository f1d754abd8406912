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


END_OF_WORD = "</w>"  # of a token
SPECIAL = ("<start_of_text>", "<end_of_text>")


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


class ClipTokenizer:
    """CLIP's tokenizer of one model; arguments as of `tokenize`."""

    def __init__(self, tokenizer: SimpleTokenizer, length: int, model: str) -> None:
        self.tokenizer, self.length, self.model = tokenizer, length, model

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return token ids, (N, length) long, zero after EOT.

        Raises:
            UserError: a text needs more than `length` tokens.
        """
        return tokenize(self.tokenizer, texts, self.length, self.model)

    def words(self, ids: Sequence[int]) -> list[str]:
        """Return the texts of single tokens; "..." follows one that does not end a word."""
        own, found = self.tokenizer, []
        for token in (own.decoder[i] for i in ids):
            ends = token.endswith(END_OF_WORD)
            signs = token[: -len(END_OF_WORD)] if ends else token
            if set(signs) <= own.byte_decoder.keys():  # a marker is no text
                signs = bytes(own.byte_decoder[sign] for sign in signs).decode("utf-8", "replace")
            found.append(signs if ends or token in SPECIAL else f"{signs}...")
        return found


def eot_index(tokens: Tensor) -> Tensor:
    """Return the position of EOT, (...) long, in token ids (..., L).

    EOT has the largest id of CLIP's vocabulary.
    """
    return tokens.argmax(dim=-1)
