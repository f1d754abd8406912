"""Imported by the fork server: what every run would import or read is there before it forks."""

from __future__ import annotations

import gc
import importlib

import sklearn.linear_model  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
from PIL import Image

import dplq.host.changed
import dplq.plugin  # noqa: F401
from dplq.clip.tokenizer import make_tokenizer
from dplq.models.catalogue import catalogue
from dplq.training.frozen.features import own_code

importlib.import_module("dassl.config")  # of the Dassl that dplq.plugin has chosen
Image.init()
make_tokenizer("lower")
catalogue()
own_code()
gc.collect()
gc.freeze()  # a collection in a child would copy the pages of all these objects
