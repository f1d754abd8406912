"""For the fork server alone: what every run of train.py does before its first step, done once."""

from __future__ import annotations

from PIL import Image

from dplq.clip.tokenizer import make_tokenizer
from dplq.models.catalogue import catalogue

Image.init()
catalogue()
make_tokenizer("lower")
