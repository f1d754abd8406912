"""The CLIP adapter: frozen towers that accept prompts.

`load_backbone` turns a config string into a `Backbone`. The rest of the library takes widths,
depths and features from it and never names a model. `dplq.clip.towers` has an adapter for each kind
of tower, `dplq.clip.sources` finds architecture and weights, `dplq.clip.load` builds and loads
them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
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
from dplq.clip.installed import open_clip
from dplq.clip.load import build, load_weights
from dplq.clip.memory import texts_per_chunk
from dplq.clip.modules import CLIPModel
from dplq.clip.packed_text import PackedTexts
from dplq.clip.sources import CONFIG_FILE, find_source
from dplq.clip.towers import make_image_tower, make_text_tower
from dplq.errors import UserError
from dplq.images.model_input import SHORTEST
from dplq.io.files import file_digest, json_digest
from dplq.io.spec import LOCAL_DIR, Spec
from dplq.io.validation.paths import user_path
from dplq.io.weights import private_rng, warn_framed
from dplq.models.catalogue import published

__all__ = ["CONFIG_FILE", "Backbone", "load_backbone"]
# Entries of a config that checkpoints record by what they come to, activation and tokenizer, and
# those that weights replace.
RECORDED_APART = ("quick_gelu", "act_kwargs", "hf_tokenizer_name")
REPLACED = ("init_logit_scale", "init_logit_bias", "timm_model_pretrained", "hf_model_pretrained")


def load_backbone(
    name: str, *, weights: str = "", pretrained: bool = True, seed: int = 0, act: str = AUTO
) -> Backbone:
    """Load a frozen CLIP by name.

    Args:
        name: one of
            a CoOp name (`ViT-B/16`, `ViT-B/32`, `ViT-L/14`, `ViT-L/14@336px`, `RN50`, `RN101`, ...:
            OpenAI's weights);
            `NAME:TAG`, an open_clip model and one of its pretrained tags;
            `NAME:PATH`, an open_clip or CoOp name, or `conch_ViT-B-16`, and a checkpoint file;
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
        UserError: unknown name or tag, weights that are absent, unreadable or of another
            architecture.
    """
    source = find_source(name, weights, pretrained, seed)
    choose_activation(source, act)
    model = build(source)
    with private_rng(seed):
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
        if spec.weights or spec.is_repository or published(spec.name, "clip"):
            spec = replace(spec, sha256=file_digest(source.file))
    check_activation(model, source, act, spec.sha256)
    backbone = Backbone(model, source.config, source.preprocess, spec)
    if spec.is_repository:
        backbone.config_sha256 = config_digest(source.config)
    return backbone


def config_digest(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what of an open_clip model config decides the features, in hex."""
    return json_digest(_without((*RECORDED_APART, *REPLACED), config))


def _without(keys: Collection[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a nested config without some keys."""
    return {
        key: _without(keys, value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in keys
    }


class Backbone(nn.Module):
    """A frozen CLIP with promptable towers.

    It stays in eval mode and has no trainable parameters. Floating-point inputs are cast to the
    towers' `dtype`, which is also the dtype of the features. What a tower does not support is
    refused by the method that needs it (`lacks`).

    Args:
        model: open_clip's CLIP, CustomTextCLIP or CoCa.
        config: its architecture, as open_clip's model config.
        preprocess: `mean`, `std`, `interpolation` and `resize_mode` of its images, as open_clip's
            preprocessing config has them; OpenAI's where absent.
        spec: how `load_backbone` made it.

    Attributes:
        spec: what `load_backbone` needs to rebuild it.
        config_sha256: of a folder's or repository's config, without activation and tokenizer; ""
            where the name says it all.
        image: adapter of the image tower (`dplq.clip.towers`).
        text: adapter of the text tower.
        text_width: d_t; 0 for a tower that takes no prompts.
        vision_width: d_v; 0 for a tower that takes no prompts.
        embed_dim: the joint width d.
        text_layers: number of blocks; 0 for a tower that takes no prompts.
        vision_layers: the same of the image tower.
        context_length: tokens per text, SOS and EOT included.
        image_size: pixels per side.
        image_mean: per channel, for images in 0..1.
        image_std: per channel.
        interpolation: with which images are resized, "bicubic" or "bilinear".
        resize_mode: "shortest", the shorter edge is resized and the middle cropped; "squash", both
            edges are resized.
        causal: whether a text token attends to itself and earlier tokens only.
        prompt_start: position of the first context token of a text.
        supports_packing: whether `encode_packed_text` can be used: the text tower is causal, and
            its blocks are of the supported structure.
    """

    clip: CLIPModel
    config_sha256 = ""

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
        self.image = make_image_tower(model.visual)
        folder = None if spec.folder is None else user_path(spec.folder, LOCAL_DIR)
        self.text = make_text_tower(model, config["text_cfg"], spec.name, folder)
        self.text_width, self.vision_width = self.text.width, self.image.width
        self.embed_dim: int = config["embed_dim"]
        self.text_layers, self.vision_layers = self.text.layers, self.image.layers
        self.context_length = self.text.context_length
        self.image_size = _square_size(spec.name, model.visual.image_size)
        self.image_mean: tuple[float, ...] = tuple(
            preprocess.get("mean") or package.OPENAI_DATASET_MEAN
        )
        self.image_std: tuple[float, ...] = tuple(
            preprocess.get("std") or package.OPENAI_DATASET_STD
        )
        said = preprocess.get("interpolation")
        self.interpolation = "bilinear" if said == "bilinear" else "bicubic"
        self.resize_mode: str = preprocess.get("resize_mode") or SHORTEST
        self.causal: bool = self.text.causal
        self.supports_packing: bool = self.text.supports_packing
        self.requires_grad_(False)
        self.eval()

    def lacks(self, need: str) -> str:
        """Return why the model does not support what a method needs; "" where it does.

        Args:
            need: a key of `NEEDS`.
        """
        return NEEDS[need](self)

    @property
    def prompt_start(self) -> int:
        """Return the position of the first context token; a tokenizer may have to be loaded."""
        return self.text.prompt_start

    @property
    def grad_checkpointing(self) -> bool:
        """Return whether the image tower recomputes activations."""
        return self.image.grad_checkpointing

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Enable activation checkpointing of the image tower, layer by layer.

        The text tower saves memory by chunks instead (`encode_packed_text`).
        """
        self.image.grad_checkpointing = enable

    def sharing_copy(self) -> Backbone:
        """Return a copy with modules of its own, which share all tensors."""
        shared = (*self.parameters(), *self.buffers(), self.text.tokenizer)
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
            return [f"visual.{name}" for name in self.image.block_names()]
        return self.text.block_names()

    def weight(self, name: str) -> Tensor:
        """Return a frozen weight by its name in open_clip."""
        model: Any = self.clip
        return model.get_parameter(name)

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode, also when a surrounding model is set to train."""
        return super().train(False)

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the frozen weights."""
        return self.image.dtype

    @property
    def logit_scale(self) -> Tensor:
        """Return the factor of the cosine similarities, exponential applied, a scalar."""
        return self.clip.logit_scale.exp().reshape(())

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return token ids, (N, L) long, padded; CLIP's own are zero after EOT.

        Raises:
            UserError: a text needs more than `context_length` tokens.
        """
        return self.text.tokenize(texts)

    def text_end(self, tokens: Tensor) -> Tensor:
        """Return the position of each text's last token, (N,) long, of `tokens` (N, L).

        It is EOT's for CLIP's own tower.
        """
        return self.text.end(tokens)

    def count_tokens(self, tokens: Tensor) -> Tensor:
        """Return the tokens of each text without markers and padding, (N,) long."""
        return self.text.count(tokens)

    def trim(self, tokens: Tensor) -> Tensor:
        """Return `tokens` (N, L) without the last columns, where these cannot change a feature."""
        if not self.text.ignores_padding:
            return tokens
        return tokens[:, : int(self.text_end(tokens).max()) + 1]

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Return token embeddings without position, (N, L, d_t), of `tokens` (N, L)."""
        return self.text.embed(tokens)

    def encode_image(self, images: Tensor) -> Tensor:
        """Return un-normalised image features (B, d) of CLIP-normalised images (B, 3, H, W)."""
        return self.image.encode(self._check_size(images).to(self.dtype))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return un-normalised text features (N, d) of `tokens` (N, L)."""
        return self.text.encode_tokens(tokens)

    def prefix_states(self, tokens: Tensor) -> list[Tensor]:
        """Return the states of a text's first tokens before the layers 1, 2, ... of a causal tower.

        With these as deep prompts, a text with the same first tokens has its un-prompted feature.

        Args:
            tokens: (L,), ids from SOS on.

        Returns:
            A tensor (L, d_t) for each layer but the first.
        """
        return self.text.prefix_states(tokens)

    def encode_prompted_text(
        self,
        embeddings: Tensor,
        eot: Tensor,
        deep_prompts: Sequence[Tensor] = (),
        chunk: int | str = "auto",
    ) -> Tensor:
        """Return text features of embedded prompts (docs/method.md, "Forward pass", step 4).

        With gradients, more than one chunk means activation checkpointing.

        Args:
            embeddings: [SOS, n context tokens, rest], (N, L, d_t), without position.
            eot: position of each text's last token, (N,) long, from `text_end`.
            deep_prompts: before layer l = 1..len(deep_prompts) the n context tokens are replaced by
                deep_prompts[l - 1], (n, d_t) or one per text (N, n, d_t); no rows leave the layer's
                tokens unchanged.
            chunk: texts per forward pass, or "auto" (`dplq.clip.memory`).

        Returns:
            Un-normalised features, (N, d).

        Raises:
            UserError: more deep prompts than layers 1, 2, ..., or a tower that takes no prompts.
        """
        self._refuse_without("text prompts")
        if isinstance(chunk, str):
            chunk = texts_per_chunk(embeddings, self.text_layers)
        if chunk >= embeddings.shape[0]:
            return self.text.encode(embeddings, eot, deep_prompts)
        features = []
        for start in range(0, len(embeddings), chunk):
            part = slice(start, start + chunk)
            deep = [prompts[part] if prompts.dim() == 3 else prompts for prompts in deep_prompts]
            inputs = (embeddings[part], eot[part], deep)
            if torch.is_grad_enabled():
                # No tower draws random numbers, so no generator state needs to be kept.
                feature = checkpoint(
                    self.text.encode, *inputs, use_reentrant=False, preserve_rng_state=False
                )
            else:
                feature = self.text.encode(*inputs)
            features.append(feature)
        return torch.cat(features)

    def pack_texts(self, tokens: Tensor, n_ctx: int) -> PackedTexts:
        """Pack the texts of K classes for `encode_packed_text`.

        Args:
            tokens: (K, L), ids of the whole texts, [SOS, n_ctx context tokens, rest].
            n_ctx: context length.
        """
        return self.text.pack(tokens, n_ctx)

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
        return self.text.encode_packed(sos, context, texts, deep_prompts, chunk)

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
        n = prompts.shape[-2]
        if any(deep.shape[-2] not in (0, n) for deep in deep_prompts):
            rows = [deep.shape[-2] for deep in deep_prompts]
            raise ValueError(f"deep prompts of {rows} tokens would replace {n} prompt tokens")
        self._refuse_without("image prompts")
        return self.image.encode(self._check_size(images).to(self.dtype), prompts, deep_prompts)

    def _refuse_without(self, need: str) -> None:
        if reason := self.lacks(need):
            raise UserError(f"{self.spec.name} takes no {need}: {reason}.")

    def _check_size(self, images: Tensor) -> Tensor:
        size, (height, width) = self.image_size, images.shape[-2:]
        if (height, width) != (size, size):
            raise UserError(
                f"images of {height}x{width} pixels given to {self.spec.name}, which accepts "
                f"{size}x{size}; set INPUT.SIZE to ({size}, {size})"
            )
        return images


# What a method can need of a model -> why a model does not support it; "" where it does.
NEEDS: dict[str, Callable[[Backbone], str]] = {
    "image prompts": lambda clip: clip.image.lacks,
    "text prompts": lambda clip: clip.text.lacks,
    "CLIP's blocks in the image tower": lambda clip: clip.image.lacks_blocks,
    "CLIP's blocks in the text tower": lambda clip: clip.text.lacks_blocks,
}


def _square_size(name: str, size: int | Sequence[int]) -> int:
    """Return the pixels per side of a model's images, which must be square."""
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise UserError(
            f"{name} is for images of {height}x{width} pixels; only square images are supported: "
            "choose another model"
        )
    return int(height)
