"""Loading of domain encoders: timm builds them, public checkpoints are loaded strictly.

    encoder = load_domain_encoder("mae_vit_base_patch16", weights="vit-b-checkpoint-1599.pth")
    features = encoder(images)  # (B, 3, H, W), CLIP-normalised -> (B, encoder.feature_dim)

Names: the published encoders of `dplq.domain.recipes`, the models that are part of this package,
those of `dplq models list`, `clip` (CLIP's own image feature), any timm name, `hf-hub:org/name`,
or `local-dir:FOLDER`. A list of names concatenates the features.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from dplq.clip.activation import warn_of_encoder_activation
from dplq.domain.arguments import Changes
from dplq.domain.build import build_recipe, build_repository, build_timm, download_timm_weights
from dplq.domain.encoder import CLIP_MEAN, CLIP_STD, ClipImageEncoder, DomainEncoder
from dplq.domain.fit import load_strict
from dplq.domain.joint import JointEncoder
from dplq.domain.pooling import EARLIER, check_pool, differs_from_earlier
from dplq.domain.positions import set_positions
from dplq.domain.published import resolve_published
from dplq.domain.recipes import (
    CLIP,
    FEATURES,
    PUBLISHED_FILES,
    RECIPES,
    WITHOUT_STATISTICS,
    Recipe,
    find_recipe,
)
from dplq.domain.repository import (
    Repository,
    content_digest,
    find_repository,
    is_repository,
)
from dplq.errors import UserError, few, shown, suggest
from dplq.io.files import json_digest
from dplq.io.spec import Places, Spec, as_texts
from dplq.io.validation.paths import user_path
from dplq.io.weights import (
    is_torchscript,
    private_rng,
    read_state_dict,
    skip_weight_init,
    warn_framed,
)
from dplq.models.catalogue import catalogue, published
from dplq.models.weights import require_weights

if TYPE_CHECKING:
    from dplq.clip.backbone import Backbone

logger = logging.getLogger(__name__)
NORMALIZATIONS = ("native", "clip")
NO_CHANGES: dict[str, Any] = {"mean": (), "std": (), "image_size": 0, "pool": "", "args": ""}

_MAE_DECODER_WIDTH = 512  # of all three public MAE models


def load_domain_encoder(
    name: str | Sequence[str],
    *,
    weights: Places = "",
    feature: str = "encoder",
    normalize: str = "native",
    pretrained: bool = True,
    backbone: Backbone | None = None,
    seed: int = 0,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    image_size: int = 0,
    pool: str = "",
    args: str | Mapping[str, Any] = "",
) -> DomainEncoder:
    """Build a frozen domain encoder.

    Args:
        name: one of `dplq.domain.recipes.NAMES` or of `dplq models list`, a timm name,
            `hf-hub:org/name`, or
            `local-dir:FOLDER` with a `config.json` and its weights (timm's layout or
            transformers'); several: their features are concatenated, in this order.
        weights: a local checkpoint (.pth or .safetensors); `~` is the home folder. Empty: timm's
            own pretrained weights, which the published encoders of `NAMES` do not have, or those
            in the folder. Of several encoders: one for each, "" where there is none.
        feature: "encoder", the pooled feature of the encoder's tokens or of its feature map;
            "decoder_embed" (MAE only), the same through MAE's decoder embedding.
        normalize: "native", what the encoder was trained with (`medsam_vit_base`: every image
            scaled to 0..1, as MedSAM_Inference.py does; `sam_vit_base`: SAM's pixel mean and std);
            "clip", the image unchanged (the reference's behaviour). `clip` always encodes the
            image unchanged.
        pretrained: False builds random weights (for tests), with a warning.
        backbone: CLIP; needed by `clip`. Its mean and std are what "native" undoes; without it
            OpenAI CLIP's are. A model has its encoder undo those of its own images.
        seed: of the random weights.
        mean: channel means that the weights were trained with, on a 0-1 scale; empty: the
            published ones, or those of timm's record of the architecture.
        std: the standard deviations that go with `mean`.
        image_size: side in pixels of the square input; position embeddings are resampled. 0: the
            published one.
        pool: "avg", "cls", "both" (class token and average, concatenated) or "map" (the model's
            attention pooling); see `dplq.domain.pooling`. Empty: what the published encoder's
            authors use where `dplq.domain.recipes` says it, else "avg".
        args: timm's keyword arguments, such as ``{"reg_tokens": 4}`` or ``"reg_tokens=4"``.

    Raises:
        UserError: unknown name or value, weights that are not available or do not fit.
    """
    _check_names(name)
    weights = as_texts(weights)
    if not isinstance(name, str) and len(name) == 1:
        name, (weights,) = name[0], _one_for_each(weights, name)
    if not isinstance(name, str):
        options: dict[str, Any] = {"mean": mean, "std": std, "image_size": image_size, "args": args}
        _refuse_for_several(len(name), options)
        shared: dict[str, Any] = {"feature": feature, "normalize": normalize, "pool": pool}
        shared |= {"pretrained": pretrained, "backbone": backbone, "seed": seed}
        pairs = zip(name, _one_for_each(weights, name), strict=True)
        return JointEncoder([load_domain_encoder(n, weights=w, **shared) for n, w in pairs])
    if not isinstance(weights, str):
        raise UserError(
            f"weights (DOMAIN.WEIGHTS) names {len(weights)} files and '{name}' is one encoder: "
            "give one file"
        )
    changes = Changes.checked(mean, std, image_size, pool, args)
    options = {"feature": feature, "normalize": normalize, **changes.options}
    spec = Spec(name, pretrained=pretrained, seed=seed, options=options)
    return _load_named(spec, weights, changes, backbone)


def find_domain_weights(
    name: str | Sequence[str], *, weights: Places = "", pretrained: bool = True
) -> list[Path]:
    """Return the weights files that `load_domain_encoder` would load; nothing is built.

    What it would download is downloaded.

    Args:
        name: as for `load_domain_encoder`; also "none".
        weights: as there.
        pretrained: as there; False: no file is needed.

    Raises:
        UserError: an unknown name, or a file that is not there.
    """
    _check_names(name)
    names = [name] if isinstance(name, str) else list(name)
    if not pretrained:
        return []
    pairs = zip(names, _one_for_each(as_texts(weights), names), strict=True)
    return [file for pair in pairs if (file := _find_weights(*pair)) is not None]


def _find_weights(name: str, weights: str) -> Path | None:
    """Return the file of one encoder; None where it is CLIP's or there is none."""
    if name in (CLIP, "none"):
        return None
    model = published(name, "encoder")
    if model is not None:
        if model.refused:
            raise UserError(f"'{name}' cannot be loaded: {model.refused}")
        if not weights:
            return require_weights(name.lower())
        return _existing(user_path(weights, "weights (DOMAIN.WEIGHTS)"))
    repository = None
    if is_repository(name):
        repository = find_repository(name, with_weights=not weights)
    recipe = find_recipe(name)
    file = _weights_file(name, weights, recipe, repository)
    if file is not None:
        return _existing(file)
    return download_timm_weights(name)


def _existing(path: Path) -> Path:
    """Return a weights file that is there."""
    if not path.is_file():
        raise UserError(
            f"domain encoder weights '{path}': no such file. Set weights (DOMAIN.WEIGHTS) to a "
            "local checkpoint"
        )
    return path


def _load_one(
    spec: Spec,
    weights: str,
    changes: Changes,
    backbone: Backbone | None,
    *,
    recorded: bool = False,
) -> DomainEncoder:
    """Build one encoder.

    Args:
        spec: what is asked for; name and digest of the weights' file are added.
        weights: as for `load_domain_encoder`.
        changes: what differs from the encoder as it is published.
        backbone: as for `load_domain_encoder`.
        recorded: `spec` is that of a checkpoint, which says all that decides the features. If not,
            what a file's name or the model's pooling decides is added to it.
    """
    name, pretrained, seed = spec.name, spec.pretrained, spec.seed
    recipe = find_recipe(name)
    _check_arguments(spec, recipe, weights)
    _check_changes(spec, changes)
    # A checkpoint may have been made with a folder's file that the user now names.
    own_file = bool(weights) and not (recorded and not spec.weights)
    spec = replace(spec, weights=Path(weights).name)
    if name == CLIP:
        return _load_clip(backbone, weights, spec)
    repository = None
    if is_repository(name):
        repository = find_repository(name, with_weights=pretrained and not weights)
    file = _weights_file(name, weights, recipe, repository) if pretrained else None
    state = None if file is None else _read_checkpoint(file)
    if file is not None and (weights or repository):
        spec = _with_digests(spec, file, repository, own_file=own_file)
    with private_rng(seed):
        if repository:
            model, recipe = build_repository(name, repository, changes, state)
        elif recipe:
            with nullcontext() if state is None else skip_weight_init():
                model, recipe = build_recipe(name, recipe, changes, state)
        else:
            model, recipe = build_timm(name, changes, state, download=pretrained and not weights)
            if file is not None:
                warn_of_encoder_activation(name, model, file, spec.sha256)
            recipe, spec = _with_statistics(recipe, spec, weights, changes, recorded)
        difference = differs_from_earlier(model)
        if difference and not changes.pool:
            recipe, spec = _pooled_as_recorded(recipe, spec, difference, recorded)
        _check_scale(changes, 0 if recorded else _channels(model, changes))
        path = str(file) if file is not None and not weights else weights
        encoder = _build_encoder(model, recipe, spec, state, changes, path=path, backbone=backbone)
    if not pretrained:
        warn_framed(
            "*",
            f"Domain encoder '{name}' has RANDOM WEIGHTS (pretrained=False, seed {seed}).",
            "Its features carry no domain knowledge; results are good for tests only.",
        )
    return encoder


def _with_statistics(
    recipe: Recipe, spec: Spec, weights: str, changes: Changes, recorded: bool
) -> tuple[Recipe, Spec]:
    """Return recipe and record of a timm model with the statistics that its file is known by."""
    if not recorded and spec.options["normalize"] == "native":
        recipe = _known_statistics(recipe, weights, changes)
    if recipe.statistics:
        known = {"mean": list(recipe.mean), "std": list(recipe.std)}
        spec = replace(spec, options={**spec.options, **known})
    return recipe, spec


def _with_digests(spec: Spec, file: Path, repository: Repository | None, *, own_file: bool) -> Spec:
    """Return a record with the digests of an encoder's file and config.

    That of the user's own file is of it alone, as earlier versions recorded it beside a folder.
    """
    config = repository.config if repository else None
    if not own_file or config is None:
        return replace(spec, sha256=content_digest(file, config))
    return replace(spec, sha256=content_digest(file), config_sha256=json_digest(config))


def _load_named(
    spec: Spec,
    weights: str,
    changes: Changes,
    backbone: Backbone | None,
    *,
    recorded: bool = False,
) -> DomainEncoder:
    """Build one encoder, also of the catalogue (`dplq models list`); see `_load_one`.

    The record of one of the catalogue holds all that the catalogue says, so that later versions of
    it change nothing.
    """
    model = published(spec.name, "encoder")
    if model is None:
        return _load_one(spec, weights, changes, backbone, recorded=recorded)
    name = spec.name.lower()
    if not recorded:  # the user's own, before the catalogue's are added
        _check_changes(spec, changes)
    found = resolve_published(name, model, weights, changes, spec=spec, recorded=recorded)
    inner = replace(
        spec, name=found.architecture, options={**spec.options, **found.changes.options}
    )
    encoder = _load_one(inner, found.weights, found.changes, backbone, recorded=recorded)
    encoder.spec = replace(encoder.spec, name=name, weights=Path(weights).name)
    encoder.name = name
    return encoder


def _pooled_as_recorded(
    recipe: Recipe, spec: Spec, difference: str, recorded: bool
) -> tuple[Recipe, Spec]:
    """Return how a model that earlier versions pooled otherwise is pooled, and its record.

    Those versions did not record how they pooled: where the record says nothing, it is as they did.

    Args:
        recipe: of the model.
        spec: what is asked for.
        difference: what earlier versions did otherwise.
        recorded: `spec` is that of a checkpoint.
    """
    if not recorded:
        return recipe, replace(spec, options={**spec.options, "pool": recipe.pool})
    logger.warning(
        "domain encoder '%s': the checkpoint is of a version that %s, and its features are pooled "
        "as they were. Train again to pool them as timm does.",
        *(spec.name, difference),
    )
    return replace(recipe, pool=EARLIER), spec


def reload_domain_encoder(
    spec: Spec,
    given: Places,
    path: Path,
    *,
    backbone: Backbone | None,
    check: Callable[[dict[str, Any], Path], None],
) -> DomainEncoder:
    """Build the encoder that a checkpoint's header names.

    Args:
        spec: its record.
        given: where the user says its weights or folders are; of several encoders one for each.
        path: the checkpoint.
        backbone: the loaded CLIP.
        check: takes the loader's arguments and the checkpoint, and refuses unknown ones.

    Raises:
        UserError: as `Spec.loader_arguments` and `load_domain_encoder`.
    """
    if spec.parts:
        places = _one_for_each(as_texts(given), spec.parts, "domain_weights")
        pairs = zip(spec.parts, places, strict=True)
        return JointEncoder(
            [
                reload_domain_encoder(part, place, path, backbone=backbone, check=check)
                for part, place in pairs
            ]
        )
    arguments = spec.loader_arguments(given, path, "domain_weights")
    check(arguments, path)
    changes = {key: arguments.pop(key, value) for key, value in NO_CHANGES.items()}
    options = {"feature": "encoder", "normalize": "native", **spec.options}
    found = replace(spec, name=arguments["name"], sha256="", config_sha256="", options=options)
    return _load_named(
        found, arguments["weights"], Changes.checked(**changes), backbone, recorded=True
    )


def _one_for_each(
    given: str | Sequence[str], parts: Sequence[Any], argument: str = "weights (DOMAIN.WEIGHTS)"
) -> list[str]:
    """Return one file for each of several encoders; "" stands for none at all."""
    if isinstance(given, str):
        given = [given] * len(parts) if not given or len(parts) == 1 else [given]
    if len(given) != len(parts):
        raise UserError(
            f"{argument} names {len(given)} of {len(parts)} encoders' files: give one for each, in "
            'their order, "" for an encoder without a file'
        )
    return list(given)


def _check_names(name: Any) -> None:
    """Refuse (UserError) what is neither the name of an encoder nor a list of names."""
    if isinstance(name, str):
        return
    is_list = isinstance(name, Sequence) and len(name) > 0
    if is_list and all(isinstance(each, str) and each for each in name):
        return
    without = ". For no domain feature set it to none; in Python give the model domain=None"
    raise UserError(
        f"name (DOMAIN.ENCODER) is {shown(name)}; give the name of an encoder, or a list of names"
        f"{without if name is None else ''}"
    )


def _refuse_for_several(count: int, options: Mapping[str, Any]) -> None:
    """Refuse what differs between encoders, for several at once."""
    for key, value in options.items():
        if value:
            raise UserError(
                f"{key} (DOMAIN.{key.upper()}) is {shown(value)}, but there are {count} "
                "encoders, which differ in it: it is for one encoder only"
            )


def _check_changes(spec: Spec, changes: Changes) -> None:
    """Refuse (UserError) changes that would have no effect."""
    if spec.name == CLIP:
        changes.refuse(CLIP, "is CLIP itself, which is used as it is loaded")
    if changes.mean and spec.options["normalize"] == "clip":
        raise UserError(
            "mean and std (DOMAIN.MEAN, DOMAIN.STD) have no effect with normalize "
            "(DOMAIN.NORMALIZE) 'clip', which passes the images on unchanged: use 'native'"
        )
    if spec.options["feature"] == "decoder_embed" and changes.pool in ("both", "map"):
        raise UserError(
            f"pool (DOMAIN.POOL) '{changes.pool}' has no feature 'decoder_embed', which takes one "
            "token's width: use avg or cls"
        )


def _check_scale(changes: Changes, channels: int) -> None:
    """Refuse (UserError) statistics of RGB images on a 0-255 scale; 0 channels: of a checkpoint."""
    for key, numbers in (("mean", changes.mean), ("std", changes.std)):
        if channels == 3 and max(numbers, default=0.0) > 1:
            divided = [round(number / 255, 4) for number in numbers]
            raise UserError(
                f"{key} (DOMAIN.{key.upper()}) is {shown(list(numbers))}; of RGB images it is on a "
                f"0-1 scale. Divide mean and std by 255 if they are on a 0-255 scale: {divided}"
            )


def _known_statistics(recipe: Recipe, weights: str, changes: Changes) -> Recipe:
    """Return a timm model's recipe with the statistics of its file; say where they are from."""
    if not weights or changes.mean:
        return recipe
    stem = Path(weights).name
    if any(stem.startswith(start) for start in WITHOUT_STATISTICS):
        raise UserError(
            f"'{weights}' was trained on bands that are scaled one by one, which timm's statistics "
            "do not describe: give mean and std (DOMAIN.MEAN, DOMAIN.STD)"
        )
    of_file = next((n for start, n in PUBLISHED_FILES.items() if stem.startswith(start)), None)
    if of_file is None:
        logger.info(
            "%s: taken: mean %s, std %s from timm's %s; the file does not say its own "
            "(mean, std; DOMAIN.MEAN, DOMAIN.STD)",
            *(weights, _rounded(recipe.mean), _rounded(recipe.std), recipe.timm_name),
        )
        return recipe
    known = RECIPES[of_file]
    source = known.statistics or "torchgeo"
    return replace(recipe, mean=known.mean, std=known.std, statistics=source)


def _rounded(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number:.4g}' for number in numbers)})"


def _check_arguments(spec: Spec, recipe: Recipe | None, weights: str) -> None:
    """Validate the arguments of `load_domain_encoder`; raise UserError."""
    name, feature = spec.name, spec.options["feature"]
    _check_choice("feature", feature, FEATURES)
    _check_choice("normalize", spec.options["normalize"], NORMALIZATIONS)
    if feature not in (recipe.features if recipe else ("encoder",)):
        raise UserError(
            f"domain encoder '{name}' has no feature '{feature}': it is MAE's alone "
            f"({', '.join(n for n, r in RECIPES.items() if feature in r.features)}). "
            "Use feature 'encoder'"
        )
    if weights and not spec.pretrained:
        raise UserError(
            f"domain encoder '{name}': weights '{weights}' and pretrained=False contradict each "
            "other; give one of them"
        )


def _check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise UserError if `value` is not one of `choices`."""
    if value not in choices:
        raise UserError(f"unknown domain {key} {shown(value)}.{suggest(value, choices)}")


def _weights_file(
    name: str, weights: str, recipe: Recipe | None, repository: Repository | None
) -> Path | None:
    """Return the local file of the pretrained weights; None: timm downloads them.

    Raises:
        UserError: a published encoder without `weights`.
    """
    if weights:
        return user_path(weights, "weights (DOMAIN.WEIGHTS)")
    if repository:
        return repository.file
    if recipe and not recipe.weights:
        raise UserError(
            f"domain encoder '{name}' has no weights to download: set weights (DOMAIN.WEIGHTS) "
            f"to a local file, {recipe.checkpoint.expected}{_published_files(name)}; or "
            "pretrained=False (DOMAIN.PRETRAINED False) for random weights"
        )
    return recipe.weights if recipe else None


def _published_files(architecture: str) -> str:
    """Return which published files a recipe loads, and from where, for a message."""
    known = [
        f"{name} ({Path(model.file or model.source).name} of {model.source})"
        for name, model in catalogue().items()
        if model.kind == "encoder" and model.architecture == architecture and not model.refused
    ]
    return f", such as {few(known, limit=3)}" if known else ""


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a domain encoder's file, by key.

    Raises:
        UserError: no such file, OpenAI CLIP's, or as `read_state_dict`.
    """
    _existing(path)
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


def _build_encoder(
    model: Any,
    recipe: Recipe,
    spec: Spec,
    state: Mapping[str, Tensor] | None,
    changes: Changes,
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
        changes: what differs from the recipe.
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
        load_strict(model, state, recipe.checkpoint, name=spec.name, path=path)
    if projection is not None:
        del model.decoder_embed
    check_pool(model, spec.name, changes.pool or recipe.pool)
    _check_patch(model, recipe.image_size, spec.name)
    if recipe.resolution:
        set_positions(model, recipe.resolution, spec.name)
    native = spec.options["normalize"] == "native"
    if native and changes.mean:
        recipe = replace(recipe, mean=changes.mean, std=changes.std, min_max=False)
        logger.info(
            "domain encoder '%s': taken: mean %s, std %s, as given",
            *(spec.name, _rounded(recipe.mean), _rounded(recipe.std)),
        )
    elif native and recipe.statistics:
        logger.warning(
            "domain encoder '%s': taken: mean %s, std %s from %s",
            *(spec.name, _rounded(recipe.mean), _rounded(recipe.std), recipe.statistics),
        )
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
        pool=changes.pool or recipe.pool,
        in_chans=_channels(model, changes),
    )


def _check_patch(model: Any, side: int, name: str) -> None:
    """Refuse (UserError) images that are smaller than one patch."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", 0)
    largest = max(patch) if isinstance(patch, (tuple, list)) else patch
    if side < largest:
        raise UserError(
            f"domain encoder '{name}' has patches of {largest} pixels, and its images have {side}: "
            "change image_size (DOMAIN.IMAGE_SIZE), or img_size or patch_size in args (DOMAIN.ARGS)"
        )


def _channels(model: Any, changes: Changes) -> int:
    """Return how many channels a model takes; what is not three needs its own statistics."""
    count = changes.args.get("in_chans") or getattr(model, "in_chans", None)
    if not isinstance(count, int):
        record = getattr(model, "pretrained_cfg", None) or {}
        count = (record.get("input_size") or (3,))[0]
    if changes.mean and len(changes.mean) not in (1, count):
        raise UserError(
            f"mean (DOMAIN.MEAN) has {len(changes.mean)} numbers, but the encoder takes {count} "
            "channels: give one number for each"
        )
    if count != 3 and not changes.mean:
        raise UserError(
            f"the encoder takes {count} channels, whose statistics are not known: give mean and "
            "std (DOMAIN.MEAN, DOMAIN.STD) with one number for each"
        )
    return count
