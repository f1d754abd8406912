"""Config values: possible ones are accepted, all others are one UserError that names the key."""

from __future__ import annotations

import itertools
import logging

import pytest

import dplq.plugin  # noqa: F401  (registers the trainers, whose keys are added)
from dplq.errors import UserError
from dplq.host.checks import CHECKS, check_config, check_for_trainer, known_checks
from dplq.host.config import GENERAL_KEYS, all_keys, extend_cfg, merge_file, merge_options
from dplq.host.dassl import registered_trainers
from dplq.io.nodes import flatten
from tests.runner import PROJECT, make_project, train

NESTED: list = []
for _ in range(500):
    NESTED = [NESTED]
NAN, INF = float("nan"), float("inf")
WRONG = {
    "None": None,
    "word": "wrong",
    "zero": 0,
    "minus one": -1,
    "nan": NAN,
    "inf": INF,
    "1e30": 1e30,
    "huge": 10**5000,
    "empty": "",
    "list": [],
    "dict": {},
    "long": "x" * 100_000,
    "nested": NESTED,
}


def config(trainer: str = "QuaternionPrompt"):
    from dassl.config import get_cfg_default  # found once the plug-in has been imported

    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.TRAINER.NAME, cfg.DATASET.NAME = trainer, "OwnImages"
    return cfg


def put(cfg, key, value):
    """Set a key to anything, which yacs would not let through."""
    *path, leaf = key.split(".")
    for part in path:
        cfg = cfg[part]
    dict.__setitem__(cfg, leaf, value)


def refusal(cfg):
    with pytest.raises(UserError) as caught:
        check_config(cfg)
    return str(caught.value)


def test_every_key_of_ours_has_a_check():
    assert {key for key, _, _ in all_keys()} <= set(known_checks())
    assert {key for key, _, _ in GENERAL_KEYS} <= set(CHECKS)


def test_every_default_is_accepted():
    for trainer in registered_trainers():
        check_config(config(trainer.__name__))
    for key, default, _ in all_keys():
        assert known_checks()[key](default) == ""


@pytest.mark.parametrize("kind", WRONG)
def test_every_key_with_a_wrong_value(kind):
    """Accepted, or one line that names the key; None and nested lists only where they mean it."""
    cfg, accepted = config(), set()
    for key, default in list(flatten(cfg)):
        put(cfg, key, WRONG[kind])
        try:
            check_config(cfg)
            accepted.add(key)
        except UserError as error:
            message = str(error)
            assert message.startswith((key, key.rpartition(".")[0])), message
            assert "\n" not in message
            assert len(message) < 700
        put(cfg, key, default)
    may_be_none = {key for key, default, _ in all_keys() if default is None}
    if kind in ("nan", "inf", "huge", "dict", "long", "nested"):
        assert accepted == set()
    if kind == "None":
        assert accepted == may_be_none
    if kind == "list":
        own = {key for key, default in flatten(cfg) if default == ()}
        assert accepted == own


