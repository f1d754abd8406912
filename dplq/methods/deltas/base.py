"""Models that change weights of CLIP: adapted towers, texts under them, merging.

docs/method.md, "Weight deltas". A method says which weights it changes, and by which modules; the
rest is here. A checkpoint holds the learner's state, so the deltas only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dplq.clip.adapt import adapt, apply_delta, merged, state_of
from dplq.clip.backbone import Backbone
from dplq.clip.packed_text import PackedTexts
from dplq.clip.templates import DEFAULT_TEMPLATE, check_template, fill_templates
from dplq.errors import UserError, few
from dplq.io.atomic import write_bytes_atomically
from dplq.io.validation.paths import user_path
from dplq.methods.base import CLIPModel
from dplq.methods.settings import MethodSettings, option

if TYPE_CHECKING:
    from typing_extensions import Self

CLIP_BLOCKS = {
    "text": "CLIP's blocks in the text tower",
    "image": "CLIP's blocks in the image tower",
}
TOWERS = {"both": ("text", "image"), "text": ("text",), "image": ("image",)}


@dataclass(frozen=True)
class DeltaSettings(MethodSettings):
    """Settings of the methods whose texts are fixed and whose weights learn."""

    template: str = option(
        DEFAULT_TEMPLATE,
        "text of a class, {} for its name; empty: the dataset's zero-shot text",
    )
    iterations: int = option(
        0, "training steps for each image of a class; 0: as OPTIM.MAX_EPOCH says", minimum=0
    )

    def __post_init__(self) -> None:
        """Check every field, and the template."""
        super().__post_init__()
        if self.template:
            check_template(self.template)


class Deltas(nn.ModuleDict):
    """Changes of weights by the weights' names, with "/" for ".", which `nn.ModuleDict` refuses."""

    def __init__(self, changes: Mapping[str, nn.Module]) -> None:
        super().__init__({name.replace(".", "/"): module for name, module in changes.items()})

    def by_weight(self) -> dict[str, nn.Module]:
        """Return the changes by open_clip's names of the weights."""
        return {name.replace("/", "."): module for name, module in self.items()}


class Replaced(nn.Module):
    """A weight that is learned as a whole, from its frozen value on."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(weight.detach().float().clone())

    def forward(self, weight: Tensor) -> Tensor:
        """Return the learned weight."""
        return self.value


class AdaptedModel(CLIPModel):
    """A CLIP whose weights are changed by deltas, which are part of its learner.

    Attributes:
        frozen_clip: the backbone without the change; it shares its tensors with `clip`.
    """

    frozen_clip: Backbone

    def adapt(self, deltas: Deltas) -> None:
        """Put a backbone with changed weights in the place of `clip`, for good."""
        self.frozen_clip = self.clip
        self.clip = adapt(self.clip, deltas.by_weight())
        self._deltas = (deltas,)  # the learner's, so no submodule here

    @property
    def unchanged_clip(self) -> Backbone:
        """The backbone without the changes of weights."""
        return self.frozen_clip

    @torch.no_grad()
    def folded(self) -> Self:
        """Return a copy, which shares tensors, with the deltas folded into its weights, too."""
        new = super().folded()
        new.clip = merged(self.frozen_clip, self._deltas[0].by_weight())
        return new

    @torch.no_grad()
    def merged_state(self) -> dict[str, Tensor]:
        """Return open_clip's state dict of the whole CLIP with the deltas folded in."""
        model: Any = self.frozen_clip.clip
        state = dict(model.state_dict())
        for name, delta in self._deltas[0].by_weight().items():
            state[name] = apply_delta(delta, state[name])
        return state

    def learned_beside_weights(self) -> list[str]:
        """Return the names of learned parameters in use that belong to no delta."""
        deltas = set(map(id, self._deltas[0].parameters()))
        return [n for n, p in self.prompt_learner.named_parameters() if id(p) not in deltas]

    def merge(self, path: str | os.PathLike[str]) -> None:
        """Write the changed CLIP as a plain open_clip checkpoint.

        `load_backbone("NAME:PATH")`, or `local-dir:` where it lies beside its config, opens it. It
        holds weights only: a model that has learned prompts or a classifier too is refused.

        Args:
            path: the file, ``.safetensors``; `~` is the home folder.

        Raises:
            UserError: more than weights was learned, another suffix, or the file cannot be written.
        """
        import safetensors.torch

        path = user_path(path, "path")
        if path.suffix != ".safetensors":
            raise UserError(f"{path} is no name for merged weights: end it in .safetensors.")
        if names := self.learned_beside_weights():
            raise UserError(
                f"{path} is not written: a plain CLIP cannot hold what {self.method} has learned "
                f"beside its weights ({few(names, 4)}). Use `save`, and `dplq.load` to open it."
            )
        training = self.prompt_learner.training
        self.prompt_learner.eval()  # without dropout
        state = {name: t.cpu().contiguous() for name, t in self.merged_state().items()}
        self.prompt_learner.train(training)
        write_bytes_atomically(path, safetensors.torch.save(state))


