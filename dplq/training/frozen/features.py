"""Features that the frozen encoders of a run compute, kept for other runs.

What is kept is the feature of every image in one pass over a loader, in a file whose name is a
digest of all that decides them: the encoder's weights, the content of the image files in the order
and the batches of the pass, transforms, random numbers, precision, device, libraries. The last bits
of a feature can depend on the batch that it is computed in, so that a file serves no other batches.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dplq.io.checkpoint import DamagedFile
from dplq.io.files import bytes_digest, file_digest
from dplq.io.finite import non_finite
from dplq.training.feature_cache import DIGEST, GB, FeatureFiles, encoder_digest
from dplq.training.frozen.batch import CLIP, DOMAIN, FrozenBatch
from dplq.training.seeding import RandomState

FEATURES, RANDOM = "features", "random"  # the tensor of a file, and an entry of its header
CODE = (  # of the package: what is run
    *("clip", "domain", "images", "training/frozen"),
    *("training/loaders.py", "training/seeding.py", "_fallback/dassl"),
)
CPU_INFO = "/proc/cpuinfo"


@dataclass(frozen=True)
class KnownPass:
    """What files say of a pass.

    Attributes:
        features: (N, d) by encoder, in the order of the pass, on the device.
        end: state of the generators after the pass; None where it does not matter.
    """

    features: Mapping[str, Tensor]
    end: RandomState | None = None


@dataclass(frozen=True)
class ImageTower:
    """CLIP's image tower as an encoder whose features are kept."""

    clip: Any

    @property
    def feature_dim(self) -> int:
        """Return the width of a feature."""
        return self.clip.embed_dim

    @property
    def spec(self) -> Any:
        """Return what the backbone was made from."""
        return self.clip.spec

    def identity(self) -> dict[str, Tensor]:
        """Return the tower's weights by name."""
        return dict(self.clip.clip.visual.state_dict())


