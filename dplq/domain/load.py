"""Loading of domain encoders: timm builds them, public checkpoints are loaded strictly.

    encoder = load_domain_encoder("mae_vit_base_patch16", weights="vit-b-checkpoint-1599.pth")
    features = encoder(images)  # (B, 3, H, W), CLIP-normalised -> (B, encoder.feature_dim)

Names: the MAE, SAM and MedSAM architectures of `dplq.domain.recipes`, the models that are part of
this package, `clip` (CLIP's own image feature), any timm name, or `hf-hub:org/name`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from dplq.domain.encoder import CLIP_MEAN, CLIP_STD, ClipImageEncoder, DomainEncoder
from dplq.domain.recipes import (
    CLIP,
    FEATURES,
    NAMES,
    RECIPES,
    CheckpointFormat,
    Recipe,
    find_recipe,
)
from dplq.errors import UserError, few, nearest, one_line, shown, suggest
from dplq.io.files import file_digest
from dplq.io.spec import Spec
from dplq.io.validation.paths import user_path
from dplq.io.weights import (
    describe_checkpoint,
    is_torchscript,
    naming_prefix,
    private_rng,
    read_state_dict,
    skip_weight_init,
    warn_framed,
    without_wrapper,
)

if TYPE_CHECKING:
    from dplq.clip.backbone import Backbone

logger = logging.getLogger(__name__)
NORMALIZATIONS = ("native", "clip")

_HUB_PREFIXES = ("hf-hub:", "hf_hub:", "local-dir:")
_MAE_DECODER_WIDTH = 512  # of all three public MAE models
_DOWNLOAD_BY_HAND = (
    "Download the weights by other means and set weights (DOMAIN.WEIGHTS) to the local file"
)


def load_domain_encoder(
    name: str,
    *,
    weights: str = "",
    feature: str = "encoder",
    normalize: str = "native",
    pretrained: bool = True,
    backbone: Backbone | None = None,
    seed: int = 0,
) -> DomainEncoder:
    """Build a frozen domain encoder.

    Args:
        name: one of `dplq.domain.recipes.NAMES`, a timm name, or `hf-hub:org/name`.
        weights: a local checkpoint (.pth or .safetensors); `~` is the home folder. Empty: timm's
            own pretrained weights, which the published encoders of `NAMES` do not have.
        feature: "encoder", the mean of the encoder's (normalised) patch tokens or of its feature
            map; "decoder_embed" (MAE only), the same through MAE's decoder embedding.
        normalize: "native", what the encoder was trained with (`medsam_vit_base`: every image
            scaled to 0..1, as MedSAM_Inference.py does; `sam_vit_base`: SAM's pixel mean and std);
            "clip", the image unchanged (the reference's behaviour). `clip` always encodes the
            image unchanged.
        pretrained: False builds random weights (for tests), with a warning.
        backbone: CLIP; needed by `clip`. Its mean and std are what "native" undoes; without it
            OpenAI CLIP's are.
        seed: of the random weights.

    Raises:
        UserError: unknown name or value, weights that are not available or do not fit.
    """
    recipe = find_recipe(name)
    _check_arguments(name, recipe, weights, feature, normalize, pretrained)
    spec = Spec(
        name,
        weights=Path(weights).name,
        pretrained=pretrained,
        seed=seed,
        options={"feature": feature, "normalize": normalize},
    )
    if name == CLIP:
        return _load_clip(backbone, weights, spec)
    file = _weights_file(name, weights, recipe) if pretrained else None
    state = None if file is None else _read_checkpoint(file)
    if file is not None and weights:
        spec = replace(spec, sha256=file_digest(file))
    with private_rng(seed):
        if recipe:
            with nullcontext() if state is None else skip_weight_init():
                model = _create(name, recipe.timm_name, **recipe.model_args)
        else:
            model, recipe = _build_timm(name, download=pretrained and not weights)
        encoder = _build_encoder(model, recipe, spec, state, path=weights, backbone=backbone)
    if not pretrained:
        warn_framed(
            "*",
            f"Domain encoder '{name}' has RANDOM WEIGHTS (pretrained=False, seed {seed}).",
            "Its features carry no domain knowledge; results are good for tests only.",
        )
    return encoder


def _check_arguments(
    name: str, recipe: Recipe | None, weights: str, feature: str, normalize: str, pretrained: bool
) -> None:
    """Validate the arguments of `load_domain_encoder`; raise UserError."""
    _check_choice("feature", feature, FEATURES)
    _check_choice("normalize", normalize, NORMALIZATIONS)
    if feature not in (recipe.features if recipe else ("encoder",)):
        raise UserError(
            f"domain encoder '{name}' has no feature '{feature}': it is MAE's alone "
            f"({', '.join(n for n, r in RECIPES.items() if feature in r.features)}). "
            "Use feature 'encoder'"
        )
    if weights and not pretrained:
        raise UserError(
            f"domain encoder '{name}': weights '{weights}' and pretrained=False contradict each "
            "other; give one of them"
        )


def _check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise UserError if `value` is not one of `choices`."""
    if value not in choices:
        raise UserError(f"unknown domain {key} {shown(value)}.{suggest(value, choices)}")


def _weights_file(name: str, weights: str, recipe: Recipe | None) -> Path | None:
    """Return the local file of the pretrained weights; None: timm downloads them.

    Raises:
        UserError: a published encoder without `weights`.
    """
    if weights:
        return user_path(weights, "weights (DOMAIN.WEIGHTS)")
    if recipe and not recipe.weights:
        raise UserError(
            f"domain encoder '{name}' has no weights to download: set weights (DOMAIN.WEIGHTS) "
            f"to a local file, {recipe.checkpoint.expected}; or pretrained=False for random weights"
        )
    return recipe.weights if recipe else None


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a domain encoder's file, by key.

    Raises:
        UserError: no such file, OpenAI CLIP's, or as `read_state_dict`.
    """
    if not path.is_file():
        raise UserError(
            f"domain encoder weights '{path}': no such file. Set weights (DOMAIN.WEIGHTS) to a "
            "local checkpoint"
        )
    if is_torchscript(path):
        raise UserError(
            f"domain encoder weights '{path}' are a TorchScript archive; OpenAI CLIP's files are. "
            "Expected a state dict. CLIP's own feature is the domain encoder 'clip'"
        )
    return read_state_dict(path)


def _load_clip(backbone: Backbone | None, weights: str, spec: Spec) -> DomainEncoder:
    """Return CLIP's own image feature as a domain encoder."""
    if backbone is None:
        raise UserError("domain encoder 'clip' needs backbone=, the loaded CLIP backbone")
    if weights:
        raise UserError(
            f"domain encoder 'clip' has no weights of its own, got '{weights}': the backbone's "
            "are used. Leave weights empty"
        )
    model = ClipImageEncoder(backbone)
    return DomainEncoder(
        model, spec=spec, image_size=backbone.image_size, feature_dim=backbone.embed_dim
    )


def _create(name: str, timm_name: str, *, pretrained: bool = False, **model_args: Any) -> Any:
    """Build a timm model without classifier; raise UserError where timm cannot."""
    import timm

    try:
        return timm.create_model(timm_name, pretrained=pretrained, num_classes=0, **model_args)
    except Exception as error:  # the hub raises its HTTP client's own exceptions
        if pretrained:
            what, cure = "its weights cannot be downloaded", _DOWNLOAD_BY_HAND
        else:
            what = "timm cannot build it"
            cure = "Check the name; beside a local file give the architecture's timm name"
        raise UserError(f"domain encoder '{name}': {what} ({one_line(error)}). {cure}") from error


def _build_timm(name: str, *, download: bool) -> tuple[Any, Recipe]:
    """Build any timm or Hugging Face hub model; timm fetches the weights if `download`."""
    import timm

    hub = name.startswith(_HUB_PREFIXES)
    if not hub and not timm.is_model(name):
        choices = [*NAMES, *nearest(name, timm.list_models(), limit=5)]
        raise UserError(
            f"unknown domain encoder '{name}': not one of ours, not a timm name and not "
            f"'hf-hub:org/name'.{suggest(name, choices)}"
        )
    # timm only warns when there is nothing to download, and the weights stay random.
    if download and not hub and not timm.models.is_model_pretrained(name):
        raise UserError(f"timm has no pretrained weights for '{name}'. {_DOWNLOAD_BY_HAND}")
    model = _create(name, name, pretrained=download)
    data = timm.data.resolve_model_data_config(model)
    _, height, width = data["input_size"]
    if height != width:
        raise UserError(
            f"domain encoder '{name}' requires {height}x{width} images; only square ones are "
            "supported: choose another encoder"
        )
    recipe = Recipe(
        name, _timm_format(name, model), height, mean=tuple(data["mean"]), std=tuple(data["std"])
    )
    return model, recipe


def _timm_format(name: str, model: Any) -> CheckpointFormat:
    """Return timm's own format: the model's keys, and a classifier that is ignored."""
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return CheckpointFormat(
        expected=f"timm's own state dict of {name}", unused=tuple(f"{head}." for head in heads)
    )


def _build_encoder(
    model: Any,
    recipe: Recipe,
    spec: Spec,
    state: Mapping[str, Tensor] | None,
    *,
    path: str = "",
    backbone: Backbone | None = None,
) -> DomainEncoder:
    """Load `state` strictly into a timm model and wrap it as a `DomainEncoder`.

    Args:
        model: built, without classifier.
        recipe: its checkpoint format, input size and input statistics.
        spec: of the encoder.
        state: the checkpoint's tensors; None keeps the model's weights.
        path: the checkpoint's file, for messages.
        backbone: whose normalisation the images carry; None: OpenAI CLIP's.
    """
    projection = None
    if spec.options["feature"] == "decoder_embed":
        kernel = (state or {}).get("decoder_embed.weight")
        width = _MAE_DECODER_WIDTH if kernel is None else kernel.shape[0]
        # Attached while loading, so that the strict check covers it.
        projection = model.decoder_embed = nn.Linear(model.num_features, width)
    if state is not None:
        _load_strict(model, state, recipe.checkpoint, name=spec.name, path=path)
    if projection is not None:
        del model.decoder_embed
    native = spec.options["normalize"] == "native"
    return DomainEncoder(
        model,
        spec=spec,
        image_size=recipe.image_size,
        feature_dim=projection.out_features if projection else model.num_features,
        mean=recipe.mean if native else None,
        std=recipe.std if native else None,
        min_max=recipe.min_max and native,
        projection=projection,
        image_mean=backbone.image_mean if backbone is not None else CLIP_MEAN,
        image_std=backbone.image_std if backbone is not None else CLIP_STD,
    )


def _load_strict(
    model: nn.Module, state: Mapping[str, Tensor], form: CheckpointFormat, *, name: str, path: str
) -> None:
    """Load `state` into `model`: every key is used or listed as unused, none is missing.

    Args:
        model: the timm model.
        state: tensors by the file's own keys.
        form: format of the file.
        name: the encoder's name, for messages.
        path: the file, for messages.

    Raises:
        UserError: the file does not fit; says what it looks like.
    """
    own = model.state_dict()
    state, removed = without_wrapper(
        state, own, path, rename=form.model_key, ignored=lambda key: key.startswith(form.unused)
    )
    with naming_prefix(removed):
        fitting = _fit(model, state, form, name=name, path=path)
    model.load_state_dict(fitting)


def _fit(
    model: nn.Module, state: Mapping[str, Tensor], form: CheckpointFormat, *, name: str, path: str
) -> dict[str, Tensor]:
    """Return the tensors of a file for every key of a model; arguments as for `_load_strict`."""
    own = model.state_dict()
    given = {form.model_key(k): v for k, v in state.items()}
    unknown = [k for k in given if k not in own and not k.startswith(form.unused)]
    missing = [k for k in own if k not in given]
    other = [k for k in own if k in given and given[k].shape != own[k].shape]
    if not (unknown or missing or other):
        return {k: given[k] for k in own}
    if not (unknown or missing) and other == ["pos_embed"]:
        positions = _resampled_positions(model, given, name=name, path=path)
        if positions is not None:
            return {k: given[k] for k in own} | {"pos_embed": positions}
    kind = describe_checkpoint(state)
    parts = [
        f"'{path}' does not fit domain encoder '{name}'. It looks like {kind}; "
        f"expected {form.expected}"
    ]
    sizes = _vit_size(given), _vit_size(own)
    if all(sizes) and sizes[0] != sizes[1]:
        parts.append(f"The file is {sizes[0]}; {name} is {sizes[1]}")
    else:
        parts += [_two_sides(given, own, name)] if _image_side(given) and _image_side(own) else []
        parts += [
            f"{k} is {tuple(given[k].shape)} in the file and {tuple(own[k].shape)} in the model"
            for k in other[:1]
        ]
        parts += [f"Missing: {few(missing, limit=3)}"] if missing else []
        parts += [f"Unknown: {few(unknown, limit=3)}"] if unknown else []
    if any(k.startswith("decoder_embed.") for k in missing):
        parts.append("Without MAE's decoder in the file only feature 'encoder' is available")
    raise UserError(". ".join(parts))


def _resampled_positions(
    model: nn.Module, given: Mapping[str, Tensor], *, name: str, path: str
) -> Tensor | None:
    """Return the file's position embeddings at the model's image size; log that.

    timm's way: the tokens before the patches keep theirs, the square grid is resampled bicubically.

    Returns:
        (1, N, d); None where these are not the positions of a square grid.
    """
    from timm.layers import resample_abs_pos_embed

    own = model.state_dict()
    theirs, ours = given.get("pos_embed"), own.get("pos_embed")
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if theirs is None or ours is None or grid is None or theirs.ndim != 3 or ours.ndim != 3:
        return None
    before = ours.shape[1] - grid[0] * grid[1]
    side = math.isqrt(max(theirs.shape[1] - before, 0))
    if theirs.shape[2] != ours.shape[2] or not side or side**2 + before != theirs.shape[1]:
        return None
    logger.warning(
        "'%s': %s. Its %d position embeddings are resampled to %d, bicubically as timm does",
        *(path, _two_sides(given, own, name), theirs.shape[1], ours.shape[1]),
    )
    return resample_abs_pos_embed(theirs.float(), list(grid), num_prefix_tokens=before)


def _two_sides(given: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str) -> str:
    file, model = _image_side(given), _image_side(own)
    return f"The file is for {file}x{file}-pixel images; {name} runs at {model}x{model}"


def _image_side(state: Mapping[str, Tensor]) -> int:
    """Return the side in pixels of the images that a ViT's positions are for; 0: not clear.

    The positions are (1, N, d), N being a square or one more, or (1, H, W, d) (SAM).
    """
    kernel, positions = state.get("patch_embed.proj.weight"), state.get("pos_embed")
    if kernel is None or positions is None or positions.ndim not in (3, 4):
        return 0
    count = positions.shape[1]
    side = count if positions.ndim == 4 else math.isqrt(count)
    is_grid = positions.ndim == 4 or count - side**2 in (0, 1)
    return side * kernel.shape[-1] if is_grid else 0


def _vit_size(state: Mapping[str, Tensor]) -> str:
    """Describe a ViT by width, depth and patch; empty for another architecture."""
    kernel = state.get("patch_embed.proj.weight")
    blocks = {k.split(".")[1] for k in state if k.startswith("blocks.")}
    if kernel is None or kernel.ndim != 4 or not blocks:
        return ""
    return f"a ViT of width {kernel.shape[0]}, {len(blocks)} blocks, patch {kernel.shape[-1]}"
