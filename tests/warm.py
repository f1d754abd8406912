"""What every run of train.py makes anew, made once in the fork server of the tests' runs."""

from __future__ import annotations

import gc

import torch.utils.tensorboard  # noqa: F401
from PIL import Image

from dplq.clip.known_files import catalogue_files
from dplq.clip.tokenizer import make_tokenizer
from dplq.training.frozen.features import own_code

Image.init()
catalogue_files()
own_code()
make_tokenizer("lower")
gc.freeze()  # the children's collections leave it alone, and its memory shared
