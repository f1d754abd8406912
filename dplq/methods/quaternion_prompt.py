"""Backbone + domain encoder + prompt learner -> logits (METHOD.md, "Forward pass")."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from dplq.clip.backbone import Backbone, load_backbone
from dplq.domain.load import DomainEncoder, load_domain_encoder
from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.io.spec import LOCAL_DIR
from dplq.methods.base import PromptedCLIP, Prompts
from dplq.methods.init import check_depth, initial_context, seeded
from dplq.methods.prompt_learner import PRESET_NORMALIZE, PromptLearner, resolve_options

logger = logging.getLogger(__name__)


class QuaternionPromptCLIP(PromptedCLIP):
    """CLIP with quaternion domain prompts.

    Only `prompt_learner` is trainable; backbone and domain encoder are frozen.

    Args:
        clip: the CLIP backbone.
        domain: the domain-specific foundation model; None if every call passes domain features
            (then `domain_dim` is needed), or if there are to be none.
        classnames: K class names; an underscore is read as a space.
        n_ctx: context length n.
        ctx_init: words that initialise the context if n_ctx <= 4; "" for a random context.
        prompt_depth: J, the number of layers that receive prompts, 1 .. depth of the towers.
        preset: "default", or "reference" for the behaviour of the authors' release.
        domain_dim: d_f, if `domain` is None; 0: no domain feature at all (an ablation).
        seed: seed of the learnable weights' initial values; None takes torch's global generator.
        **switches: fields of `PromptOptions` that override the preset.

    Raises:
        UserError: a setting that does not fit the backbone, or a class name that is too long.
    """

    method = "QuaternionPrompt"
    # The other settings (noise, initialisation) only matter in training.
    structure = ("n_ctx", "ctx_init", "prompt_depth", "domain_dim", "fusion", "residual", "layer")

    def __init__(
        self,
        clip: Backbone,
        domain: DomainEncoder | None,
        classnames: Sequence[str],
        *,
        n_ctx: int = 2,
        ctx_init: str = "a photo of a",
        prompt_depth: int = 9,
        preset: str = "default",
        domain_dim: int | None = None,
        seed: int | None = None,
        **switches: Any,
    ) -> None:
        options = resolve_options(preset, **switches)
        check_depth(clip, prompt_depth, min(clip.text_layers, clip.vision_layers))
        if domain is None and domain_dim is None:
            raise UserError("Without a domain encoder give domain_dim, the width of its features.")
        generator = seeded(seed)
        _warn_of_normalisation(preset, domain)
        domain_dim = domain.feature_dim if domain is not None else domain_dim
        prefix, context = initial_context(clip, n_ctx, ctx_init, generator)
        learner = PromptLearner(
            context,
            vision_width=clip.vision_width,
            domain_dim=domain_dim,
            prompt_depth=prompt_depth,
            options=options,
            generator=generator,
        )
        settings = {
            "n_ctx": n_ctx,
            "ctx_init": ctx_init,
            "prompt_depth": prompt_depth,
            "domain_dim": domain_dim,
            **asdict(options),
        }
        super().__init__(clip, learner, classnames, prefix=prefix, n_ctx=n_ctx, settings=settings)
        self.domain = domain

    def prompts(
        self, images: Tensor, domain_features: Tensor | None = None, noise: Tensor | None = None
    ) -> Prompts:
        """Prompts for a batch of images; arguments as for `forward`."""
        if not self.settings["domain_dim"]:
            return self.prompt_learner(None)
        if domain_features is None:
            if self.domain is None:
                raise UserError("This model has no domain encoder: pass domain_features.")
            domain_features = self.domain(images)
        domain_features = domain_features.to(self.learner_dtype)
        expected = (len(images), self.settings["domain_dim"])
        if domain_features.shape != expected:
            raise UserError(
                f"domain_features has shape {tuple(domain_features.shape)}, expected {expected}."
            )
        if noise is None:
            noise = self.prompt_learner.draw_noise(domain_features, self.noise_generator)
        return self.prompt_learner(domain_features, noise)

    def forward(
        self,
        images: Tensor,
        *,
        domain_features: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Classify images.

        Args:
            images: (B, 3, H, W), CLIP-normalised.
            domain_features: (B, d_f); given, the domain encoder is skipped.
            noise: (B, d_t), the noise e_b, already scaled; drawn here if not given and wanted.

        Returns:
            Logits (B, K) in the dtype of the learnable state, float32.
        """
        prompts = self.prompts(images, domain_features, noise)
        return self.logits(self.image_features(images, prompts), self.text_features(prompts))


def _warn_of_normalisation(preset: str, domain: DomainEncoder | None) -> None:
    """The preset cannot change an encoder that is loaded already; say so where they disagree."""
    given = domain.spec.get("normalize") if domain is not None else None
    if preset == "reference" and given not in (None, PRESET_NORMALIZE[preset]):
        logger.warning(
            "preset 'reference' feeds the domain encoder CLIP-normalised images, but this one was "
            "loaded with normalize='%s': load it with normalize='clip' to follow the release.",
            given,
        )


def load(
    path: str | os.PathLike,
    classnames: Sequence[str] | None = None,
    *,
    clip: Backbone | None = None,
    domain: DomainEncoder | None = None,
    weights: str = "",
    domain_weights: str = "",
) -> QuaternionPromptCLIP:
    """Rebuild a model from a checkpoint.

    Args:
        path: a file written by `QuaternionPromptCLIP.save`.
        classnames: the classes to tell apart; default: those it was trained on.
        clip: a loaded backbone; default: the one named in the header is loaded.
        domain: a loaded domain encoder; default likewise.
        weights: where the backbone's weights file or ``local-dir:`` folder lies, if it was
            trained with one.
        domain_weights: the same for the domain encoder.

    Raises:
        UserError: as for the loaders, or the parts do not fit the checkpoint.
    """
    tensors, header = checkpoint.read(path)
    if header.get("method") != "QuaternionPrompt":
        raise UserError(
            f"{path} does not hold the prompts of a QuaternionPrompt model: "
            "name a file that model.save or a training run wrote (model-<epoch>.safetensors)."
        )
    if clip is None:
        clip = load_backbone(**_relocate(header["backbone"], weights, path, "weights"))
    if domain is None and header["domain"] is not None:
        spec = _relocate(header["domain"], domain_weights, path, "domain_weights")
        domain = load_domain_encoder(**spec, backbone=clip)
    settings = dict(header["settings"])
    model = QuaternionPromptCLIP(
        clip, domain, classnames or header["classnames"], seed=0, **settings
    )
    model.load(path)
    model.eval()
    return model


def _relocate(
    spec: dict[str, Any], given: str, path: str | os.PathLike, argument: str
) -> dict[str, Any]:
    """Loader arguments from a header's spec; local files are looked for where they may be."""
    spec = {key: value for key, value in spec.items() if not key.endswith("sha256")}
    given = os.path.expanduser(given)
    if given and not os.path.exists(given):
        raise UserError(f"{argument} is {given}, which does not exist.")
    folder = spec["name"].removeprefix(LOCAL_DIR) if spec["name"].startswith(LOCAL_DIR) else ""
    name = spec["weights"] or folder
    if not name:
        return spec
    for place in (given, name, os.path.join(os.path.dirname(path), name)):
        if place and os.path.exists(place):
            key, value = ("weights", place) if spec["weights"] else ("name", LOCAL_DIR + place)
            return {**spec, key: value}
    raise UserError(
        f"{path} was trained with {name}, which is neither in the current folder nor beside the "
        f"checkpoint: say where it is with {argument}=..."
    )
