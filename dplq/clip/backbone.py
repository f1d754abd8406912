"""open_clip -> one adapter: frozen CLIP towers that take prompts.

`load_backbone` turns a config string into a `Backbone`; the rest of the library asks it for widths,
depths and features and never names a model. METHOD.md, "Forward pass" steps 4 and 6, and "Exact
identities that make it fast" 1 (nothing after the last EOT token is run) describe what the prompted
towers compute. They are built on open_clip's own residual blocks. `dplq.clip.sources` finds the
architecture and the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dplq.clip.blocks import advance, divisible, per_item, read, run_blocks
from dplq.clip.memory import blocks_per_chunk
from dplq.clip.packed_text import ClassTexts, run_classes
from dplq.clip.sources import CONFIG_FILE, build, find_source, load_weights
from dplq.errors import UserError
from dplq.io.spec import Spec
from dplq.io.weights import sha256, warn_framed

if TYPE_CHECKING:  # importing open_clip takes seconds, so only the functions that need it do
    from open_clip import SimpleTokenizer

__all__ = ["CONFIG_FILE", "Backbone", "load_backbone"]


def load_backbone(
    name: str, *, weights: str = "", pretrained: bool = True, seed: int = 0
) -> Backbone:
    """Return the named CLIP, frozen, behind the adapter.

    Args:
        name: one of
            a CoOp name (`ViT-B/16`, `ViT-B/32`, `ViT-L/14`, `ViT-L/14@336px`: OpenAI's weights);
            `NAME:TAG`, an open_clip model and one of its pretrained tags;
            `NAME:PATH`, an open_clip or CoOp name and a checkpoint file;
            `hf-hub:ORG/NAME`, a model on the Hugging Face hub in open_clip's layout;
            `local-dir:PATH`, a folder with `open_clip_config.json` and weights.
        weights: a checkpoint file for the architecture `name`: OpenAI's TorchScript archive or
            state dict, an open_clip `.pt` (plain or with `state_dict` and `module.`), safetensors.
        pretrained: False gives random weights, drawn from `seed`, and says so in the log.
        seed: of the random weights; the global generator is left as it was.

    Raises:
        UserError: unknown name or tag, a model that cannot take prompts, weights that are absent,
            unreadable or of another architecture.
    """
    source = find_source(name, weights, pretrained)
    model = build(source, seed)
    spec = {
        "name": source.spec_name or name,
        "weights": source.spec_weights,
        "pretrained": pretrained,
        "seed": seed,
    }
    if source.file is None:
        assert not pretrained
        warn_framed(
            "!",
            f"{name} has RANDOM weights (pretrained=False, seed {seed}). Accuracies mean nothing.",
        )
    else:
        load_weights(model, source)
        if source.local:
            spec["weights_sha256"] = sha256(source.file)
    return Backbone(model, source.config, source.preprocess, spec)


class Backbone(nn.Module):
    """A frozen CLIP with promptable towers. Always in eval mode; nothing in it is trainable.

    Inputs of any floating type are cast to the towers' `dtype`; features come out in it.

    Attributes:
        spec: what `load_backbone` needs to rebuild it (JSON-able; `weights` is a file name only).
        text_width, vision_width, embed_dim: d_t, d_v and the joint width d.
        text_layers, vision_layers: number of residual blocks.
        context_length: tokens per text, SOS and EOT included.
        image_size: pixels per side.
        image_mean, image_std: per channel, for images in 0..1.
        grad_checkpointing: as `set_grad_checkpointing` was told.
        causal: a text token sees only itself and earlier ones.
        splits_texts: `class_features` can be used: the text tower is causal, and made of blocks
            that this project knows from within.
    """

    def __init__(
        self,
        model: nn.Module,
        config: Mapping[str, Any],
        preprocess: Mapping[str, Any],
        spec: dict[str, Any],
    ) -> None:
        """Wrap `model` (open_clip's CLIP or CustomTextCLIP, of architecture `config`)."""
        super().__init__()
        import open_clip

        self.clip = model
        self.spec = Spec.from_header(spec)
        text, visual = self._text, model.visual
        self.text_width: int = text.token_embedding.embedding_dim
        self.vision_width: int = visual.conv1.out_channels
        self.embed_dim: int = config["embed_dim"]
        self.text_layers = len(text.transformer.resblocks)
        self.vision_layers = len(visual.transformer.resblocks)
        self.context_length: int = text.positional_embedding.shape[0]
        self.image_size: int = _square(spec["name"], visual.image_size)
        self.image_mean: tuple[float, ...] = tuple(
            preprocess.get("mean") or open_clip.OPENAI_DATASET_MEAN
        )
        self.image_std: tuple[float, ...] = tuple(
            preprocess.get("std") or open_clip.OPENAI_DATASET_STD
        )
        self.causal = text.attn_mask is not None
        towers = (text.transformer.resblocks, visual.transformer.resblocks)
        text_splits, self._vision_splits = (all(map(divisible, blocks)) for blocks in towers)
        self.splits_texts = self.causal and text_splits
        clean = (config["text_cfg"].get("tokenizer_kwargs") or {}).get("clean", "lower")
        self._tokenizer = _tokenizer(clean)
        self.grad_checkpointing = False
        self.requires_grad_(False)
        self.eval()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only what passes between the image tower's layers; run the layers again backwards.

        The texts have their own way to save memory (`class_features`, chunk).
        """
        self.grad_checkpointing = enable

    @property
    def _text(self) -> nn.Module:
        # open_clip's CLIP holds the text tower's parts itself, CustomTextCLIP holds the tower.
        return getattr(self.clip, "text", self.clip)

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode, whatever the surrounding model does."""
        return super().train(False)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the frozen weights."""
        return self.clip.visual.conv1.weight.dtype

    @property
    def logit_scale(self) -> Tensor:
        """What cosine similarities are multiplied with (exponential taken), a scalar."""
        return self.clip.logit_scale.exp().reshape(())

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return token ids, (N, context_length) long, zero after EOT.

        Raises:
            UserError: a text needs more than `context_length` tokens.
        """
        tokens = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(tokens, texts, strict=True):
            ids = [self._tokenizer.sot_token_id, *self._tokenizer.encode(text)]
            ids.append(self._tokenizer.eot_token_id)
            if len(ids) > self.context_length:
                raise UserError(
                    f"the text '{text}' has {len(ids)} tokens (SOS and EOT included), but "
                    f"{self.spec.name} reads at most {self.context_length}; shorten it"
                )
            row[: len(ids)] = torch.tensor(ids)
        return tokens

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Return token embeddings without position, (N, L, d_t), of `tokens` (N, L)."""
        return self._text.token_embedding(tokens)

    def encode_image(self, images: Tensor) -> Tensor:
        """Return un-normalised image features (B, d) of CLIP-normalised images (B, 3, H, W)."""
        return self.prompted_vision(images, images.new_empty(0, self.vision_width))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return un-normalised text features (N, d) of `tokens` (N, L)."""
        return self.prompted_text(self.embed_tokens(tokens), tokens.argmax(dim=-1))

    def prompted_text(
        self, embeddings: Tensor, eot: Tensor, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return text features of embedded prompts (METHOD.md, forward pass, step 4).

        Args:
            embeddings: [SOS, n context tokens, rest], (N, L, d_t), without position.
            eot: position of each text's EOT token, (N,) long.
            deep_prompts: before layer l = 1..len(deep_prompts) the tokens at positions 1..n are
                replaced by deep_prompts[l - 1], (n, d_t) or one per text (N, n, d_t); without rows
                it leaves its layer alone.

        Returns:
            Un-normalised features, (N, d).

        Raises:
            UserError: more deep prompts than layers 1, 2, ....
        """
        text = self._text
        # A token sees only earlier ones: all after the last EOT cannot change the feature.
        length = int(eot.max()) + 1
        x = embeddings[:, :length].to(self.dtype) + text.positional_embedding[:length]
        step = partial(_whole, text.transformer, text.attn_mask[:length, :length])
        blocks = text.transformer.resblocks
        x = run_blocks(blocks, x, deep_prompts, first=1, step=step, last=step)
        pooled = text.ln_final(x[torch.arange(len(x), device=x.device), eot])
        return _project(pooled, text.text_projection)

    def class_texts(self, tokens: Tensor, n_ctx: int) -> ClassTexts:
        """Prepare K classes for `class_features`.

        Args:
            tokens: (K, L), ids of the whole texts, [SOS, places of n_ctx context tokens, rest].
            n_ctx: context length.
        """
        first = 1 + n_ctx
        eot = tokens.argmax(dim=-1)
        length = int(eot.max()) + 1
        tokens = tokens[:, first:length]
        place = self._text.positional_embedding[first:length]
        embedded = self.embed_tokens(tokens.to(place.device)) + place
        return ClassTexts(tokens, embedded, eot - first, first)

    def class_features(
        self,
        sos: Tensor,
        context: Tensor,
        texts: ClassTexts,
        deep_prompts: Sequence[Tensor] = (),
        chunk: int | str = "auto",
    ) -> Tensor:
        """Return the text features of all (image, class) pairs; `prompted_text`, but much cheaper.

        Args:
            sos: embedding of SOS, without position, (1, d_t).
            context: (B, n, d_t), without position; B = 1 if all images share it.
            texts: the classes, from `class_texts`.
            deep_prompts: as for `prompted_text`, each (n, d_t) or without rows.
            chunk: classes that are run at once (whole blocks of them, one at least), or "auto"
                (`dplq.clip.memory`).

        Returns:
            Un-normalised features, (B, K, d).
        """
        text = self._text
        blocks, place = text.transformer.resblocks, text.positional_embedding
        batch, n_ctx, _ = context.shape
        sos = (sos.to(self.dtype) + place[:1]).expand(batch, -1, -1)
        context = context.to(self.dtype) + place[1 : 1 + n_ctx]
        common = texts.common.to(self.dtype).expand(batch, -1, -1)
        beginning = torch.cat([sos, context, common], dim=1)
        if chunk == "auto":
            count = blocks_per_chunk(texts.own, texts.sees.shape[-1], batch, len(blocks))
        else:
            count = max(chunk * len(texts.own) // len(texts.valid), 1)
        states = run_classes(blocks, texts, beginning, deep_prompts, count)
        pooled = text.ln_final(states)
        return _project(pooled, text.text_projection)

    def prompted_vision(
        self, images: Tensor, prompts: Tensor, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return image features with prompt tokens (METHOD.md, forward pass, step 6).

        Args:
            images: CLIP-normalised, (B, 3, image_size, image_size).
            prompts: appended after class and patch tokens, after positional embedding and before
                ln_pre; (n, d_v), or one set per image (B, n, d_v).
            deep_prompts: before layer l = 1..len(deep_prompts) the last n tokens are replaced by
                deep_prompts[l - 1], (n, d_v) or (B, n, d_v); without rows it leaves its layer
                alone.

        Returns:
            Un-normalised features, (B, d).

        Raises:
            UserError: images of another size, or more deep prompts than layers 1, 2, ....
            ValueError: deep prompts of another number than `prompts`.
        """
        visual = self.clip.visual
        if tuple(images.shape[-2:]) != (self.image_size, self.image_size):
            raise UserError(
                f"images of {images.shape[-2]}x{images.shape[-1]} pixels given to "
                f"{self.spec.name}, which reads {self.image_size}x{self.image_size}; "
                f"set INPUT.SIZE to ({self.image_size}, {self.image_size})"
            )
        patches = visual.conv1(images.to(self.dtype)).flatten(2).transpose(1, 2)
        x = torch.cat([per_item(visual.class_embedding[None], patches), patches], dim=1)
        # Cast as open_clip does: under autocast the convolution's output decides the type.
        x = x + visual.positional_embedding.to(x.dtype)
        first, n = x.shape[1], prompts.shape[-2]
        if any(deep.shape[-2] not in (0, n) for deep in deep_prompts):
            rows = [deep.shape[-2] for deep in deep_prompts]
            raise ValueError(f"deep prompts of {rows} tokens would replace {n} prompt tokens")
        x = visual.ln_pre(torch.cat([x, per_item(prompts, x)], dim=1))
        step = last = partial(_whole, visual.transformer, None)
        if self._vision_splits:
            # Of the last layer only the class token is read.
            step, last = advance, partial(read, places=x.new_zeros(len(x), 1, dtype=torch.long))
        if self.grad_checkpointing and torch.is_grad_enabled():
            step = partial(checkpoint, step, use_reentrant=False, preserve_rng_state=False)
        blocks = visual.transformer.resblocks
        x = run_blocks(blocks, x, deep_prompts, first=first, step=step, last=last)
        return _project(visual.ln_post(x[:, 0]), visual.proj)


def _whole(transformer: nn.Module, mask: Tensor | None, block: nn.Module, x: Tensor) -> Tensor:
    """Run one of open_clip's blocks as it is on `x` (N, L, d)."""
    # open_clip before 2.26 has no such attribute and runs its blocks on (L, N, d).
    if getattr(transformer, "batch_first", False):
        return block(x, attn_mask=mask)
    return block(x.transpose(0, 1), attn_mask=mask).transpose(0, 1)


def _project(pooled: Tensor, projection: nn.Parameter | nn.Linear | None) -> Tensor:
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection


def _square(name: str, size: int | Sequence[int]) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise UserError(f"{name} reads images of {height}x{width} pixels; only square ones can be")
    return int(height)


@cache
def _tokenizer(clean: str) -> SimpleTokenizer:
    import open_clip

    return open_clip.SimpleTokenizer(clean=clean)
