"""open_clip -> one adapter: frozen CLIP towers that take prompts.

`load_backbone` turns a config string into a `Backbone`; the rest of the library asks it for widths,
depths and features and never names a model. METHOD.md, "Forward pass" steps 4 and 6, and "Exact
identities that make it fast" 1 (nothing after the last EOT token is run) describe what the prompted
towers compute. They are built on open_clip's own residual blocks.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import logging
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dplq.errors import UserError, suggest

if TYPE_CHECKING:  # importing open_clip takes seconds, so only the functions that need it do
    from open_clip import SimpleTokenizer

logger = logging.getLogger(__name__)

# CoOp's names for OpenAI's models -> open_clip's; these weights were trained with QuickGELU.
OPENAI_VITS = {
    "ViT-B/16": "ViT-B-16",
    "ViT-B/32": "ViT-B-32",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
OPENAI_RESNETS = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")
HF_HUB = "hf-hub:"
LOCAL_DIR = "local-dir:"
CONFIG_FILE = "open_clip_config.json"
# What open_clip itself writes, in its order of preference.
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")

# Strict loading: a file may hold these keys beyond the model's. OpenAI's own files keep three plain
# numbers as buffers; causal masks are computed; a sigmoid model's bias is one constant for all
# classes, which softmax, argmax and cross-entropy do not see.
OPENAI_NUMBERS = frozenset({"input_resolution", "context_length", "vocab_size"})
KEYS_LEFT_OVER = OPENAI_NUMBERS | {"attn_mask", "text.attn_mask", "logit_bias"}
# ... and the model may have these beyond the file's.
KEYS_MISSING = frozenset({"logit_bias"})
CLIP_VOCABULARY = 49408

WHAT_CAN = (
    "Prompts need a plain ViT and CLIP's causal text transformer: "
    + ", ".join(OPENAI_VITS)
    + ", or open_clip models such as ViT-B-32:laion2b_s34b_b79k or ViT-L-14:datacomp_xl_s13b_b90k."
)


@dataclass
class _Source:
    """Where a model's architecture and weights come from."""

    name: str
    config: dict[str, Any]
    preprocess: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None
    # What stands in the spec: the name without a path, the user's file, whether a file was local.
    spec_name: str = ""
    spec_weights: str = ""
    local: bool = False


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
    source = _find_source(name, weights, pretrained)
    model = _build(source, seed)
    spec = {
        "name": source.spec_name or name,
        "weights": source.spec_weights,
        "pretrained": pretrained,
        "seed": seed,
    }
    if source.file is None:
        assert not pretrained
        _warn_random(name, seed)
    else:
        _load_weights(model, source)
        if source.local:
            spec["weights_sha256"] = _sha256(source.file)
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
        causal: a text token sees only itself and earlier ones.
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
        self.spec = spec
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
        clean = (config["text_cfg"].get("tokenizer_kwargs") or {}).get("clean", "lower")
        self._tokenizer = _tokenizer(clean)
        self.requires_grad_(False)
        self.eval()

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
                    f"{self.spec['name']} reads at most {self.context_length}; shorten it"
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
        mask = text.attn_mask[:length, :length]
        x = _run_blocks(text.transformer, x, deep_prompts, first=1, mask=mask)
        pooled = text.ln_final(x[torch.arange(len(x), device=x.device), eot])
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
                f"{self.spec['name']}, which reads {self.image_size}x{self.image_size}; "
                f"set INPUT.SIZE to ({self.image_size}, {self.image_size})"
            )
        patches = visual.conv1(images.to(self.dtype)).flatten(2).transpose(1, 2)
        x = torch.cat([_per_item(visual.class_embedding[None], patches), patches], dim=1)
        # Cast as open_clip does: under autocast the convolution's output decides the type.
        x = x + visual.positional_embedding.to(x.dtype)
        first, n = x.shape[1], prompts.shape[-2]
        if any(deep.shape[-2] not in (0, n) for deep in deep_prompts):
            rows = [deep.shape[-2] for deep in deep_prompts]
            raise ValueError(f"deep prompts of {rows} tokens would replace {n} prompt tokens")
        x = visual.ln_pre(torch.cat([x, _per_item(prompts, x)], dim=1))
        x = _run_blocks(visual.transformer, x, deep_prompts, first=first)
        return _project(visual.ln_post(x[:, 0]), visual.proj)


