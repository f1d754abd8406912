"""Base of all heads: features, texts, and what was fitted.

A head is a settings class, the tensors that are fitted (`initial`), how (`solve`), and the logits
of features (`classify`); see docs/extending.md, "A head".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dplq.clip.backbone import Backbone
from dplq.clip.templates import DEFAULT_TEMPLATE, fill_templates, template_features
from dplq.domain.encoder import DomainEncoder
from dplq.errors import UserError, few
from dplq.methods.base import CLIPModel, validate_classnames
from dplq.methods.heads.fitting import FitData, check_every_class
from dplq.methods.init import seeded_generator
from dplq.methods.settings import MethodSettings, option
from dplq.methods.trained_names import have_same_prompts
from dplq.training.frozen.batch import CLIP, DOMAIN
from dplq.training.precision import without_autocast

FEATURES = ("clip", "domain", "both")


@dataclass(frozen=True)
class HeadSettings(MethodSettings):
    """Settings of all heads."""

    features: str = option("clip", "of CLIP, of the domain encoder, or both", choices=FEATURES)
    views: int = option(0, "augmented views per training image; 0: the image itself", minimum=0)
    select: str = option(
        "val", "hyperparameters, if it has any: chosen on val, or fixed", choices=("val", "fixed")
    )


@dataclass(frozen=True)
class TextHeadSettings(HeadSettings):
    """Settings of the heads that use the classes' texts."""

    templates: Sequence[str] = option(
        (DEFAULT_TEMPLATE,), "texts with {} for the class name", is_key=False
    )