SIZES = [(64,), (64, 64, 64), 64, (0, 64), (64.0, 64), ("64", 64), (True, 64), (10**9, 64)]
REFUSED = [
    *(("INPUT.SIZE", value) for value in SIZES),
    ("INPUT.PIXEL_STD", [0, 0, 0]),
    ("INPUT.PIXEL_STD", [1, 1, NAN]),
    ("INPUT.PIXEL_MEAN", [None, 0.5, 0.5]),
    ("INPUT.RRCROP_SCALE", (2.0, 1.0)),
    ("INPUT.RRCROP_SCALE", (0, 1.0)),
    ("INPUT.GB_K", 4),
    ("INPUT.COLORJITTER_H", 0.6),
    ("INPUT.TRANSFORMS", ["flip"]),
    ("INPUT.NO_TRANSFORM", True),
    ("INPUT.BANDS", {}),
    ("INPUT.WINDOW", [10**400, 1]),
    ("DATASET.GROUP", "("),
    ("DATASET.SUBSAMPLE_CLASSES", "old"),
    ("DATALOADER.K_TRANSFORMS", 2),
    ("DATALOADER.NUM_WORKERS", -1),
    ("DATALOADER.NUM_WORKERS", 10**6),
    ("DATALOADER.TRAIN_X.SAMPLER", "Random"),
    ("DATALOADER.TEST.SAMPLER", "RandomClassSampler"),
    ("OPTIM.LR", -1),
    ("OPTIM.LR", 0),
    ("OPTIM.LR", 1e300),
    ("MODEL.BACKBONE.ACT", "relu"),
    ("OPTIM.NAME", "sgdd"),
    ("OPTIM.WEIGHT_DECAY", -0.1),
    ("OPTIM.MOMENTUM", 1),
    ("OPTIM.ADAM_BETA2", 1.0),
    ("OPTIM.GAMMA", 0),
    ("OPTIM.STEPSIZE", ()),
    ("OPTIM.MAX_EPOCH", 0),
    ("OPTIM.MAX_EPOCH", 1.5),
    ("OPTIM.MAX_EPOCH", True),
    ("OPTIM.WARMUP_TYPE", "cubic"),
    ("TRAIN.PRINT_FREQ", 0),
    ("TEST.EVALUATOR", ""),
    ("TRAINER.VPT.N_CTX_VISION", 2**31 - 1),
    ("TRAINER.PROMPTSRC.N_CTX_VISION", -1),
    ("SEED", 2**32),
    ("SEED", -2),
    ("DOMAIN.FEATURE", "pooled"),
    ("DOMAIN.POOL", "max"),
    ("DOMAIN.IMAGE_SIZE", -1),
    ("DOMAIN.MEAN", ["a"]),
    ("DOMAIN.STD", [0.0]),
    ("DOMAIN.ARGS", "518"),
    ("DOMAIN.ARGS", "num_classes=3"),
    ("DOMAIN.ENCODER", []),
    ("DOMAIN.ENCODER", ["clip", ""]),
    ("DOMAIN.ENCODER", ""),
    ("TRAINER.QUATERNIONPROMPT.N_CTX", 0),
    ("TRAINER.QUATERNIONPROMPT.PROMPT_DEPTH", 0),
    ("TRAINER.QUATERNIONPROMPT.FUSION", 3),
    ("TRAINER.QUATERNIONPROMPT.PREC", "fp8"),
    ("TRAINER.PROMPTSRC.GPA_STD", 0),
    ("TRAINER.PROMPTSRC.TEXT_LOSS_WEIGHT", -1),
    ("OUTPUT_DIR", "a\0b"),
    ("DATASET.ROOT", "\ud800"),
    ("USE_CUDA", 1),
    ("TRAINER.MCD.N_STEP_F", 0.5),
    ("OPTIM", 3),
]


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_values_that_are_refused(key, value):
    cfg = config()
    put(cfg, key, value)
    message = refusal(cfg)
    assert message.startswith(f"{key} ")
    assert message.endswith(".")


CONTRADICTIONS = [
    (["OPTIM.NAME", "sgd", "OPTIM.SGD_NESTEROV", "True", "OPTIM.MOMENTUM", "0"], "OPTIM.MOMENTUM"),
    (
        ["OPTIM.NAME", "sgd", "OPTIM.SGD_NESTEROV", "True", "OPTIM.SGD_DAMPNING", "0.5"],
        "OPTIM.SGD_DAMPNING",
    ),
    (
        ["MODEL.INIT_WEIGHTS", "a.pt", "MODEL.BACKBONE.PRETRAINED", "False"],
        "MODEL.INIT_WEIGHTS",
    ),
    (["DOMAIN.WEIGHTS", "a.pth", "DOMAIN.PRETRAINED", "False"], "DOMAIN.WEIGHTS"),
    (["DOMAIN.WEIGHTS", "a.pth", "DOMAIN.ENCODER", "clip"], "DOMAIN.WEIGHTS"),
    (["DOMAIN.ENCODER", "[clip, none]"], "DOMAIN.ENCODER"),
    (["DOMAIN.ENCODER", "[clip, clip]", "DOMAIN.ARGS", "depth=2"], "DOMAIN.ARGS"),
    (["DOMAIN.ENCODER", "[clip, clip]", "DOMAIN.IMAGE_SIZE", "64"], "DOMAIN.IMAGE_SIZE"),
    (["OPTIM.LR_SCHEDULER", "multi_step"], "OPTIM.STEPSIZE"),
    (["OPTIM.LR_SCHEDULER", "multi_step", "OPTIM.STEPSIZE", "(5, 5)"], "OPTIM.STEPSIZE"),
    (["OPTIM.LR_SCHEDULER", "single_step", "OPTIM.STEPSIZE", "(5, 6)"], "OPTIM.STEPSIZE"),
    (["INPUT.TRANSFORMS", "['gaussian_blur']", "INPUT.GB_K", "8191"], "INPUT.GB_K"),
    (["OPTIM.MAX_EPOCH", "2", "OPTIM.WARMUP_EPOCH", "3"], "OPTIM.WARMUP_EPOCH"),
    (
        [
            *("OPTIM.STEPSIZE", "(1,)", "OPTIM.WARMUP_EPOCH", "2", "OPTIM.GAMMA", "1e-300"),
            *("OPTIM.WARMUP_RECOUNT", "False"),
        ],
        "OPTIM.GAMMA",
    ),
    (
        ["DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler", "DATALOADER.TRAIN_X.BATCH_SIZE", "4"],
        "DATALOADER.TRAIN_X.N_INS",
    ),
    (
        ["DATALOADER.TRAIN_X.SAMPLER", "RandomDomainSampler", "DATALOADER.TRAIN_X.N_DOMAIN", "5"],
        "DATALOADER.TRAIN_X.BATCH_SIZE",
    ),
]


