"""Configs: values, KEY VALUE pairs, YAML files; what is accepted makes a step of a training."""

from __future__ import annotations

import math

import torch
import yaml
from hypothesis import strategies as st

import dplq.plugin  # noqa: F401  (registers the trainers, whose keys are added)
from dplq.host.checks import check_config, known_checks
from dplq.host.config import flatten, merge_file, merge_options
from dplq.host.dassl import registered_trainers
from tests.fuzz.campaign import Refusal, fuzzed, outcome, untouched
from tests.fuzz.mutations import NONSENSE, TEXTS, damaged, trees
from tests.fuzz.tiny_runs import fresh, one_step
from tests.runner import PROJECT

LEARNS = {trainer.__name__: trainer.fixed_epochs is None for trainer in registered_trainers()}
TRAINERS = list(LEARNS)


DEFAULTS = dict(flatten(fresh()))
KEYS = sorted(DEFAULTS)
SECTIONS = {key.rpartition(".")[0] for key in KEYS}


def choices(key):
    """Return the names that the check of a key lists when it refuses one."""
    check = known_checks().get(key)
    said = check("no such name") if check else ""
    return said.partition("Choices: ")[2].rstrip(".").split(", ") if "Choices: " in said else []


@st.composite
def near_misses(draw, key):
    """Draw a value for a key that is possible, or nearly so."""
    default, names = DEFAULTS[key], choices(key)
    if names:
        return draw(st.sampled_from(names))
    if isinstance(default, bool):
        return draw(st.booleans())
    if isinstance(default, int):
        return draw(st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 31, 33, 100, 2**31 - 1]))
    if isinstance(default, float):
        return draw(st.sampled_from([0.0, 1e-30, 1e-6, 0.01, 0.5, 0.999999, 1.0, 2.0, 100.0, 1e30]))
    if isinstance(default, list | tuple):
        values = [
            *default,
            *draw(st.lists(st.sampled_from([0, 1, 2, 3, 0.5, 1.0, 32]), max_size=3)),
        ]
        return type(default)(draw(st.permutations(values))[: draw(st.integers(0, len(values)))])
    return draw(st.sampled_from(["", "a", "x.json", "none", "clip", "a photo of a", "percentile"]))


@st.composite
def settings_of(draw, values):
    """Draw a trainer, and one to three keys with their values."""
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True))
    return draw(st.sampled_from(TRAINERS)), {key: draw(values(key)) for key in keys}


def put(cfg, key, value):
    """Set a key to anything, which yacs would not let through."""
    *path, leaf = key.split(".")
    for part in path:
        cfg = cfg[part]
    dict.__setitem__(cfg, leaf, value)


def require_sane(cfg):
    """Require what every config is that was accepted, key by key of its default's kind."""
    for key, value in flatten(cfg):
        default = DEFAULTS[key]
        if isinstance(default, bool | str):
            assert type(value) is type(default), (key, value)
        elif isinstance(default, int | float):
            assert type(value) in (int, float), (key, value)
            assert math.isfinite(value), (key, value)
        if isinstance(default, str):
            assert "\0" not in value, (key, value)
            value.encode()
        if isinstance(default, list | tuple):
            numbers = [number for number in value if isinstance(number, float)]
            assert all(map(math.isfinite, numbers)), (key, value)
    assert cfg.OPTIM.LR > 0
    assert 0 <= cfg.OPTIM.MOMENTUM < 1
    assert cfg.OPTIM.MAX_EPOCH >= 1
    learns = LEARNS.get(cfg.TRAINER.NAME)
    assert not learns or cfg.OPTIM.WARMUP_EPOCH <= cfg.OPTIM.MAX_EPOCH
    assert min(cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.DATALOADER.TEST.BATCH_SIZE) >= 1
    assert [type(side) for side in cfg.INPUT.SIZE] == [int, int]
    assert min(cfg.INPUT.SIZE) >= 1
    assert len(cfg.INPUT.PIXEL_MEAN) == len(cfg.INPUT.PIXEL_STD) == 3
    assert min(cfg.INPUT.PIXEL_STD) > 0
    assert 0 < cfg.INPUT.RRCROP_SCALE[0] <= cfg.INPUT.RRCROP_SCALE[1] <= 1
    assert -1 <= cfg.SEED < 2**32