class Fitted(nn.Module):
    """Tensors of a head by name.

    Args:
        tensors: their initial values, the first of them floating-point.
        learned: names of those that gradient steps train.
    """

    def __init__(self, tensors: Mapping[str, Tensor], learned: Sequence[str]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            parameter = nn.Parameter(tensor, requires_grad=name in learned)
            self.register_parameter(name, parameter)
        self.is_fitted = False  # or loaded
        self.register_load_state_dict_post_hook(_was_loaded)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Tensor: ...

    def put(self, **tensors: Tensor) -> None:
        """Replace tensors by others, which may have another shape; device and dtype stay."""
        for name, tensor in tensors.items():
            own = self.get_parameter(name)
            found = tensor.detach().to(own.device, own.dtype)
            # Contiguous, as when loaded: other strides give other last bits.
            own.data = found.clone(memory_format=torch.contiguous_format)
        self.is_fitted = True


def _was_loaded(learner: Fitted, _: Any) -> None:
    learner.is_fitted = True


class HeadModel(CLIPModel):
    """A classifier on the features of frozen encoders.

    Args:
        clip: the CLIP backbone.
        domain: the domain encoder; None where `features` is "clip".
        classnames: K class names.
        seed: of initial weights, where a head has random ones.
        **settings: fields of the head's settings class.

    Attributes:
        learned: names of the tensors that gradient steps train.
        balances: whether class weights have an effect.
        chooses: whether hyperparameters, or the epoch, are chosen on val, where SELECT says so.
        parts: widths of the features that stand side by side.

    Raises:
        UserError: the domain encoder is missing or not used.
    """

    settings_class: ClassVar[type[MethodSettings]] = HeadSettings
    structure: ClassVar[Sequence[str] | None] = ()
    uses_domain = True
    any_classes = False
    needs_images = False
    learned: ClassVar[Sequence[str]] = ()
    balances: ClassVar[bool] = False
    chooses: ClassVar[bool] = True

    prompt_learner: Fitted

    def __init__(
        self,
        clip: Backbone,
        domain: DomainEncoder | None,
        classnames: Sequence[str],
        *,
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        given = asdict(self.settings_class(**settings))
        self._check_domain(given["features"], domain)
        clip_width = [] if given["features"] == "domain" else [clip.embed_dim]
        self.parts = [*clip_width, *([] if domain is None else [domain.feature_dim])]
        classes, generator = len(validate_classnames(classnames)), seeded_generator(seed)
        learner = self._learner(classes, generator)
        super().__init__(clip, learner, classnames, settings=given, domain=domain)
        self._embed_classes(self.classnames)
        self._initial = {name: p.detach().clone() for name, p in learner.named_parameters()}
        self._chosen: dict[str, tuple[Any, Any]] = {}  # by the last fit: settings before and after

    def set_classnames(self, classnames: Sequence[str]) -> None:
        """Classify into these classes: any, or the fitted ones, which may be spelled otherwise."""
        names = validate_classnames(classnames)
        if have_same_prompts(names, self.classnames):
            self.classnames = names  # their texts are the same
        super().set_classnames(names)

    def check_classes(
        self,
        tensors: dict[str, Tensor],
        learned: Sequence[str] | None,
        path: str | os.PathLike[str],
    ) -> None:
        """Refuse other classes as the base does, but not another spelling."""
        if learned is not None and have_same_prompts(learned, self.classnames):
            learned = self.classnames
        super().check_classes(tensors, learned, path)

    @classmethod
    def reads_domain(cls, settings: Mapping[str, Any]) -> bool:
        """Return whether the features are not those of CLIP alone."""
        return settings.get("features", "clip") != "clip"

    @property
    def frozen_inputs(self) -> tuple[str, ...]:
        """Return the encoders of FEATURES."""
        return {"clip": (CLIP,), "domain": (DOMAIN,)}.get(self.settings["features"], (CLIP, DOMAIN))

    def _check_domain(self, features: str, domain: DomainEncoder | None) -> None:
        if domain is None and features != "clip":
            raise UserError(
                f"FEATURES is {features}, but there is no domain encoder: name one "
                "(DOMAIN.ENCODER; in Python domain=), or use clip."
            )
        if domain is not None and features == "clip":
            raise UserError("FEATURES is clip: leave domain out, or use domain or both.")

    def _learner(self, classes: int, generator: torch.Generator) -> Fitted:
        """Return the module of the tensors that are fitted."""
        return Fitted(self.initial(classes, sum(self.parts), generator), self.learned)

    def initial(self, classes: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the tensors that are fitted, for K classes and features of this width."""
        raise NotImplementedError

    def solve(self, data: FitData) -> dict[str, Any]:
        """Fit the tensors to `data`; return the hyperparameters that were chosen."""
        raise NotImplementedError

    def classify(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, d)."""
        raise NotImplementedError

    def fit(self, data: FitData) -> dict[str, Any]:
        """Fit the head; what was fitted before is forgotten.

        Of a model that was loaded from a file, the values that it records count as fixed ones.

        Returns:
            The hyperparameters that were chosen, which are settings of the model until the next
            fit.

        Raises:
            UserError: a class has no training image, or the features are not (V, N, d).
        """
        if data.train.features.dim() != 3:
            raise UserError(
                f"The training features have the shape {tuple(data.train.features.shape)}; it must "
                "be (V, N, d), V views of N images: features[None] of one view."
            )
        check_every_class(data.train.labels, self.classnames, self.method)
        self._forget()
        chosen = self.solve(data)
        if unknown := sorted(chosen.keys() - self.settings.keys()):
            raise UserError(
                f"solve() of {self.method} returns {few(unknown)}, which is no setting."
            )
        self.prompt_learner.is_fitted = True
        self._chosen = {name: (self.settings[name], value) for name, value in chosen.items()}
        self.settings |= chosen
        return chosen

    def _forget(self) -> None:
        """Put back the initial tensors, and the settings that the last fit chose."""
        self.prompt_learner.zero_grad()
        self.prompt_learner.put(**self._initial)
        self.prompt_learner.is_fitted = False
        for name, (before, after) in self._chosen.items():
            if self.settings[name] == after:  # one that was set since stays
                self.settings[name] = before
        self._chosen = {}

    def features(self, images: Tensor) -> Tensor:
        """Return features (B, d), float32, of CLIP-normalised images (B, 3, H, W).

        Those of one encoder are as it gives them; of both, each is L2-normalised.
        """
        found = []
        if self.settings["features"] != "domain":
            found.append(self.encode_frozen(images).to(self.learner_dtype))
        if self.domain is not None:
            found.append(self.encode_frozen(images, DOMAIN).to(self.learner_dtype))
        if len(found) == 1:
            return found[0]
        return torch.cat([F.normalize(part, dim=-1) for part in found], dim=-1)

    def image_features(self, images: Tensor, *, adapted: bool = True) -> Tensor:
        """Return L2-normalised image features.

        Args:
            images: (B, 3, H, W), CLIP-normalised.
            adapted: those that the head classifies, (B, sum of the encoders' widths), to which each
                encoder contributes equally; False: CLIP's, (B, d).
        """
        if not adapted:
            return super().image_features(images, adapted=False)
        return self.joint(self.features(images))

    def unit(self, features: Tensor) -> Tensor:
        """Return features (..., d) of which each encoder's part has the length 1."""
        parts = features.split(self.parts, dim=-1)
        return torch.cat([F.normalize(part, dim=-1) for part in parts], dim=-1)

    def joint(self, features: Tensor) -> Tensor:
        """Return features (..., d) of length 1, to which each encoder contributes equally."""
        return F.normalize(self.unit(features), dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of CLIP-normalised images (B, 3, H, W).

        Raises:
            UserError: the head is neither fitted nor loaded.
        """
        if not self.prompt_learner.is_fitted:
            raise UserError(f"{self.method} is not fitted: call model.fit(data), or load a file.")
        features = self.features(images)
        with without_autocast(images.device):  # it would round the logits
            return self.classify(features)


class TextHead(HeadModel):
    """A head that uses the texts of the classes beside the images' features.

    Attributes:
        base: (K, d): the mean of each class's text features, as they come from CLIP.
        text: (K, d): L2-normalised mean of L2-normalised text features. Both are zero where the
            features are those of the domain encoder, so that products with them are CLIP's.
    """

    settings_class: ClassVar[type[MethodSettings]] = TextHeadSettings
    structure: ClassVar[Sequence[str]] = ("templates",)

    base: Tensor
    text: Tensor

    def _check_domain(self, features: str, domain: DomainEncoder | None) -> None:
        if features == "domain":
            raise UserError(
                f"FEATURES is domain, but {self.method} compares images with texts, which only "
                "CLIP's features allow: use clip or both."
            )
        super()._check_domain(features, domain)

    def _embed_classes(self, classnames: list[str]) -> None:
        """Encode the classes' texts."""
        self.settings["templates"] = list(self.settings["templates"])
        each = torch.stack(
            list(template_features(self.clip, classnames, self.settings["templates"]))
        )
        beside = (0, sum(self.parts) - self.clip.embed_dim)
        text = F.normalize(F.normalize(each, dim=-1).mean(dim=0), dim=-1)
        self.register_buffer("base", F.pad(each.mean(dim=0), beside), persistent=False)
        self.register_buffer("text", F.pad(text, beside), persistent=False)

    def prompt_texts(self) -> list[list[str]]:
        """Return the texts of every class, whose features are averaged."""
        return [fill_templates(self.settings["templates"], name) for name in self.classnames]

    def prompt_kind(self) -> str:
        """Return that the texts are fixed."""
        return "fixed text"

    def cosine_logits(self, features: Tensor, classes: Tensor) -> Tensor:
        """Return CLIP's scaled cosines (B, K) of features (B, d) and classes (K, d)."""
        scale = self.clip.logit_scale.to(features.dtype)
        return scale * self.unit(features) @ F.normalize(classes, dim=-1).T
