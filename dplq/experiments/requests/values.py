"""Values of config keys that are paths: found from the caller's folder, used from any."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from dplq.errors import UserError, few
from dplq.io.files import checkout

# keys that the plan sets itself: a second value would contradict the folder's name
RESERVED = (
    *("DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_CLASSES", "DATASET.NAME", "DATASET.ROOT"),
    *("SEED", "OUTPUT_DIR", "TRAINER.NAME"),
)
HUB = re.compile("hf[-_]hub:")
Options = tuple[tuple[str, str], ...]


def pairs(words: list[str], caller: Path, reserved: str) -> Options:
    """Return the config keys and values of a command line, as they are recorded.

    Args:
        words: KEY VALUE ...
        caller: folder that relative paths begin in.
        reserved: end of the message for a key that is set by other means.

    Raises:
        UserError: an odd number of words, or such a key.
    """
    if len(words) % 2:
        raise UserError(
            f"settings after -- come in pairs KEY VALUE; got {len(words)} words: {' '.join(words)}"
        )
    found = list(zip(words[::2], words[1::2], strict=True))
    if wrong := [key for key, _ in found if key in RESERVED]:
        raise UserError(f"{few(wrong)} is set by {reserved}")
    return tuple((key, recorded(key, value, caller)) for key, value in found)


def recorded(key: str, value: str, caller: Path) -> str:
    """Return a value with existing relative paths made absolute, or relative to the checkout."""
    return _rebased(key, value, caller, checkout())


@cache
def for_any_folder(key: str, value: str) -> str:
    """Return a recorded value for a process that runs in any folder."""
    root = checkout()
    return value if root is None else _rebased(key, value, root, None)


def _rebased(key: str, value: str, base: Path, root: Path | None) -> str:
    if key.startswith("DOMAIN.") and value.startswith("[") and value.endswith("]"):
        parts = (part.strip(" ") for part in value[1:-1].split(","))
        return f"[{', '.join(_rebased(key, part, base, root) for part in parts)}]"
    prefix, path = "", value
    # What follows the first colon is a path (local-dir:PATH, NAME:FILE), but hf-hub: names no file.
    if ":" in value and not HUB.match(value) and not _exists(base, value):
        prefix, colon, path = value.partition(":")
        prefix += colon
    is_weights = key.endswith("WEIGHTS") and not prefix
    if ("/" in path and _exists(base, path)) or (is_weights and _exists(base, path, file=True)):
        path = f"{base}/{path}"
        path = path if root is None else path.removeprefix(f"{root}/")
    return prefix + path


def _exists(base: Path, path: str, *, file: bool = False) -> bool:
    """Return whether a relative path is there."""
    if not path or Path(path).is_absolute() or "\0" in path:
        return False
    there = base / path
    try:
        return there.is_file() if file else there.exists()
    except OSError:  # a text, too long for a path
        return False