def _per_item(prompts: Tensor, x: Tensor) -> Tensor:
    """Return `prompts`, (n, d) or (N, n, d), as (N, n, d) in the type of tokens `x` (N, L, d)."""
    return prompts.to(x.dtype).expand(x.shape[0], -1, -1)


def _run_blocks(
    transformer: nn.Module,
    x: Tensor,
    deep_prompts: Sequence[Tensor],
    *,
    first: int,
    mask: Tensor | None = None,
) -> Tensor:
    """Run the residual blocks on `x` (N, L, d); the one place where either tower takes prompts.

    Before layer l = 1..len(deep_prompts) the tokens from position `first` on are replaced by the
    rows of deep_prompts[l - 1].
    """
    if len(deep_prompts) >= len(transformer.resblocks):
        raise UserError(
            f"prompt depth {len(deep_prompts) + 1} is more than the tower's "
            f"{len(transformer.resblocks)} layers; lower PROMPT_DEPTH"
        )
    # open_clip before 2.26 has no such attribute and runs its blocks on (L, N, d).
    batch_first = getattr(transformer, "batch_first", False)
    for layer, block in enumerate(transformer.resblocks):
        if 0 < layer <= len(deep_prompts):
            new = _per_item(deep_prompts[layer - 1], x)
            x = torch.cat([x[:, :first], new, x[:, first + new.shape[1] :]], dim=1)
        if batch_first:
            x = block(x, attn_mask=mask)
        else:
            x = block(x.transpose(0, 1), attn_mask=mask).transpose(0, 1)
    return x


def _project(pooled: Tensor, projection: nn.Parameter | nn.Linear | None) -> Tensor:
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection


def _square(name: str, size: int | Sequence[int]) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise UserError(f"{name} reads images of {height}x{width} pixels; only square ones can be")
    return int(height)


@functools.cache
def _tokenizer(clean: str) -> SimpleTokenizer:
    import open_clip

    return open_clip.SimpleTokenizer(clean=clean)


def _warn_random(name: str, seed: int) -> None:
    text = f"!! {name}: RANDOM weights (pretrained=False, seed {seed}). Accuracies mean nothing !!"
    rule = "!" * len(text)
    logger.warning("\n%s\n%s\n%s", rule, text, rule)


# --- where architecture and weights come from -------------------------------------------------


def _find_source(name: str, weights: str, pretrained: bool) -> _Source:
    """Resolve a config string; nothing is built yet and no model file read."""
    if weights and not pretrained:
        raise UserError(
            f"weights='{weights}' names a checkpoint and pretrained=False asks for random weights; "
            "give one of the two"
        )
    if name.startswith(LOCAL_DIR):
        source = _from_local_dir(name, find_file=pretrained and not weights)
    elif name.startswith(HF_HUB):
        source = _from_hf_hub(name, find_file=pretrained and not weights)
    else:
        source = _from_name(name, weights, pretrained)
    if weights:
        _use_file(source, weights)
    return source


def _use_file(source: _Source, path: str) -> None:
    source.file, source.local = _existing_file(path), True
    source.spec_weights = source.file.name


def _existing_file(path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"no weights at '{file.absolute()}'; give the path of a checkpoint file")
    return file


def _from_local_dir(name: str, find_file: bool) -> _Source:
    folder = Path(name[len(LOCAL_DIR) :]).expanduser()
    config = folder / CONFIG_FILE
    if not config.is_file():
        raise UserError(
            f"'{name}': no {CONFIG_FILE} in '{folder.absolute()}'; a local model is a folder with "
            f"that file and its weights, as open_clip publishes it"
        )
    source = _from_config_file(name, config)
    if find_file:
        source.file, source.local = _weights_in(folder), True
    return source


def _from_config_file(name: str, path: Path) -> _Source:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = content["model_cfg"]
        config = {key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")} | config
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{path}' is not an open_clip config: expected JSON with 'model_cfg' holding "
            f"embed_dim, vision_cfg and text_cfg ({type(error).__name__}: {error})"
        ) from error
    _refuse_unpromptable(name, config)
    return _Source(name, config, content.get("preprocess_cfg") or {})


