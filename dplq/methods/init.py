"""Initialisation of learnable weights, from words or from a generator that is passed in."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.errors import UserError

logger = logging.getLogger(__name__)
MAX_WORDS = 4  # longest context that is initialised from words; longer ones start random
CONTEXT_STD = 0.02  # of every prompt token that does not come from words
REDUCTION = 16  # of the hidden layer of a meta-net


def linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """Return a linear layer with torch's default initialisation; weight first, then bias."""
    layer = nn.Linear(inputs, outputs)
    bound = inputs**-0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


def random_tokens(rows: int, width: int, generator: torch.Generator | None) -> nn.Parameter:
    """Return prompt tokens (rows, width) from N(0, 0.02^2)."""
    return nn.Parameter(torch.randn(rows, width, generator=generator) * CONTEXT_STD)


def bottleneck(
    inputs: int, outputs: int, generator: torch.Generator | None, base_width: int
) -> nn.Sequential:
    """Return CoCoOp's meta-net: two linear layers, a ReLU between them.

    Args:
        inputs: width of the feature.
        outputs: width of the result.
        generator: source of the initial weights.
        base_width: `REDUCTION` times the width of the hidden layer.
    """
    hidden = max(base_width // REDUCTION, 1)
    return nn.Sequential(
        linear(inputs, hidden, generator), nn.ReLU(), linear(hidden, outputs, generator)
    )


def clone_first(layers: nn.ModuleList) -> None:
    """Give all layers the initial weights of the first."""
    for layer in layers:
        layer.load_state_dict(layers[0].state_dict())


def check_depth(
    clip: Backbone,
    depth: int,
    layers: int,
    key: str = "PROMPT_DEPTH",
    towers: str = "its towers support",
) -> None:
    """Refuse a prompt depth that a tower of `layers` layers does not have.

    `towers` begins what the message says of the towers that take the prompts.

    Raises:
        UserError: naming the key and what fits.
    """
    if not 1 <= depth <= layers:
        raise UserError(
            f"{key} {depth} does not fit {clip.spec.name}: "
            f"{towers} prompts in 1 to {layers} layers."
        )


def seeded_generator(seed: int | None) -> torch.Generator:
    """Return a generator for initial weights; None draws its seed from torch's global one."""
    return torch.Generator().manual_seed(int(torch.randint(2**31, ())) if seed is None else seed)


def placeholders(clip: Backbone, count: int, purpose: str) -> str:
    """Return "X X ...", whose tokens hold the places of `count` learned ones.

    Args:
        clip: the CLIP backbone.
        count: of the learned tokens.
        purpose: what the tokens are, and what to do without them, for the message.

    Raises:
        UserError: the tokenizer writes an X as several tokens.
    """
    fill = " ".join(["X"] * count)
    found = int(clip.count_tokens(clip.tokenize([fill])))
    if found != count:
        raise UserError(
            f"the tokenizer of {clip.spec.name} writes {count} X as {found} tokens, so these "
            f"cannot hold the place of {purpose}"
        )
    return fill


def initial_context(
    clip: Backbone,
    given: Any,
    generator: torch.Generator,
    *,
    key: str = "n_ctx",
    whole: bool = False,
) -> tuple[str, Tensor]:
    """Return the words before the class name, and the initial context (n, d_t).

    Words give the context when n_ctx <= 4 (docs/method.md, "Context initialisation"); else it is
    N(0, 0.02^2) and the words are "X X ...". With `whole` there are as many tokens as words, if
    there are words, whatever n_ctx says (CoOp and CoCoOp). A setting that is not used is logged.

    Args:
        clip: the CLIP backbone.
        given: `MethodSettings` with `ctx_init` and the context length.
        generator: source of a random context.
        key: the field of the context length.
        whole: see above.

    Raises:
        UserError: n_ctx < 1, or fewer words than n_ctx.
    """
    longest = clip.context_length - 4  # SOS, one token of a name, full stop, EOT
    words, asked = " ".join(given.ctx_init.replace("_", " ").split()), getattr(given, key)
    n_ctx = len(words.split()) if whole and words else asked
    if whole and n_ctx > longest and words:
        raise UserError(f"CTX_INIT has {n_ctx} words; at most {longest} are possible.")
    if not 1 <= n_ctx <= longest:
        raise UserError(f"{key.upper()} must be at least 1 and at most {longest}, not {n_ctx}.")
    unused = n_ctx > MAX_WORDS and not whole
    if words and unused:
        given.report_unused("ctx_init", f"{key.upper()} {n_ctx} is more than {MAX_WORDS}")
    if not words or unused:
        context = random_tokens(n_ctx, clip.text_width, generator).detach()
        return placeholders(clip, n_ctx, "a random context: set CTX_INIT"), context
    tokens = clip.tokenize([words])
    count, start = int(clip.count_tokens(tokens)), clip.prompt_start
    if count < n_ctx:
        raise UserError(
            f"CTX_INIT '{words}' has {count} tokens, fewer than {key.upper()} {n_ctx}: give more "
            f"words, a smaller {key.upper()}, or an empty CTX_INIT for a random context."
        )
    if n_ctx != asked:  # only with `whole`
        learned = "" if count == n_ctx else f", of which the first {n_ctx}, one a word, are learned"
        given.report_unused(key, f"CTX_INIT '{words}' has {count} tokens{learned}")
    elif count > n_ctx:
        logger.info(
            "CTX_INIT '%s' has %d tokens: the first %s %d are learned, the rest stay fixed.",
            *(words, count, key.upper(), n_ctx),
        )
    with torch.no_grad():
        embedded = clip.embed_tokens(tokens.to(clip.logit_scale.device))
    return words, embedded[0, start : start + n_ctx].float().cpu()
