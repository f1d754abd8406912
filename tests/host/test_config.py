"""Config files and KEY VALUE pairs: mistakes are one clear UserError."""

import pytest
from yacs.config import CfgNode

import dplq.plugin  # noqa: F401  (registers the trainers, whose keys are added)
from dplq.errors import UserError
from dplq.host.config import extend_cfg, merge_file, merge_options


@pytest.fixture
def cfg():
    node = CfgNode({"TRAINER": {}, "DATASET": {}, "SEED": 1})
    extend_cfg(node)
    return node


def test_a_file_then_options(cfg, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("SEED: 2\nDATASET: {SUBSAMPLE_CLASSES: base}\n")
    merge_file(cfg, str(path))
    merge_options(cfg, ["SEED", "3"])
    assert (cfg.SEED, cfg.DATASET.SUBSAMPLE_CLASSES) == (3, "base")


def test_digits_are_text_for_a_key_that_holds_text(cfg):
    merge_options(cfg, ["DATASET.COLUMNS.LABEL", "3", "DATASET.GROUP", "'p'", "SEED", "3"])
    assert (cfg.DATASET.COLUMNS.LABEL, cfg.DATASET.GROUP, cfg.SEED) == ("3", "p", 3)
    with pytest.raises(UserError, match=r"^DATASET.GROUP is True; it must be a text\."):
        merge_options(cfg, ["DATASET.GROUP", "True"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00\x80", "{path} cannot be used: it is not UTF-8"),
        (b"1: 2\n", "{path}: unknown config key 1."),
        (b"DATASET:\n  2: 3\n", "{path}: unknown config key DATASET.2."),
        (b"DATASET:\n  SUBSAMPLE_CLASES: new\n", "Did you mean DATASET.SUBSAMPLE_CLASSES"),
        (b"- SEED\n", "{path} must hold KEY: VALUE lines"),
    ],
)
def test_bad_files(cfg, tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        merge_file(cfg, str(path))
    assert message.format(path=path) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["SEED", "2", "--eval-only"], "Flags come before the KEY VALUE pairs: move --eval-only"),
        (["--seed", "2"], "Flags come before the KEY VALUE pairs: move --seed to the front."),
        (["SEED"], "come in pairs KEY VALUE; 'SEED' has no partner"),
        (["SEDE", "2"], "Unknown config key SEDE. Did you mean SEED?"),
        (
            ["INPUT.BACKGROUND", "white"],
            "INPUT.BACKGROUND is 'white'; it must be a colour of three",
        ),
        (["INPUT.BANDS", "4"], "INPUT.BANDS is 4; it must be three bands (or one) counted from 1"),
        (["INPUT.FRAME", "last"], "INPUT.FRAME is 'last'; it must be a whole number from 1."),
    ],
)
def test_bad_options(cfg, options, message):
    with pytest.raises(UserError) as caught:
        merge_options(cfg, options)
    assert message in str(caught.value)
    assert cfg.SEED == 1
