"""Datasets, trainers and configs by name, whatever the case, as the files of ``configs/``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from dplq.errors import UserError, nearest
from dplq.experiments.protocols import default_config, trainers
from dplq.io.protocols import DEMO, ENDING, config_files, is_built_in

NAMED = re.compile(r"""^ *NAME: *["']?(\w+)["']? *$""", re.MULTILINE)  # a dataset file's own name


def find_name(wanted: str, names: Iterable[str], folder: str, what: str) -> str:
    """Return the name that equals `wanted` ignoring case; the exact one takes precedence.

    Args:
        wanted: as it was given.
        names: those that exist.
        folder: where they are, for the message.
        what: a name is of, for the message.

    Raises:
        UserError: there is none; the message lists them.
    """
    known = sorted(names)
    same = [name for name in known if name.lower() == wanted.lower()]
    if same:
        return wanted if wanted in same else same[0]
    near = nearest(wanted, known, limit=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    wanted = re.sub(r"\s", " ", wanted)
    raise UserError(
        f"unknown {what} '{wanted}'. Choices in {folder}: {' '.join(known) or 'none'}.{hint} "
        "Files of your own: dplq run --config-folder."
    )


def find_dataset(name: str, what: str = "dataset") -> str:
    """Return the file of ``configs/datasets``, without its ending, that a name stands for.

    Args:
        name: of the file, or the dataset's own.
        what: it is, for messages.

    Raises:
        UserError: there is none.
    """
    files = config_files("datasets")
    if name.lower() not in map(str.lower, files):
        for stem, path in reversed(files.items()):
            own = NAMED.findall(path.read_text(encoding="utf-8"))
            if name.lower() in map(str.lower, own):
                return stem
    return find_name(name.removesuffix(ENDING), files, "configs/datasets", what)


def find_trainers(names: Sequence[str], what: str = "TRAINER") -> tuple[str, ...]:
    """Return trainers by name, each once; the single word ``all`` stands for all.

    Raises:
        UserError: there is none of a name.
    """
    known = trainers()
    if list(names) == ["all"]:
        return tuple(known)
    found = (find_name(name, known, "configs/trainers", what) for name in names)
    return tuple(dict.fromkeys(found))


def find_config(
    trainer: str,
    dataset: str,
    protocol: str,
    shots: int,
    given: Mapping[str, str],
    what: str = "CFG",
) -> str:
    """Return the config that a trainer uses, a file of its folder, without its ending.

    Args:
        trainer: its name.
        dataset: a file of ``configs/datasets``; built-in ones have a config of their own.
        protocol: one of `dplq.io.protocols.PROTOCOLS`.
        shots: training images per class.
        given: configs by trainer; that of "" is for all others.
        what: it is, for messages.

    Raises:
        UserError: there is no such file, or no default.
    """
    name = given.get(trainer) or given.get("") or ""
    if not name and is_built_in(dataset):
        name = DEMO
    name = name or default_config(trainer, protocol, shots)
    there = config_files(f"trainers/{trainer}")
    return find_name(name.removesuffix(ENDING), there, f"configs/trainers/{trainer}", what)
