"""Dassl trainers; importing this package registers all of them."""

from dplq.dassl_compat import ensure_dassl

ensure_dassl()

from . import (  # noqa: E402, F401
    cocoop,
    coop,
    dcpl,
    ivlp,
    linear_probe,
    maple,
    promptsrc,
    quaternion_prompt,
    vpt,
    zeroshot,
)
