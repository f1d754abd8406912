"""What methods set in an optimiser that ``cfg.OPTIM`` has no key for.

Heads and prompt methods share it; Dassl's `build_optimizer` knows no eps.
"""

from __future__ import annotations

import torch


def set_adam_eps(optimizer: torch.optim.Optimizer, eps: float | None) -> torch.optim.Optimizer:
    """Set eps where the optimiser has one, as Adam and AdamW; return it.

    Args:
        optimizer: is changed.
        eps: None: it stays as it is.
    """
    for group in optimizer.param_groups:
        if eps is not None and "eps" in group:
            group["eps"] = eps
    return optimizer
