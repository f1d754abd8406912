"""QuaternionPrompt: domain prompt learning with quaternion networks (Cao et al., CVPR 2024).

Backbone + domain encoder + prompt learner -> logits (docs/method.md, "Forward pass").
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from dplq.clip.backbone import Backbone
from dplq.domain.encoder import DomainEncoder
from dplq.errors import UserError, shown
from dplq.methods.base import PromptedCLIP, Prompts, validate_classnames
from dplq.methods.domain_head import DomainHead
from dplq.methods.heads.fitting import balanced_weights, check_every_class
from dplq.methods.init import MAX_WORDS, check_depth, initial_context, seeded_generator
from dplq.methods.labels import check_labels
from dplq.methods.opinions import decided, joined, mixed, with_spread_of
from dplq.methods.presets import PRESET_NORMALIZE, PRESETS
from dplq.methods.prompt_learner import PromptLearner, QuaternionPromptSettings
from dplq.methods.registry import register_method
from dplq.methods.text_map import BETWEEN, TextMap
from dplq.methods.trained_names import trained_rows
from dplq.training.frozen.batch import CLIP, DOMAIN
from dplq.training.precision import without_autocast

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)
# Switches that version 0.1.0 does not have.
LATER = ("text_init", "standardize", "head_weight", "zeroshot_weight", "map_weight")


@register_method
class QuaternionPromptCLIP(PromptedCLIP):
    """CLIP with quaternion domain prompts.

    Only `prompt_learner` is trainable; backbone and domain encoder are frozen.

    Args:
        clip: the CLIP backbone.
        domain: the domain-specific foundation model; None if every call passes domain features
            (then `domain_dim` is needed), or if there are to be none.
        classnames: K class names; underscores become spaces.
        domain_dim: d_f, if `domain` is None; 0: no domain feature at all (an ablation).
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `QuaternionPromptSettings`: `n_ctx`, `ctx_init`, `prompt_depth`,
            `preset`, and single switches that override the preset.

    Raises:
        UserError: a setting that does not fit the backbone, or a class name that is too long.
        TypeError: unknown setting.
    """

    method, settings_class, uses_domain = "QuaternionPrompt", QuaternionPromptSettings, True
    needs: ClassVar[Sequence[str]] = ("text prompts", "image prompts")
    # The other settings (noise, initialisation) only matter in training.
    structure = (
        *("n_ctx", "ctx_init", "prompt_depth", "domain_dim", "fusion", "residual", "layer"),
        *("standardize", "head_weight", "map_weight"),
    )
    may_differ = ("zeroshot_weight",)

    prompt_learner: PromptLearner
    _plain: Tensor | None = None
    _is_fitted = False

    def __init__(
        self,
        clip: Backbone,
        domain: DomainEncoder | None,
        classnames: Sequence[str],
        *,
        domain_dim: int | None = None,
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        given = QuaternionPromptSettings(**settings)
        self.check_support(clip, asdict(given))
        check_depth(clip, given.prompt_depth, min(clip.text_layers, clip.vision_layers))
        if domain is None and domain_dim is None:
            raise UserError("Without a domain encoder give domain_dim, the width of its features.")
        generator = seeded_generator(seed)
        _warn_of_normalisation(given.preset, domain)
        width = domain.feature_dim if domain is not None else domain_dim
        resolved = QuaternionPromptSettings(**{**settings, "domain_dim": width}).resolved()
        resolved = replace(resolved, standardize=resolved.standardize and bool(width))
        prefix, context = initial_context(clip, given, generator)
        _check_words(resolved)
        states = _states_of_words(clip, prefix, resolved) if resolved.text_init == "words" else None
        given.report_unused_switches(depth=given.prompt_depth, has_domain=bool(width))
        learner = PromptLearner(
            context,
            resolved,
            vision_width=clip.vision_width,
            generator=generator,
            deep_text=states,
        )
        self.trained_classes, self._uses_head = validate_classnames(classnames), True
        if resolved.head_weight:
            learner.head = DomainHead(len(self.trained_classes), clip.embed_dim, width or 0)
        if resolved.map_weight:
            learner.text_map = TextMap(clip.embed_dim, width or 0)
        # What the preset stands for is recorded, not its name; later switches only where they are
        # on, as earlier files lack them.
        recorded = {
            key: value
            for key, value in asdict(resolved).items()
            if key != "preset" and (key not in LATER or value != PRESETS["default"][key])
        }
        super().__init__(
            clip,
            learner,
            classnames,
            settings=recorded,
            prefix=prefix,
            n_ctx=given.n_ctx,
            domain=domain,
        )

    @property
    def switches(self) -> QuaternionPromptSettings:
        """All settings, with the preset's values."""
        return self.prompt_learner.settings

    @property
    def learns_from_features(self) -> bool:
        """Whether `fit_features` is wanted before the first training step."""
        return self.switches.learns_from_features

    @property
    def frozen_inputs(self) -> tuple[str, ...]:
        """Return the domain encoder; CLIP too, where features of it are fitted."""
        clip = (CLIP,) if self.learns_from_features else ()
        return (*clip, *super().frozen_inputs)

    @torch.no_grad()
    def frozen_features(self, images: Tensor, domain_features: Tensor | None = None) -> Tensor:
        """Return un-prompted features (B, d + d_f), float32, of CLIP and the domain encoder.

        CLIP's are L2-normalised; arguments as for `forward`.
        """
        parts = [self.image_features(images, adapted=False)]
        if self.settings["domain_dim"]:
            parts.append(self._domain_features(images, domain_features))
        return torch.cat(parts, dim=1)

    def fit_features(
        self, features: Tensor, labels: Tensor | Sequence[int], class_weight: str | None = None
    ) -> None:
        """Fit what needs no gradient steps: standardisation, head and map.

        train.py does so before the first step; a training loop of your own has to.

        Args:
            features: (N, d + d_f), `frozen_features` of all training images.
            labels: (N,).
            class_weight: of head and map: "balanced", or None.

        Raises:
            UserError: a class has no image, features or labels have another shape, features are nan
                or infinite, or a label is of no class.
        """
        self._check_features(features)
        labels = check_labels(labels, features, len(self.trained_classes))
        if class_weight not in (None, "balanced"):
            given = shown(class_weight)
            raise UserError(f'class_weight is {given}; it must be "balanced" or None.')
        for key in ("head_weight", "map_weight"):
            if getattr(self.switches, key):
                check_every_class(labels, self.trained_classes, key.upper())
        if self.switches.standardize:
            self.prompt_learner.set_statistics(features[:, self.clip.embed_dim :])
        if self.switches.head_weight:
            self.prompt_learner.head.fit(features, labels, class_weight)
        if self.switches.map_weight:
            texts = self._encode_plain(self.trained_classes)[0]
            weights = None if class_weight is None else balanced_weights(labels.cpu(), len(texts))
            self.prompt_learner.text_map.fit(features, labels, texts, weights)
        if self.learns_from_features:
            self.prompt_learner.fitted.fill_(1)

    def _check_features(self, features: Tensor) -> None:
        """Refuse (UserError) features that cannot be fitted."""
        width = self.clip.embed_dim + (self.settings["domain_dim"] or 0)
        if features.ndim != 2 or features.shape[1] != width:
            raise UserError(
                f"features has the shape {tuple(features.shape)}; expected (N, {width}), as "
                "frozen_features returns them."
            )
        if not torch.isfinite(features).all():
            raise UserError("features has values that are nan or infinite.")

    def _check_fitted(self) -> None:
        """Refuse (UserError) what would be wrong without `fit_features`."""
        if torch.compiler.is_compiling() or not self.learns_from_features:
            return  # a traced graph cannot depend on its value; `folded` has checked it
        # Read once: a step that reads a value waits for the device.
        self._is_fitted = self._is_fitted or bool(self.prompt_learner.fitted)
        if not self._is_fitted:
            raise UserError(
                "STANDARDIZE, HEAD_WEIGHT and MAP_WEIGHT need the training images' features: call "
                "model.fit_features(model.frozen_features(images), labels) before the training."
            )

    def folded(self) -> Self:
        """Return a copy as the base does, once `fit_features` has been called."""
        self._check_fitted()
        return super().folded()

    @contextmanager
    def gradient_part(self) -> Iterator[None]:
        """Leave out the head in this context."""
        self._uses_head = False
        try:
            yield
        finally:
            self._uses_head = True

    @property
    def left_out(self) -> str:
        """Name what `gradient_part` leaves out; "" for nothing."""
        return "the head" if self.switches.head_weight else ""

    def save(self, path: str | os.PathLike[str], **extra: Any) -> None:
        """Write a checkpoint as the base does, once `fit_features` has been called."""
        self._check_fitted()
        super().save(path, **extra)

    def _domain_features(self, images: Tensor, given: Tensor | None) -> Tensor:
        """Return the domain features (B, d_f): those that are given, after a check, or its own."""
        if given is None:
            if self.domain is None:
                raise UserError("This model has no domain encoder: pass domain_features.")
            given = self.encode_frozen(images, DOMAIN)
        expected = (images.shape[0], self.settings["domain_dim"])
        if given.shape != expected:
            raise UserError(f"domain_features has shape {tuple(given.shape)}, expected {expected}.")
        return given.to(self.learner_dtype)

    def prompts(
        self, images: Tensor, domain_features: Tensor | None = None, noise: Tensor | None = None
    ) -> Prompts:
        """Return the prompts for a batch of images; arguments as for `forward`."""
        if not self.settings["domain_dim"]:
            return self.prompt_learner(None)
        domain_features = self._domain_features(images, domain_features)
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
        """Classify images; outside training head, map and zero-shot CLIP take part, if switched on.

        Args:
            images: (B, 3, H, W), CLIP-normalised.
            domain_features: (B, d_f); given, the domain encoder is skipped.
            noise: (B, d_t), the noise e_b, already scaled; drawn here if not given and wanted.

        Returns:
            Logits (B, K) in the dtype of the learnable state, float32.

        Raises:
            UserError: `fit_features` is missing, or the domain features have another shape.
        """
        self._check_fitted()
        if domain_features is None and self.settings["domain_dim"]:
            domain_features = self._domain_features(images, None)
        prompts = self.prompts(images, domain_features, noise)
        logits = self.logits(self.image_features(images, prompts), self.text_features(prompts))
        if not self._uses_head or self.prompt_learner.training:
            return logits
        trained, others = self._columns()
        if not self._take_part(trained, others):
            return logits  # features cost a pass of CLIP
        features = self.frozen_features(images, domain_features)
        with without_autocast(images.device):  # it would round the logits
            return self._second_opinions(logits, features, trained, others)

    def _second_opinions(
        self, logits: Tensor, features: Tensor, trained: dict[int, int], others: list[int]
    ) -> Tensor:
        """Return logits (B, K) in which head, map and un-prompted CLIP take part.

        Args:
            logits: (B, K), of the prompts.
            features: (B, d + d_f), as of `frozen_features`.
            trained: the columns of trained classes, and which of these each is.
            others: the other columns.
        """
        scores = self._map_scores(features) if others else None
        parts = []
        if trained:
            columns, rows = list(trained), list(trained.values())
            parts.append((columns, self._among_trained(logits[:, columns], features, rows)))
        if others:
            own = self._among_others(logits[:, others], features, scores, others)
            parts.append((others, own))
        if len(parts) == 1:
            return decided(logits, parts[0][1], parts[0][0])
        between = logits
        if scores is not None and (weight := self.switches.map_weight):
            between = mixed(logits, with_spread_of(scores, logits), BETWEEN * weight)
        # one spread, so that no group wins as its second opinion is the more confident one
        return joined(between, [(part, with_spread_of(own, logits)) for part, own in parts])

    def _among_trained(self, logits: Tensor, features: Tensor, rows: list[int]) -> Tensor:
        """Return scores of the trained classes; logits are the prompts' of these, same shape.

        Args:
            logits: (B, n).
            features: (B, d + d_f), as of `frozen_features`.
            rows: which of the head's classes these n are.
        """
        if not self.switches.head_weight:
            return logits
        head = self.prompt_learner.head(features)[:, rows]
        return mixed(logits, head, self.switches.head_weight)

    def _among_others(
        self, logits: Tensor, features: Tensor, scores: Tensor | None, others: list[int]
    ) -> Tensor:
        """Return scores (B, len(others)); logits are the prompts' of these, scores the map's."""
        if weight := self.switches.zeroshot_weight:
            plain = features[:, : self.clip.embed_dim]
            logits = mixed(logits, self.logits(plain, self._plain_text()[:, others]), weight)
        if scores is not None and (weight := self.switches.map_weight):
            logits = mixed(logits, with_spread_of(scores[:, others], logits), weight)
        return logits

    def _map_scores(self, features: Tensor) -> Tensor | None:
        """Return the map's scores (B, K) of all classes; None without a map."""
        if not self.switches.map_weight:
            return None
        return self.prompt_learner.text_map(features, self._plain_text()[0])

    def _columns(self) -> tuple[dict[int, int], list[int]]:
        """Return the columns of trained classes, each with its position there, and the others."""
        rows = list(enumerate(trained_rows(self.classnames, self.trained_classes)))
        trained = {k: row for k, row in rows if row is not None}
        return trained, [k for k, row in rows if row is None]

    def _take_part(self, trained: dict[int, int], others: list[int]) -> bool:
        """Return whether head, map or un-prompted CLIP have a say; none has among one class."""
        switches = self.switches
        return bool(
            (switches.head_weight and len(trained) > 1)
            or (switches.zeroshot_weight and len(others) > 1)
            or (switches.map_weight and others and len(self.classnames) > 1)
        )

    def set_classnames(self, classnames: Sequence[str]) -> None:
        """Classify into these classes from now on; nothing learned is lost."""
        super().set_classnames(classnames)
        self._plain = None

    def _plain_text(self) -> Tensor:
        """Return the features (1, K, d) of the prompts' words before training, encoded once."""
        device = self.clip.logit_scale.device
        if self._plain is None or self._plain.device != device:
            self._plain = self._encode_plain(self.classnames)
        return self._plain

    def _encode_plain(self, classnames: Sequence[str]) -> Tensor:
        """Return the features (1, K, d) that classes have with the prompts' words."""
        texts = [self.text_of(name) for name in classnames]
        return self._fixed_text(self.clip.tokenize(texts), self.unchanged_clip)

    @property
    def learned_classes(self) -> list[str]:
        """Return the classes of the head, where there is one."""
        return self.trained_classes if self._knows_trained else self.classnames

    @property
    def _knows_trained(self) -> bool:
        """Return whether trained classes are told from others."""
        switches = self.switches
        return bool(switches.head_weight or switches.zeroshot_weight or switches.map_weight)

    def match_sizes(self, tensors: dict[str, Tensor], learned: Sequence[str] | None) -> None:
        """Adopt the trained classes, and the head's size."""
        if self._knows_trained and learned is not None:
            self.trained_classes = list(learned)
        if self.switches.head_weight:
            self.prompt_learner.head.resize(len(self.trained_classes))


