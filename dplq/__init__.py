"""Domain Prompt Learning with Quaternion Networks, for CLIP and a frozen domain encoder.

The library in seven lines::

    import dplq
    clip = dplq.load_backbone("ViT-B/16")
    domain = dplq.load_domain_encoder("mae_vit_base_patch16", weights="vit-b-checkpoint-1599.pth")
    model = dplq.QuaternionPromptCLIP(clip, domain, classnames, ctx_init="a photo of a")
    logits = model(images)  # (B, 3, H, W), CLIP-normalised -> (B, K)
    model.save("prompts.safetensors")
    model = dplq.load("prompts.safetensors", classnames=new_names)

Names are imported on first use, so that `import dplq` stays fast.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors
    from dplq.clip.backbone import Backbone as Backbone
    from dplq.clip.backbone import load_backbone as load_backbone
    from dplq.domain.encoder import DomainEncoder as DomainEncoder
    from dplq.domain.load import load_domain_encoder as load_domain_encoder
    from dplq.errors import UserError as UserError
    from dplq.methods.load import load as load
    from dplq.methods.prompt_learner import PromptLearner as PromptLearner
    from dplq.methods.quaternion import QuaternionLinear as QuaternionLinear
    from dplq.methods.quaternion_prompt import QuaternionPromptCLIP as QuaternionPromptCLIP
    from dplq.methods.registry import METHODS as METHODS
    from dplq.methods.registry import create_model as create_model

_CHECKOUT = Path(__file__).resolve().parent.parent
_IN_CHECKOUT = not (Path(__file__).resolve().parent / "trainers").is_dir()
if __name__ == "dplq" and _IN_CHECKOUT and (_CHECKOUT / "trainers" / "_engine").is_dir():
    # In a checkout `trainers`, `datasets` and `configs` lie beside this package; a wheel has them
    # inside. Either way they are imported as dplq.trainers, dplq.datasets and dplq.configs.
    __path__.append(str(_CHECKOUT))

__version__ = "0.1.0"

_MODULES = {  # public name -> module that defines it
    "load_backbone": "dplq.clip.backbone",
    "Backbone": "dplq.clip.backbone",
    "load_domain_encoder": "dplq.domain.load",
    "DomainEncoder": "dplq.domain.encoder",
    "QuaternionLinear": "dplq.methods.quaternion",
    "PromptLearner": "dplq.methods.prompt_learner",
    "QuaternionPromptCLIP": "dplq.methods.quaternion_prompt",
    "METHODS": "dplq.methods.registry",
    "create_model": "dplq.methods.registry",
    "load": "dplq.methods.load",
    "UserError": "dplq.errors",
}
__all__ = [*_MODULES, "__version__"]


if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> Any:
        """Import a public name on first use."""
        if name not in _MODULES:
            raise AttributeError(f"module 'dplq' has no attribute '{name}'")
        return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
