"""CLIP-LoRA: low-rank adaptation of both towers (Zanella and Ben Ayed, CVPR workshops 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.errors import UserError
from dplq.methods.deltas.base import TOWERS, DeltaModel, Deltas, DeltaSettings
from dplq.methods.init import seeded_generator
from dplq.methods.registry import register_method
from dplq.methods.settings import option

QKV = "qkv"


@dataclass(frozen=True)
class CLIPLoRASettings(DeltaSettings):
    """Settings of CLIP-LoRA."""

    encoder: str = option("both", "towers that learn: both, text or image", choices=tuple(TOWERS))
    params: str = option("qkv", "attention matrices that learn: letters of qkvo")
    rank: int = option(2, "rank of the change of a matrix", minimum=1)
    alpha: float = option(1.0, "the change is scaled by ALPHA / sqrt(RANK)", above=0)
    dropout: float = option(
        0.25, "share of the input features that a step leaves out", minimum=0, maximum=1
    )

    def __post_init__(self) -> None:
        """Check every field, and the letters of PARAMS."""
        super().__post_init__()
        letters = set(self.params)
        if not letters or letters - set("qkvo") or len(letters) < len(self.params):
            raise UserError(f"PARAMS is '{self.params}'; it must be letters of qkvo, such as qkv.")


class LowRank(nn.Module):
    """The change s B A of a weight, or of some of its blocks of rows.

    Args:
        blocks: number of blocks of d_out rows in the weight.
        learned: indices of the blocks that change.
        shape: (d_out, d_in) of a block.
        settings: rank, alpha and dropout.
        generator: source of A; B is zero, so that training starts at the frozen weight.
    """

    keep: Tensor | None = None
    learned: Tensor

    def __init__(
        self,
        blocks: int,
        learned: Sequence[int],
        shape: tuple[int, int],
        settings: CLIPLoRASettings,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        (outputs, inputs), rank = shape, settings.rank
        self.blocks = blocks
        self.register_buffer("learned", torch.tensor(learned), persistent=False)
        self.scale, self.dropout = settings.alpha / math.sqrt(rank), settings.dropout
        bound = inputs**-0.5
        start = torch.empty(len(learned), rank, inputs).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(start)
        self.up = nn.Parameter(torch.zeros(len(learned), outputs, rank))

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the input features of a training step that take part, scaled."""
        self.keep = None
        if self.dropout:
            kept = torch.rand(self.down[:, :1].shape, generator=generator, device=self.down.device)
            self.keep = (kept >= self.dropout) / max(1 - self.dropout, 1e-12)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight (blocks d_out, d_in)."""
        down = self.down * self.keep if self.training and self.keep is not None else self.down
        change = torch.zeros_like(weight).unflatten(0, (self.blocks, -1))
        change = change.index_add(0, self.learned, (self.scale * self.up @ down).to(weight.dtype))
        return weight + change.flatten(0, 1)


@register_method
class CLIPLoRAModel(DeltaModel):
    """CLIP with a low-rank change of its attention matrices in all layers.

    Args:
        clip: the CLIP backbone.
        classnames: K class names; underscores become spaces.
        seed: of the initial values; None: torch's global generator.
        **settings: fields of `CLIPLoRASettings`.
    """

    method, settings_class = "CLIPLoRA", CLIPLoRASettings
    structure = ("encoder", "params", "rank", "alpha")

    prompt_learner: Deltas

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given, generator = CLIPLoRASettings(**settings), seeded_generator(seed)
        self.check_support(clip, asdict(given))
        rows = [QKV.index(letter) for letter in given.params if letter in QKV]
        changes: dict[str, nn.Module] = {}
        for tower in TOWERS[given.encoder]:
            width = clip.text_width if tower == "text" else clip.vision_width
            for block in clip.block_names(tower):
                shape = (width, width)
                if rows:
                    name = f"{block}.attn.in_proj_weight"
                    changes[name] = LowRank(len(QKV), rows, shape, given, generator)
                if "o" in given.params:
                    name = f"{block}.attn.out_proj.weight"
                    changes[name] = LowRank(1, [0], shape, given, generator)
        deltas = Deltas(changes)
        super().__init__(clip, deltas, classnames, settings=asdict(given), deltas=deltas)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K); in training with a new draw of the dropout."""
        if self.prompt_learner.training:
            for module in self.prompt_learner.modules():
                if isinstance(module, LowRank):
                    module.draw(self.noise_generator)
        return super().forward(images)