class FrozenFeatures:
    """Features of the frozen encoders of a model, and where they are kept.

    Args:
        model: a `CLIPModel` on its device; its `frozen_inputs` are the encoders.
        facts: how files become inputs and inputs become features (JSON-able).
        limit: of all files together, in bytes.
        passes: returns how many passes over the training images a run makes; where their features
            are larger than the limit together, nothing is kept.
        dtype: of CLIP's features, as far as is known before the first one.

    Attributes:
        cached_batches: so many batches that were given to the model had features from files.
    """

    def __init__(
        self,
        model: Any,
        facts: Mapping[str, Any],
        limit: int,
        passes: Callable[[], int],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model, self.files, self.passes = model, FeatureFiles(limit), passes
        self.device: torch.device = model.clip.logit_scale.device
        self._facts = {**facts, **machine(self.device), "activation": model.clip.activation}
        made = {CLIP: ImageTower(model.unchanged_clip), DOMAIN: model.domain}
        self._encoders = {name: made[name] for name in model.frozen_inputs}
        sizes = {CLIP: dtype.itemsize, DOMAIN: torch.float32.itemsize}
        self._row_bytes = {  # of the feature of an image; exact once there is one
            name: getattr(encoder, "feature_dim", 0) * sizes[name]
            for name, encoder in self._encoders.items()
        }
        self._encoder_digests: dict[str, str] | None = None
        self._digests: dict[str, str] = {}
        self.cached_batches = 0

    @property
    def skips_images(self) -> bool:
        """Return whether the model needs no image where its features are known."""
        return not self.model.needs_images

    def attach(self, batch: Mapping[str, Any], images: Tensor) -> None:
        """Have the model use what is known of a batch, once its images are on the device."""
        frozen: FrozenBatch | None = batch.get("frozen")
        if frozen is not None:
            frozen.images = images
            self.cached_batches += bool(frozen.known)
        self.model.frozen_batch = frozen

    def detach(self) -> None:
        """Forget the last batch."""
        self.model.frozen_batch = None

    def image_digest(self, path: str) -> str:
        """Return the digest of an image file, which is assumed not to change during a run.

        Raises:
            OSError: it cannot be read.
        """
        if path not in self._digests:
            self._digests[path] = file_digest(path, DIGEST)
        return self._digests[path]

    def read(self, views: str, images: int) -> KnownPass:
        """Return what is known of a pass.

        Args:
            views: digest of the images, their order, batches and transforms.
            images: their number.
        """
        features, end = {}, None
        for encoder, key in self._keys(views).items():
            found = self.files.read(key)
            if found is None:
                continue
            try:
                features[encoder] = _checked(found[0], images, self, key).to(self.device)
                text = found[1].get(RANDOM)
                end = RandomState.from_text(text) if text else None
            except ValueError as error:
                path = self.files.path(key)
                self.files.report_damage(path, DamagedFile(path, f"is damaged: {error}"))
                features.pop(encoder, None)
        return KnownPass(features, end)

    def write(
        self, views: str, features: Mapping[str, list[Tensor]], end: RandomState | None, passes: int
    ) -> None:
        """Keep the features of a pass.

        Args:
            views: as of `read`.
            features: those of every batch, (B, d) each, by encoder.
            end: state of the generators after the pass, where it matters.
            passes: how many passes of this kind a run makes.
        """
        keys, header = self._keys(views), {RANDOM: end.to_text()} if end else {}
        for encoder, parts in features.items():
            self._row_bytes[encoder] = parts[0][0].numel() * parts[0].element_size()
        for encoder, parts in features.items():
            if not self.has_place(sum(map(len, parts)), passes):
                return
            rows = torch.cat(parts)
            if non_finite({FEATURES: rows}):
                continue
            if self.files.write(keys[encoder], {FEATURES: rows}, header):
                self.files.log_once(
                    logging.INFO,
                    "Frozen features are kept in %s, at most %g GB of them (TRAIN.FEATURE_CACHE).",
                    self.files.folder,
                    (self.files.limit or 0) / GB,
                )

    def has_place(self, images: int, passes: int) -> bool:
        """Return whether the features of all encoders are within the limit; else log it.

        Args:
            images: their number in a pass.
            passes: how many passes of this kind a run makes.
        """
        size, limit = images * passes * sum(self._row_bytes.values()), self.files.limit
        if limit is None or size <= limit:
            return True
        self.files.log_once(
            logging.INFO,
            "Frozen features are not kept: those of this run are %.3g GB, and TRAIN.FEATURE_CACHE "
            "is %g.",
            size / GB,
            limit / GB,
        )
        return False

    def _keys(self, views: str) -> dict[str, str]:
        """Return the name of each encoder's file."""
        if self._encoder_digests is None:
            self._encoder_digests = {
                name: encoder_digest(encoder, self._facts)
                for name, encoder in self._encoders.items()
            }
        return {
            name: bytes_digest(f"{digest} {views}".encode(), DIGEST)
            for name, digest in self._encoder_digests.items()
        }


def _checked(
    tensors: Mapping[str, Tensor], images: int, source: FrozenFeatures, key: str
) -> Tensor:
    """Return the features (N, d) of a file that is what it must be.

    Raises:
        ValueError: it is something else.
    """
    rows = tensors.get(FEATURES)
    if rows is None or rows.dim() != 2 or len(rows) != images or not rows.is_floating_point():
        raise ValueError(f"it does not hold the features of {images} images")
    if non_finite({FEATURES: rows}):
        raise ValueError("its features are not finite")
    return rows


def digest_of(facts: Any) -> str:
    """Return the digest of something JSON-able."""
    return bytes_digest(json.dumps(facts, sort_keys=True, default=str).encode(), DIGEST)


@cache
def own_code() -> str:
    """Return the digest of the modules that turn files into features: a checkout changes them."""
    package = Path(__file__).resolve().parents[2]
    files: list[Path] = []
    for name in CODE:
        place = package / name
        files += [place] if place.is_file() else sorted(place.rglob("*.py"))
    return digest_of(
        [[file.relative_to(package).as_posix(), file_digest(file, DIGEST)] for file in files]
    )


def machine(device: torch.device) -> dict[str, Any]:
    """Return what of a machine and of its software decides the last bits of a feature."""
    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "code": own_code(),
        "device": device.type,
    }
    if device.type == "cuda":
        facts |= {
            "name": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        }
        return facts
    return facts | {
        "name": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """Return the name of the processor, on which libraries choose their code."""
    try:
        with open(CPU_INFO) as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
