"""Several domain encoders as one: their features, concatenated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dplq.domain.encoder import DomainEncoder
from dplq.errors import UserError
from dplq.io.files import bytes_digest
from dplq.io.spec import Spec


class JointEncoder(DomainEncoder):
    """Encoders side by side, behind the interface of one.

    Args:
        encoders: two or more, in the order of their features.

    Raises:
        UserError: there is none, or one takes other images than RGB.
    """

    def __init__(self, encoders: Sequence[DomainEncoder]) -> None:
        nn.Module.__init__(self)
        for encoder in encoders:
            if encoder.in_chans != 3:
                raise UserError(
                    f"domain encoder '{encoder.name}' takes {encoder.in_chans} bands; only "
                    "encoders of RGB images can be combined"
                )
        self.encoders = nn.ModuleList(encoders)
        self.spec = _spec_of([encoder.spec for encoder in encoders])
        self.name = self.spec.name
        self.in_chans = 3
        self.image_size = max(encoder.image_size for encoder in encoders)
        self.feature_dim = sum(encoder.feature_dim for encoder in encoders)
        self.eval()

    @property
    def parts(self) -> list[DomainEncoder]:
        """The encoders."""
        return [part for part in self.encoders if isinstance(part, DomainEncoder)]

    def identity(self) -> dict[str, Tensor]:
        """Return all numbers that determine the feature of an image, by name."""
        return {
            f"{index}.{name}": tensor
            for index, part in enumerate(self.parts)
            for name, tensor in part.identity().items()
        }

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the first network computes in."""
        return self.parts[0].dtype

    def for_images(self, mean: Sequence[float], std: Sequence[float]) -> DomainEncoder:
        """Return the encoders for images that carry another normalisation; tensors are shared."""
        parts = [part.for_images(mean, std) for part in self.parts]
        return self if parts == self.parts else JointEncoder(parts)

    def prepare(self, images: Tensor) -> Tensor:
        """Refuse: every encoder prepares images in its own way."""
        raise UserError(
            f"domain encoder '{self.name}' is several, which prepare images differently: call "
            "prepare of each of its parts"
        )

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, feature_dim) of CLIP-normalised images (B, 3, H, W)."""
        return torch.cat([part(images) for part in self.parts], -1)


def _spec_of(parts: Sequence[Spec]) -> Spec:
    """Return the record of several encoders; its digest covers theirs."""
    digests = [part.sha256 for part in parts]
    shared = {
        key: value
        for key, value in parts[0].options.items()
        if all(part.options.get(key) == value for part in parts)
    }
    return Spec(
        " + ".join(part.name for part in parts),
        pretrained=all(part.pretrained for part in parts),
        seed=parts[0].seed,
        sha256=bytes_digest(" ".join(digests).encode()) if any(digests) else "",
        options=shared,
        parts=tuple(parts),
    )
