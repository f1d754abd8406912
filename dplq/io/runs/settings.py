"""Config keys of a run: which decide its result, and how their values are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dplq.io.nodes import flatten

# Keys that decide where and how fast a run works, but not what comes out.
INDIFFERENT = (
    *("OUTPUT_DIR", "RESUME", "VERSION", "VERBOSE", "USE_CUDA", "DATASET.ROOT"),
    *("DATASET.CHECK_IMAGES", "INPUT.MAX_PIXELS", "DATALOADER.TEST.BATCH_SIZE"),
    *("TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ", "TRAIN.FEATURE_CACHE"),
    "TRAIN.CUDA_GRAPH",
    *("TRAIN.TRACK", "TRAIN.TRACK_PROJECT"),
    *("TEST.NO_TEST", "TEST.PER_CLASS_RESULT", "TEST.COMPUTE_CMAT"),
    *("TEST.ALLOW_TRAIN_IMAGES", "TEST.PREDICTIONS", "DOMAIN.CACHE"),
    *("MODEL.TEXT_CHUNK", "MODEL.GRAD_CHECKPOINTING", "MODEL.COMPILE"),
)
# Keys whose value may be, or end in, the path of a file: its folder is not part of an identity.
PATHS = ("MODEL.BACKBONE.NAME", "MODEL.INIT_WEIGHTS", "DOMAIN.ENCODER", "DOMAIN.WEIGHTS")
_LEFT_OUT = {*INDIFFERENT, "SEED"}


def plain_value(key: str, value: Any) -> Any:
    """Return a config value JSON-able, and without the folder of a file."""
    if isinstance(value, (list, tuple)):
        return [plain_value(key, part) for part in value]
    if key in PATHS and isinstance(value, str):
        before, colon, path = value.rpartition(":")
        is_file = path.endswith((".pt", ".pth", ".bin", ".safetensors", ".tar"))
        if is_file or before == "local-dir":
            return before + colon + Path(path).name
    return value


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a nested config that decide a result, with their values; not the seed."""
    leaves = ((key, value) for key, value in flatten(config) if key not in _LEFT_OUT)
    return {key: plain_value(key, value) for key, value in leaves}


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the deciding keys that several configs have, with other values than the first, sorted.

    Keys that only some of them have are of other versions.
    """
    first, *others = map(deciding, configs)
    found = {
        key
        for config in others
        for key, value in config.items()
        if key in first and first[key] != value
    }
    return sorted(found)