def _weights_in(folder: Path) -> Path:
    for known in WEIGHT_FILES:
        if (folder / known).is_file():
            return folder / known
    found = sorted(p for p in folder.iterdir() if p.suffix in WEIGHT_SUFFIXES)
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise UserError(
            f"expected {WEIGHT_FILES[0]} or one single weights file in '{folder.absolute()}', "
            f"found {names}; name one with weights=PATH, or ask for random weights with "
            "pretrained=False"
        )
    return found[0]


def _from_hf_hub(name: str, find_file: bool) -> _Source:
    from open_clip.pretrained import download_pretrained_from_hf

    model_id = name[len(HF_HUB) :]
    cure = "use a machine with access to the hub, or download the folder and name it local-dir:PATH"
    try:
        config = download_pretrained_from_hf(model_id, filename=CONFIG_FILE)
    except Exception as error:  # the hub client has a dozen kinds, all meaning "not to be had"
        raise UserError(
            f"cannot get {CONFIG_FILE} of '{name}' ({_brief(error)}); check the name, {cure}"
        ) from error
    source = _from_config_file(name, Path(config))
    if find_file:
        try:
            source.file = Path(download_pretrained_from_hf(model_id))
        except Exception as error:
            raise UserError(f"cannot get weights of '{name}' ({_brief(error)}); {cure}") from error
    return source


def _from_name(name: str, weights: str, pretrained: bool) -> _Source:
    """Resolve NAME, NAME:TAG or NAME:PATH, NAME being CoOp's or open_clip's."""
    import open_clip

    model, _, tag = name.partition(":")
    if model in OPENAI_RESNETS:
        raise UserError(f"'{model}' is a ResNet: it has no tokens to prompt. {WHAT_CAN}")
    from_openai = model in OPENAI_VITS and (not tag or not _is_tag(model, tag))
    arch = OPENAI_VITS.get(model, model.replace("/", "-"))
    if arch not in open_clip.list_models():
        raise UserError(
            f"unknown CLIP model '{model}'; write a CoOp name, NAME:TAG, NAME:PATH, "
            f"{HF_HUB}ORG/NAME or {LOCAL_DIR}PATH."
            + suggest(model, [*OPENAI_VITS, *_promptable_names()])
        )
    source = _Source(name, open_clip.get_model_config(arch))
    _refuse_unpromptable(name, source.config)
    if from_openai:
        source.config["quick_gelu"] = True
    if tag and weights:
        raise UserError(
            f"'{name}' names weights already and weights='{weights}' names others; give one"
        )
    if tag and not _is_tag(model, tag):
        if not pretrained:
            raise UserError(f"'{name}' names weights and pretrained=False asks for random ones")
        _use_file(source, _tag_as_file(arch, tag))
        source.spec_name = model
    elif not weights:
        tag = tag or ("openai" if from_openai else "")
        _use_tag(source, arch, tag, pretrained)
    return source


def _is_tag(model: str, tag: str) -> bool:
    from open_clip.pretrained import is_pretrained_cfg

    return is_pretrained_cfg(OPENAI_VITS.get(model, model.replace("/", "-")), tag)


def _tag_as_file(arch: str, tag: str) -> str:
    from open_clip.pretrained import list_pretrained_tags_by_model

    if Path(tag).suffix in WEIGHT_SUFFIXES or "/" in tag or os.sep in tag or Path(tag).is_file():
        return tag
    raise UserError(
        f"'{tag}' is neither a pretrained tag of {arch} nor a checkpoint file."
        + suggest(tag, list_pretrained_tags_by_model(arch))
    )


