"""Every config key this project adds to Dassl's, with its default and a one-line meaning.

Host trees call `extend_cfg(cfg)`; keys that are there already keep the host's value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dplq.errors import UserError, suggest

# Keys whose default is None follow their trainer's PRESET.
KEYS: tuple[tuple[str, Any, str], ...] = (
    ("DATASET.SUBSAMPLE_CLASSES", "all", "all, base (first half of the classes) or new"),
    ("DATASET.PROTOCOL", "ours", "ours, or reference (known bugs of the original loaders)"),
    ("DATASET.CHECK_IMAGES", True, "decode every image of a run once before it starts"),
    ("DATASET.SKIP_BROKEN", False, "leave unreadable images out instead of stopping"),
    (
        "DATALOADER.IMAGE_CACHE",
        "",
        "decoded (exact) or resized (quicker, train crops differ): keep images uncompressed",
    ),
    (
        "DOMAIN.ENCODER",
        "mae_vit_base_patch16",
        "mae_vit_*, medsam_vit_base, sam_vit_base, timm name, hf-hub:, clip; none: goes without",
    ),
    ("DOMAIN.WEIGHTS", "", "local checkpoint of the domain encoder; empty: timm's own weights"),
    ("DOMAIN.FEATURE", "encoder", "encoder, or decoder_embed (MAE: through the decoder embedding)"),
    ("DOMAIN.NORMALIZE", None, "native (what the encoder was trained on) or clip"),
    ("MODEL.TEXT_CHUNK", 0, "classes the fast text path runs at once; 0: as many as memory holds"),
    ("DOMAIN.CACHE", True, "keep the domain features of test images in the cache folder"),
    ("DOMAIN.PRETRAINED", True, "False: random domain encoder, for tests only"),
    ("TRAINER.QUATERNIONPROMPT.N_CTX", 2, "context length"),
    (
        "TRAINER.QUATERNIONPROMPT.CTX_INIT",
        "a photo of a",
        "initial words (N_CTX <= 4); empty: random",
    ),
    ("TRAINER.QUATERNIONPROMPT.PROMPT_DEPTH", 9, "layers that receive prompts, from the first on"),
    ("TRAINER.QUATERNIONPROMPT.PREC", "fp32", "fp32, fp16, amp or bf16"),
    ("TRAINER.QUATERNIONPROMPT.PRESET", "default", "default, or reference (the authors' release)"),
    ("TRAINER.QUATERNIONPROMPT.FUSION", None, "sum, or axes (context and domain on two axes)"),
    ("TRAINER.QUATERNIONPROMPT.RESIDUAL", None, "add to plain prompts instead of replacing them"),
    ("TRAINER.QUATERNIONPROMPT.NOISE", None, "Gaussian noise on the language prompt in training"),
    ("TRAINER.QUATERNIONPROMPT.NOISE_SCALE", None, "image, or batch (mean of the whole batch)"),
    ("TRAINER.QUATERNIONPROMPT.NOISE_AT_TEST", None, "noise at test time too"),
    ("TRAINER.QUATERNIONPROMPT.CLONE_INIT", None, "all vision quaternion layers start equal"),
    ("TRAINER.QUATERNIONPROMPT.LAYER", None, "quaternion, or dense (ablation)"),
    ("TRAINER.DCPL.N_CTX", 2, "context length"),
    ("TRAINER.DCPL.CTX_INIT", "a photo of a", "initial words"),
    ("TRAINER.DCPL.PROMPT_DEPTH", 9, "layers that receive prompts"),
    ("TRAINER.DCPL.PREC", "fp16", "fp32, fp16, amp or bf16"),
    ("TRAINER.DCPL.PRESET", "default", "default, or reference (the authors' release)"),
    ("TRAINER.DCPL.NOISE", None, "Gaussian noise on the image feature in training"),
    ("TRAINER.DCPL.NOISE_SCALE", None, "image, or batch (mean of the whole batch)"),
    ("TRAINER.DCPL.NOISE_AT_TEST", None, "noise at test time too"),
    ("TRAINER.DCPL.CLONE_INIT", None, "the image prompts' linear layers start equal"),
    ("TRAINER.ZEROSHOTCLIP.PREC", "fp32", "fp32, fp16, amp or bf16; ZeroshotCLIP2 reads it too"),
    ("TRAINER.LINEARPROBE.PREC", "fp32", "fp32, fp16, amp or bf16"),
    # The peers' keys, so that their YAML files load unchanged.
    ("TRAINER.COOP.N_CTX", 16, "context length"),
    ("TRAINER.COOP.CSC", False, "class-specific context"),
    ("TRAINER.COOP.CTX_INIT", "", "initial words"),
    ("TRAINER.COOP.PREC", "fp16", "fp16, fp32 or amp"),
    ("TRAINER.COOP.CLASS_TOKEN_POSITION", "end", "end, middle or front"),
    ("TRAINER.COCOOP.N_CTX", 16, "context length"),
    ("TRAINER.COCOOP.CTX_INIT", "", "initial words"),
    ("TRAINER.COCOOP.PREC", "fp16", "fp16, fp32 or amp"),
    ("TRAINER.MAPLE.N_CTX", 2, "context length"),
    ("TRAINER.MAPLE.CTX_INIT", "a photo of a", "initial words"),
    ("TRAINER.MAPLE.PREC", "fp16", "fp16, fp32 or amp"),
    ("TRAINER.MAPLE.PROMPT_DEPTH", 9, "layers that receive prompts"),
    ("TRAINER.IVLP.N_CTX_VISION", 2, "vision prompts"),
    ("TRAINER.IVLP.N_CTX_TEXT", 2, "context length"),
    ("TRAINER.IVLP.CTX_INIT", "a photo of a", "initial words"),
    ("TRAINER.IVLP.PREC", "fp16", "fp16, fp32 or amp"),
    ("TRAINER.IVLP.PROMPT_DEPTH_VISION", 9, "vision layers that receive prompts"),
    ("TRAINER.IVLP.PROMPT_DEPTH_TEXT", 9, "text layers that receive prompts"),
    ("TRAINER.VPT.N_CTX_VISION", 2, "vision prompts"),
    ("TRAINER.VPT.CTX_INIT", "a photo of a", "words before the class name"),
    ("TRAINER.VPT.PREC", "fp16", "fp16, fp32 or amp"),
    ("TRAINER.VPT.PROMPT_DEPTH_VISION", 1, "vision layers that receive prompts"),
    ("TRAINER.PROMPTSRC.N_CTX_VISION", 4, "vision prompts"),
    ("TRAINER.PROMPTSRC.N_CTX_TEXT", 4, "context length"),
    ("TRAINER.PROMPTSRC.CTX_INIT", "a photo of a", "initial words"),
    ("TRAINER.PROMPTSRC.PREC", "fp16", "fp16, fp32 or amp"),
    ("TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 9, "vision layers that receive prompts"),
    ("TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 9, "text layers that receive prompts"),
    ("TRAINER.PROMPTSRC.TEXT_LOSS_WEIGHT", 25, "weight of the text consistency loss"),
    ("TRAINER.PROMPTSRC.IMAGE_LOSS_WEIGHT", 10, "weight of the image consistency loss"),
    ("TRAINER.PROMPTSRC.GPA_MEAN", 15, "epoch at which Gaussian prompt aggregation peaks"),
    ("TRAINER.PROMPTSRC.GPA_STD", 1, "its width in epochs"),
)


def extend_cfg(cfg: Any) -> None:
    """Add this project's keys to a Dassl config; what the host has defined already stays.

    Args:
        cfg: yacs `CfgNode` from `get_cfg_default()`.
    """
    from yacs.config import CfgNode

    for key, default, _ in KEYS:
        *path, leaf = key.split(".")
        node = cfg
        for part in path:
            if part not in node:
                node[part] = CfgNode()
            node = node[part]
        if leaf not in node:
            node[leaf] = default


def own_keys(node: str) -> list[str]:
    """The names of the keys below ``TRAINER.<node>``."""
    prefix = f"TRAINER.{node}."
    return [key.removeprefix(prefix) for key, *_ in KEYS if key.startswith(prefix)]


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of a config as (dotted key, value)."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def merge_options(cfg: Any, options: list[str]) -> None:
    """Merge the free ``KEY VALUE`` pairs of a command line.

    Raises:
        UserError: a flag in place of a key, an odd number of words, an unknown key (nearest names
            given), or a value of the wrong type.
    """
    for key in options[::2]:
        if key.startswith("--"):
            raise UserError(f"Flags come before the KEY VALUE pairs: move {key} to the front.")
    if len(options) % 2:
        raise UserError(
            f"Config overrides come in pairs KEY VALUE; '{options[-1]}' has no partner."
        )
    for key, value in zip(options[::2], options[1::2], strict=True):
        _merge(cfg, f"Config key {key}", lambda k=key, v=value: cfg.merge_from_list([k, v]), key)


def merge_file(cfg: Any, path: str) -> None:
    """Merge a YAML file.

    Raises:
        UserError: no such file, not YAML, an unknown key or a value of the wrong type; the
            message names the file and the key.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file) or {}
    except FileNotFoundError as error:
        raise UserError(f"There is no config file {path}.{_neighbours(path)}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"The config file {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"The config file {path} must hold KEY: VALUE lines, not {content!r}.")
    known = dict(flatten(cfg))
    for key, _ in flatten(content):
        if key not in known:
            raise UserError(f"{path}: unknown config key {key}.{nearest_keys(key, known)}")
    _merge(cfg, path, lambda: cfg.merge_from_file(path))


def _merge(cfg: Any, where: str, merge: Any, key: str = "") -> None:
    known = dict(flatten(cfg))
    if key and key not in known:
        raise UserError(f"Unknown config key {key}.{nearest_keys(key, known)}")
    try:
        merge()
    except (ValueError, KeyError, AssertionError) as error:
        raise UserError(f"{where}: {error.args[0] if error.args else error}") from error


def nearest_keys(key: str, known: dict[str, Any]) -> str:
    """The keys most like `key`, for an error message."""
    import difflib

    near = difflib.get_close_matches(key.upper(), known, n=3, cutoff=0.5)
    leaf = key.rsplit(".", 1)[-1].upper()
    near += [name for name in known if name.rsplit(".", 1)[-1] == leaf and name not in near][:3]
    return f" Did you mean {' or '.join(near)}?" if near else " See dplq/config.py for all keys."


def _neighbours(path: str) -> str:
    from pathlib import Path

    folder = Path(path).parent
    names = [p.name for p in folder.glob("*.yaml")] if folder.is_dir() else []
    return suggest(Path(path).name, names) if names else ""