@pytest.mark.parametrize(("options", "key"), CONTRADICTIONS)
def test_keys_that_contradict_each_other(options, key):
    cfg = config()
    merge_options(cfg, options)
    assert refusal(cfg).startswith(f"{key} is ")


def test_files_of_several_encoders_are_counted():
    cfg = config()
    merge_options(cfg, ["DOMAIN.ENCODER", "[clip, clip]", "DOMAIN.WEIGHTS", "[a.pth]"])
    assert refusal(cfg).startswith("DOMAIN.WEIGHTS names 1 files for 2 encoders: give one for each")


def test_weights_of_an_encoder_that_is_not_used_contradict_nothing():
    cfg = config()
    merge_options(cfg, ["DOMAIN.WEIGHTS", "a.pth", "DOMAIN.PRETRAINED", "False"])
    merge_options(cfg, ["DOMAIN.ENCODER", "none"])
    check_config(cfg)


def test_a_warm_up_as_long_as_the_run_is_possible():
    cfg = config()
    merge_options(cfg, ["OPTIM.MAX_EPOCH", "1", "OPTIM.WARMUP_EPOCH", "1"])
    check_config(cfg)


def test_a_host_may_lack_keys_and_have_others():
    cfg = config()
    del cfg.OPTIM["SGD_NESTEROV"], cfg.INPUT["GB_K"]
    put(cfg, "TRAINER.COOP", {"N_CTX": "theirs"})
    put(cfg, "OPTIM.THEIRS", None)
    (trainer,) = (t for t in registered_trainers() if t.__name__ == "QuaternionPrompt")
    check_for_trainer(cfg, trainer)
    put(cfg, "OPTIM.LR", None)
    with pytest.raises(UserError, match=r"^OPTIM\.LR is None; it must be a number\.$"):
        check_for_trainer(cfg, trainer)


CONFIGS = sorted((PROJECT / "configs").glob("*/**/*.yaml"))
DATASETS = [path for path in CONFIGS if path.parent.name == "datasets"]
TRAINERS = [path for path in CONFIGS if path.parent.parent.name == "trainers"]


def test_the_config_files_of_the_tree_are_accepted():
    """Every trainer's, each with one dataset's, and every dataset's with one trainer's."""
    assert len(TRAINERS) >= 40
    pairs = {*zip(TRAINERS, itertools.cycle(DATASETS), strict=False)}
    pairs |= {*zip(itertools.cycle(TRAINERS), DATASETS, strict=False)}
    for trainer, dataset in pairs:
        cfg = config(trainer.parent.name)
        for path in (dataset, trainer):
            merge_file(cfg, str(path))
        check_config(cfg)


def test_host_trees_can_load_the_config_files():
    """Their yacs takes no whole number for 1.0, and no 1.0 for a whole number."""
    for path in CONFIGS:
        config("CoOp").merge_from_file(str(path))
    whole = {
        field.name
        for trainer in registered_trainers()
        for field in trainer.model_class.settings_class.config_fields()
        if type(field.default) is int and field.type == "float"
    }
    # of PromptSRC, whose own tree has whole numbers, too
    assert whole == {"text_loss_weight", "image_loss_weight", "gpa_mean", "gpa_std"}


