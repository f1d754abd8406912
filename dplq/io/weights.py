"""Weights of frozen models: safe reading of public files, random initialisation.

No model is known here; `dplq.clip.load` and `dplq.domain.load` load what `read_state_dict`
returns, each for its own architectures. They share the means of initialisation too: a private
generator for random weights, and none where a file replaces them.
"""

from __future__ import annotations

import argparse
import contextlib
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

from dplq.errors import UserError, few, one_line

logger = logging.getLogger(__name__)
_Global = Callable[..., Any] | tuple[Callable[..., Any], str]  # as torch.serialization has it

# The first kind with a key that contains one of its marks is reported.
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
    """Read the tensors of a checkpoint, on the CPU, without executing code in it.

    Safetensors, TorchScript archives (as OpenAI publishes CLIP), and `torch.save` files that hold a
    state dict or one under `model` or `state_dict`, with or without the `module.` of data-parallel
    training. Beside the weights a file may hold plain values and an `argparse.Namespace`.

    Returns:
        Tensors by key. Those of an unknown container are named "outer.inner", so that
        `describe_checkpoint` can recognise it.

    Raises:
        UserError: not such a file, or it holds other objects.
    """
    return _without_module(_unwrap(read_content(path)))


def read_content(
    path: str | os.PathLike[str], extra: Sequence[Callable[..., Any]] = ()
) -> Mapping[str, Any]:
    """Read the whole content of a checkpoint, on the CPU, without executing code in it.

    Args:
        path: a file as for `read_state_dict`.
        extra: classes, or substitutes with their `__module__` and `__name__`, that a
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
    """Return the deserialised content of a file, of any type."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if is_torchscript(path):
        # Its pickles hold tensors and TorchScript classes only; they create no Python objects.
        with warnings.catch_warnings():
            # torch.jit is deprecated, but OpenAI publishes CLIP in no other format.
            warnings.simplefilter("ignore")
            return torch.jit.load(str(path), map_location="cpu").state_dict()
    # Memory-mapped where possible, so that an optimizer's state beside the weights is not read.
    mapped = zipfile.is_zipfile(path)
    with _allow_globals([argparse.Namespace, *extra]):
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)


def is_torchscript(path: Path) -> bool:
    """Return whether the file is a TorchScript archive; a `torch.save` file has no constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(member.endswith("/constants.pkl") for member in archive.namelist())


@contextlib.contextmanager
def _allow_globals(classes: list[_Global]) -> Iterator[None]:
    """Allow weights_only loading to construct these classes inside the block.

    Training checkpoints hold their command line in an `argparse.Namespace`.
    """
    serialization = torch.serialization
    if hasattr(serialization, "safe_globals"):
        with serialization.safe_globals(classes):
            yield
        return
    # torch 2.4 has a process-wide list only.
    before = serialization.get_safe_globals()
    serialization.add_safe_globals(classes)
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def _why_unreadable(path: Path, error: Exception) -> str:
    """Return an error text: the file is unreadable, or holds what torch refused to unpickle."""
    refused = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "")
    if refused:
        return (
            f"'{path}' cannot be read as a checkpoint ({type(error).__name__}: {refused}): it "
            "seems to hold more than weights, and nothing that could execute code is loaded. If "
            "you trust the file, load it elsewhere and save {'model': state_dict} alone"
        )
    return (
        f"'{path}' cannot be read as a checkpoint ({one_line(error)}); expected safetensors, a "
        "TorchScript archive, or a state dict of plain tensors. Is the file complete?"
    )


def _unwrap(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by key, without their container."""
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
    """Remove the prefix of data-parallel training, if all keys have it."""
    if not all(key.startswith("module.") for key in state):
        return state
    return {key.removeprefix("module."): value for key, value in state.items()}


def describe_checkpoint(state: Mapping[str, Tensor]) -> str:
    """Return the kind of checkpoint that the keys indicate, for error texts."""
    for kind, marks in _KINDS:
        if any(mark in key for key in state for mark in marks):
            return f"a checkpoint of {kind}"
    return f"nothing known (keys: {few(state, limit=3)})" if state else "a file without weights"


@contextlib.contextmanager
def private_rng(seed: int) -> Iterator[None]:
    """Seed the CPU generator inside the block; restore the caller's state afterwards."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would reseed the accelerators too, which are not forked.
        torch.default_generator.manual_seed(seed)
        yield


def skip_weight_init() -> TorchFunctionMode:
    """Return a context that skips the random initialisation of weights.

    For weights that a file replaces. Whole functions of `torch.nn.init` are skipped, in this
    thread. What they call, such as `Tensor.normal_`, still draws: rejection sampling as in
    `trunc_normal_` would otherwise not end.
    """
    return _SkipWeightInit()


class _SkipWeightInit(TorchFunctionMode):
    SKIPPED = (init.normal_, init.uniform_, init.kaiming_normal_, init.kaiming_uniform_)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return the tensor of a skipped function unchanged; call all others."""
        kwargs = kwargs or {}
        if func not in self.SKIPPED:
            return func(*args, **kwargs)
        return args[0] if args else kwargs["tensor"]


def warn_framed(mark: str, *lines: str) -> None:
    """Log a warning as `lines` in a frame of the character `mark`."""
    width = max(map(len, lines))
    bar = mark * (width + 4)
    body = "\n".join(f"{mark} {line:<{width}} {mark}" for line in lines)
    logger.warning("\n%s\n%s\n%s", bar, body, bar)
