"""Public checkpoints of the prompt methods' originals.

They are Dassl's ``model.pth.tar-<epoch>``: pickles of a state dict (with the whole CLIP in it, in
the newer trees), beside the optimiser's and the scheduler's state, and in that, live objects. They
are read with ``weights_only``; empty placeholders take the place of those objects, so that no code
of theirs is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dplq.errors import UserError
from dplq.io.containers import check_tensors
from dplq.io.weights import read_content

NUMBERED, BEST = "model.pth.tar-*", "model-best.pth.tar"


def _shift(prefix: str) -> Callable[[re.Match[str]], str]:
    """The originals count layers from 0, our deep prompts begin with layer 1."""
    return lambda match: f"{prefix}.{int(match[1]) - 1}"


# Regular expressions for the originals' names -> ours; None: frozen, or made from class names.
Names = Mapping[str, str | Callable[[re.Match[str]], str] | None]
FIXED_TOKENS: Names = {r"token_(prefix|suffix)": None}
CONTEXT: Names = {r"prompt_learner\.ctx": "ctx", r"prompt_learner\.token_(prefix|suffix)": None}
TOWER_PROMPTS: Names = {
    r"image_encoder\.VPT": "vision",
    r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow": _shift("deep_vision"),
    r"text_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow": _shift("deep_text"),
}
FROZEN_CLIP: Names = {r"(image_encoder|text_encoder)\.(?!.*VPT).*|logit_scale": None}


@dataclass(frozen=True)
class PublicFormat:
    """Folder and key names of an original's checkpoints.

    Attributes:
        folder: below the run's folder.
        names: regular expressions for all names in its state dict, and ours in their place.
        infer: infers settings from the shapes of our tensors.
        required_key: regular expression for a name without which it is another method's checkpoint.
        agrees: returns whether the shapes are the method's, where another has the same names.
    """

    folder: str
    names: Names
    infer: Callable[[dict[str, Tensor]], dict[str, Any]] = lambda state: {}
    required_key: str = ""
    agrees: Callable[[Mapping[str, Tensor]], bool] = lambda state: True

    def fits(self, state: Mapping[str, Tensor]) -> bool:
        """Return whether all names are this format's, the required one among them."""
        known = re.compile("|".join(f"(?:{name})" for name in self.names))
        return (
            all(known.fullmatch(name) for name in state)
            and any(re.fullmatch(self.required_key or ".*", name) for name in state)
            and self.agrees(state)
        )

    def folder_in(self, directory: str | os.PathLike) -> Path | None:
        """Return the folder of an original's checkpoints in a run's folder, if it has any."""
        folder = Path(directory) / self.folder
        return folder if any(folder.glob("model*.pth.tar*")) else None

    def translate(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return our names for what was learned; names that the original lacks are kept."""
        ours = {}
        for name, tensor in state.items():
            own = self._translate_name(name)
            if own is not None:
                ours[own] = tensor
        return ours

    def _translate_name(self, name: str) -> str | None:
        for key, new in self.names.items():
            match = re.fullmatch(key, name)
            if match is None:
                continue
            if new is None or callable(new):
                return new and new(match)
            return match.expand(new)
        return name


def context_and_net(tokens: Callable[[Tensor], int]) -> PublicFormat:
    """Return the format of a context and a meta-net of two layers, as CoCoOp and TCP save them.

    Args:
        tokens: how many tokens the net makes for a context (n, d_t); more tell the two apart.
    """

    def agrees(state: Mapping[str, Tensor]) -> bool:
        context, bias = state.get("ctx"), state.get("meta_net.linear2.bias")
        if context is None or bias is None:
            return False
        return len(bias) == tokens(context) * context.shape[-1]

    names: Names = {
        "ctx": "ctx",
        r"meta_net\.linear1\.(weight|bias)": r"meta_net.0.\1",
        r"meta_net\.linear2\.(weight|bias)": r"meta_net.2.\1",
        **FIXED_TOKENS,
    }
    return PublicFormat(
        "prompt_learner", names, lambda state: {"n_ctx": len(state["ctx"])}, r"meta_net\..*", agrees
    )


def read_public(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], int | None]:
    """Return state dict and epoch of one of Dassl's checkpoints.

    Raises:
        UserError: not such a checkpoint.
    """
    content = read_content(path, PLACEHOLDERS, container="state_dict")
    state = content.get("state_dict")
    if not isinstance(state, Mapping):
        raise UserError(f"{path} is not a checkpoint of Dassl's: it has no 'state_dict'.")
    check_tensors(state, path)
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    return plain, content.get("epoch")


def _placeholder(path: str) -> type:
    """Return an empty class that stands for the class `path`."""
    module, name = path.rsplit(".", 1)
    return type(name, (), {"__module__": module})


def _plain_dict(*_: Any) -> dict[Any, Any]:
    """Return a plain dict: `collections.defaultdict` keeps an optimiser's state."""
    return {}


_plain_dict.__module__ = "collections"
_plain_dict.__name__ = _plain_dict.__qualname__ = "defaultdict"
# What Dassl's warm-up schedulers hold: the scheduler that follows, which holds the optimiser.
PLACEHOLDERS: tuple[Callable[..., Any], ...] = (
    dict,
    _plain_dict,
    *(_placeholder(f"torch.optim.{name}") for name in ("sgd.SGD", "adam.Adam", "adamw.AdamW")),
    *(
        _placeholder(f"torch.optim.lr_scheduler.{name}")
        for name in ("CosineAnnealingLR", "StepLR", "MultiStepLR")
    ),
)