FILES = [
    ("OPTIM: {LR: null}", "{path}: OPTIM.LR is None; it must be a number."),
    ("OPTIM:\n  LR: .nan", "{path}: OPTIM.LR is nan; it must be a finite number."),
    ("OPTIM: 3", "{path}: OPTIM is a section, with KEY: VALUE lines below it, not 3."),
    ("OPTIM:", "{path}: OPTIM is a section, with KEY: VALUE lines below it, not None."),
    ("OPTIM: {LR: {A: 1}}", "{path}: OPTIM.LR is {{'A': 1}}; it must be a number."),
    ("SEED: 1\nSEED: 2", "{path} cannot be used: the key SEED is there twice. Repair it."),
    ("OPTIM: {LR: 1, LR: 2}", "{path} cannot be used: the key OPTIM.LR is there twice"),
    ("{[a]: 1}", "{path} cannot be used: the file has a key that is no text."),
    ("a: &a [*a]", "{path} cannot be used: it is nested too deeply, or refers to itself"),
    ("a: " + "[" * 5000, "{path} cannot be used: it is nested too deeply"),
    ("SEED: " + "9" * 5000, "{path} cannot be used: "),
    ("VERBOSE: !!bool x", "{path} cannot be used: a tag (!!) does not fit"),
    ("SEED: !!timestamp x", "{path} cannot be used: "),
    ("SEED: !!python/name:os.system", "{path} cannot be used: it is not valid YAML (could not"),
    ("SEED: 2001-01-01", "{path}: SEED is datetime.date(2001, 1, 1); it must be a whole number."),
    ("SEED: '[[[['", "{path}: SEED is '[[[['; it must be a whole number."),
    ("DATASET: {ROOT: '" + "x" * 5000 + "'}", "{path}: DATASET.ROOT has 5,000 characters"),
    ("[]", "The config file {path} must hold KEY: VALUE lines, not []."),
    (
        "x" * (1 << 20) + "x",
        "{path} cannot be used: it has 1,048,577 bytes, more than 1,048,576. Repair it.",
    ),
]


@pytest.mark.parametrize(("content", "message"), FILES, ids=range(len(FILES)))
def test_files_that_are_refused(tmp_path, content, message):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        merge_file(config(), str(path))
    assert str(caught.value).startswith(message.format(path=path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["a{0}: &a{0} [{1}]", "a{0}: &a{0} {{<<: [{1}], x{0}: 1}}"])
def test_aliases_that_multiply(tmp_path, form):
    path = tmp_path / "c.yaml"
    lines = ["a0: &a0 {x: 1}"]
    lines += [form.format(i, ", ".join([f"*a{i - 1}"] * 9)) for i in range(1, 15)]
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"holds more than 10,000 values"):
        merge_file(config(), str(path))


def test_an_empty_file_is_said(tmp_path, caplog):
    path = tmp_path / "c.yaml"
    path.write_text("# nothing\n")
    with caplog.at_level(logging.WARNING):
        merge_file(config(), str(path))
    assert caplog.messages == [f"The config file {path} is empty: it sets no key."]


@pytest.mark.parametrize(
    "text",
    [
        "{[]:1}",
        "[" * 3000,
        "-" * 4000 + "1",
        "9" * 5000,
        "9" * 4000,
        "1e999",
        "nan",
        "",
        "\0",
        "()",
    ],
)
def test_texts_that_are_no_number(text):
    with pytest.raises(UserError, match=r"^OPTIM\.LR ") as caught:
        merge_options(config(), ["OPTIM.LR", text])
    assert len(str(caught.value)) < 250


def test_values_keep_the_kind_of_their_key():
    cfg = config()
    options = {"OPTIM.LR": "1", "INPUT.SIZE": "[32, 32]", "OPTIM.SGD_DAMPNING": "0.5"}
    merge_options(cfg, [word for pair in options.items() for word in pair])
    assert (repr(cfg.OPTIM.LR), cfg.INPUT.SIZE, cfg.OPTIM.SGD_DAMPNING) == ("1.0", (32, 32), 0.5)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("checks"), images=6)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["OPTIM.LR", "-1"], 2, "error: OPTIM.LR is -1; it must be above 0."),
        (
            ["TRAINER.QUATERNIONPROMPT.N_CTX", "74"],
            2,
            "error: TRAINER.QUATERNIONPROMPT.N_CTX must be at",
        ),
        (["INPUT.CROP_PADDING", "8192", "OPTIM.MOMENTUM", "0.999999"], 0, ""),
        (["OPTIM.WEIGHT_DECAY", "1e30"], 2, "error: "),
    ],
)
def test_what_is_accepted_ends_without_a_traceback(project, tmp_path, options, code, message):
    out = tmp_path / "out"
    flags = [*project, "--output-dir", str(out), "OPTIM.MAX_EPOCH", "1", *options]
    done = train(tmp_path / "log", flags)
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert message in done.err
    assert out.exists() == (options[0] != "OPTIM.LR")
