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


def test_encoders_and_timm_s_arguments_in_a_file_and_on_the_command_line(cfg, tmp_path):
    """A dict becomes the text that the command line takes; a list of names stays a list."""
    path = tmp_path / "x.yaml"
    path.write_text(
        "DOMAIN:\n  ENCODER: [clip, 'hf-hub:a/b']\n  ARGS: {reg_tokens: 4, img_size: 518}\n"
        "  MEAN: [0.5, 0.5, 0.5]\n"
    )
    merge_file(cfg, str(path))
    assert cfg.DOMAIN.ENCODER == ["clip", "hf-hub:a/b"]
    assert cfg.DOMAIN.ARGS == "img_size=518, reg_tokens=4"
    assert cfg.DOMAIN.MEAN == (0.5, 0.5, 0.5)
    merge_options(cfg, ["DOMAIN.ENCODER", "[a, b]", "DOMAIN.ARGS", "depth=6"])
    assert (cfg.DOMAIN.ENCODER, cfg.DOMAIN.ARGS) == (["a", "b"], "depth=6")
    merge_options(cfg, ["DOMAIN.ENCODER", "a", "DOMAIN.ARGS", "{'depth': 7}"])
    assert (cfg.DOMAIN.ENCODER, cfg.DOMAIN.ARGS) == ("a", "depth=7")
    path.write_text("DOMAIN:\n  ARGS: {num_classes: 4}\n")
    with pytest.raises(UserError, match=r"x.yaml: DOMAIN.ARGS cannot set num_classes"):
        merge_file(cfg, str(path))
