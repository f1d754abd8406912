"""Dassl trainers; importing this package registers all of them."""

from dplq.dassl_compat import ensure_dassl

ensure_dassl()

from . import quaternion_prompt  # noqa: E402, F401
