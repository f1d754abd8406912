"""QuaternionPrompt as the authors' release computes it, without our optimisations.

One text tower call per image, over all 77 tokens of all classes; the quaternion layers also
multiply by the zeros. CLIP, the domain encoder and the weights are those of our model. The image
tower call is ours too: the comparison is about everything else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from dplq import QuaternionPromptCLIP
from tests.references.naive_reference import text_features

Vision = tuple[Tensor, list[Tensor]]


class PlainModel(nn.Module):
    """The release's model with a copy of `ours`' learnable weights (fusion "sum", no residual)."""

    def __init__(self, ours: QuaternionPromptCLIP) -> None:
        super().__init__()
        options = ours.prompt_learner.settings
        assert options.fusion == "sum", "the release adds the domain signal to the context"
        assert not options.residual, "the release replaces the context"
        self.clip, self.domain, self.prefix = ours.clip, ours.domain, ours.prefix
        self.prompt_learner = copy.deepcopy(ours.prompt_learner)  # holds the weights; never called
        self.set_classnames(ours.classnames)

    def set_classnames(self, classnames: Sequence[str]) -> None:
        """Classify into these classes from now on."""
        names = [name.replace("_", " ") for name in classnames]
        tokens = self.clip.tokenize([f"{self.prefix} {name}." for name in names])
        device = self.prompt_learner.ctx.device
        self.register_buffer("tokens", tokens.to(device), persistent=False)

    def language(self, signal: Tensor, noise: Tensor) -> Tensor:
        """Return contexts (B, n, d_t) for the domain signal and noise, both (B, d_t)."""
        learned = self.prompt_learner
        shifted = learned.ctx.unsqueeze(0) + signal.unsqueeze(1) + noise.unsqueeze(1)
        return quaternion(learned.language, shifted)

    def vision(self, signal: Tensor) -> Vision:
        """Return vision prompts: (n, d_v), and for each deep layer (B, n, d_v)."""
        learned = self.prompt_learner
        deep = [
            quaternion(layer, text.unsqueeze(0) + signal.unsqueeze(1))
            for layer, text in zip(learned.vision, learned.deep_text, strict=True)
        ]
        return learned.vision_proj(learned.ctx), deep

    def before_texts(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return contexts (B, n, d_t) and normalised image features (B, d)."""
        features = self.domain(images)
        signal = self.prompt_learner.meta_net(features)
        if noise is None:
            noise = torch.zeros_like(signal)
            if self.training:
                noise = torch.randn_like(signal) * features.mean()
        seen = self.clip.encode_prompted_image(images, *self.vision(signal))
        seen = seen / seen.norm(dim=-1, keepdim=True)
        return self.language(signal, noise), seen

    def row(self, seen: Tensor, context: Tensor, classes: slice = slice(None)) -> Tensor:
        """Return one image's logits from its feature (d,) and context (n, d_t)."""
        deep = list(self.prompt_learner.deep_text)
        read = text_features(self.clip.clip, self.tokens[classes], context, deep)
        read = read / read.norm(dim=-1, keepdim=True)
        return self.clip.logit_scale * seen @ read.t()

    def forward(self, images: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Return logits (B, K) of images (B, 3, H, W); noise (B, d_t) is drawn if None."""
        contexts, seen = self.before_texts(images, noise)
        rows = [self.row(*image) for image in zip(seen, contexts, strict=True)]
        return torch.stack(rows)


def quaternion(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a quaternion layer to [0 | x], x (..., d_t), multiplying by the zeros too."""
    r, i, j, k = layer.r, layer.i, layer.j, layer.k
    columns = (r, -i, -j, -k), (i, r, -k, j), (j, k, r, -i), (k, -j, i, r)
    matrix = torch.cat([torch.cat(column, dim=0) for column in columns], dim=1)
    return torch.cat([torch.zeros_like(x), x], dim=-1) @ matrix + layer.bias


class InParts:
    """A step of the plain model, split where it exceeds the memory or time limit.

    The texts of different images are independent and cost the same, so only the first image's are
    run. Its classes run in chunks, each chunk's backward pass directly after its forward pass, so
    nothing is recomputed. This requires the gradient of the loss with respect to the logits in
    advance, which is passed in.

    Args:
        model: the model.
        images: (B, 3, H, W).
        upstream: (K,), gradient of the loss with respect to the first image's logits; None: no
            backward pass.
        autocast: returns the context in which forward passes run.
        noise: (B, d_t), or None to draw it.
        chunk: classes per chunk.

    Attributes:
        logits: (K,), of the first image, after `texts`.
        parts: (number of times it counts, function), in the order in which they run.
    """

    def __init__(
        self,
        model: PlainModel,
        images: Tensor,
        upstream: Tensor | None,
        autocast: Callable[[], AbstractContextManager],
        noise: Tensor | None = None,
        chunk: int = 50,
    ) -> None:
        self.model, self.images, self.upstream = model, images, upstream
        self.autocast, self.noise, self.chunk = autocast, noise, chunk
        self.logits = torch.empty(0)
        self.parts = [(1, self.before), (len(images), self.texts)]
        if upstream is not None:
            self.parts.append((1, self.after))

    def before(self) -> None:
        """Run the domain encoder, prompt learner and image tower for all images."""
        with self.autocast(), torch.set_grad_enabled(self.upstream is not None):
            self._made = self.model.before_texts(self.images, self.noise)
        self._taken = [t.detach().requires_grad_(t.requires_grad) for t in self._made]

    def texts(self) -> None:
        """Run the text tower for the first image, forward and backward."""
        contexts, seen = self._taken
        rows = []
        for start in range(0, len(self.model.tokens), self.chunk):
            here = slice(start, start + self.chunk)
            with self.autocast(), torch.set_grad_enabled(self.upstream is not None):
                row = self.model.row(seen[0], contexts[0], here)
            if self.upstream is not None:
                row.backward(self.upstream[here].to(row.dtype))
            rows.append(row.detach())
        self.logits = torch.cat(rows)

    def after(self) -> None:
        """Run the backward pass of `before`."""
        torch.autograd.backward(self._made, [t.grad for t in self._taken])
        self._made = self._taken = ()
