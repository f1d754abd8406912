"""Weights of frozen models: safe reading of public files, random initialisation.

No model is known here; `dplq.clip.load` and `dplq.domain.load` load what `read_state_dict`
returns, each for its own architectures. They share the means of initialisation too: a private
generator for random weights, and none where a file replaces them.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import logging
import os
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from dplq.errors import UserError, few, one_line, shown
from dplq.io.containers import unwrap
from dplq.io.file_kind import is_safetensors, not_weights

logger = logging.getLogger(__name__)
_Global = Callable[..., Any] | tuple[Callable[..., Any], str]  # as torch.serialization has it

# Names that torch's data-parallel and compiled modules put into a key, at any place.
TORCH_WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)
MIN_KEYS = 20  # fewer than half of these say nothing about a prefix

# What loads a checkpoint, for error texts.
_CLIP = (
    "load_backbone loads it by the name of its own architecture (MODEL.BACKBONE.NAME), or as "
    "local-dir:FOLDER with its config beside it"
)
_ENCODER = "load_domain_encoder loads it (DOMAIN.ENCODER, DOMAIN.WEIGHTS)"
_LEARNED = "dplq.load loads it, into the CLIP that it was trained with"
_NOTHING = "nothing here loads it"

# The first kind with a key that contains one of its marks is reported.
_KINDS = (
    ("SAM / MedSAM", ("image_encoder.", "mask_decoder."), _ENCODER),
    ("MAE", ("decoder_embed.", "decoder_blocks."), _ENCODER),
    ("OpenAI CLIP", ("input_resolution", "context_length"), _CLIP),
    ("learned prompts", ("prompt_learner.",), _LEARNED),
    ("LoRA weights", (".lora_", "lora_A"), _NOTHING),
    ("Hugging Face SigLIP", ("vision_model.head.probe",), _CLIP),
    ("Hugging Face CLIP", ("vision_model.", "visual_projection."), _CLIP),
    ("CONCH", ("visual.attn_pool_contrast.",), _CLIP),
    ("CoCa", ("text_decoder.",), _CLIP),
    ("open_clip, with an image tower of timm", ("visual.trunk.",), _CLIP),
    ("open_clip, with a ResNet", ("visual.layer1.",), _CLIP),
    ("open_clip, with a text tower of Hugging Face", ("text.transformer.embeddings.",), _CLIP),
    ("open_clip", ("visual.",), _CLIP),
    ("DINO", ("teacher.", "student.", "head.last_layer", "dino_head"), _ENCODER),
    ("DINOv2", ("register_tokens", "blocks.0.ls1."), _ENCODER),
    ("timm ViT or MAE encoder", ("blocks.0.attn.qkv.",), _ENCODER),
    ("Hugging Face ViT or DINOv2", ("encoder.layer.0.attention.attention.",), _ENCODER),
    ("BERT", ("encoder.layer.0.attention.self.",), _NOTHING),
    ("ResNet", ("layer1.0.conv1.",), _ENCODER),
)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, on the CPU, without executing code in it.

    Safetensors, TorchScript archives (as OpenAI publishes CLIP), and `torch.save` files that hold a
    state dict or one in containers (`dplq.io.containers`). Beside the weights a file may hold plain
    values and an `argparse.Namespace`. For prefixes of the keys see `without_wrapper`.

    Returns:
        Tensors by key. Those of an unknown container are named "outer.inner", so that
        `describe_checkpoint` can recognise it.

    Raises:
        UserError: not such a file, or it holds other objects, or a tensor is no plain one.
    """
    return unwrap(read_content(path), path)


def read_content(
    path: str | os.PathLike[str],
    extra: Sequence[Callable[..., Any]] = (),
    container: str = "model",
) -> Mapping[str, Any]:
    """Read the whole content of a checkpoint, on the CPU, without executing code in it.

    Args:
        path: a file as for `read_state_dict`.
        extra: classes, or substitutes with their `__module__` and `__name__`, that a
            `torch.save` file may hold beside tensors and plain values.
        container: name under which the caller finds a state dict, for messages.

    Raises:
        UserError: as for `read_state_dict`.
    """
    path = Path(path)
    try:
        content = _read(path, extra)
    except UserError:  # says it already
        raise
    except Exception as error:  # torch, zipfile and safetensors each have their own
        raise UserError(_why_unreadable(path, error, container)) from error
    if not isinstance(content, Mapping):
        raise UserError(f"'{path}' holds a {type(content).__name__}, expected a state dict")
    return content


