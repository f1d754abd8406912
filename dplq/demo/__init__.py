"""The built-in demo domain: procedural pictures with real class names, for use offline.

`render` draws one picture, `caption` describes it, the tuples hold the class names in label order.
"""

from dplq.demo.captions import caption
from dplq.demo.render import AERIAL_CLASSES, LOOKS, TISSUE_CLASSES, Scene, layout, render

__all__ = ["AERIAL_CLASSES", "LOOKS", "TISSUE_CLASSES", "Scene", "caption", "layout", "render"]
