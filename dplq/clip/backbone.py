"""The CLIP adapter: frozen towers that accept prompts.

`load_backbone` turns a config string into a `Backbone`. The rest of the library takes widths,
depths and features from it and never names a model. The prompted towers follow docs/method.md,
"Forward pass" steps 4 and 6, and "Exact identities" 1 (tokens after the last EOT are not computed).
They run open_clip's own residual blocks. `dplq.clip.sources` finds architecture and weights,
`dplq.clip.load` builds and loads them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.checkpoint import checkpoint

from dplq.clip.activation import (
    AUTO,
    check_activation,
    choose_activation,
    describe_activations,
)
from dplq.clip.blocks import (
    expand_to_batch,
    forward_at,
    forward_block,
    is_supported,
    run_blocks,
)
from dplq.clip.installed import open_clip
from dplq.clip.load import build, load_weights
from dplq.clip.memory import blocks_per_chunk
from dplq.clip.modules import CLIPModel, ImageTower, ResidualBlock, TextTower, Transformer
from dplq.clip.packed_text import PackedTexts, forward_packed
from dplq.clip.sources import CONFIG_FILE, find_source
from dplq.clip.tokenizer import eot_index, make_tokenizer, tokenize
from dplq.errors import UserError
from dplq.io.files import file_digest
from dplq.io.spec import Spec
from dplq.io.weights import warn_framed

__all__ = ["CONFIG_FILE", "Backbone", "load_backbone"]


def load_backbone(
    name: str, *, weights: str = "", pretrained: bool = True, seed: int = 0, act: str = AUTO
) -> Backbone:
    """Load a frozen CLIP by name.

    Args:
        name: one of
            a CoOp name (`ViT-B/16`, `ViT-B/32`, `ViT-L/14`, `ViT-L/14@336px`: OpenAI's weights);
            `NAME:TAG`, an open_clip model and one of its pretrained tags;
            `NAME:PATH`, an open_clip or CoOp name and a checkpoint file;
            `hf-hub:ORG/NAME`, a model on the Hugging Face hub in open_clip's layout, or in that
            of transformers' CLIPModel and SiglipModel;
            `local-dir:PATH`, such a folder: `open_clip_config.json`, or transformers'
            `config.json`, and the weights.
        weights: a checkpoint file for the architecture `name`: OpenAI's TorchScript archive or
            state dict, an open_clip `.pt` (plain or with `state_dict` and `module.`), safetensors;
            the same tensors in another layout of `dplq.clip.layouts`.
        pretrained: False for random weights, drawn from `seed`, with a warning in the log.
        seed: of the random weights; the global generator keeps its state.
        act: activation of the towers: "auto", the one that `name` stands for; "gelu" or
            "quickgelu". A warning says where the file is known to be trained with the other.

    Raises:
        UserError: unknown name or tag, a model without support for prompts, weights that are
            absent, unreadable or of another architecture.
    """
    source = find_source(name, weights, pretrained, seed)
    choose_activation(source, act)
    model = build(source)
    source.finish(model)
    spec = source.spec
    if source.file is None:
        assert not pretrained
        warn_framed(
            "!",
            f"{name} has RANDOM weights (pretrained=False, seed {seed}). Accuracies mean nothing.",
        )
    else:
        load_weights(model, source)
        if spec.weights or spec.folder:
            spec = replace(spec, sha256=file_digest(source.file))
    check_activation(model, source, spec.sha256)
    return Backbone(model, source.config, source.preprocess, spec)


class Backbone(nn.Module):
    """A frozen CLIP with promptable towers.

    It stays in eval mode and has no trainable parameters. Floating-point inputs are cast to the
    towers' `dtype`, which is also the dtype of the features.

    Args:
        model: open_clip's CLIP or CustomTextCLIP.
        config: its architecture, as open_clip's model config.
        preprocess: `mean` and `std` of its images; OpenAI's where absent.
        spec: how `load_backbone` made it.

    Attributes:
        spec: what `load_backbone` needs to rebuild it.
        text_width, vision_width, embed_dim: d_t, d_v and the joint width d.
        text_layers, vision_layers: number of residual blocks.
        context_length: tokens per text, SOS and EOT included.
        image_size: pixels per side.
        image_mean, image_std: per channel, for images in 0..1.
        grad_checkpointing: whether the image tower recomputes activations.
        causal: whether a text token attends to itself and earlier tokens only.
        supports_packing: whether `encode_packed_text` can be used: the text tower is causal, and
            its blocks are of the supported structure.
    """

    clip: CLIPModel

    def __init__(
        self,
        model: CLIPModel,
        config: Mapping[str, Any],
        preprocess: Mapping[str, Any],
        spec: Spec,
    ) -> None:
        super().__init__()
        package = open_clip()

        self.clip = model
        self.spec = spec
        text, visual = self._text, model.visual
        self.text_width = text.token_embedding.embedding_dim
        self.vision_width = visual.conv1.out_channels
        self.embed_dim: int = config["embed_dim"]
        self.text_layers = len(text.transformer.resblocks)
        self.vision_layers = len(visual.transformer.resblocks)
        self.context_length = text.positional_embedding.shape[0]
        self.image_size = _square_size(spec.name, visual.image_size)
        self.image_mean: tuple[float, ...] = tuple(
            preprocess.get("mean") or package.OPENAI_DATASET_MEAN
        )
        self.image_std: tuple[float, ...] = tuple(
            preprocess.get("std") or package.OPENAI_DATASET_STD
        )
        self.causal = text.attn_mask is not None
        towers = (text.transformer.resblocks, visual.transformer.resblocks)
        text_supported, self._vision_supported = (
            all(map(is_supported, blocks)) for blocks in towers
        )
        self.supports_packing = self.causal and text_supported
        clean = (config["text_cfg"].get("tokenizer_kwargs") or {}).get("clean", "lower")
        self._tokenizer = make_tokenizer(clean)
        self.grad_checkpointing = False
        self.requires_grad_(False)
        self.eval()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Enable activation checkpointing of the image tower, layer by layer.

        The text tower saves memory by chunks instead (`encode_packed_text`).
        """
        self.grad_checkpointing = enable

    def sharing_copy(self) -> Backbone:
        """Return a copy with modules of its own, which share all tensors."""
        shared = (*self.parameters(), *self.buffers(), self._tokenizer)
        return copy.deepcopy(self, {id(part): part for part in shared})

    @property
    def activation(self) -> str:
        """Return the activation that runs, such as "quickgelu" (`dplq.clip.activation`)."""
        return describe_activations(self.clip)

    @property
    def is_adapted(self) -> bool:
        """Return whether weights are read as changed by a model (`dplq.clip.adapt`)."""
        return any(map(is_parametrized, self.modules()))

    def block_names(self, tower: str) -> list[str]:
        """Return open_clip's names of the residual blocks of a tower, "text" or "image"."""
        if tower == "image":
            return [f"visual.transformer.resblocks.{i}" for i in range(self.vision_layers)]
        prefix = "" if self._text is self.clip else "text."
        return [f"{prefix}transformer.resblocks.{i}" for i in range(self.text_layers)]

    def weight(self, name: str) -> Tensor:
        """Return a frozen weight by its name in open_clip."""
        model: Any = self.clip
        return model.get_parameter(name)

    @property
    def _text(self) -> TextTower:
        # CustomTextCLIP has a text tower; in CLIP the tower's parts are attributes of the model.
        tower: Any = getattr(self.clip, "text", self.clip)
        return tower

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode, also when a surrounding model is set to train."""
        return super().train(False)

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the frozen weights."""
        return self.clip.visual.conv1.weight.dtype

    @property
    def logit_scale(self) -> Tensor:
        """Return the factor of the cosine similarities, exponential applied, a scalar."""
        return self.clip.logit_scale.exp().reshape(())

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return token ids, (N, context_length) long, zero after EOT.

        Raises:
            UserError: a text needs more than `context_length` tokens.
        """
        return tokenize(self._tokenizer, texts, self.context_length, self.spec.name)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Return token embeddings without position, (N, L, d_t), of `tokens` (N, L)."""
        return self._text.token_embedding(tokens)

    def encode_image(self, images: Tensor) -> Tensor:
        """Return un-normalised image features (B, d) of CLIP-normalised images (B, 3, H, W)."""
        return self.encode_prompted_image(images, images.new_empty(0, self.vision_width))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return un-normalised text features (N, d) of `tokens` (N, L)."""
        return self.encode_prompted_text(self.embed_tokens(tokens), eot_index(tokens))

    def prefix_states(self, tokens: Tensor) -> list[Tensor]:
        """Return the states of a text's first tokens before the layers 1, 2, ... of a causal tower.

        With these as deep prompts, a text with the same first tokens has its un-prompted feature.

        Args:
            tokens: (L,), ids from SOS on.

        Returns:
            A tensor (L, d_t) for each layer but the first.
        """
        text = self._text
        assert text.attn_mask is not None  # a later token would change these states
        x = self.embed_tokens(tokens[None]) + text.positional_embedding[: len(tokens)]
        mask = text.attn_mask[: len(tokens), : len(tokens)]
        states = []
        for block in text.transformer.resblocks[:-1]:
            x = _call_block(text.transformer, mask, block, x)
            states.append(x[0])
        return states

    def encode_prompted_text(
        self, embeddings: Tensor, eot: Tensor, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return text features of embedded prompts (docs/method.md, "Forward pass", step 4).

        Args:
            embeddings: [SOS, n context tokens, rest], (N, L, d_t), without position.
            eot: position of each text's EOT token, (N,) long.
            deep_prompts: before layer l = 1..len(deep_prompts) the tokens at positions 1..n are
                replaced by deep_prompts[l - 1], (n, d_t) or one per text (N, n, d_t); no rows
                leave the layer's tokens unchanged.

        Returns:
            Un-normalised features, (N, d).

        Raises:
            UserError: more deep prompts than layers 1, 2, ....
        """
        text = self._text
        assert text.attn_mask is not None
        # The mask is causal: tokens after the last EOT cannot change the feature.
        length = int(eot.max()) + 1
        x = embeddings[:, :length].to(self.dtype) + text.positional_embedding[:length]
        forward = partial(_call_block, text.transformer, text.attn_mask[:length, :length])
        x = run_blocks(
            text.transformer.resblocks,
            x,
            deep_prompts,
            prompt_start=1,
            forward=forward,
            forward_last=forward,
        )
        pooled = text.ln_final(x[torch.arange(len(x), device=x.device), eot])
        return _project(pooled, text.text_projection)

    def pack_texts(self, tokens: Tensor, n_ctx: int) -> PackedTexts:
        """Pack the texts of K classes for `encode_packed_text`.

        Args:
            tokens: (K, L), ids of the whole texts, [SOS, n_ctx context tokens, rest].
            n_ctx: context length.
        """
        first = 1 + n_ctx
        eot = eot_index(tokens)
        length = int(eot.max()) + 1
        tokens = tokens[:, first:length]
        position = self._text.positional_embedding[first:length]
        embedded = self.embed_tokens(tokens.to(position.device)) + position
        return PackedTexts(tokens, embedded, eot - first, first)

    def encode_packed_text(
        self,
        sos: Tensor,
        context: Tensor,
        texts: PackedTexts,
        deep_prompts: Sequence[Tensor] = (),
        chunk: int | str = "auto",
    ) -> Tensor:
        """Return text features of all (image, class) pairs.

        Equal to `encode_prompted_text` on every pair, at a fraction of its cost.

        Args:
            sos: embedding of SOS, without position, (1, d_t).
            context: (B, n, d_t), without position; B = 1 if all images share it.
            texts: the classes, from `pack_texts`.
            deep_prompts: as for `encode_prompted_text`, each (n, d_t) or without rows.
            chunk: classes per forward pass (rounded to whole blocks, at least one), or "auto"
                (`dplq.clip.memory`).

        Returns:
            Un-normalised features, (B, K, d).
        """
        text = self._text
        blocks, position = text.transformer.resblocks, text.positional_embedding
        batch, n_ctx, _ = context.shape
        sos = (sos.to(self.dtype) + position[:1]).expand(batch, -1, -1)
        context = context.to(self.dtype) + position[1 : 1 + n_ctx]
        prefix = torch.cat([sos, context, texts.prefix.to(self.dtype).expand(batch, -1, -1)], dim=1)
        if isinstance(chunk, str):
            count = blocks_per_chunk(texts.packed, texts.attn_mask.shape[-1], batch, len(blocks))
        else:
            count = max(chunk * len(texts.packed) // len(texts.class_index), 1)
        states = forward_packed(blocks, texts, prefix, deep_prompts, count)
        return _project(text.ln_final(states), text.text_projection)

    def encode_prompted_image(
        self, images: Tensor, prompts: Tensor, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return image features with prompt tokens (docs/method.md, "Forward pass", step 6).

        Args:
            images: CLIP-normalised, (B, 3, image_size, image_size).
            prompts: appended after class and patch tokens, after positional embedding and before
                ln_pre; (n, d_v), or one set per image (B, n, d_v).
            deep_prompts: before layer l = 1..len(deep_prompts) the last n tokens are replaced by
                deep_prompts[l - 1], (n, d_v) or (B, n, d_v); no rows leave the layer's tokens
                unchanged.

        Returns:
            Un-normalised features, (B, d).

        Raises:
            UserError: images of another size, or more deep prompts than layers 1, 2, ....
            ValueError: deep prompts of another number than `prompts`.
        """
        visual = self.clip.visual
        x = _embed_patches(visual, self._check_size(images).to(self.dtype))
        start, n = x.shape[1], prompts.shape[-2]
        if any(deep.shape[-2] not in (0, n) for deep in deep_prompts):
            rows = [deep.shape[-2] for deep in deep_prompts]
            raise ValueError(f"deep prompts of {rows} tokens would replace {n} prompt tokens")
        x = visual.ln_pre(torch.cat([x, expand_to_batch(prompts, x)], dim=1))
        forward: Callable[[ResidualBlock, Tensor], Tensor]
        forward = forward_last = partial(_call_block, visual.transformer, None)
        if self._vision_supported:
            forward = forward_block
            # Only the class token of the last layer is needed.
            class_token = x.new_zeros(len(x), 1, dtype=torch.long)
            forward_last = partial(forward_at, positions=class_token)
        if self.grad_checkpointing and torch.is_grad_enabled():
            forward = partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
        x = run_blocks(
            visual.transformer.resblocks,
            x,
            deep_prompts,
            prompt_start=start,
            forward=forward,
            forward_last=forward_last,
        )
        return _project(visual.ln_post(x[:, 0]), visual.proj)

    def _check_size(self, images: Tensor) -> Tensor:
        size, (height, width) = self.image_size, images.shape[-2:]
        if (height, width) != (size, size):
            raise UserError(
                f"images of {height}x{width} pixels given to {self.spec.name}, which accepts "
                f"{size}x{size}; set INPUT.SIZE to ({size}, {size})"
            )
        return images


def _embed_patches(visual: ImageTower, images: Tensor) -> Tensor:
    """Return class and patch tokens (B, 1 + patches, d_v), positional embedding added."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([expand_to_batch(visual.class_embedding[None], patches), patches], dim=1)
    # Cast as open_clip does: under autocast the dtype is that of the convolution's output.
    return x + visual.positional_embedding.to(x.dtype)


def _call_block(
    transformer: Transformer, mask: Tensor | None, block: ResidualBlock, x: Tensor
) -> Tensor:
    """Call one of open_clip's blocks on `x` (N, L, d)."""
    # open_clip before 2.26 has no such attribute and runs its blocks on (L, N, d).
    if getattr(transformer, "batch_first", False):
        return block(x, attn_mask=mask)
    return block(x.transpose(0, 1), attn_mask=mask).transpose(0, 1)


def _project(pooled: Tensor, projection: Tensor | nn.Module | None) -> Tensor:
    """Return features in the joint space of text and image."""
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection


def _square_size(name: str, size: int | Sequence[int]) -> int:
    """Return the pixels per side of a model's images, which must be square."""
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise UserError(
            f"{name} is for images of {height}x{width} pixels; only square images are supported: "
            "choose another model"
        )
    return int(height)
