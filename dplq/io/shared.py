"""Shared models: file names of their folder, and download from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from dplq.errors import UserError
from dplq.io.hub import hub_access, hub_problem
from dplq.io.runs.files import MODEL_FOLDER
from dplq.io.spec import HUB

PROMPTS = "prompts.safetensors"  # the checkpoint
CONFIG, CLASSES, METRICS, CARD = "config.json", "classes.json", "metrics.json", "README.md"
FILES = (PROMPTS, CONFIG, CLASSES, METRICS, CARD)


def shared_prompts(folder: Path) -> Path | None:
    """Return the checkpoint of a shared model's folder; None where it is a run's, or neither."""
    found = folder / PROMPTS
    return found if found.is_file() and not (folder / MODEL_FOLDER).is_dir() else None


def is_whole(folder: Path) -> bool:
    """Return whether a folder has all files of a shared model."""
    return all((folder / name).is_file() for name in FILES)


def is_hub_name(text: object) -> bool:
    """Return whether a text names a repository of the Hub, ``hf-hub:org/name``."""
    return isinstance(text, str) and text.startswith(HUB)


def split_hub_name(name: str) -> tuple[str, str | None]:
    """Return repository and revision of ``hf-hub:org/name`` or ``hf-hub:org/name@revision``.

    Raises:
        UserError: it is no name of a repository.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    repository, at, revision = name.partition(":")[2].partition("@")
    try:
        validate_repo_id(repository)
        is_name = repository.count("/") == 1 and (not at or bool(revision))
    except HFValidationError:
        is_name = False
    if not is_name:
        raise UserError(
            f"'{name}' names no repository of the Hub: write hf-hub:org/name, or "
            "hf-hub:org/name@revision."
        )
    return repository, revision or None


def download_prompts(name: str) -> Path:
    """Return the checkpoint of ``hf-hub:org/name``, downloaded once by huggingface_hub.

    Only that file is fetched: it holds tensors and JSON, nothing that is executed.

    Raises:
        UserError: the Hub has no such repository, revision or file, or cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, revision = split_hub_name(name)
    try:
        with hub_access():
            return Path(hf_hub_download(repository, PROMPTS, revision=revision))
    except RepositoryNotFoundError as error:
        raise UserError(
            f"The Hub has no repository '{repository}', or it is private: check the name, or log "
            "in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"'{repository}' has no revision '{revision}' on the Hub.") from error
    except LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError
        raise _unavailable(name, error) from error
    except EntryNotFoundError as error:
        raise UserError(
            f"'{repository}' holds no {PROMPTS}: it is no model that `dplq share` made. A CLIP of "
            "the Hub is loaded with dplq.load_backbone."
        ) from error
    except Exception as error:  # the hub raises its HTTP client's own exceptions
        raise _unavailable(name, error) from error


def _unavailable(name: str, error: Exception) -> UserError:
    return UserError(
        f"{PROMPTS} of '{name}' cannot be downloaded ({hub_problem(error)}): use a machine with "
        "access to the Hub, or download the repository's files and give their folder."
    )
