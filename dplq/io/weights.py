"""Public weight files: read safely, recognised by their keys, told apart by their SHA-256.

No model is known here; `dplq.clip.sources` and `dplq.domain.load` load what
`read_state_dict` gives them, each in its own layouts. What stands in for a file that is not wanted,
random weights of a private seed and the warning about them, is here too.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from dplq.errors import UserError

logger = logging.getLogger(__name__)

# The order decides: the first kind with a key that contains one of the marks.
_KINDS = (
    ("SAM / MedSAM", ("image_encoder.", "mask_decoder.")),
    ("MAE", ("decoder_embed.", "decoder_blocks.")),
    ("OpenAI CLIP", ("input_resolution", "context_length")),
    ("Hugging Face CLIP", ("vision_model.",)),
    ("open_clip", ("visual.",)),
    ("DINO", ("teacher.", "student.", "head.last_layer", "dino_head")),
    ("DINOv2", ("register_tokens", "blocks.0.ls1.")),
    ("timm ViT or MAE encoder", ("blocks.0.attn.qkv.",)),
    ("ResNet", ("layer1.0.conv1.",)),
)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, on the CPU, without running anything that it holds.

    Safetensors, TorchScript archives (as OpenAI publishes CLIP), and `torch.save` files that hold a
    state dict or one under `model` or `state_dict`, with or without the `module.` of data-parallel
    training. Beside the weights a file may hold plain values and an `argparse.Namespace`.

    Returns:
        Tensors by key. Of an unknown container the keys are "outer.inner", so that
        `looks_like` can recognise it.

    Raises:
        UserError: not such a file, or it holds other objects.
    """
    return _without_module(_unwrap(read_content(path)))


def read_content(
    path: str | os.PathLike[str], extra: Sequence[Callable[..., Any]] = ()
) -> Mapping[str, Any]:
    """Read all of a checkpoint, on the CPU, without running anything that it holds.

    Args:
        path: a file as for `read_state_dict`.
        extra: classes, or stand-ins for them (with their `__module__` and `__name__`), that a
            `torch.save` file may hold beside tensors and plain values.

    Raises:
        UserError: as for `read_state_dict`.
    """
    path = Path(path)
    try:
        content = _read(path, extra)
    except Exception as error:  # torch, zipfile and safetensors each have their own
        raise UserError(_why_unreadable(path, error)) from error
    if not isinstance(content, Mapping):
        raise UserError(f"'{path}' holds a {type(content).__name__}, expected a state dict")
    return content


def _read(path: Path, extra: Sequence[Callable[..., Any]]) -> Any:
    """Return the file's content, whatever it is."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if is_torchscript(path):
        # Its pickles hold tensors and TorchScript classes only; no Python object is made of them.
        with warnings.catch_warnings():
            # torch.jit is deprecated, but OpenAI publishes CLIP in no other format.
            warnings.simplefilter("ignore")
            return torch.jit.load(str(path), map_location="cpu").state_dict()
    # Mapped where it can be, so that an optimizer's state beside the weights is never read.
    mapped = zipfile.is_zipfile(path)
    with _allowed([argparse.Namespace, *extra]):
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)


def is_torchscript(path: Path) -> bool:
    """Return whether the file is a TorchScript archive; a `torch.save` file has no constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(member.endswith("/constants.pkl") for member in archive.namelist())


@contextlib.contextmanager
def _allowed(classes: list[Callable[..., Any]]) -> Iterator[None]:
    """Allow weights_only loading to build these classes, and nothing more, for a while.

    Training checkpoints carry their command line in an `argparse.Namespace`.
    """
    lists = torch.serialization
    if hasattr(lists, "safe_globals"):
        with lists.safe_globals(classes):
            yield
        return
    # torch 2.4 has a process-wide list only.
    before = lists.get_safe_globals()
    lists.add_safe_globals(classes)
    try:
        yield
    finally:
        lists.clear_safe_globals()
        lists.add_safe_globals(before)


def _why_unreadable(path: Path, error: Exception) -> str:
    """Say that a file could not be read, or what in it torch refused to unpickle."""
    refused = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "")
    if refused:
        return (
            f"'{path}' cannot be read as a checkpoint ({type(error).__name__}: {refused}): it "
            "seems to hold more than weights, and nothing that could run code is loaded. If you "
            "trust the file, open it elsewhere and save {'model': state_dict} alone"
        )
    return (
        f"'{path}' cannot be read as a checkpoint ({brief(error)}); expected safetensors, a "
        "TorchScript archive, or a state dict of plain tensors. Is the file complete?"
    )


def _unwrap(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by key, out of their container."""
    groups = (content.get(key) for key in ("model", "state_dict"))
    inner = next((group for group in groups if isinstance(group, Mapping)), content)
    if not any(isinstance(value, Tensor) for value in inner.values()):
        inner = {
            f"{outer}.{key}": value
            for outer, group in inner.items()
            if isinstance(group, Mapping)
            for key, value in group.items()
        }
    return {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}


def _without_module(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo the renaming of data-parallel training, if all keys have it."""
    if not all(key.startswith("module.") for key in state):
        return state
    return {key.removeprefix("module."): value for key, value in state.items()}


def looks_like(state: Mapping[str, Tensor]) -> str:
    """Say what kind of checkpoint the keys look like."""
    for kind, marks in _KINDS:
        if any(mark in key for key in state for mark in marks):
            return f"a checkpoint of {kind}"
    return f"nothing known (keys: {few(list(state))})" if state else "a file without weights"


def few(keys: Sequence[str]) -> str:
    """Return the first few keys and how many more there are."""
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def brief(error: BaseException) -> str:
    """Return an exception's class and message on one line: messages of libraries run over pages."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


@contextlib.contextmanager
def private_rng(seed: int) -> Iterator[None]:
    """Draw CPU random numbers from `seed` inside, and leave the caller's stream untouched."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would reseed the accelerators too, which are not forked.
        torch.default_generator.manual_seed(seed)
        yield


class Undrawn(TorchFunctionMode):
    """Inside, most weights get no random initial values: those that a file replaces need none.

    What is left out are whole functions of `torch.nn.init`, in this thread. Their parts, such as
    `Tensor.normal_`, still draw: there are functions that draw until the numbers suit them.
    """

    DRAWS = (init.normal_, init.uniform_, init.kaiming_normal_, init.kaiming_uniform_)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Leave tensors alone that would be filled with random numbers."""
        if func not in self.DRAWS:
            return func(*args, **(kwargs or {}))
        return args[0] if args else kwargs["tensor"]


def warn_framed(mark: str, *lines: str) -> None:
    """Log a warning that cannot be overlooked: `lines` in a frame of the character `mark`."""
    width = max(map(len, lines))
    bar = mark * (width + 4)
    body = "\n".join(f"{mark} {line:<{width}} {mark}" for line in lines)
    logger.warning("\n%s\n%s\n%s", bar, body, bar)
