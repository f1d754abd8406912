"""Architectures of published Hugging Face text towers, so that they build without the hub.

An open_clip config only names them (`hf_model_name`); their facts are in a `config.json` on the
hub. A model whose weights are at hand needs nothing else from there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dplq.io.hub import hub_access

HF_CONFIG = "config.json"
# What is not said is the model type's default in transformers.
BERT_BASE: dict[str, Any] = {"model_type": "bert", "vocab_size": 30522}
BERT_LARGE: dict[str, Any] = {
    **BERT_BASE,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
BERT_CASED: dict[str, Any] = {**BERT_BASE, "vocab_size": 28996}
ROBERTA_BASE: dict[str, Any] = {
    "model_type": "roberta",
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
XLM_BASE: dict[str, Any] = {**ROBERTA_BASE, "model_type": "xlm-roberta", "vocab_size": 250002}
LARGE = {
    key: BERT_LARGE[key]
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
}
MT5_BASE: dict[str, Any] = {
    "model_type": "mt5",
    "vocab_size": 250112,
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 12,
    "num_heads": 12,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
NLLB_600M: dict[str, Any] = {
    "model_type": "m2m_100",
    "vocab_size": 256206,
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "max_position_embeddings": 1024,
    "activation_function": "relu",
    "scale_embedding": True,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
NLLB_1B: dict[str, Any] = {
    **NLLB_600M,
    "encoder_layers": 24,
    "decoder_layers": 24,
    "encoder_ffn_dim": 8192,
    "decoder_ffn_dim": 8192,
}
HF_CONFIGS: dict[str, dict[str, Any]] = {
    "bert-base-uncased": BERT_BASE,
    "google-bert/bert-base-uncased": BERT_BASE,
    "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract": BERT_BASE,
    "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext": BERT_BASE,
    "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract": BERT_BASE,
    "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract-fulltext": BERT_BASE,
    "microsoft/BiomedNLP-BiomedBERT-large-uncased-abstract": BERT_LARGE,
    "emilyalsentzer/Bio_ClinicalBERT": BERT_CASED,
    "dmis-lab/biobert-v1.1": BERT_CASED,
    "roberta-base": ROBERTA_BASE,
    "FacebookAI/roberta-base": ROBERTA_BASE,
    "roberta-large": {**ROBERTA_BASE, **LARGE},
    "xlm-roberta-base": XLM_BASE,
    "FacebookAI/xlm-roberta-base": XLM_BASE,
    "xlm-roberta-large": {**XLM_BASE, **LARGE},
    "FacebookAI/xlm-roberta-large": {**XLM_BASE, **LARGE},
    "google/mt5-base": MT5_BASE,
    "google/mt5-xl": {
        **MT5_BASE,
        "d_model": 2048,
        "d_ff": 5120,
        "num_layers": 24,
        "num_heads": 32,
    },
    "facebook/nllb-200-distilled-600M": NLLB_600M,
    "facebook/nllb-200-distilled-1.3B": NLLB_1B,
}


@contextmanager
def offline_text_cfg(
    text_cfg: Mapping[str, Any], folder: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Give an open_clip `text_cfg` whose Hugging Face tower builds from local facts.

    They are, in this order: `config.json` in the model's folder (transformers' own, with a
    `model_type`), the table of this file, the hub. Weights of the hub are never loaded.

    Args:
        text_cfg: of an open_clip model config.
        folder: the model's own.

    Yields:
        The config, valid within this context.
    """
    name = text_cfg.get("hf_model_name")
    if not name:
        yield dict(text_cfg)
        return
    plain = {**text_cfg, "hf_model_pretrained": False}
    if folder is not None and _has_facts(folder / HF_CONFIG):
        yield {**plain, "hf_model_name": str(folder)}
    elif name in HF_CONFIGS:
        with tempfile.TemporaryDirectory(prefix="dplq_") as place:
            Path(place, HF_CONFIG).write_text(json.dumps(HF_CONFIGS[name]), encoding="utf-8")
            yield {**plain, "hf_model_name": place}
    else:
        with hub_access():
            yield plain


def _has_facts(file: Path) -> bool:
    """Return whether `file` is a config of transformers (timm's has the same name)."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and isinstance(content.get("model_type"), str)
