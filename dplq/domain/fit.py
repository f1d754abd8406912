"""Strict loading of an encoder's checkpoint: every key is used or listed as unused."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from dplq.domain.layouts import as_published, timm_filtered
from dplq.domain.recipes import CheckpointFormat
from dplq.errors import UserError, few
from dplq.io.weights import describe_checkpoint, naming_prefix, without_wrapper
from dplq.models.strict import check_finite, is_counter

logger = logging.getLogger(__name__)
KERNEL = "patch_embed.proj.weight"
HEADS = ("head", "fc", "classifier", "attn_pool")  # what follows an encoder in its file


def load_strict(
    model: nn.Module, state: Mapping[str, Tensor], form: CheckpointFormat, *, name: str, path: str
) -> None:
    """Load `state` into `model`: every key is used or listed as unused, none is missing.

    Counters of training steps may be missing: no feature depends on them.

    Args:
        model: the timm model.
        state: tensors by the file's own keys.
        form: format of the file.
        name: the encoder's name, for messages.
        path: the file, for messages.

    Raises:
        UserError: the file does not fit, which says what it looks like, or holds nan or infinite
            values.
    """
    own = model.state_dict()
    state, removed = without_wrapper(
        as_published(state, path),
        own,
        path,
        rename=form.model_key,
        ignored=lambda key: key.startswith(form.unused),
    )
    with naming_prefix(removed):
        fitting = _fit(model, state, form, name=name, path=path)
    check_finite(fitting, path)
    model.load_state_dict(fitting)


def _fit(
    model: nn.Module, state: Mapping[str, Tensor], form: CheckpointFormat, *, name: str, path: str
) -> dict[str, Tensor]:
    """Return the tensors of a file for every key of a model; arguments as for `_load_strict`."""
    own = model.state_dict()
    given = {k: v for k, v in own.items() if is_counter(k)}
    given |= {form.model_key(k): v for k, v in state.items()}
    unknown = [k for k in given if k not in own and not k.startswith(form.unused)]
    missing = [k for k in own if k not in given]
    other = [k for k in own if k in given and given[k].shape != own[k].shape]
    if not (unknown or missing or other):
        return _taken(given, own, path)
    if not (unknown or missing):
        positions = _resampled_positions(model, given, other, name=name, path=path)
        if positions is not None:
            return _taken(given, own, path) | positions
    converted = _converted(model, given, form, name=name, path=path)
    if converted is not None:
        return converted
    kind = describe_checkpoint(state)
    parts = [
        f"'{path}' does not fit domain encoder '{name}'. It looks like {kind}; "
        f"expected {form.expected}"
    ]
    sizes = _vit_size(given), _vit_size(own)
    if all(sizes) and sizes[0] != sizes[1]:
        parts.append(f"The file is {sizes[0]}; {name} is {sizes[1]}")
    else:
        sides = _two_sides(model, given, name)
        parts += [sides] if sides else []
        parts += [
            f"{k} is {tuple(given[k].shape)} in the file and {tuple(own[k].shape)} in the model"
            for k in other[:1]
        ]
        parts += [f"Missing: {few(missing, limit=3)}"] if missing else []
        parts += [f"Unknown: {few(unknown, limit=3)}"] if unknown else []
    if any(k.startswith("decoder_embed.") for k in missing):
        parts.append("Without MAE's decoder in the file only feature 'encoder' is available")
    raise UserError(". ".join(parts))


def _taken(given: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Return what a model needs of a file's tensors; log which heads it does not need."""
    heads = [key for key in given if key not in own and key.split(".")[0] in HEADS]
    if heads:
        logger.info("%s: what follows the encoder is left out (%s)", path, few(heads))
    return {key: given[key] for key in own}


def _converted(
    model: nn.Module, given: Mapping[str, Tensor], form: CheckpointFormat, *, name: str, path: str
) -> dict[str, Tensor] | None:
    """Return the model's tensors after timm's conversion; None where they still do not fit."""
    own = model.state_dict()
    if KERNEL in given and KERNEL in own and given[KERNEL].shape != own[KERNEL].shape:
        return None  # timm would resample the patches' kernel
    found = timm_filtered(model, given, path)
    if found is None:
        return None
    kept = {k: v for k, v in found.items() if k in own or not k.startswith(form.unused)}
    if set(kept) != set(own):
        return None
    other = [k for k in own if kept[k].shape != own[k].shape]
    positions = _resampled_positions(model, kept, other, name=name, path=path)
    return None if positions is None else kept | positions


