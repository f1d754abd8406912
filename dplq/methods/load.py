"""Rebuild any method's model from a checkpoint, a run folder or an original's checkpoint."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from dplq.clip.backbone import Backbone, load_backbone
from dplq.domain.encoder import DomainEncoder
from dplq.domain.load import load_domain_encoder, reload_domain_encoder
from dplq.errors import UserError, few, shown, suggest
from dplq.io import checkpoint
from dplq.io.checkpoint import find_checkpoint
from dplq.io.file_kind import is_safetensors
from dplq.io.header import check_model_header
from dplq.io.runs.files import MODEL_FOLDER
from dplq.io.shared import download_prompts, is_hub_name, shared_prompts
from dplq.io.spec import Places, Spec
from dplq.io.validation.paths import user_path
from dplq.methods.base import CLIPModel
from dplq.methods.places import with_recorded_places
from dplq.methods.public_checkpoints import BEST, NUMBERED, PublicFormat, read_public
from dplq.methods.registry import METHODS, OWN_METHOD, create_model


def load(
    path: str | os.PathLike[str],
    classnames: Sequence[str] | None = None,
    *,
    clip: Backbone | None = None,
    domain: DomainEncoder | None = None,
    weights: str | os.PathLike[str] = "",
    domain_weights: Places = "",
    epoch: int | None = None,
    method: str = "",
    **settings: Any,
) -> CLIPModel:
    """Rebuild a model, in eval mode.

    Args:
        path: a file that a model's `save` or a training run wrote; the folder of a run (its best
            epoch if that was kept, else its last); the folder of a shared model, or its name on the
            Hub, ``hf-hub:org/name`` or ``hf-hub:org/name@revision`` (`dplq share`); or a checkpoint
            (`model.pth.tar-<epoch>`, or the folder of a run) of a prompt method's original.
        classnames: the classes to tell apart; default: those it was trained on. Public
            checkpoints do not hold them.
        clip: a loaded backbone; default: the one named in the header is loaded. Public
            checkpoints do not name it.
        domain: a loaded domain encoder; default likewise.
        weights: where the backbone's weights file or ``local-dir:`` folder is, if it was
            trained with one; default: where the run had it, else here or beside the checkpoint.
        domain_weights: the same for the domain encoder; of several encoders one for each.
        epoch: of a run folder, if not the best or last.
        method: of a public checkpoint, where the file alone does not tell.
        **settings: of a public checkpoint, where its shapes do not tell them and they are not the
            method's defaults, such as `ctx_init`.

    Raises:
        UserError: nothing to load there, as for the loaders, or the parts do not fit.
    """
    path = find_file(path, epoch)
    if path.suffix != ".safetensors" and path.is_file() and not is_safetensors(path):
        unused = {"domain": domain, "weights": weights, "domain_weights": domain_weights}
        _refuse_unused(path, "a public checkpoint", unused)
        return _load_public(path, classnames, clip, method, settings)
    unused = {"method": method, **settings}
    if clip is not None:
        unused["weights"] = weights
    if domain is not None:
        unused["domain_weights"] = domain_weights
    _refuse_unused(path, "a checkpoint of this project", unused)
    header = checkpoint.read_header(path)
    named = header.get("method")
    if not isinstance(named, str) or named not in METHODS:
        raise UserError(
            f"{path} does not hold a model of a known method ({shown(named)}): name a "
            "file that model.save or a training run wrote (model-<epoch>.safetensors)."
            f"{suggest(named, METHODS)} {OWN_METHOD}"
        )
    _check_settings(path, header)
    if clip is None:
        spec = with_recorded_places(Spec.from_header(header["backbone"]), "backbone", path)
        arguments = spec.loader_arguments(weights, path, "weights")
        _check_arguments(load_backbone, arguments, path, "backbone")
        clip = load_backbone(**arguments)
    if domain is None and header["domain"] is not None:
        spec = with_recorded_places(Spec.from_header(header["domain"]), "domain", path)
        domain = reload_domain_encoder(
            spec, domain_weights, path, backbone=clip, check=_check_domain_arguments
        )
    own, names = dict(header["settings"]), header["classnames"]
    model = create_model(header["method"], clip, names, domain=domain, seed=0, **own)
    model.load(path)
    if classnames is not None and list(classnames) != names:
        model.set_classnames(classnames)
    return model.eval()


def find_file(given: str | os.PathLike[str], epoch: int | None = None) -> Path:
    """Return the file that `load` opens: what is given, or that of a run, a shared model, the Hub.

    Arguments and errors as there.
    """
    path = download_prompts(str(given)) if is_hub_name(given) else user_path(given, "path")
    if path.is_dir():
        shared = shared_prompts(path)
        if shared is None:
            formats = [cls.public for cls in METHODS.values() if cls.public]
            return checkpoint_in(path, epoch, formats)[0]
        path = shared
    if epoch is not None:
        raise UserError(f"epoch={epoch} is for the folder of a run, and {given} is none.")
    return path


def _refuse_unused(path: Path, what: str, arguments: dict[str, Any]) -> None:
    """Refuse arguments that would be ignored."""
    given = [name for name, value in arguments.items() if value not in (None, "")]
    if given:
        raise UserError(f"{path} is {what}, loaded so without {few(given)}: leave that out.")


def _check_settings(path: Path, header: dict[str, Any]) -> None:
    """Refuse a damaged header, and one with settings that this version does not know."""
    check_model_header(header, path)
    known = {field.name for field in fields(METHODS[header["method"]].settings_class)}
    unknown = [name for name in header["settings"] if name not in known]
    if unknown:
        raise UserError(
            f"{path} has settings of {header['method']} that this version of dplq does not know "
            f"({few(unknown)}): install the version that wrote it."
        )


def _check_arguments(
    loader: Callable[..., Any], arguments: dict[str, Any], path: Path, key: str
) -> None:
    """Refuse a header whose entry `key` has options that a loader does not know."""
    unknown = [name for name in arguments if name not in inspect.signature(loader).parameters]
    if unknown:
        raise UserError(
            f"{path} has options of {key} that this version of dplq does not know "
            f"({few(unknown)}): install the version that wrote it."
        )


def _check_domain_arguments(arguments: dict[str, Any], path: Path) -> None:
    _check_arguments(load_domain_encoder, arguments, path, "domain")


def checkpoint_in(
    folder: Path, epoch: int | None, formats: Iterable[PublicFormat]
) -> tuple[Path, bool]:
    """Return the checkpoint of a run, and whether it is an original's.

    Args:
        folder: of the run.
        epoch: None: the best one if it was kept, else the last.
        formats: of the originals that are looked for where there is no checkpoint of ours.

    Raises:
        UserError: no such checkpoint (those that exist are named).
    """
    ours = folder / MODEL_FOLDER
    if not any(ours.glob(checkpoint.NUMBERED)):
        for theirs in filter(None, (public.folder_in(folder) for public in formats)):
            return find_checkpoint(theirs, epoch, NUMBERED, BEST), True
    return find_checkpoint(ours, epoch), False


def _load_public(
    path: Path,
    classnames: Sequence[str] | None,
    clip: Backbone | None,
    method: str,
    settings: dict[str, Any],
) -> CLIPModel:
    state, _ = read_public(path)
    fitting = [name for name, cls in METHODS.items() if cls.public and cls.public.fits(state)]
    found = method or next(iter(fitting), "")
    public = METHODS[found].public if found else None
    if public is None:
        raise UserError(
            f"{path} is a checkpoint of no method with a known public format: name it with method=."
            f"{suggest(method, [name for name, cls in METHODS.items() if cls.public])}"
        )
    if clip is None or classnames is None:
        raise UserError(
            f"{path} is a public checkpoint of {found}, which names neither its CLIP nor its "
            "classes: give clip=load_backbone(...) and classnames=[...]."
        )
    if found not in fitting:
        raise UserError(
            f"{path} is not a checkpoint of {found}: its names fit {few(fitting) or 'no method'}."
        )
    inferred = public.infer(public.translate(state))
    model = create_model(found, clip, classnames, seed=0, **{**inferred, **settings})
    _load_state(model, public, state, path)
    return model.eval()


def load_public(model: CLIPModel, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read an original's checkpoint into our model of the same method.

    Returns:
        {"epoch": of the checkpoint or None}.

    Raises:
        UserError: not such a checkpoint, of another CLIP, or of other settings.
    """
    assert model.public is not None  # callers look for such files only where there is a format
    state, epoch = read_public(path)
    _load_state(model, model.public, state, path)
    return {"epoch": epoch}


def _load_state(
    model: CLIPModel, public: PublicFormat, state: dict[str, Tensor], path: str | os.PathLike[str]
) -> None:
    """Load an original's state dict, read from `path`."""
    _check_clip(model, state, path)
    model.load_tensors(public.translate(state), path)


def _check_clip(
    model: CLIPModel, state: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> None:
    """Refuse a checkpoint of another CLIP: most hold the SOS token's embedding."""
    sos = getattr(model, "sos", None)
    if not isinstance(sos, Tensor):
        return
    for name in ("token_prefix", "prompt_learner.token_prefix"):
        if name not in state:
            continue
        theirs, ours = state[name][0].float().cpu(), sos[0].float().cpu()
        # Half precision keeps three digits.
        if theirs.shape != ours.shape or (theirs - ours).abs().max() > 2e-3 * ours.abs().max():
            raise UserError(
                f"{path} was trained with another CLIP than {model.clip.spec.name}: set "
                "MODEL.BACKBONE.NAME (or MODEL.INIT_WEIGHTS) to the one it was trained with."
            )
