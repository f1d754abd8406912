"""GDPL: quaternion prompts and coupled low-rank changes (Cao et al., Nexus 2025).

No code is public; docs/method.md, "Weight deltas", says which choices are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.domain.encoder import DomainEncoder
from dplq.methods.deltas.base import CLIP_BLOCKS, AdaptedModel, Deltas
from dplq.methods.init import check_depth, seeded_generator
from dplq.methods.prompt_learner import QuaternionPromptSettings
from dplq.methods.quaternion_prompt import QuaternionPromptCLIP
from dplq.methods.registry import register_method
from dplq.methods.settings import option

BLOCKS = 3  # q, k and v, one below the other


@dataclass(frozen=True)
class GDPLSettings(QuaternionPromptSettings):
    """Settings of GDPL: those of QuaternionPrompt, and of the changes of weights."""

    rank: int = option(4, "rank of the change of a matrix", minimum=1)
    delta_depth: int = option(9, "layers of both towers whose attention changes", minimum=1)


class SVDChange(nn.Module):
    """The change U diag(s) V of the q, k and v matrices, (3 d, d); s starts at 0.

    Args:
        width: d.
        rank: of each matrix's change.
        generator: source of U and V, which start with orthonormal columns and rows.
    """

    def __init__(self, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.left = nn.Parameter(_orthonormal(width, rank, generator))
        self.right = nn.Parameter(_orthonormal(width, rank, generator).mT.contiguous())
        self.values = nn.Parameter(torch.zeros(BLOCKS, rank))

    def singular_values(self) -> Tensor:
        """Return s, (3, rank)."""
        return self.values

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight."""
        change = (self.left * self.singular_values().unsqueeze(1)) @ self.right
        return weight + change.flatten(0, 1)


class CoupledChange(SVDChange):
    """The same in the image tower, with s made from the text tower's: s M.

    Args:
        text: the change in the same layer of the text tower.
        width: as for `SVDChange`.
        rank: as for `SVDChange`.
        generator: as for `SVDChange`.
    """

    def __init__(self, text: SVDChange, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__(width, rank, generator)
        self.values = nn.Parameter(torch.eye(rank))
        self.coupled = (text.values,)  # the text tower's parameter, so in a tuple

    def singular_values(self) -> Tensor:
        """Return s, (3, rank), for the text tower's and the matrix M."""
        return self.coupled[0] @ self.values


def _orthonormal(width: int, rank: int, generator: torch.Generator) -> Tensor:
    """Return random matrices (3, width, rank) with orthonormal columns."""
    return torch.linalg.qr(torch.randn(BLOCKS, width, rank, generator=generator))[0]


@register_method
class GDPLModel(AdaptedModel, QuaternionPromptCLIP):
    """QuaternionPrompt in a CLIP whose attention matrices learn a low-rank change.

    Args:
        clip: the CLIP backbone.
        domain: as for `QuaternionPromptCLIP`.
        classnames: K class names; underscores become spaces.
        seed: of the learnable weights' initial values; None: torch's global generator.
        rank: see `GDPLSettings`.
        delta_depth: see `GDPLSettings`.
        **settings: as for `QuaternionPromptCLIP`.
    """

    method, settings_class = "GDPL", GDPLSettings
    needs = (*QuaternionPromptCLIP.needs, *CLIP_BLOCKS.values())
    structure = (*QuaternionPromptCLIP.structure, "rank", "delta_depth")  # type: ignore[assignment]  # longer

    def __init__(
        self,
        clip: Backbone,
        domain: DomainEncoder | None,
        classnames: Sequence[str],
        *,
        seed: int | None = None,
        rank: int = GDPLSettings.rank,
        delta_depth: int = GDPLSettings.delta_depth,
        **settings: Any,
    ) -> None:
        super().__init__(clip, domain, classnames, seed=seed, **settings)
        GDPLSettings(rank=rank, delta_depth=delta_depth)
        check_depth(clip, delta_depth, min(clip.text_layers, clip.vision_layers), "DELTA_DEPTH")
        self.settings |= {"rank": rank, "delta_depth": delta_depth}
        generator = seeded_generator(None if seed is None else seed + 1)  # others than the prompts'
        layers: dict[str, nn.Module] = {}
        pairs = zip(clip.block_names("text"), clip.block_names("image"), strict=False)
        for text, image in list(pairs)[:delta_depth]:
            change = SVDChange(clip.text_width, rank, generator)
            layers[f"{text}.attn.in_proj_weight"] = change
            layers[f"{image}.attn.in_proj_weight"] = CoupledChange(
                change, clip.vision_width, rank, generator
            )
        deltas = Deltas(layers)
        self.prompt_learner.add_module("deltas", deltas)
        self.adapt(deltas)
