"""Domain Prompt Learning with Quaternion Networks, for CLIP and a frozen domain encoder.

The library in seven lines::

    import dplq
    clip = dplq.load_backbone("ViT-B/16")
    domain = dplq.load_domain_encoder("mae_vit_base_patch16", weights="vit-b-checkpoint-1599.pth")
    model = dplq.QuaternionPromptCLIP(clip, domain, classnames, ctx_init="a photo of a")
    logits = model(images)  # (B, 3, H, W), CLIP-normalised -> (B, K)
    model.save("prompts.safetensors")
    model = dplq.load("prompts.safetensors", classnames=new_names)

Names are imported on first use, so that `import dplq` costs nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "trainers" / "_engine").is_dir():
    # In a checkout `trainers`, `datasets` and `configs` lie beside this package; a wheel has them
    # inside. Either way they are imported as dplq.trainers, dplq.datasets and dplq.configs.
    __path__.append(str(_CHECKOUT))

__version__ = "0.1.0"

_HOME = {
    "load_backbone": "dplq.clip.backbone",
    "Backbone": "dplq.clip.backbone",
    "load_domain_encoder": "dplq.domain.load",
    "DomainEncoder": "dplq.domain.load",
    "QuaternionLinear": "dplq.methods.quaternion",
    "PromptLearner": "dplq.methods.prompt_learner",
    "QuaternionPromptCLIP": "dplq.methods.quaternion_prompt",
    "load": "dplq.methods.quaternion_prompt",
    "UserError": "dplq.errors",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dplq' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)
