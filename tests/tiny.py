"""A tiny CLIP for tests, made by the real loading code from a folder with a config."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from dplq.clip.backbone import CONFIG_FILE, Backbone, load_backbone


def tiny_clip_config(
    *,
    vision_width: int = 64,
    vision_layers: int = 3,
    text_width: int = 64,
    text_layers: int = 3,
    embed_dim: int = 48,
    image_size: int = 32,
    patch: int = 16,
    **extra: Any,
) -> dict[str, Any]:
    """Return an open_clip model config; `extra` goes to its top level, e.g. `custom_text=True`."""
    return {
        "embed_dim": embed_dim,
        "vision_cfg": {
            "image_size": image_size,
            "patch_size": patch,
            "width": vision_width,
            "layers": vision_layers,
            "head_width": 16,
        },
        "text_cfg": {"width": text_width, "heads": 4, "layers": text_layers},
        **extra,
    }


def write_clip_dir(folder: Path, config: dict[str, Any], **preprocess: Any) -> str:
    """Write `config` into `folder` (made if absent); return the backbone name of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / CONFIG_FILE).write_text(json.dumps(content), encoding="utf-8")
    return f"local-dir:{folder}"


@functools.cache
def _session_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tiny_clip_")


def tiny_backbone(folder: Path | None = None, *, seed: int = 0, **config: Any) -> Backbone:
    """Return a tiny CLIP with random weights drawn from `seed`.

    Args:
        folder: where its config is written; None is a folder that lives as long as the process, so
            that `load_backbone(**backbone.spec.as_dict())` rebuilds it all the same.
        seed: of the weights.
        config: as of `tiny_clip_config`.
    """
    if folder is None:
        name = "-".join(f"{key}={value}" for key, value in sorted(config.items())) or "default"
        folder = Path(_session_folder().name) / name
    return load_backbone(
        write_clip_dir(folder, tiny_clip_config(**config)), pretrained=False, seed=seed
    )


VOCABULARY = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "x", ".", ",", "_"),
    *("the", "an", "image", "with", "mri", "normal", "brain", "glioma", "tumor", "pit", "##uit"),
    *("##ary", "river", "park", "##ing", "lot", "kidney", "cyst", "stone", "dense", "area", "##s"),
)


def biomedclip_config(
    *,
    embed_dim: int = 16,
    image_size: int = 32,
    timm_model: str = "test_vit",
    pooler: str = "cls_last_hidden_state_pooler",
    proj: str = "mlp",
    context_length: int = 24,
) -> dict[str, Any]:
    """Return an open_clip model config with BiomedCLIP's keys, and a small text tower's facts."""
    name = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    return {
        "embed_dim": embed_dim,
        "vision_cfg": {
            "timm_model_name": timm_model,
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": image_size,
        },
        "text_cfg": {
            "hf_model_name": name,
            "hf_tokenizer_name": name,
            "hf_proj_type": proj,
            "hf_pooler_type": pooler,
            "context_length": context_length,
        },
    }


def bert_facts(width: int = 32, layers: int = 3, **extra: Any) -> dict[str, Any]:
    """Return transformers' config.json of a small BERT for `VOCABULARY`."""
    return {
        "model_type": "bert",
        "vocab_size": len(VOCABULARY),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 512,
        **extra,
    }


def write_biomedclip_dir(
    folder: Path, *, width: int = 32, layers: int = 3, facts: Any = None, **config: Any
) -> str:
    """Write a small BiomedCLIP's files, weights excepted; return the backbone name of the folder.

    Args:
        folder: made if absent.
        width: of the text tower.
        layers: of the text tower.
        facts: of transformers' config.json beyond `bert_facts`.
        **config: as of `biomedclip_config`.
    """
    from transformers import BertTokenizerFast

    name = write_clip_dir(folder, biomedclip_config(**config))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    # Any folder with vocab.txt alone works too; the published ones hold these files.
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True)
    tokenizer.save_pretrained(folder)
    bert = bert_facts(width, layers, **(facts or {}))
    (folder / "config.json").write_text(json.dumps(bert), encoding="utf-8")
    return name
