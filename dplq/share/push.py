"""Upload of a shared model's folder to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from dplq.errors import UserError, few, one_line
from dplq.io.shared import FILES
from dplq.share.folder import foreign_files

MESSAGE = "Model of dplq"


def push(folder: Path, repository: str, *, private: bool = False, message: str = "") -> str:
    """Upload a folder; the repository is made where there is none.

    Args:
        folder: of `write_folder`.
        repository: "org/name".
        private: whether a new repository is private.
        message: of the commit.

    Returns:
        The repository's address.

    Raises:
        UserError: no network or token, or the repository holds something else; the folder stays.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        if api.repo_exists(repository):
            _check_ours(repository, api.list_repo_files(repository))
        address = api.create_repo(repository, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=message or MESSAGE,
            allow_patterns=list(FILES),
        )
    except UserError:
        raise
    except Exception as error:  # the hub's client has a dozen kinds
        raise UserError(
            f"{repository} was not pushed ({one_line(error)}). {folder} is complete: log in with "
            "`hf auth login` on a machine with access to the Hub and repeat the command, or run "
            f"`hf upload {repository} {folder}`."
        ) from error
    return str(address)


def _check_ours(repository: str, files: list[str]) -> None:
    if foreign := foreign_files(files):
        raise UserError(
            f"{repository} holds {few(foreign, 4)}, which `dplq share` did not write: another "
            "model is there. Give another name."
        )