def _resampled_positions(
    model: nn.Module, given: Mapping[str, Tensor], other: list[str], *, name: str, path: str
) -> dict[str, Tensor] | None:
    """Return the file's position embeddings at the model's image size; log that.

    Args:
        model: the timm model.
        given: the file's tensors by the model's keys.
        other: keys of tensors whose shapes differ.
        name: the encoder's name, for messages.
        path: the file, for messages.

    Returns:
        Tensors for all of `other`; None where one of them is not the positions of a square grid.
    """
    own, found = model.state_dict(), {}
    if other and "pos_embed" not in other:
        return None
    for key in other:
        if key.endswith((".rel_pos_h", ".rel_pos_w")):
            found[key] = _resampled_distances(given[key], own[key])
        elif key == "pos_embed" and given[key].ndim == 4:
            found[key] = _resampled_map(given[key], own[key])
        else:
            tokens = _resampled_tokens(model, given[key], own[key]) if key == "pos_embed" else None
            if tokens is None:
                return None
            found[key] = tokens
    if found:
        counts = [state["pos_embed"].shape[1:-1].numel() for state in (given, own)]
        logger.warning(
            "'%s': %s. Its %d position embeddings are resampled to %d, bicubically as timm does",
            *(path, _two_sides(model, given, name), *counts),
        )
    return found


def _resampled_tokens(model: nn.Module, theirs: Tensor, ours: Tensor) -> Tensor | None:
    """Return a ViT's positions (1, N, d) at the model's size; None where they are no square grid.

    timm's way: the tokens before the patches keep theirs, the square grid is resampled bicubically.
    """
    from timm.layers import resample_abs_pos_embed

    grid = _grid(model)
    if grid is None or theirs.ndim != 3 or ours.ndim != 3:
        return None
    before = ours.shape[1] - grid[0] * grid[1]
    side = math.isqrt(max(theirs.shape[1] - before, 0))
    if theirs.shape[2] != ours.shape[2] or not side or side**2 + before != theirs.shape[1]:
        return None
    return resample_abs_pos_embed(theirs.float(), list(grid), num_prefix_tokens=before)


def _resampled_map(theirs: Tensor, ours: Tensor) -> Tensor:
    """Return SAM's positions (1, H, W, d) at the model's size, bicubically."""
    from timm.layers import resample_abs_pos_embed_nhwc

    return resample_abs_pos_embed_nhwc(theirs.float(), list(ours.shape[1:3]))


def _resampled_distances(theirs: Tensor, ours: Tensor) -> Tensor:
    """Return SAM's relative positions (2 N - 1, d) for another N, linearly as SAM itself does."""
    rows = theirs.float().T[None]
    return F.interpolate(rows, size=len(ours), mode="linear")[0].T.contiguous()


def _grid(model: nn.Module) -> tuple[int, int] | None:
    """Return height and width of a ViT's grid of patches; None for another architecture."""
    return getattr(getattr(model, "patch_embed", None), "grid_size", None)


def _two_sides(model: nn.Module, given: Mapping[str, Tensor], name: str) -> str:
    """Say which images the file's and the model's positions are for; "" where it is not clear."""
    own, grid = model.state_dict(), _grid(model)
    positions = own.get("pos_embed")
    before = 0
    if grid is not None and positions is not None and positions.ndim == 3:
        before = positions.shape[1] - grid[0] * grid[1]
    file, ours = _image_side(given, before), _image_side(own, before)
    if not file or not ours:
        return ""
    return f"The file is for {file}x{file}-pixel images; {name} runs at {ours}x{ours}"


def _image_side(state: Mapping[str, Tensor], before: int) -> int:
    """Return the side in pixels of the images that a ViT's positions are for; 0: not clear.

    Args:
        state: with positions (1, N, d) of a square grid and the tokens before it, or (1, H, W, d)
            (SAM).
        before: the number of those tokens (class, registers) that have a position.
    """
    kernel, positions = state.get(KERNEL), state.get("pos_embed")
    if kernel is None or positions is None or positions.ndim not in (3, 4):
        return 0
    if positions.ndim == 4:
        return positions.shape[1] * kernel.shape[-1]
    count = max(positions.shape[1] - before, 0)
    side = math.isqrt(count)
    return side * kernel.shape[-1] if side**2 == count else 0


def _vit_size(state: Mapping[str, Tensor]) -> str:
    """Describe a ViT by width, depth and patch; empty for another architecture."""
    kernel = state.get(KERNEL)
    blocks = {k.split(".")[1] for k in state if k.startswith("blocks.")}
    if kernel is None or kernel.ndim != 4 or not blocks:
        return ""
    return f"a ViT of width {kernel.shape[0]}, {len(blocks)} blocks, patch {kernel.shape[-1]}"
