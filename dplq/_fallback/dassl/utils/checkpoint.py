"""Saving and loading checkpoints.

A checkpoint is a dict with "state_dict", "epoch" and, for training, "optimizer", "scheduler" and
"val_result". Its file is ``<folder>/model.pth.tar-<epoch>`` or ``<folder>/model-best.pth.tar``; the
text file ``<folder>/checkpoint`` holds the name of the one written last.
"""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler

from .errors import InputError, MissingFileError
from .files import atomic_write

POINTER = "checkpoint"
BEST = "model-best.pth.tar"


def model_file(epoch: int | None = None) -> str:
    """Return the file name for an epoch, or the best model's for None."""
    return BEST if epoch is None else f"model.pth.tar-{epoch}"


def save_checkpoint(
    state: Mapping[str, Any],
    save_dir: str,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Write a checkpoint and point ``<save_dir>/checkpoint`` to it.

    Args:
        state: must hold "state_dict" and "epoch" (1-based).
        save_dir: folder, created if missing.
        is_best: also copy it to ``model-best.pth.tar``.
        remove_module_from_keys: strip DataParallel's "module." from the names.
        model_name: file name; default ``model.pth.tar-<epoch>``.
    """
    plain = _plain(state)
    if remove_module_from_keys:
        plain["state_dict"] = _strip_module(plain["state_dict"])
    name = model_name or model_file(plain["epoch"])
    fpath = os.path.join(save_dir, name)
    with atomic_write(fpath) as temporary:
        torch.save(plain, temporary)
    print(f"Checkpoint saved to {fpath}")

    with atomic_write(os.path.join(save_dir, POINTER)) as temporary, open(temporary, "w") as file:
        file.write(f"{name}\n")

    if is_best:
        best = os.path.join(save_dir, BEST)
        with atomic_write(best) as temporary:
            shutil.copy(fpath, temporary)
        print(f'Best checkpoint saved to "{best}"')


def _plain(value: Any) -> Any:
    """Replace NumPy numbers and special dicts, which a safe load refuses."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value


def _strip_module(state_dict: Mapping[str, Any]) -> OrderedDict[str, Any]:
    return OrderedDict((name.removeprefix("module."), item) for name, item in state_dict.items())


def load_checkpoint(fpath: str | None) -> dict[str, Any]:
    """Read a checkpoint into CPU memory; only known, harmless objects are built.

    Checkpoints of the real Dassl are read as well: those with a warm-up hold PyTorch scheduler
    and optimiser objects, which are allowed by name (PyTorch 2.5 or newer).

    Raises:
        MissingFileError: there is no such file (a FileNotFoundError).
        InputError: it cannot be read, or holds objects that are not allowed.
    """
    if fpath is None:
        raise InputError("no checkpoint path was given")
    if not os.path.exists(fpath):
        raise MissingFileError(f"no checkpoint at {fpath}")
    try:
        with _dassl_objects_allowed():
            return torch.load(fpath, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        # PyTorch's own text advises weights_only=False
        raise InputError(
            f"cannot load the checkpoint {fpath}: it is damaged, or not a checkpoint, or holds "
            "objects other than tensors and plain values; save it again with those only"
        ) from error


def _dassl_objects_allowed() -> AbstractContextManager[None]:
    """Allow the classes that the real Dassl's checkpoints hold."""
    if not hasattr(torch.serialization, "safe_globals"):
        return nullcontext()
    schedulers = [lr_scheduler.CosineAnnealingLR, lr_scheduler.StepLR, lr_scheduler.MultiStepLR]
    optimisers = [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop]
    return torch.serialization.safe_globals([*schedulers, *optimisers, defaultdict, dict])


def resume_from_checkpoint(
    fdir: str, model: nn.Module, optimizer: Any = None, scheduler: Any = None
) -> int:
    """Load the checkpoint that ``<fdir>/checkpoint`` points to.

    Args:
        fdir: folder of one model.
        model: receives the weights.
        optimizer: its state is loaded if given and stored.
        scheduler: its state is loaded if given and stored.

    Returns:
        The number of finished epochs.
    """
    with open(os.path.join(fdir, POINTER)) as file:
        fpath = os.path.join(fdir, file.readline().strip())
    print(f'Loading checkpoint from "{fpath}"')
    checkpoint = load_checkpoint(fpath)
    model.load_state_dict(checkpoint["state_dict"])
    print("Loaded model weights")
    for name, target in (("optimizer", optimizer), ("scheduler", scheduler)):
        if target is not None and checkpoint.get(name) is not None:
            target.load_state_dict(checkpoint[name])
            print(f"Loaded {name}")
    print(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def load_pretrained_weights(model: nn.Module, weight_path: str) -> None:
    """Load those tensors of a checkpoint whose name and shape fit; print the names of the others.

    Args:
        model: receives the weights.
        weight_path: a checkpoint, or a file with a bare state dict.
    """
    checkpoint = load_checkpoint(weight_path)
    given = _strip_module(checkpoint.get("state_dict", checkpoint))
    own = model.state_dict()
    fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict({**own, **fitting})
    if not fitting:
        warnings.warn(f"no tensor of {weight_path} fits the model: check the names", stacklevel=2)
        return
    print(f"Successfully loaded pretrained weights from {weight_path}")
    left_out = [name for name in given if name not in fitting]
    if left_out:
        print(f"Left out (no such name, or another shape): {left_out}")
