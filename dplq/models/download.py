"""Download of a published model's weights, from the hub or from an address."""

from __future__ import annotations

import logging
import shutil
import urllib.parse
import zipfile
from pathlib import Path

from dplq.errors import UserError, one_line
from dplq.io.atomic import atomic_write
from dplq.io.download import fetch, need_space
from dplq.io.files import file_digest
from dplq.models.catalogue import PublishedModel, catalogue
from dplq.models.weights import SUFFIXES, how_to_get, models_folder

logger = logging.getLogger(__name__)
TIMEOUT = 10  # seconds, to reach the hub
TRIES = 2


def download(name: str, folder: Path | None = None) -> Path:
    """Download the weights of a model of the catalogue, or find them complete.

    Args:
        name: of the catalogue.
        folder: where to store the file; None: the hub's cache, or the folder of
            `dplq.models.weights.models_folder` for files that are not on the hub.

    Returns:
        The weights file.

    Raises:
        UserError: no address is known, it cannot be reached, terms have to be accepted first, or
            the file has another digest than the published one.
    """
    model = catalogue()[name]
    if not model.can_be_downloaded:
        raise UserError(how_to_get(name))
    if model.hub:
        return _from_hub(name, model, folder)
    return _from_address(name, model, folder or models_folder(name))


def _from_hub(name: str, model: PublishedModel, folder: Path | None) -> Path:
    """Download through huggingface_hub, which resumes; compare with the hub's digest."""
    import huggingface_hub as hub

    assert model.hub is not None
    assert model.file is not None
    try:
        about = hub.get_hf_file_metadata(hub.hf_hub_url(model.hub, model.file), timeout=TIMEOUT)
        path = Path(hub.hf_hub_download(model.hub, model.file, local_dir=folder))
        for further in model.also:
            other, _, name_there = further.rpartition(":")
            _get_if_there(other or model.hub, name_there, None if other else folder)
    except Exception as error:  # the hub's client has a dozen kinds
        raise UserError(_why_not(name, model, error)) from error
    _verify(path, model, hub_digest=about.etag or "")
    return path


def _get_if_there(repository: str, file: str, folder: Path | None) -> None:
    """Download a file that a repository may lack: tokenizers have one of several."""
    import huggingface_hub as hub

    try:
        hub.hf_hub_download(repository, file, local_dir=folder)
    except hub.errors.EntryNotFoundError:
        logger.info("%s has no %s", repository, file)


def _why_not(name: str, model: PublishedModel, error: Exception) -> str:
    """Return why the hub does not give a file, and what to do."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError | RepositoryNotFoundError):
        return f"'{name}' cannot be downloaded yet. {how_to_unlock(model)}"
    return f"'{name}' cannot be downloaded ({one_line(error)}). {how_to_get(name)}"


def how_to_unlock(model: PublishedModel) -> str:
    """Return how to get access to a gated model."""
    return (
        f"Its terms have to be accepted first: open {model.source} with your account there and "
        "accept them, then log in on this machine with `hf auth login`, or set HF_TOKEN to a "
        "token with read access"
    )


def _from_address(name: str, model: PublishedModel, folder: Path) -> Path:
    """Download from an http address; unpack the one weights file of a zip."""
    assert model.url is not None
    file = folder / Path(urllib.parse.urlsplit(model.url).path).name
    if file.suffix == ".zip":
        unpacked = [file.with_suffix(suffix) for suffix in SUFFIXES]
        for path in filter(Path.is_file, unpacked):
            return _no_page(path)
    try:
        fetch(model.url, file, _full_digest(model), tries=TRIES)
    except UserError as error:
        raise UserError(f"'{name}' cannot be downloaded: {error} {how_to_get(name)}") from error
    if file.suffix != ".zip":
        _verify(file, model)
        return _no_page(file)
    path = _unpack(file)
    file.unlink()
    return path


def _no_page(file: Path) -> Path:
    """Return a file; raise UserError if it is a web page, as servers send for a log-in."""
    with file.open("rb") as content:
        if content.read(64).lstrip().startswith(b"<"):
            raise UserError(
                f"'{file}' holds a web page, no weights: delete it and run the same command again"
            )
    return file


def _full_digest(model: PublishedModel) -> str:
    """Return the published digest if it is whole, else ""."""
    return model.sha256 if model.sha256 and len(model.sha256) == 64 else ""


def _unpack(archive: Path) -> Path:
    """Write the only weights file of a zip beside it, under the archive's name."""
    try:
        with zipfile.ZipFile(archive) as content:
            found = [m for m in content.infolist() if Path(m.filename).suffix in SUFFIXES]
            if len(found) != 1:
                names = ", ".join(m.filename for m in found) or "none"
                raise UserError(
                    f"'{archive}': one weights file expected in it, found {names}: unpack it"
                )
            target = archive.with_suffix(Path(found[0].filename).suffix)
            need_space(archive.parent, found[0].file_size, f"Unpacking {archive.name}")
            with (
                atomic_write(target) as part,
                content.open(found[0]) as source,
                open(part, "wb") as file,
            ):
                shutil.copyfileobj(source, file)
    except zipfile.BadZipFile as error:
        raise UserError(
            f"'{archive}' is no zip archive ({one_line(error)}): delete it and run the same "
            "command again"
        ) from error
    return target


def _verify(path: Path, model: PublishedModel, hub_digest: str = "") -> None:
    """Compare a file with the published digests; a wrong one is deleted."""
    expected = [d for d in (model.sha256, hub_digest if len(hub_digest) == 64 else "") if d]
    if not expected:
        return
    found = file_digest(path)
    wrong = [digest for digest in expected if not found.startswith(digest)]
    if wrong:
        path.resolve().unlink()  # in the hub's cache it is a link
        path.unlink(missing_ok=True)
        raise UserError(
            f"'{path.name}' is not the file expected: its sha256 is {found}, not {wrong[0]}. It "
            "has been deleted. Run the same command again; if it stays so, the publisher has "
            "replaced the file: get it by hand"
        )
