"""Layout of UniMed-CLIP's training code, a fork of MetaCLIP with a BERT as text tower."""

from __future__ import annotations

from dplq.clip.layouts.layout import Layout

# src/open_clip/model.py of mbzuai-oryx/UniMed-CLIP: `visual` is open_clip's, the BERT with its
# projection is `text_encoder`.
UNIMED = Layout(
    "UniMed-CLIP",
    mark="text_encoder.transformer.embeddings.",
    names={"text_encoder.": "text."},
    towers={},
    changes={},
)
