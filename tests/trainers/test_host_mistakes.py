"""Mistakes that a host tree's train.py does not find before a trainer of ours is built."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from yacs.config import CfgNode

import dplq.plugin  # noqa: F401 (finds Dassl)
from dplq.errors import UserError
from dplq.trainers._engine.checkpoints import CheckpointTrainer
from dplq.trainers.coop import CoOp


def test_a_config_without_our_keys_names_the_missing_line():
    with pytest.raises(UserError, match=r"call dplq\.plugin\.extend_cfg\(cfg\) in the train\.py"):
        CoOp(CfgNode({"TRAINER": {"NAME": "CoOp"}}))


def test_a_test_without_a_model_is_refused():
    """Dassl tests the initial prompts, as if they were learned."""
    with pytest.raises(UserError, match="--eval-only needs --model-dir, the folder of"):
        CheckpointTrainer.load_model(SimpleNamespace(), "")
