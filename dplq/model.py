"""Backbone + domain encoder + prompt learner -> logits (METHOD.md, "Forward pass")."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dplq import checkpoint
from dplq.backbone_sources import LOCAL_DIR
from dplq.backbones import Backbone, load_backbone
from dplq.domain_encoders import DomainEncoder, load_domain_encoder
from dplq.errors import UserError
from dplq.prompts import PRESET_NORMALIZE, PromptLearner, resolve_options

logger = logging.getLogger(__name__)
MAX_WORDS = 4  # longest context that is initialised from words; longer ones start random
# The settings a checkpoint must share with the model it is loaded into; the others (noise,
# initialisation) only matter in training.
STRUCTURE = ("n_ctx", "ctx_init", "prompt_depth", "domain_dim", "fusion", "residual")


class QuaternionPromptCLIP(nn.Module):
    """CLIP with quaternion domain prompts.

    Only `prompt_learner` is trainable; backbone and domain encoder are frozen.

    Args:
        clip: the CLIP backbone.
        domain: the domain-specific foundation model; None if every call passes domain features
            (then `domain_dim` is needed).
        classnames: K class names; an underscore is read as a space.
        n_ctx: context length n.
        ctx_init: words that initialise the context if n_ctx <= 4; "" for a random context.
        prompt_depth: J, the number of layers that receive prompts, 1 .. depth of the towers.
        preset: "default", or "reference" for the behaviour of the authors' release.
        domain_dim: d_f, if `domain` is None.
        seed: seed of the learnable weights' initial values; None takes torch's global generator.
        **switches: single switches of `dplq.prompts.PromptOptions` that override the preset.

    Raises:
        UserError: a setting that does not fit the backbone, or a class name that is too long.
    """

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
        super().__init__()
        options = resolve_options(preset, **switches)
        deepest = min(clip.text_layers, clip.vision_layers)
        if not 1 <= prompt_depth <= deepest:
            raise UserError(
                f"PROMPT_DEPTH {prompt_depth} does not fit {clip.spec['name']}: "
                f"its towers take prompts in 1 to {deepest} layers."
            )
        if domain is None and domain_dim is None:
            raise UserError("Without a domain encoder give domain_dim, the width of its features.")
        if seed is None:
            seed = int(torch.randint(2**31, ()))
        generator = torch.Generator().manual_seed(seed)
        self.clip, self.domain = clip, domain
        _warn_of_normalisation(preset, domain)
        self.settings = {
            "n_ctx": n_ctx,
            "ctx_init": ctx_init,
            "prompt_depth": prompt_depth,
            "domain_dim": domain.feature_dim if domain is not None else domain_dim,
            **asdict(options),
        }
        self.prefix, context = initial_context(clip, n_ctx, ctx_init, generator)
        self.prompt_learner = PromptLearner(
            context,
            vision_width=clip.vision_width,
            domain_dim=self.settings["domain_dim"],
            prompt_depth=prompt_depth,
            options=options,
            generator=generator,
        )
        self.noise_generator: torch.Generator | None = None
        self.set_classnames(classnames)

    def set_classnames(self, classnames: Sequence[str]) -> None:
        """Classify into these classes from now on; nothing learned is lost.

        Raises:
            UserError: no class, or a prompt longer than CLIP's context (named).
        """
        if isinstance(classnames, str):
            raise UserError(f"classnames is the text '{classnames}'; give a list of names.")
        classnames = list(classnames)
        if not classnames:
            raise UserError("At least one class name is needed.")
        names = [name.replace("_", " ") for name in classnames]
        tokens = self.clip.tokenize([f"{self.prefix} {name}." for name in names])
        eot = tokens.argmax(dim=-1)
        if self.clip.causal:
            tokens = tokens[:, : int(eot.max()) + 1]  # nothing after EOT reaches it (identity 1)
        device = self.prompt_learner.ctx.device
        with torch.no_grad():
            embedded = self.clip.embed_tokens(tokens.to(self.clip.logit_scale.device)).to(device)
        n_ctx = self.settings["n_ctx"]
        self.register_buffer("sos", embedded[:, :1], persistent=False)  # (K, 1, d_t)
        self.register_buffer("rest", embedded[:, 1 + n_ctx :], persistent=False)
        self.register_buffer("eot", eot.to(device), persistent=False)
        self.classnames = classnames

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
        if domain_features is None:
            if self.domain is None:
                raise UserError("This model has no domain encoder: pass domain_features.")
            domain_features = self.domain(images)
        dtype = self.prompt_learner.ctx.dtype
        domain_features = domain_features.to(dtype)
        expected = (len(images), self.settings["domain_dim"])
        if domain_features.shape != expected:
            raise UserError(
                f"domain_features has shape {tuple(domain_features.shape)}, expected {expected}."
            )
        if noise is None:
            noise = self.prompt_learner.draw_noise(domain_features, self.noise_generator)
        prompts = self.prompt_learner(domain_features, noise)
        image_features = self.clip.prompted_vision(images, prompts.vision, prompts.deep_vision)
        text_features = self._text_features(prompts.language, prompts.deep_text)
        image_features = F.normalize(image_features.to(dtype), dim=-1)
        text_features = F.normalize(text_features.to(dtype), dim=-1)
        # A product and a sum, not a matmul: autocast would round the logits to half precision.
        cosine = (image_features.unsqueeze(1) * text_features).sum(dim=-1)
        return self.clip.logit_scale.to(dtype) * cosine

    def _text_features(self, language: Tensor, deep_text: list[Tensor]) -> Tensor:
        """Features (B, K, d) of all (image, class) pairs, as one batch of the text tower."""
        batch, classes = len(language), len(self.classnames)
        sequences = torch.cat(
            [
                self.sos.expand(batch, -1, -1, -1),
                language.unsqueeze(1).expand(-1, classes, -1, -1),
                self.rest.expand(batch, -1, -1, -1),
            ],
            dim=2,
        )
        features = self.clip.prompted_text(
            sequences.flatten(0, 1), self.eot.repeat(batch), deep_text
        )
        return features.unflatten(0, (batch, classes))

    def header(self) -> dict[str, Any]:
        """What a checkpoint says about the model it belongs to (JSON-able)."""
        return {
            "method": "QuaternionPrompt",
            "backbone": portable(self.clip.spec),
            "domain": portable(self.domain.spec) if self.domain is not None else None,
            "settings": self.settings,
            "classnames": self.classnames,
        }

    def save(self, path: str | os.PathLike, **extra: Any) -> None:
        """Write the learnable state and a header to a .safetensors file (see `checkpoint.save`).

        Args:
            path: the file.
            **extra: JSON-able entries to add to the header.
        """
        checkpoint.save(path, self.prompt_learner.state_dict(), {**self.header(), **extra})

    def load(self, path: str | os.PathLike) -> dict[str, Any]:
        """Read a file that `save` wrote into this model; return its header.

        Raises:
            UserError: it was made for another backbone, domain encoder, depth, ... (both named).
        """
        tensors, header = checkpoint.read(path)
        checkpoint.check_header(_identity(header), _identity(self.header()), path)
        checkpoint.load_strictly(self.prompt_learner, tensors, path)
        return header


def portable(spec: dict[str, Any]) -> dict[str, Any]:
    """A loader's spec without this machine's folders: ``local-dir:/a/b`` -> ``local-dir:b``."""
    name = spec["name"]
    if name.startswith(LOCAL_DIR):
        name = LOCAL_DIR + Path(name.removeprefix(LOCAL_DIR)).name
    return {**spec, "name": name}


def _identity(header: dict[str, Any]) -> dict[str, Any]:
    """What of a header must agree for a checkpoint to fit; of a file its content, not its name."""

    def of_part(spec: dict[str, Any] | None) -> dict[str, Any] | None:
        if spec is None or "weights_sha256" not in spec:
            return spec
        renamed = spec["name"].startswith(LOCAL_DIR)
        return {k: v for k, v in spec.items() if k != "weights" and not (k == "name" and renamed)}

    return {
        "method": header.get("method"),
        "backbone": of_part(header.get("backbone")),
        "domain": of_part(header.get("domain")),
        "settings": {key: header.get("settings", {}).get(key) for key in STRUCTURE},
    }


def _warn_of_normalisation(preset: str, domain: DomainEncoder | None) -> None:
    """The preset cannot change an encoder that is loaded already; say so where they disagree."""
    given = domain.spec.get("normalize") if domain is not None else None
    if preset == "reference" and given not in (None, PRESET_NORMALIZE[preset]):
        logger.warning(
            "preset 'reference' feeds the domain encoder CLIP-normalised images, but this one was "
            "loaded with normalize='%s': load it with normalize='clip' to follow the release.",
            given,
        )


def initial_context(
    clip: Backbone, n_ctx: int, ctx_init: str, generator: torch.Generator
) -> tuple[str, Tensor]:
    """The words before the class name, and the initial context (n, d_t).

    Words give the context when n_ctx <= 4 (METHOD.md, "Context initialisation"); else it is
    N(0, 0.02^2) and the words are "X X ...".

    Raises:
        UserError: n_ctx < 1, or fewer words than n_ctx.
    """
    longest = clip.context_length - 4  # SOS, one token of a name, full stop, EOT
    if not 1 <= n_ctx <= longest:
        raise UserError(f"N_CTX must be at least 1 and at most {longest}, not {n_ctx}.")
    words = ctx_init.replace("_", " ").strip()
    if words and n_ctx > MAX_WORDS:
        logger.info("CTX_INIT is not used: N_CTX %d is more than %d.", n_ctx, MAX_WORDS)
    if not words or n_ctx > MAX_WORDS:
        context = torch.randn(n_ctx, clip.text_width, generator=generator) * 0.02
        return " ".join(["X"] * n_ctx), context
    tokens = clip.tokenize([words])
    count = int(tokens[0].argmax()) - 1
    if count < n_ctx:
        raise UserError(
            f"CTX_INIT '{words}' has {count} tokens, fewer than N_CTX {n_ctx}: "
            "give more words, a smaller N_CTX, or an empty CTX_INIT for a random context."
        )
    with torch.no_grad():
        embedded = clip.embed_tokens(tokens.to(clip.logit_scale.device))
    return words, embedded[0, 1 : 1 + n_ctx].float().cpu()


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
