"""Prompt templates and prompt ensembling for zero-shot classification.

The templates are OpenAI's for ImageNet, as open_clip distributes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.clip.backbone import Backbone
from dplq.clip.installed import open_clip
from dplq.errors import UserError, shown

PLACEHOLDER = "{}"  # of the class name in a template
DEFAULT_TEMPLATE = "a photo of a {}."


def check_template(template: str, key: str = "TEMPLATE") -> None:
    """Refuse a template that would give all classes one text.

    Args:
        template: the text.
        key: the setting it is from, for the message.

    Raises:
        UserError: it has no place for the class name.
    """
    if PLACEHOLDER not in template:
        raise UserError(
            f"{key} {shown(template)} has no {PLACEHOLDER}: write it where the class name goes, as "
            f'in "{DEFAULT_TEMPLATE}".'
        )


def imagenet_templates() -> list[str]:
    """Return OpenAI's 80 templates for ImageNet, such as ``a bad photo of a {}.``, in order."""
    templates = open_clip().OPENAI_IMAGENET_TEMPLATES
    return [template(PLACEHOLDER) for template in templates]


def select_templates() -> list[str]:
    """Return the 7 of them that OpenAI selected (CLIP's notebook; CoOp's ZeroshotCLIP2)."""
    templates = open_clip().SIMPLE_IMAGENET_TEMPLATES
    return [template(PLACEHOLDER) for template in templates]


def prompt_name(name: str) -> str:
    """Return a class name as prompts have it: with spaces for its underscores."""
    return name.replace("_", " ")


def fill_templates(templates: Sequence[str], name: str) -> list[str]:
    """Return the templates with a class name in place of ``{}``; its underscores become spaces."""
    return [template.replace(PLACEHOLDER, prompt_name(name)) for template in templates]


@torch.no_grad()
def encode_texts(clip: Backbone, texts: Sequence[str]) -> Tensor:
    """Return un-normalised features (N, d) of N texts, float32, without gradient.

    Raises:
        UserError: a text is longer than CLIP's context.
    """
    device = clip.logit_scale.device
    tokens = clip.tokenize(texts).to(device)
    # At the towers' own precision whatever the caller's autocast: the features are computed once.
    with torch.autocast(device.type, enabled=False):
        return clip.encode_text(tokens).float()


def template_features(
    clip: Backbone, classnames: Sequence[str], templates: Sequence[str]
) -> Iterator[Tensor]:
    """Yield the classes' text features (K, d) of each template, float32, as they come from CLIP.

    Args:
        clip: the CLIP backbone.
        classnames: K class names; underscores become spaces.
        templates: texts with ``{}`` in place of the name.

    Raises:
        UserError: no template, one without ``{}``, or a text is longer than CLIP's context.
    """
    if not templates:
        raise UserError("At least one template is needed.")
    for template in templates:
        check_template(template)
    for texts in zip(*(fill_templates(templates, name) for name in classnames), strict=True):
        yield encode_texts(clip, list(texts))


@torch.no_grad()
def ensemble_features(
    clip: Backbone, classnames: Sequence[str], templates: Sequence[str], *, normalize_each: bool
) -> Tensor:
    """Return the classes' text features, averaged over templates.

    Args:
        clip: the CLIP backbone.
        classnames: K class names; underscores become spaces.
        templates: texts with ``{}`` in place of the name.
        normalize_each: average L2-normalised features (CLIP's notebook, CoOp), or un-normalised
            ones (PromptSRC).

    Returns:
        L2-normalised features (K, d), float32, without gradient.

    Raises:
        UserError: as `template_features`.
    """
    total = torch.zeros(len(classnames), clip.embed_dim, device=clip.logit_scale.device)
    for features in template_features(clip, classnames, templates):
        total = total + (F.normalize(features, dim=-1) if normalize_each else features)
    return F.normalize(total / len(templates), dim=-1)
