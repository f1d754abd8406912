"""What a model uses: nearest words, domain feature, prompts by layer, attention, features.

Functions of a model and images; docs/explain.md says what each number means.
"""

from dplq.explain.attention_map import attention_map
from dplq.explain.domain_effect import DomainEffect, domain_effect
from dplq.explain.features import Embedding, embed
from dplq.explain.layer_effect import LayerEffect, layer_effects
from dplq.explain.nearest_words import NearestWords, nearest_words

__all__ = [
    "DomainEffect",
    "Embedding",
    "LayerEffect",
    "NearestWords",
    "attention_map",
    "domain_effect",
    "embed",
    "layer_effects",
    "nearest_words",
]
