"""A checkpoint layout: where its tensors go in open_clip's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

Names = Mapping[str, str]  # start of a key in the file -> its start in open_clip
Change = Callable[[Tensor], Tensor]
# Tensors that transformers keeps for q, k and v each, in the order in which others pack them.
PARTS = ("q_proj.", "k_proj.", "v_proj.")


@dataclass(frozen=True)
class Layout:
    """A layout of CLIP checkpoints other than open_clip's.

    Keys are those of CLIP (`transformer.resblocks.0...`), not of CustomTextCLIP (`text.transformer`
    ...); `dplq.clip.load` adds `text.` where the model has it.

    Attributes:
        title: for messages.
        mark: part of a key that files of no other layout have.
        names: starts of keys outside the blocks.
        towers: starts of the blocks' keys, each with the names inside a block.
        changes: what is done to the tensor of a key of the file.
        split: tensors of the file that are several of the model's.
        unused: starts of keys of parts that encode neither images nor texts.
        act: activation that all such models run, as `running_activations` names it; "" for none.
    """

    title: str
    mark: str
    names: Names
    towers: Mapping[str, tuple[str, Names]]
    changes: Mapping[str, Change]
    split: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    unused: tuple[str, ...] = ()
    act: str = ""

    def model_key(self, key: str) -> str:
        """Return open_clip's key for one of the file; a key of neither is returned unchanged."""
        for start, (new, inside) in self.towers.items():
            if key.startswith(start):
                number, _, rest = key.removeprefix(start).partition(".")
                return f"{new}{number}.{_renamed(rest, inside)}"
        return _renamed(key, self.names)

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a file by open_clip's keys, without the unused ones.

        q, k and v are packed; where one of them is absent, so is the packed tensor.
        """
        converted: dict[str, Tensor] = {}
        packed: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for key, value in state.items():
            if key.startswith(self.unused):
                continue
            new = self.model_key(key)
            part = next((part for part in PARTS if f".self_attn.{part}" in key), "")
            if part:
                packed[new][part] = value
            else:
                converted[new] = self.changes.get(key, _unchanged)(value)
        for new, parts in packed.items():
            if len(parts) == len(PARTS):
                converted[new] = torch.cat([parts[part] for part in PARTS])
        return self.split(converted)


def _renamed(key: str, names: Names) -> str:
    start = next((start for start in names if key.startswith(start)), None)
    return key if start is None else names[start] + key.removeprefix(start)


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


transpose: Change = partial(torch.transpose, dim0=0, dim1=1)