def _use_tag(source: _Source, arch: str, tag: str, pretrained: bool) -> None:
    """Set activation, normalisation and, if wanted, the downloaded weights of a pretrained tag."""
    from open_clip.pretrained import (
        download_pretrained,
        get_pretrained_cfg,
        list_pretrained_tags_by_model,
    )

    if not tag:
        if pretrained:
            raise UserError(
                f"'{source.name}' does not say which weights: write {arch}:TAG, {arch}:PATH, or "
                f"pretrained=False for random ones. Tags: "
                f"{', '.join(list_pretrained_tags_by_model(arch)) or 'none'}."
            )
        return
    published = get_pretrained_cfg(arch, tag)
    source.preprocess = published
    if published.get("quick_gelu") or tag == "openai":
        source.config["quick_gelu"] = True
    if not pretrained:
        return
    try:
        source.file = Path(download_pretrained(published))
    except Exception as error:
        raise UserError(
            f"cannot get the weights of '{source.name}' (open_clip tag {arch}:{tag}; "
            f"{_brief(error)}); use a machine with access to them once, copy the file and name it "
            f"with weights=PATH (MODEL.BACKBONE.WEIGHTS), or ask for random weights with "
            f"pretrained=False"
        ) from error


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _refuse_unpromptable(name: str, config: Mapping[str, Any]) -> None:
    """Raise for the architectures that have no place for prompts, before anything is downloaded."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    image_pool = "avg" if vision.get("global_average_pool") else vision.get("pool_type", "tok")
    text_pool = text.get("pool_type", "argmax")
    timm, hf = vision.get("timm_model_name"), text.get("hf_model_name")
    tokenizer, words = text.get("hf_tokenizer_name"), text.get("vocab_size", CLIP_VOCABULARY)
    checks = (
        ("multimodal_cfg" in config, "it is a CoCa model, its towers pool by attention"),
        (isinstance(vision.get("layers"), list | tuple), "its image tower is a ResNet"),
        (timm, f"its image tower is timm's {timm}, not open_clip's ViT"),
        (vision.get("attentional_pool"), "its image tower pools by attention"),
        (image_pool != "tok", f"its image tower pools by '{image_pool}', not at the class token"),
        (hf, f"its text tower is Hugging Face's {hf}, not CLIP's causal transformer"),
        (text.get("no_causal_mask"), "its text tower is not causal"),
        (text.get("embed_cls"), "its text tower appends a class token"),
        (
            text_pool != "argmax",
            f"its text tower pools by '{text_pool}', not CLIP's 'argmax' (EOT)",
        ),
        (tokenizer, f"its tokenizer is {tokenizer}, not CLIP's"),
        (words != CLIP_VOCABULARY, f"it has {words} words, CLIP's tokenizer {CLIP_VOCABULARY}"),
    )
    reasons = "; ".join(reason for holds, reason in checks if holds)
    if reasons:
        raise UserError(f"'{name}' cannot take prompts: {reasons}. {WHAT_CAN}")


def _promptable_names() -> list[str]:
    """Return open_clip's model names that `_refuse_unpromptable` lets pass."""
    import open_clip

    names = []
    for name in open_clip.list_models():
        with contextlib.suppress(UserError):
            _refuse_unpromptable(name, open_clip.get_model_config(name))
            names.append(name)
    return names


def _build(source: _Source, seed: int) -> nn.Module:
    """Build the architecture with random weights of a private generator, on the CPU."""
    import open_clip
    from open_clip.version import __version__ as version

    config = {key: value for key, value in source.config.items() if key != "custom_text"}
    kind = open_clip.CustomTextCLIP if source.config.get("custom_text") else open_clip.CLIP
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed: that would reseed the accelerators too.
        torch.default_generator.manual_seed(seed)
        try:
            return kind(**config)
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(
                f"open_clip {version} cannot build the architecture of '{source.name}' "
                f"({_brief(error)}); correct its config or install a newer open_clip_torch"
            ) from error


# --- weights ----------------------------------------------------------------------------------


def _load_weights(model: nn.Module, source: _Source) -> None:
    """Copy the file's weights into `model`, strictly."""
    assert source.file is not None
    ours = model.state_dict()
    theirs = _in_layout_of(ours, read_state_dict(source.file))
    if theirs.keys() & OPENAI_NUMBERS and not source.config.get("quick_gelu"):
        logger.warning(
            "%s is in OpenAI's own layout, whose models were trained with QuickGELU, but %s uses "
            "GELU: name the model as CoOp does (%s) or by its -quickgelu name",
            *(source.file.name, source.name, ", ".join(OPENAI_VITS)),
        )
    _compare(source, _architecture(ours), _architecture(theirs))
    missing = [key for key in ours if key not in theirs and key not in KEYS_MISSING]
    extra = [key for key in theirs if key not in ours and key not in KEYS_LEFT_OVER]
    shapes = [
        f"{key} {tuple(theirs[key].shape)} instead of {tuple(value.shape)}"
        for key, value in ours.items()
        if key in theirs and key != "logit_scale" and theirs[key].shape != value.shape
    ]
    if missing or extra or shapes:
        raise UserError(
            f"'{source.file}' does not fit '{source.name}': {_some('missing', missing)}, "
            f"{_some('left over', extra)}, {_some('of other shape', shapes)}"
        )
    with torch.no_grad():
        for key, value in ours.items():
            if key in theirs:
                value.copy_(theirs[key].reshape(value.shape))