def _refuse_code(path: Path) -> None:
    """Refuse (UserError) a TorchScript archive with a class that runs code when it is opened.

    It is read by torch's own reader, which sees the members that torch would load.
    """
    archive = torch._C.PyTorchFileReader(str(path))
    for name in archive.get_all_records():
        if name.startswith("code/") and b"__setstate__" in archive.get_record(name):
            raise UserError(
                f"'{path}' is not loaded: it is a TorchScript archive that runs code when it is "
                f"opened (__setstate__ in {name}). If you trust the file, load it elsewhere and "
                "save its state_dict alone"
            )


def _read(path: Path, extra: Sequence[Callable[..., Any]]) -> Any:
    """Return the deserialised content of a file, of any type."""
    if path.suffix == ".safetensors" or is_safetensors(path):
        from safetensors.torch import load_file

        return load_file(path)
    if is_torchscript(path):
        # Its pickles hold tensors and TorchScript classes only, whose `__setstate__` would run.
        _refuse_code(path)
        with warnings.catch_warnings():
            # torch.jit is deprecated, but OpenAI publishes CLIP in no other format.
            warnings.simplefilter("ignore")
            return torch.jit.load(str(path), map_location="cpu").state_dict()
    is_zip = zipfile.is_zipfile(path)
    # Memory-mapped where possible, so that an optimizer's state beside the weights is not read.
    with _allow_globals([argparse.Namespace, *_numpy_numbers(), *extra]):
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)


def is_torchscript(path: Path) -> bool:
    """Return whether the file is a TorchScript archive; a `torch.save` file has no constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(member.endswith("/constants.pkl") for member in archive.namelist())


def _numpy_numbers() -> list[_Global]:
    """Return what numpy's numbers are pickled with: training loops keep accuracies as such.

    They are constructed from a type and bytes; the type of Python objects is not among them.
    """
    types = {type(np.dtype(kind)) for kind in ("bool", *np.typecodes["AllInteger"], *"efd")}
    scalars = map(_numpy_scalar, ("numpy.core", "numpy._core"))
    return [np.dtype, *types, *scalars, codecs.encode]  # bytes; later torch allows it by itself


def _numpy_scalar(package: str) -> Callable[..., Any]:
    """Return numpy's constructor of numbers under the name that a version of numpy pickles."""
    construct: Any = np.float64(0).__reduce__()[0]

    def scalar(kind: np.dtype, content: bytes) -> Any:
        return construct(kind, content)

    scalar.__module__, scalar.__qualname__ = f"{package}.multiarray", "scalar"
    return scalar


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
    before = list(serialization.get_safe_globals())  # a copy: the list itself grows
    serialization.add_safe_globals(classes)
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def _why_unreadable(path: Path, error: Exception, container: str) -> str:
    """Return an error text: the file is something else, holds refused objects, or is damaged."""
    problem = not_weights(path) if path.is_file() else ""
    if problem:
        return f"'{path}' {problem}"
    if path.suffix == ".safetensors" and zipfile.is_zipfile(path):
        return f"'{path}' is a file of torch.save, not safetensors: rename it to end in .pt"
    refused = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "")
    if refused:
        return (
            f"'{path}' cannot be read as a checkpoint ({type(error).__name__}: "
            f"{refused.partition('. ')[0]}): it "
            "seems to hold more than weights, and nothing that could execute code is loaded. If "
            f"you trust the file, load it elsewhere and save {{'{container}': state_dict}} alone"
        )
    return (
        f"'{path}' cannot be read as a checkpoint ({_first_sentence(error)}); expected "
        "safetensors, a TorchScript archive, or a state dict of plain tensors. Is the file "
        "complete?"
    )


def _first_sentence(error: Exception) -> str:
    """Return an exception's class, and of its message, which may be pages, the first sentence."""
    return one_line(error).partition(". ")[0].rstrip(" .:")


