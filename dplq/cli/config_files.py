"""Config files by path or by name, and the one that is used where none is given."""

from __future__ import annotations

import os
from pathlib import Path

from dplq.errors import UserError, nearest, suggest
from dplq.experiments.requests.names import NAMED
from dplq.io.files import configs_folder
from dplq.io.protocols import ENDING
from dplq.io.validation.paths import user_path


def trainer_config(given: str, trainer: str | None) -> str:
    """Return the config file that ``--config-file`` names.

    Args:
        given: a path, or the name of a file of the trainer, with or without its ending.
        trainer: its name; None where it is not known.

    Raises:
        UserError: there is no such file; names the nearest ones.
    """
    folder = configs_folder() / "trainers"
    if trainer and (folder / trainer).is_dir():
        folder /= trainer
    return _find(given, "--config-file", folder)


def dataset_config(given: str) -> str:
    """Return the config file that ``--dataset-config-file`` names: a path, or a dataset's name.

    Raises:
        UserError: there is no such file; names the nearest ones.
    """
    folder = configs_folder() / "datasets"
    try:
        return _find(given, "--dataset-config-file", folder)
    except UserError:
        for path in sorted(folder.glob(f"*{ENDING}"), reverse=True):
            names = NAMED.findall(path.read_text(encoding="utf-8"))
            if given.lower() in map(str.lower, names):
                return str(path)
        raise


def default_config(trainer: str, dataset: str, subset: str, shots: int) -> str:
    """Return the config file of a run that names none.

    It is demo.yaml for the built-in datasets, else that of the protocol in ``protocols.yaml``.

    Args:
        trainer: its name.
        dataset: its name, as in the config.
        subset: of the classes: "all", "base" or "new".
        shots: training images per class.

    Raises:
        UserError: the trainer has none, or several without a default.
    """
    from dplq.experiments import protocols

    folder = configs_folder() / "trainers" / trainer
    names = sorted(path.stem for path in folder.glob(f"*{ENDING}"))
    if not names:
        raise UserError(f"{trainer} has no config files of its own: give --config-file.")
    if protocols.DEMO in names and dataset.lower() in _demo_datasets():
        return str(folder / f"{protocols.DEMO}{ENDING}")
    protocol = "few_shot" if subset == "all" else "base2new"
    try:
        name = protocols.default_config(trainer, protocol, shots)
    except UserError as error:
        raise UserError(
            f"{trainer} has several config files: name one with --config-file.{suggest('', names)}"
        ) from error
    return str(folder / f"{name}{ENDING}")


def _demo_datasets() -> set[str]:
    """Return the names of the built-in datasets, in lower case."""
    paths = (configs_folder() / "datasets").glob(f"demo_*{ENDING}")
    return {name.lower() for p in paths for name in NAMED.findall(p.read_text(encoding="utf-8"))}


def find_ignoring_case(path: str) -> str:
    """Return the existing file that matches `path`, ignoring case."""
    wanted = Path(path)
    if os.path.exists(path) or not os.path.isdir(wanted.parent):  # False for an impossible name
        return path
    same = [p for p in wanted.parent.iterdir() if p.name.lower() == wanted.name.lower()]
    return str(same[0]) if len(same) == 1 else path


def _find(given: str, flag: str, folder: Path) -> str:
    """Return the file that a flag names: a path, one below ``configs/``, or a name in a folder."""
    path = str(user_path(given, flag))
    tried = [path]
    if given.startswith("configs/"):  # as in the documentation, outside a checkout
        tried.append(str(configs_folder() / given.removeprefix("configs/")))
    if not {"/", os.sep} & set(given):
        tried += [str(folder / given), str(folder / f"{given}{ENDING}")]
    for one in tried:
        found = find_ignoring_case(one)
        if os.path.isfile(found):
            return found
    if os.path.exists(path) or len(tried) == 1:
        return path  # what is wrong there is said where it is read
    files = sorted(folder.rglob(f"*{ENDING}"))
    wanted = given.rpartition("/")[2].removesuffix(ENDING)
    near = nearest(wanted, {path.stem for path in files}, limit=5, cutoff=0.4)
    names = [_name(path, folder) for stem in near for path in files if path.stem == stem][:5]
    hint = f" Did you mean {' or '.join(names)}?" if names else suggest("", {p.stem for p in files})
    raise UserError(f"There is no config file {given} ({flag}), and none in {folder}.{hint}")


def _name(path: Path, folder: Path) -> str:
    """Return how a flag names a file of a folder, or of one of the folders in it."""
    if path.parent == folder:
        return path.stem
    return f"configs/{path.relative_to(configs_folder()).as_posix()}"
