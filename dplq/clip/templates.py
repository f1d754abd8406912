"""Zero-shot texts: class names in many templates, and their averaged features.

The templates are OpenAI's for ImageNet, as open_clip carries them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.clip.backbone import Backbone

PLACE = "{}"  # of the class name in a template


def imagenet_templates() -> list[str]:
    """OpenAI's 80 templates for ImageNet, such as ``a bad photo of a {}.``, in their order."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return [template(PLACE) for template in OPENAI_IMAGENET_TEMPLATES]


def select_templates() -> list[str]:
    """The 7 of them that OpenAI found to be enough (CLIP's notebook; CoOp's ZeroshotCLIP2)."""
    from open_clip import SIMPLE_IMAGENET_TEMPLATES

    return [template(PLACE) for template in SIMPLE_IMAGENET_TEMPLATES]


@torch.no_grad()
def ensemble_features(
    clip: Backbone, classnames: Sequence[str], templates: Sequence[str], *, normalize_each: bool
) -> Tensor:
    """Text features of classes, averaged over templates.

    Args:
        clip: the CLIP backbone.
        classnames: K class names; an underscore is read as a space.
        templates: texts with ``{}`` for the name.
        normalize_each: average features of length 1 (CLIP's notebook, CoOp), or the features as
            they come (PromptSRC).

    Returns:
        L2-normalised features (K, d), float32, without gradient.

    Raises:
        UserError: a text is longer than CLIP's context.
    """
    names = [name.replace("_", " ") for name in classnames]
    device = clip.logit_scale.device
    total: Tensor | float = 0.0
    # Kept at the towers' own precision whatever the caller runs under: this is done once.
    with torch.autocast(device.type, enabled=False):
        for template in templates:
            tokens = clip.tokenize([template.replace(PLACE, name) for name in names])
            features = clip.encode_text(tokens.to(device)).float()
            total = total + (F.normalize(features, dim=-1) if normalize_each else features)
    return F.normalize(total / len(templates), dim=-1)
