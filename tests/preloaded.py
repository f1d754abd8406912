"""Imported by the fork server: what every run would import or read is there before it forks."""

from __future__ import annotations

import gc
import importlib

from PIL import Image

from dplq.clip.tokenizer import make_tokenizer
from dplq.experiments.engines.preload_server import import_all
from dplq.models.catalogue import catalogue
from dplq.training.frozen.features import own_code

import_all()
importlib.import_module("dassl.config")  # of the Dassl that dplq.plugin has chosen
Image.init()
make_tokenizer("lower")
catalogue()
own_code()
gc.collect()
gc.freeze()  # a collection in a child would copy the pages of all these objects