def _some(what: str, keys: Sequence[str]) -> str:
    shown = f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else ""
    return f"{len(keys)} keys {what}{shown}"


def _in_layout_of(ours: Mapping[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the text tower's keys to or from `text.`: CLIP keeps them flat, CustomTextCLIP not."""
    tower = (
        "text_projection",
        "positional_embedding",
        "token_embedding.",
        "transformer.",
        "ln_final.",
    )
    if any(key.startswith("text.") for key in ours):
        return {f"text.{k}" if k.startswith(tower) else k: v for k, v in theirs.items()}
    return {k.removeprefix("text."): v for k, v in theirs.items()}


def _architecture(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what the shapes of a CLIP's state dict say about it; empty if it is no ViT CLIP."""
    text = "text." if "text.token_embedding.weight" in state else ""
    try:
        patches, width = state["visual.positional_embedding"].shape
        patch = state["visual.conv1.weight"].shape[-1]
        tokens, text_width = state[f"{text}positional_embedding"].shape
        return {
            "image width": width,
            "image layers": _count_blocks(state, "visual.transformer."),
            "patch": patch,
            "image size": patch * round((patches - 1) ** 0.5),
            "text width": text_width,
            "text layers": _count_blocks(state, f"{text}transformer."),
            "context": tokens,
            "vocabulary": state[f"{text}token_embedding.weight"].shape[0],
            "joint width": state["visual.proj"].shape[-1],
        }
    except KeyError:
        return {}


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    start = f"{prefix}resblocks."
    return len({key[len(start) :].split(".")[0] for key in state if key.startswith(start)})


def _compare(source: _Source, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    if not theirs:
        raise UserError(
            f"'{source.file}' holds no ViT CLIP in OpenAI's or open_clip's layout (such as "
            f"visual.conv1.weight, token_embedding.weight); it cannot be loaded into "
            f"'{source.name}'. A ResNet has no tokens to prompt; files of the transformers library "
            "(vision_model.*, text_model.*) have to be converted to open_clip's layout first"
        )
    differing = [key for key in ours if ours[key] != theirs[key]]
    if differing:
        raise UserError(
            f"'{source.file}' is of another architecture than '{source.name}': the file has "
            + ", ".join(f"{key} {theirs[key]}" for key in differing)
            + "; the model has "
            + ", ".join(f"{key} {ours[key]}" for key in differing)
            + ". Name the model that the file was made with"
        )


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, on the CPU, without unpickling foreign objects.

    Safetensors, TorchScript archives (as OpenAI publishes CLIP), and `torch.save` files that hold a
    state dict or one under `state_dict` or `model`, with or without the `module.` of data-parallel
    training.

    Raises:
        UserError: not such a file.
    """
    path = Path(path)
    try:
        content = _read(path)
    except Exception as error:
        raise UserError(
            f"'{path}' cannot be read as a checkpoint ({_brief(error)}); expected safetensors, "
            "a TorchScript archive, or a state dict of plain tensors"
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"'{path}' holds a {type(content).__name__}, expected a state dict")
    inner = (content.get(key) for key in ("state_dict", "model"))
    content = next((group for group in inner if isinstance(group, Mapping)), content)
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    zipped = zipfile.is_zipfile(path)
    if zipped and _is_torchscript(path):
        # Its pickles hold tensors and TorchScript classes only; no Python object is made of them.
        with warnings.catch_warnings():
            # torch.jit is deprecated, but OpenAI publishes CLIP in no other format.
            warnings.simplefilter("ignore")
            return torch.jit.load(str(path), map_location="cpu").state_dict()
    try:
        # Mapped, so that an optimizer's state beside the weights is never read.
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        # Training checkpoints carry their command line. METHOD.md: allow exactly that class.
        if "argparse.Namespace" not in str(error) or not hasattr(
            torch.serialization, "safe_globals"
        ):
            raise
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped)


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(member.endswith("/constants.pkl") for member in archive.namelist())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
