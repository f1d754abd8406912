"""CLIP-SVD: only the singular values of the weights learn (Koleilat et al., TMLR 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.methods.deltas.base import TOWERS, DeltaModel, Deltas, DeltaSettings
from dplq.methods.registry import register_method
from dplq.methods.settings import option

# weights of a residual block -> matrices in it, one below the other: q, k, v have an SVD each
MATRICES = {
    "attn.in_proj_weight": 3,
    "attn.out_proj.weight": 1,
    "mlp.c_fc.weight": 1,
    "mlp.c_proj.weight": 1,
}


@dataclass(frozen=True)
class CLIPSVDSettings(DeltaSettings):
    """Settings of CLIP-SVD."""

    encoder: str = option("both", "towers that learn: both, text or image", choices=tuple(TOWERS))


class SingularValues(nn.Module):
    """The change U diag(s - s_0) V of a weight W = U diag(s_0) V; s is learned.

    Args:
        weight: (blocks d_out, d_in).
        blocks: matrices in it, each with an SVD of its own.
    """

    left: Tensor
    right: Tensor
    start: Tensor

    def __init__(self, weight: Tensor, blocks: int) -> None:
        super().__init__()
        parts = weight.detach().float().unflatten(0, (blocks, -1))
        left, values, right = torch.linalg.svd(parts, full_matrices=False)
        self.values = nn.Parameter(values.clone())
        # Made again from the frozen weight where a checkpoint is loaded.
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.register_buffer("start", values, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight."""
        change = (self.left * (self.values - self.start).unsqueeze(1)) @ self.right
        return weight + change.flatten(0, 1)


@register_method
class CLIPSVDModel(DeltaModel):
    """CLIP whose attention and MLP matrices have learned singular values.

    Args:
        clip: the CLIP backbone.
        classnames: K class names; underscores become spaces.
        seed: not used: training starts at the frozen weights.
        **settings: fields of `CLIPSVDSettings`.
    """

    method, settings_class = "CLIPSVD", CLIPSVDSettings
    structure = ("encoder",)

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given = CLIPSVDSettings(**settings)
        self.check_support(clip, asdict(given))
        deltas = Deltas(
            {
                f"{block}.{name}": SingularValues(clip.weight(f"{block}.{name}"), count)
                for tower in TOWERS[given.encoder]
                for block in clip.block_names(tower)
                for name, count in MATRICES.items()
            }
        )
        super().__init__(clip, deltas, classnames, settings=asdict(given), deltas=deltas)
