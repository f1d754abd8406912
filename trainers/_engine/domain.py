"""Base of the trainers with a domain encoder: loading it, and its cached test features."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from dplq.clip.backbone import Backbone
from dplq.domain.encoder import DomainEncoder
from dplq.domain.load import load_domain_encoder
from dplq.errors import UserError
from dplq.host.config import GENERAL_KEYS
from dplq.host.weights import domain_names
from dplq.methods.base import CLIPModel
from dplq.methods.presets import PRESET_NORMALIZE, check_preset
from dplq.training.feature_cache import GB, FeatureCache
from dplq.training.frozen.features import own_code

from .base import PromptTrainer
from .environment import preparation, versions
from .features import compute_features, training_images

logger = logging.getLogger(__name__)

# keys of cfg.DOMAIN that have no effect beside a value of ENCODER
UNUSED = {
    "none": (
        *("WEIGHTS", "FEATURE", "NORMALIZE", "PRETRAINED", "CACHE"),
        *("MEAN", "STD", "IMAGE_SIZE", "POOL", "ARGS"),
    ),
    "clip": ("NORMALIZE", "PRETRAINED"),
}
# keys that change a published encoder; a config of version 0.1.0 has none of them
CHANGES = ("MEAN", "STD", "IMAGE_SIZE", "POOL", "ARGS")


class DomainTrainer(PromptTrainer):
    """Base of the trainers whose model takes `domain_features`; at test time these are cached."""

    feature_cache: FeatureCache | None = None

    def build_prompt_model(self, clip: Backbone, classnames: list[str], seed: int) -> CLIPModel:
        """Return the model with the config's domain encoder; DOMAIN.ENCODER none: without."""
        domain = load_domain(self.cfg, clip, self.keys.PRESET)
        settings = self.model_settings() | ({"domain_dim": 0} if domain is None else {})
        build: Any = self.model_class
        return build(clip, domain, classnames, seed=seed, **settings)

    def fit_features(self) -> None:
        """Fit the head and the standardisation of a model that has them."""
        model: Any = self.model
        if getattr(model, "learns_from_features", False):
            found = compute_features(self, [training_images(self)], model.frozen_features)
            model.fit_features(found.mean(), found.labels, self.cfg.TRAIN.CLASS_WEIGHTS or None)

    def test(self, split: str | None = None) -> float:
        """Evaluate as the base does; domain features come from the cache where they are known."""
        if self.cfg.DOMAIN.CACHE and self.model.domain is not None and self.feature_cache is None:
            facts = preparation(self.cfg, self.precision) | {
                "activation": self.model.clip.activation,  # of the encoder "clip"
                "packages": versions(),
                "code": own_code(),
            }
            self.feature_cache = FeatureCache(self.model.domain, facts, cache_limit(self.cfg))
        accuracy = super().test(split)
        if self.feature_cache is not None:
            self.feature_cache.write()
        return accuracy

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) and labels (B,) on the device; the files are remembered."""
        self._files = batch.get("impath")
        return super().parse_batch_test(batch)

    def model_inference(self, input: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, 3, H, W)."""
        cache = self.feature_cache
        if cache is None or self._files is None:
            return super().model_inference(input)
        features = cache.get(self._files)
        with self.precision.autocast():
            if features is None:
                assert self.model.domain is not None  # there is a cache only where there is one
                features = self.model.domain(input)
                cache.put(self._files, features)
            return self.model(input, domain_features=features.to(self.device))


def cache_limit(cfg: Any) -> int:
    """Return the most that files with features take, in bytes.

    TRAIN.FEATURE_CACHE 0 turns off the features of passes; those of DOMAIN.CACHE, which has a
    switch of its own, are then within the default limit.
    """
    defaults = {name: default for name, default, _ in GENERAL_KEYS}
    return round((cfg.TRAIN.FEATURE_CACHE or defaults["TRAIN.FEATURE_CACHE"]) * GB)


def _report_unused(domain: Any, name: str) -> None:
    """Warn of the keys of ``cfg.DOMAIN`` that were set, but that this encoder does not use."""
    defaults = {name: default for name, default, _ in GENERAL_KEYS}
    for key in UNUSED[name]:
        if key in domain and domain[key] != defaults[f"DOMAIN.{key}"]:
            logger.warning(
                "DOMAIN.%s %s is not used: DOMAIN.ENCODER is %s.", key, domain[key], name
            )


def load_domain(cfg: Any, clip: Backbone, preset: str) -> DomainEncoder | None:
    """Load what ``cfg.DOMAIN`` names; None if that is "none".

    Args:
        cfg: the config.
        clip: the CLIP backbone, which can be the domain encoder too.
        preset: of the trainer; decides the normalisation where DOMAIN.NORMALIZE does not.

    Raises:
        UserError: unknown preset, or as `dplq.domain.load.load_domain_encoder`.
    """
    domain, normalize = cfg.DOMAIN, PRESET_NORMALIZE[check_preset(preset)]
    names, files = domain_names(domain)
    if len(names) == 1 and names[0] in UNUSED:
        _report_unused(domain, names[0])
    if names == ["none"]:
        return None
    print(f"Loading domain encoder ({', '.join(names)})")
    encoder = load_domain_encoder(
        names[0] if len(names) == 1 else names,
        weights=files[0] if len(names) == len(files) == 1 else files,
        feature=domain.FEATURE,
        normalize=domain.NORMALIZE or normalize,
        pretrained=domain.PRETRAINED,
        backbone=clip,
        **{key.lower(): domain[key] for key in CHANGES if key in domain},
    )
    if encoder.in_chans != 3:
        raise UserError(
            f"DOMAIN.ENCODER {encoder.name} takes {encoder.in_chans} bands, and the image reader "
            "gives three (INPUT.BANDS): choose an encoder of RGB images. In Python its features "
            "of all bands can be passed as domain_features."
        )
    return encoder
