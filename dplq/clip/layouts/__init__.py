"""Public layouts of CLIP checkpoints, recognised by their keys and converted to open_clip's."""

from __future__ import annotations

from collections.abc import Iterable

from dplq.clip.layouts.conch import CONCH
from dplq.clip.layouts.layout import Layout
from dplq.clip.layouts.transformers_keys import TRANSFORMERS_CLIP, TRANSFORMERS_SIGLIP
from dplq.clip.layouts.unimed import UNIMED

LAYOUTS = (TRANSFORMERS_CLIP, TRANSFORMERS_SIGLIP, UNIMED, CONCH)
OPEN_CLIP = Layout("open_clip", mark="", names={}, towers={}, changes={})


def find_layout(keys: Iterable[str]) -> Layout:
    """Return the layout of a checkpoint with these keys, prefixed or not; open_clip's if none."""
    keys = list(keys)
    found = (layout for layout in LAYOUTS if any(layout.mark in key for key in keys))
    return next(found, OPEN_CLIP)
