"""Pixel statistics of a dataset's images, and the problems that they reveal."""

from .findings import pixel_findings
from .similarity import near_duplicates
from .statistics import Look, look, looks

__all__ = ["Look", "look", "looks", "near_duplicates", "pixel_findings"]
