"""BiomedCLIP's towers with prompts, written out: BERT and timm's ViT.

The counterparts of `text_features` and `image_feature` of `naive_reference`: full length, text by
text, attention with an explicit softmax, deep prompts put in place by concatenation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def bert_features(
    encoder: Any, words: Tensor, end: Sequence[int], deep: Sequence[Tensor]
) -> Tensor:
    """Return a BERT's features of embedded texts, pooled at [CLS].

    Args:
        encoder: open_clip's `HFTextEncoder`.
        words: (N, L, d_t), word embeddings, learned context among them.
        end: position of each text's [SEP]; later tokens are padding.
        deep: prompts that replace the positions 1..n before layers 1, 2, ..., (n, d_t) or one set
            per text (N, n, d_t).

    Returns:
        (N, d), not normalised.
    """
    model, features = encoder.transformer, []
    own, length = model.embeddings, words.shape[1]
    for item, last in enumerate(end):
        position = own.position_embeddings.weight[:length]
        h = own.LayerNorm(words[item] + position + own.token_type_embeddings.weight[0])
        for layer, block in enumerate(model.encoder.layer):
            if 1 <= layer <= len(deep):
                prompt = deep[layer - 1] if deep[layer - 1].dim() == 2 else deep[layer - 1][item]
                h = torch.cat([h[:1], prompt, h[1 + len(prompt) :]])
            h = _bert_layer(block, h, int(last))
        features.append(encoder.proj(h[0]))
    return torch.stack(features)


def _bert_layer(block: Any, h: Tensor, last: int) -> Tensor:
    """Return the tokens (L, d_t) after one post-norm layer; none attends beyond `last`."""
    attention = block.attention.self
    heads = attention.num_attention_heads
    q, k, v = (
        part(h).unflatten(-1, (heads, -1)).transpose(0, 1)
        for part in (attention.query, attention.key, attention.value)
    )
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    scores[:, :, last + 1 :] = float("-inf")
    mixed = (scores.softmax(dim=-1) @ v).transpose(0, 1).flatten(1)
    output = block.attention.output
    h = output.LayerNorm(h + output.dense(mixed))
    wide = nn.functional.gelu(block.intermediate.dense(h))
    return block.output.LayerNorm(h + block.output.dense(wide))


def text_features(clip: Any, token_ids: Tensor, context: Tensor, deep: list[Tensor]) -> Tensor:
    """Prompted text tower for one image; arguments as of `naive_reference.text_features`."""
    n, pad = context.shape[0], clip.text.config.pad_token_id
    words = clip.text.transformer.embeddings.word_embeddings(token_ids)
    context = context.expand(len(token_ids), -1, -1)
    words = torch.cat([words[:, :1], context, words[:, 1 + n :]], dim=1)
    end = [int((row != pad).nonzero().max()) for row in token_ids]
    return bert_features(clip.text, words, end, deep)


def image_feature(clip: Any, image: Tensor, prompt: Tensor, deep: list[Tensor]) -> Tensor:
    """Prompted timm ViT for one image; arguments as of `naive_reference.image_feature`."""
    trunk = clip.visual.trunk
    patches = trunk.patch_embed.proj(image[None]).flatten(2).transpose(1, 2)
    x = torch.cat([trunk.cls_token, patches], dim=1) + trunk.pos_embed
    own_tokens = x.shape[1]
    x = torch.cat([x, prompt[None]], dim=1)
    for layer, block in enumerate(trunk.blocks):
        if 1 <= layer <= len(deep):
            x = torch.cat([x[:, :own_tokens], deep[layer - 1][None]], dim=1)
        x = block(x)
    return clip.visual.head(trunk.norm(x[0, 0]))
