"""The words of the vocabulary that are nearest to learned context tokens.

As CoOp's table of them (Zhou et al., IJCV 2022, section 4.3), with cosines beside its Euclidean
distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.errors import UserError
from dplq.methods.base import CLIPModel, PromptedCLIP

METRICS = ("euclidean", "cosine")
SAMPLE = 256  # vocabulary words whose nearest neighbour is a scale for the distances


@dataclass(frozen=True)
class NearWord:
    """A word of the vocabulary, and how far from a token it is by both metrics."""

    word: str
    euclidean: float
    cosine: float


@dataclass(frozen=True)
class TokenWords:
    """The nearest words of one context token.

    Attributes:
        position: in the context, from 0.
        classname: whose context it is; "" where all classes share it.
        words: the nearest, best first.
        spread: mean Euclidean distance of the images' tokens to their mean, of which the words
            are; 0 where the token is the same for all images.
    """

    position: int
    classname: str
    words: list[NearWord]
    spread: float


@dataclass(frozen=True)
class NearestWords:
    """The nearest words of every context token.

    Attributes:
        tokens: by class, then by position.
        metric: that the words are sorted by.
        typical: median distance, by the metric, of a vocabulary word to its nearest other word.
    """

    tokens: list[TokenWords]
    metric: str
    typical: float


@torch.no_grad()
def nearest_words(
    model: CLIPModel, images: Tensor | None = None, *, k: int = 5, metric: str = "euclidean"
) -> NearestWords:
    """Return the k words of CLIP's vocabulary that are nearest to each learned context token.

    The tokens are those the text tower gets before its first layer, without position. Prompts of
    deeper layers are states of that layer, not word embeddings: no word is near to them.

    Args:
        model: of a method that learns a context.
        images: (B, 3, H, W), for contexts that depend on the image: the mean over them is taken.
        k: words per token.
        metric: "euclidean" or "cosine".

    Raises:
        UserError: the text of the method is fixed, its context depends on images and none are
            given, the vocabulary cannot be had, or k or metric is wrong.
    """
    if metric not in METRICS:
        raise UserError(f"metric is '{metric}'; it must be one of {', '.join(METRICS)}.")
    context = _context(model, images)
    table = model.clip.text.vocabulary().to(context.device, torch.float32)
    if not 1 <= k <= len(table):
        raise UserError(f"k is {k}; it must be at least 1 and at most {len(table)}.")
    # In double precision the mean of equal tokens is that token, to the last bit.
    mean = context.double().mean(dim=0).float()  # (K or 1, n, d_t)
    spread = (context - mean).norm(dim=-1).mean(dim=0)
    both = [_distances(mean.flatten(0, 1), table, name) for name in METRICS]
    order = both[METRICS.index(metric)].topk(k, largest=False).indices
    near = [distances.gather(1, order).tolist() for distances in both]
    words = model.clip.text.words(order.flatten().tolist())
    n_ctx, found = mean.shape[1], []
    for row in range(len(order)):
        texts = words[row * k : (row + 1) * k]
        values = zip(texts, near[0][row], near[1][row], strict=True)
        owner = model.classnames[row // n_ctx] if len(mean) > 1 else ""
        position = row % n_ctx
        own = spread[row // n_ctx, position].item()
        found.append(TokenWords(position, owner, [NearWord(*value) for value in values], own))
    return NearestWords(found, metric, _typical(table, metric))


def _context(model: CLIPModel, images: Tensor | None) -> Tensor:
    """Return the context (B or 1, K or 1, n, d_t), float32."""
    if not isinstance(model, PromptedCLIP) or not model.n_ctx:
        raise UserError(f"{model.method} learns no context of words: its texts are fixed.")
    size = model.clip.image_size
    # Two black images tell whether the context depends on the image.
    given = model.sos.new_zeros(2, 3, size, size) if images is None else images
    language = model.prompts(given).language
    assert language is not None  # a method with context tokens makes them
    if images is None and len(language) > 1:
        raise UserError(f"The context of {model.method} depends on the image: give images.")
    if not len(language):
        raise UserError("images is empty; give at least one.")
    return language.float()


def _distances(tokens: Tensor, table: Tensor, metric: str) -> Tensor:
    """Return the distances (N, V) of tokens (N, d) to all words (V, d)."""
    if metric == "cosine":
        cosine = F.normalize(tokens, dim=-1) @ F.normalize(table, dim=-1).T
        return (1 - cosine).clamp(min=0)
    # Not by products of tokens and words, which leave a rest where both are equal.
    return torch.cdist(tokens, table, compute_mode="donot_use_mm_for_euclid_dist")


def _typical(table: Tensor, metric: str) -> float:
    """Return the median distance of a word to its nearest other word, of an even sample."""
    rows = torch.arange(0, len(table), max(len(table) // SAMPLE, 1), device=table.device)
    distances = _distances(table[rows], table, metric)
    distances[torch.arange(len(rows)), rows] = torch.inf
    return distances.min(dim=1).values.median().item()
