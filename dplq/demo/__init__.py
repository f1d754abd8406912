"""Built-in demo domain: procedural images with real class names, for use offline.

`render` draws one picture, `caption` describes it, the tuples hold the class names in label order.
"""

from dplq.demo.captions import caption
from dplq.demo.render import AERIAL_CLASSES, LOOKS, TISSUE_CLASSES, Picture, draw_scene, render

__all__ = [
    "AERIAL_CLASSES",
    "LOOKS",
    "TISSUE_CLASSES",
    "Picture",
    "caption",
    "draw_scene",
    "render",
]