class DeltaModel(AdaptedModel):
    """An adapted CLIP with one fixed text for each class.

    Texts are encoded in every step where weights under them learn. Without gradients, or where
    none does, they are encoded once for each set of classes and state of the weights.

    Args:
        clip: the CLIP backbone; it stays unchanged.
        learner: what is learned; the deltas, or a module they are part of.
        classnames: K class names; underscores become spaces.
        settings: as for `CLIPModel`, with "template"; empty: "a photo of a {}.".
        deltas: the changes of weights.
    """

    # The weights fit any text, and datasets differ in theirs.
    structure: ClassVar[Sequence[str]] = ()
    may_differ = ("template",)

    sos: Tensor
    tokens: Tensor
    texts: PackedTexts | None

    def __init__(
        self,
        clip: Backbone,
        learner: nn.Module,
        classnames: Sequence[str],
        *,
        settings: dict[str, Any],
        deltas: Deltas,
    ) -> None:
        settings = {**settings, "template": settings["template"] or DEFAULT_TEMPLATE}
        super().__init__(clip, learner, classnames, settings=settings)
        self.adapt(deltas)
        self.learns_text = not all(name.startswith("visual.") for name in deltas.by_weight())
        DeltaModel._embed_classes(self, self.classnames)

    @classmethod
    def needs_of(cls, settings: Mapping[str, Any]) -> Sequence[str]:
        """Return that the towers whose weights change must have CLIP's blocks."""
        return [CLIP_BLOCKS[tower] for tower in TOWERS[settings.get("encoder", "both")]]

    def _embed_classes(self, classnames: list[str]) -> None:
        """Tokenise the classes' texts, and pack them where the tower allows it."""
        device = self.clip.logit_scale.device
        texts = [fill_templates([self.settings["template"]], name)[0] for name in classnames]
        tokens = self.clip.tokenize(texts).to(device)
        self._kept: tuple[tuple[Any, ...], Tensor] | None = None
        with torch.no_grad():
            self.register_buffer("tokens", tokens, persistent=False)
            packs = self.clip.supports_packing
            sos = self.clip.embed_tokens(tokens[0, :1]) if packs else tokens.new_empty(0)
            self.register_buffer("sos", sos, persistent=False)
            self.texts = self.clip.pack_texts(tokens, 0) if packs else None

    def prompt_texts(self) -> list[list[str]]:
        """Return the text of every class."""
        return [fill_templates([self.settings["template"]], name) for name in self.classnames]

    def prompt_kind(self) -> str:
        """Return what learns beside the fixed text."""
        return "fixed text; weights of the towers are learned"

    def constant_text(self) -> Tensor | None:
        """Return the text features (1, K, d)."""
        return self.text_features()

    def text_features(self) -> Tensor:
        """Return L2-normalised features (1, K, d) of all classes."""
        if self.folded_text is not None:
            return self.folded_text
        if self.learns_text and (torch.is_grad_enabled() or self.prompt_learner.training):
            return self._encode()
        state = state_of(self.prompt_learner if self.learns_text else nn.Identity(), self.sos)
        if self._kept is None or self._kept[0] != state:
            with torch.inference_mode(False), torch.no_grad():  # a later step may need them
                self._kept = state, self._encode()
        return self._kept[1]

    def _encode(self) -> Tensor:
        if self.texts is None:
            features = self.clip.encode_text(self.tokens).unsqueeze(0)
        else:
            context = self.sos.new_empty(1, 0, self.clip.text_width)
            features = self.clip.encode_packed_text(
                self.sos, context, self.texts, chunk=self.text_chunk
            )
        return F.normalize(features.to(self.learner_dtype), dim=-1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of CLIP-normalised images (B, 3, H, W)."""
        return self.logits(self.image_features(images), self.text_features())
