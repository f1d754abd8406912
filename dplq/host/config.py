"""Config keys that this project adds to Dassl's, each with its default and a one-line help text.

The keys of a trainer are made from its method's settings class. Host trees call `extend_cfg(cfg)`;
keys that are there already keep the host's value.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterable
from typing import Any

from dplq.domain.arguments import arguments_text, parse_arguments, several
from dplq.errors import UserError, nearest, shown, suggest
from dplq.host.checks import known_checks
from dplq.host.dassl import registered_trainers
from dplq.images.settings import ReadSettings
from dplq.io.nodes import flatten, set_key
from dplq.io.validation.paths import is_file
from dplq.io.validation.values import Check, like, require, text
from dplq.io.validation.yaml_file import read_yaml
from dplq.training import PRECISIONS

logger = logging.getLogger(__name__)

Key = tuple[str, Any, str]  # dotted name, default, help
LISTED = ("DOMAIN.ENCODER", "DOMAIN.WEIGHTS")  # keys that hold a name or a list of names
ARGUMENTS = "DOMAIN.ARGS"  # key that holds keyword arguments
GENERAL_KEYS: tuple[Key, ...] = (
    ("DATASET.SUBSAMPLE_CLASSES", "all", "all, base (first half of the classes) or new"),
    ("DATASET.SPLIT_FILE", "", "table (CSV, TSV) or CoOp's JSON, relative to the data folder"),
    ("DATASET.COLUMNS.PATH", "", "column of the table with the image; empty: a usual name"),
    ("DATASET.COLUMNS.LABEL", "", "column with the class"),
    ("DATASET.COLUMNS.SPLIT", "", "column with train, val or test"),
    ("DATASET.COLUMNS.GROUP", "", "column with the patient, scene or site"),
    ("DATASET.COLUMNS.PROMPT", "", "column with the name of the class in the prompt"),
    (
        "DATASET.GROUP",
        "",
        "regular expression: what it finds in a path is the group; PatientID: that of DICOM files; "
        "none: no groups",
    ),
    ("DATASET.SKIP_EMPTY_CLASSES", False, "leave class folders without an image out"),
    ("DATASET.ALL_TEST", False, "test all images, with --eval-only"),
    ("DATASET.PROTOCOL", "ours", "ours, or reference (known bugs of the original loaders)"),
    ("DATASET.CHECK_IMAGES", True, "decode every image of a run once before it starts"),
    ("DATASET.SKIP_BROKEN", False, "leave unreadable images out instead of stopping"),
    ("TEST.ALLOW_TRAIN_IMAGES", False, "test images that the model was trained on, too"),
    ("TEST.PREDICTIONS", True, "write predictions.csv, and the metrics of its probabilities"),
    ("TEST.TEMPERATURE", "none", "val: temperature of the probabilities, fitted on val images"),
    (
        "TRAIN.CLASS_WEIGHTS",
        "",
        "balanced: rare classes count more in the loss; empty: off",
    ),
    ("TRAIN.TRACK", "", "services that follow the training, such as wandb,mlflow; empty: none"),
    ("TRAIN.TRACK_PROJECT", "", "project at the services; empty: their environment's, or ours"),
    (
        "TRAIN.FEATURE_CACHE",
        4.0,
        "GB of frozen encoders' features kept in the cache folder for all runs; 0: none",
    ),
    ("TRAIN.CUDA_GRAPH", True, "on a GPU, launch a training step's kernels as one CUDA graph"),
    (
        "INPUT.WINDOW",
        None,
        "[low, high] or percentile: values that become black and white, for more than 8 bits",
    ),
    ("INPUT.BACKGROUND", (0, 0, 0), "colour below transparent pixels"),
    ("INPUT.FRAME", 1, "page or frame of files with several, from 1"),
    ("INPUT.BANDS", (), "bands used as red, green, blue, such as [4, 3, 2], from 1"),
    ("INPUT.MAX_PIXELS", ReadSettings.max_pixels, "largest image, width x height, that is decoded"),
    (
        "DATALOADER.IMAGE_CACHE",
        "",
        "decoded (exact) or resized (quicker, train crops differ): keep images uncompressed",
    ),
    (
        "DOMAIN.ENCODER",
        "mae_vit_base_patch16",
        "name of ours or timm's, hf-hub:, local-dir:, clip; [a, b]: concatenated; none: no feature",
    ),
    ("DOMAIN.WEIGHTS", "", "local checkpoint of the domain encoder; empty: timm's own weights"),
    ("DOMAIN.MEAN", (), "channel means of the encoder's training images, 0-1; (): the published"),
    ("DOMAIN.STD", (), "standard deviations that go with MEAN"),
    ("DOMAIN.IMAGE_SIZE", 0, "side of the encoder's input, positions resampled; 0: the published"),
    ("DOMAIN.POOL", "", "avg, cls, both or map (attention pooling); empty: the published, or avg"),
    ("DOMAIN.ARGS", "", "timm's keyword arguments, such as 'depth=6, reg_tokens=4'"),
    ("DOMAIN.FEATURE", "encoder", "encoder, or decoder_embed (MAE: through the decoder embedding)"),
    ("DOMAIN.NORMALIZE", None, "native (what the encoder was trained on) or clip; None: PRESET's"),
    ("DOMAIN.CACHE", True, "keep the domain features of test images in the cache folder"),
    ("DOMAIN.PRETRAINED", True, "False: random domain encoder, for tests only"),
    (
        "MODEL.BACKBONE.ACT",
        "auto",
        "auto (the one that NAME stands for), gelu or quickgelu: activation of CLIP's towers",
    ),
    ("MODEL.TEXT_CHUNK", 0, "classes run at once, in blocks of about 30; 0: what memory holds"),
    ("MODEL.GRAD_CHECKPOINTING", False, "recompute the image tower in the backward pass"),
    ("MODEL.COMPILE", "", "torch.compile: default, reduce-overhead or max-autotune; empty: off"),
)


def trainer_keys(trainer: Any) -> list[Key]:
    """Return the keys below ``TRAINER.<node>`` of a registered trainer, from its settings class."""
    prec = ("PREC", trainer.prec, " or ".join([", ".join(PRECISIONS[:-1]), PRECISIONS[-1]]))
    own = [
        (field.name.upper(), field.default, field.metadata["help"])
        for field in trainer.model_class.settings_class.config_fields()
    ]
    return [(f"TRAINER.{trainer.node}.{name}", *rest) for name, *rest in (*own, prec)]


def all_keys() -> list[Key]:
    """Return every key of this project: the general ones, and those of the registered trainers."""
    own = {key[0]: key for trainer in registered_trainers() for key in trainer_keys(trainer)}
    return [*GENERAL_KEYS, *own.values()]


def key_table(keys: Iterable[Key]) -> str:
    """Return a text table of keys, defaults and help texts."""
    from tabulate import tabulate

    rows = [[name, repr(default), text] for name, default, text in keys]
    return tabulate(rows, ["key", "default", "meaning"], disable_numparse=True)


def extend_cfg(cfg: Any) -> None:
    """Add this project's keys to a Dassl config; what the host has defined already stays.

    Args:
        cfg: yacs `CfgNode` from `get_cfg_default()`.
    """
    from yacs.config import CfgNode

    for key, default, _ in all_keys():
        *path, leaf = key.split(".")
        node = cfg
        for part in path:
            if part not in node:
                node[part] = CfgNode()
            node = node[part]
        if leaf not in node:
            node[leaf] = default


def merge_options(cfg: Any, options: list[str]) -> None:
    """Merge the free ``KEY VALUE`` pairs of a command line.

    Raises:
        UserError: a flag in place of a key, an odd number of words, an unknown key (nearest names
            given), or a value that the key cannot have.
    """
    for key in options[::2]:
        if key.startswith("--"):
            raise UserError(f"Flags come before the KEY VALUE pairs: move {key} to the front.")
    if len(options) % 2:
        raise UserError(
            f"Config overrides come in pairs KEY VALUE; '{options[-1]}' has no partner."
        )
    checks = known_checks()
    for key, given in zip(options[::2], options[1::2], strict=True):
        _assign(cfg, key, given, checks)


def merge_file(cfg: Any, path: str) -> None:
    """Merge a YAML file.

    Raises:
        UserError: no such file, not YAML, an unknown key or a value that the key cannot have; the
            message names the file and the key.
    """
    if not is_file(path):
        raise UserError(f"There is no config file {path}.{_neighbours(path)}")
    content: Any = read_yaml(path)
    if content in (None, {}):
        logger.warning("The config file %s is empty: it sets no key.", path)
        return
    if not isinstance(content, dict):
        raise UserError(f"The config file {path} must hold KEY: VALUE lines, not {shown(content)}.")
    _merge(cfg, content, known_checks(), path)


def _merge(
    cfg: Any, content: dict[Any, Any], checks: dict[str, Check], path: str, prefix: str = ""
) -> None:
    """Assign every value of a file, whose sections must be those of the config."""
    known = dict(flatten(cfg))
    for name, value in content.items():
        key = f"{prefix}{name}"
        is_section = any(other.startswith(f"{key}.") for other in known)
        if is_section and not isinstance(value, dict):
            raise UserError(
                f"{path}: {key} is a section, with KEY: VALUE lines below it, not {shown(value)}."
            )
        if isinstance(value, dict) and key not in known:
            _merge(cfg, value, checks, path, f"{key}.")
        else:
            _assign(cfg, key, value, checks, path)


def _assign(cfg: Any, key: str, given: Any, checks: dict[str, Check], path: str = "") -> None:
    """Set a key to a value that was written somewhere, once it is known to be a possible one."""
    known = dict(flatten(cfg))
    if key not in known:
        start = f"{path}: unknown" if path else "Unknown"
        raise UserError(f"{start} config key {key[:200]}.{nearest_keys(key, known)}")
    value = _literal(key, given, known[key], path) if isinstance(given, str) else given
    if key == ARGUMENTS and isinstance(value, dict):  # a yacs node holds no dict
        value = _as_text(value, f"{path}: {key}" if path else key)
    require(key, value, checks.get(key) or like(known[key]), path)
    set_key(cfg, key, _in_kind_of(known[key], value))


def _as_text(value: dict[Any, Any], key: str) -> str:
    try:
        return arguments_text(parse_arguments(value, key))
    except UserError as error:
        raise UserError(f"{error}.") from error


def _literal(key: str, given: str, before: Any, path: str) -> Any:
    """Return what a text stands for, as yacs does; digits stay text where the key holds text."""
    problem = text(given)
    if problem:
        raise UserError(f"{path + ': ' if path else ''}{key}{problem}")
    if key in LISTED:
        names = several(given)
        return given if names == [given] else names
    try:
        literal = ast.literal_eval(given)
    except (ValueError, SyntaxError):
        return given
    except (TypeError, MemoryError, RecursionError) as error:
        if isinstance(before, str):
            return given
        where = f"{path}: " if path else ""
        raise UserError(f"{where}{key} is {shown(given)}, which stands for no value.") from error
    is_number = isinstance(literal, (int, float, complex)) and not isinstance(literal, bool)
    return given if is_number and isinstance(before, str) else literal


def _in_kind_of(before: Any, value: Any) -> Any:
    """Return a value as yacs would keep it: a list for a list, a tuple for a tuple."""
    if isinstance(before, (list, tuple)) and isinstance(value, (list, tuple)):
        return type(before)(value)
    return float(value) if isinstance(before, float) and isinstance(value, int) else value


def nearest_keys(key: str, known: dict[str, Any]) -> str:
    """Return the end of an error message: the keys most like `key`."""
    near = nearest(key, known, cutoff=0.5)
    leaf = key.rsplit(".", 1)[-1].upper()
    near += [name for name in known if name.rsplit(".", 1)[-1] == leaf and name not in near][:3]
    return f" Did you mean {' or '.join(near)}?" if near else " docs/settings.md lists the keys."


def _neighbours(path: str) -> str:
    from pathlib import Path

    folder = Path(path).parent
    names = [p.name for p in folder.glob("*.yaml")] if folder.is_dir() else []
    return suggest(Path(path).name, names) if names else ""