def without_wrapper(
    state: Mapping[str, Tensor],
    own: Collection[str],
    path: str | os.PathLike[str],
    *,
    rename: Callable[[str], str] = str,
    ignored: Callable[[str], bool] = lambda key: False,
) -> tuple[dict[str, Tensor], str]:
    """Return a state dict without the prefix that wrappers of the model gave its keys.

    Removed are the names of torch's own wrappers, and the prefix (`model.`, `clip.`, `teacher.`,
    `encoder.`, ...) below which most of the model's keys are found. What is removed is logged.

    Args:
        state: tensors by the file's keys.
        own: the model's keys.
        path: the file, for messages.
        rename: the model's key for a key of the file that has no prefix.
        ignored: whether a key of the file need not be the model's.

    Returns:
        The tensors, and the prefix that was removed ("" for none).

    Raises:
        UserError: the model is in the file more than once, or other keys stand beside it.
    """
    short = {_without_torch_wrappers(key): key for key in state}
    if len(short) < len(state) or any(TORCH_WRAPPERS & set(key.split(".")) for key in own):
        short = {key: key for key in state}
    below: dict[str, set[str]] = defaultdict(set)
    for key in short:
        for prefix, rest in _cuts(key):
            if rename(rest) in own:
                below[prefix].add(rest)
    prefix = _best_prefix(below, enough=min(len(own), max(len(state), MIN_KEYS)) / 2, path=path)
    if not prefix and all(new == old for new, old in short.items()):
        return dict(state), ""
    beside = [key for key in short if not key.startswith(prefix) and not ignored(key)]
    if beside:
        raise UserError(
            f"'{path}': its keys carry the prefix '{prefix}', except for {len(beside)} that belong "
            f"to something else ({few(beside, limit=3)}). Save the weights below that prefix "
            "alone, as {'model': state_dict}"
        )
    removed = _as_in_file(prefix, short)
    logger.info("%s: its keys carry the prefix '%s', which is removed", path, removed)
    return {key.removeprefix(prefix): state[old] for key, old in short.items()}, removed


def _without_torch_wrappers(key: str) -> str:
    *path, leaf = key.split(".")
    return ".".join([*(name for name in path if name not in TORCH_WRAPPERS), leaf])


def _cuts(key: str) -> Iterator[tuple[str, str]]:
    """Yield every (prefix, rest) of a key, from no prefix on; a prefix ends with its full stop."""
    names = key.split(".")
    for at in range(len(names)):
        rest = ".".join(names[at:])
        yield key[: len(key) - len(rest)], rest


def _best_prefix(
    below: Mapping[str, Collection[str]], enough: float, path: str | os.PathLike[str]
) -> str:
    """Return the shortest prefix with most of the model's keys; "" where none has enough.

    Raises:
        UserError: another has as many, of another copy of the model.
    """
    most = max(map(len, below.values()), default=0)
    best = [prefix for prefix, keys in below.items() if len(keys) == most]
    shortest = min(best, key=len, default="")
    if most < enough or not shortest:
        return ""
    # One that begins with another has the same keys: SAM's `model.` and `model.image_encoder.`.
    copies = [p for p in best if not any(p != other and p.startswith(other) for other in best)]
    if len(copies) > 1:
        raise UserError(
            f"'{path}' holds the model {len(copies)} times, with the prefixes "
            f"{' and '.join(repr(copy) for copy in copies)}: save the weights of one of them "
            "alone, as {'model': state_dict}"
        )
    return shortest


def _as_in_file(prefix: str, short: Mapping[str, str]) -> str:
    """Return a prefix as the file spells it, torch's wrappers included.

    Args:
        prefix: of the short keys.
        short: the file's keys by the same without torch's wrappers.
    """
    new, old = next((new, old) for new, old in short.items() if new != old or prefix)
    rest = new.removeprefix(prefix)
    if old.endswith(rest):
        return old.removesuffix(rest)
    return ".".join([*(name for name in old.split(".") if name in TORCH_WRAPPERS), prefix])


@contextlib.contextmanager
def naming_prefix(removed: str) -> Iterator[None]:
    """Add to a UserError inside the block which prefix `without_wrapper` has removed."""
    try:
        yield
    except UserError as error:
        if not removed:
            raise
        raise UserError(f"{error} (without the prefix '{removed}' of its keys)") from error


def describe_checkpoint(state: Mapping[str, Tensor]) -> str:
    """Return the kind of checkpoint that the keys indicate, for error texts."""
    kind, _ = _kind(state)
    if kind:
        return f"a checkpoint of {kind}"
    return f"nothing known (keys: {few(state, limit=3)})" if state else "a file without weights"


def loaded_by(state: Mapping[str, Tensor]) -> str:
    """Return what loads such a checkpoint, a clause for error texts."""
    return _kind(state)[1]


def _kind(state: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return the kind of checkpoint, and what loads it; "" for an unknown kind."""
    for kind, marks, loader in _KINDS:
        if any(mark in key for key in state for mark in marks):
            return kind, loader
    return "", "save the weights alone, as {'model': state_dict}"


@contextlib.contextmanager
def private_rng(seed: int) -> Iterator[None]:
    """Seed the CPU generator inside the block; restore the caller's state afterwards.

    Raises:
        UserError: the seed is no whole number in the range of a checkpoint's header.
    """
    is_whole = isinstance(seed, Integral) and not isinstance(seed, bool)
    if not is_whole or not 0 <= seed < 2**63:
        raise UserError(f"seed is {shown(seed)}; it must be a whole number from 0 to 2**63 - 1.")
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would reseed the accelerators too, which are not forked.
        torch.default_generator.manual_seed(int(seed))
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