def _check_words(settings: QuaternionPromptSettings) -> None:
    """Refuse (UserError) switches that need a context of words where it has none."""
    needing = {
        "TEXT_INIT is words": (settings.text_init == "words", "TEXT_INIT random"),
        "ZEROSHOT_WEIGHT needs words": (settings.zeroshot_weight, "ZEROSHOT_WEIGHT 0"),
        "MAP_WEIGHT needs words": (settings.map_weight, "MAP_WEIGHT 0"),
    }
    for what, (is_on, other) in needing.items():
        if is_on and (not settings.ctx_init or settings.n_ctx > MAX_WORDS):
            raise UserError(
                f"{what}, but the context has none: set CTX_INIT and an N_CTX of at most "
                f"{MAX_WORDS}, or {other}."
            )


def _states_of_words(
    clip: Backbone, prefix: str, settings: QuaternionPromptSettings
) -> list[Tensor] | None:
    """Return the deep text prompts that leave the text tower as it is; None if there are none.

    Raises:
        UserError: the text tower is not causal.
    """
    if not clip.causal:
        raise UserError(
            f"TEXT_INIT is words, but the text tower of {clip.spec.name} is not causal: use random."
        )
    tokens = clip.tokenize([prefix])[0, : 1 + settings.n_ctx]
    with torch.no_grad():
        states = clip.prefix_states(tokens.to(clip.logit_scale.device))
    return [state[1:].float().cpu() for state in states[: settings.prompt_depth - 1]]


def _warn_of_normalisation(preset: str, domain: DomainEncoder | None) -> None:
    """Warn where the loaded encoder's normalisation is not the preset's: it cannot be changed."""
    given = domain.spec.options.get("normalize") if domain is not None else None
    if preset == "reference" and given not in (None, PRESET_NORMALIZE[preset]):
        logger.warning(
            "preset 'reference' passes CLIP-normalised images to the domain encoder, but this one "
            "was loaded with normalize='%s': load it with normalize='clip' to follow the release.",
            given,
        )
