"""Names of rows follow from config and shots, whatever else is there."""

import pytest

from dplq.results.names import row_names
from dplq.results.runs import Setting


def name_of(trainer, config, shots=16, root="out", plain=""):
    setting = Setting(root, trainer, config, shots)
    return row_names([setting], plain)[setting]


@pytest.mark.parametrize(
    ("trainer", "config", "name"),
    [
        ("LinearProbe", "demo", "LinearProbe"),
        ("LinearProbe", "demo_both", "LinearProbe (both)"),
        ("LinearProbe", "vit_b16", "LinearProbe"),
        ("ZeroshotCLIP", "vit_b16_ctx", "ZeroshotCLIP (ctx)"),
        ("QuaternionPrompt", "demo_residual_head", "QuaternionPrompt (residual_head)"),
        ("QuaternionPrompt", "vit_b16_c2_ep15_batch4_2ctx", "QuaternionPrompt"),
        (
            *("QuaternionPrompt", "vit_b16_c2_ep15_batch4_2ctx_residual_head"),
            "QuaternionPrompt (residual_head)",
        ),
        (
            *("QuaternionPrompt", "vit_b16_c2_ep5_batch4_2ctx"),
            "QuaternionPrompt (vit_b16_c2_ep5_batch4_2ctx)",
        ),
        ("MaPLe", "vit_b16_c2_ep5_batch4_2ctx_cross_datasets", "MaPLe (transfer)"),
        ("CoOp", "vit_b16_ctxv1", "CoOp"),
        ("CoOp", "vit_b16", "CoOp (few_shot)"),
        ("CoOp", "vit_b16_ep50_ctxv1", "CoOp (transfer)"),
        ("CoOp", "vit_b16_ep100_ctxv1", "CoOp (vit_b16_ep100_ctxv1)"),
        ("Mine", "demo_wide", "Mine (wide)"),
    ],
)
def test_a_row_alone_has_the_name_that_it_has_beside_others(trainer, config, name):
    assert name_of(trainer, config) == name
    row = Setting("out", trainer, config, 16)
    others = [Setting("out", trainer, other, 16) for other in ("demo", "vit_b16", "x")]
    assert row_names([row, *others])[row] == name


def test_few_shot_configs_follow_the_shots():
    assert name_of("CoOp", "vit_b16_ep50", 1) == name_of("CoOp", "vit_b16", 8) == "CoOp (few_shot)"
    assert name_of("CoOp", "vit_b16_ep50", 16) == "CoOp (vit_b16_ep50)"


@pytest.mark.parametrize("trainer", ["CoOp", "Mine"])
def test_configs_of_ones_own_are_plain_where_there_is_one(trainer):
    assert name_of(trainer, "tiny") == trainer
    one, two = (Setting(root, trainer, config, 16) for root, config in (("a", "t"), ("b", "t_x")))
    assert row_names([one, two]) == {one: f"{trainer} (t)", two: f"{trainer} (t_x)"}


def test_the_plain_config_of_a_field():
    assert name_of("LinearProbe", "small", plain="small") == "LinearProbe"
    assert name_of("LinearProbe", "small_both", plain="small") == "LinearProbe (both)"
