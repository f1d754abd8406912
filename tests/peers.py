"""Checkouts of the public repositories that tests compare with.

The environment variable DPLQ_PEERS names a folder that contains them under their repository names
(Dassl.pytorch, CoOp, multimodal-prompt-learning, PromptSRC, KgCoOp, Prompt-align,
Textual-based_Class-aware_prompt_tuning, BiomedCoOp, DPLQ, mae, MedSAM, and for published models
CONCH, UniMed-CLIP, RETFound_MAE, SatMAE, scale-mae, dinov2). A test that needs a missing one is
skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def peer(name: str) -> Path:
    """Return the checkout of repository `name`, or skip the calling test."""
    root = os.environ.get("DPLQ_PEERS", "")
    path = Path(root) / name
    if not root or not path.is_dir():
        pytest.skip(f"no checkout of {name}: set DPLQ_PEERS to the folder that holds it")
    return path