def names_a_key(message, keys):
    return any(key in message or key.rpartition(".")[0] in message.split() for key in keys)


@fuzzed(0.17, given=settings_of(lambda key: st.one_of(NONSENSE, NONSENSE, near_misses(key))))
def test_values(given):
    trainer, values = given
    cfg = fresh(trainer)
    for key, value in values.items():
        put(cfg, key, value)
    got = outcome("config values", check_config, cfg)
    if isinstance(got, Refusal):
        assert names_a_key(str(got), values), got
    else:
        require_sane(cfg)


def as_text(value):
    return value if isinstance(value, str) else f"{value!r}"[:6000]


LITERALS = (
    *(
        "[[[[",
        "{[]:1}",
        "(",
        "1e999",
        "-nan",
        "[1, nan]",
        "None",
        "True",
        "'",
        "0x10",
        "1_0",
        "b'a'",
    ),
    *("-" * 3000 + "1", "[" * 3000, "9" * 4400, "1+1j", "{1, 2}", "...", "__import__('os')", "()"),
)
WORDS = st.one_of(
    st.sampled_from(LITERALS), st.sampled_from(TEXTS), st.text(max_size=10), st.integers().map(str)
)


def merged(options, trainer="QuaternionPrompt"):
    cfg = fresh(trainer)
    merge_options(cfg, options)
    check_config(cfg)
    return cfg


@fuzzed(
    0.15,
    given=settings_of(lambda key: st.one_of(WORDS, near_misses(key).map(as_text))),
    odd=st.sampled_from([0] * 15 + [1]),
    misspelt=st.sampled_from([""] * 15 + ["x", ".", ".X", "\0", "--"]),
)
def test_key_value_pairs(given, odd, misspelt):
    trainer, values = given
    words = [word for key, value in values.items() for word in (key + misspelt, value)]
    words = words[: len(words) - odd]
    got = outcome("KEY VALUE pairs", merged, words, trainer)
    if isinstance(got, Refusal):
        assert odd or misspelt or names_a_key(str(got), values), got
    else:
        require_sane(got)


FILES = sorted((PROJECT / "configs/trainers").glob("*/*.yaml"))
CONTENTS = [path.read_bytes() for path in FILES]
TREES = [yaml.safe_load(content) for content in CONTENTS]


def as_yaml(tree):
    try:
        return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b"a: " + b"[" * 999
    except ValueError:  # thousands of digits
        return b"SEED: " + b"9" * 5000


@fuzzed(
    0.17,
    content=st.one_of(
        st.sampled_from(CONTENTS).flatmap(damaged),
        st.sampled_from(TREES).flatmap(trees).map(as_yaml),
    ),
)
def test_yaml_files(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzzed" / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)

    def merge():
        cfg = fresh()
        merge_file(cfg, str(path))
        check_config(cfg)
        return cfg

    with untouched(path.parent):
        got = outcome("YAML files", merge)
    if not isinstance(got, Refusal):
        require_sane(got)


# costly, or of the machine: processes, compilation, and the folders of the project itself
NOT_RUN = ("DATALOADER.NUM_WORKERS", "MODEL.COMPILE", "DATASET.ROOT", "OUTPUT_DIR", "RESUME")
NOT_RUN += ("TRAINER.NAME", "DATASET.NAME", "USE_CUDA", "MODEL.BACKBONE.NAME", "DOMAIN.ENCODER")


@fuzzed(0.05, given=settings_of(near_misses))
def test_what_is_accepted_can_be_run(given, project):
    """Values that no data are for (huge rates) may end in weights that are not finite: said later.

    The first step is before that.
    """
    trainer, values = given
    cfg = project.cfg.clone()
    cfg.TRAINER.NAME = trainer
    for key, value in values.items():
        if key not in NOT_RUN:
            put(cfg, key, value)
    if isinstance(outcome("configs to run", check_config, cfg), Refusal):
        return
    with untouched(project.folder / "data"):
        got = outcome("steps of what is accepted", one_step, cfg)
    if not isinstance(got, Refusal):
        loss, logits = got
        assert torch.isfinite(loss)
        assert logits.shape[1] >= 2
