"""A run's folder: whose it is (``run.json``), and what lies in it.

The first run that starts in a folder owns it. A later run of another identity is refused; one of
the same identity resumes, or ends at once if all is done. A process that writes holds the lock.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dplq import __version__
from dplq.errors import UserError, few, shown
from dplq.io.atomic import clear_temporaries, write_bytes_atomically
from dplq.io.runs.files import (
    CHECKPOINTS,
    FOLDERS,
    MODEL_FOLDER,
    RESULTS_FILE,
    RUN_FILE,
    SETTINGS_FILE,
    SHARE_FOLDER,
    TESTS,
    WRITTEN,
)
from dplq.io.runs.lock import RunLock
from dplq.io.validation.paths import is_file
from dplq.io.validation.schema import Name, read_json

logger = logging.getLogger(__name__)
Kind = Literal["train", "test"]
TRAIN: Kind = "train"
TEST: Kind = "test"
NO_MODEL = "--eval-only needs --model-dir, the folder of the training run to test."
CURE = "Give another --output-dir, or delete that run (train.py --overwrite does)"

Digest = Annotated[str, Meta(max_length=128)]
UNKNOWN_AT_FIRST = ("split", "model", "weights", "data")  # fields of an identity
DRAWN_BY = ("dataset", "subsample", "shots", "seed", "split")  # what decides which images are used


class Identity(msgspec.Struct, frozen=True):
    """What makes two runs the same run.

    Attributes:
        kind: "train", or "test" for a run that only tests a model that lies elsewhere.
        trainer: name of the trainer.
        dataset: name of the dataset.
        subsample: all, base or new classes.
        shots: training images per class.
        seed: of the run.
        settings: every config key that decides the result, with its value.
        split: hash of the split; None where it is not known (yet), which any hash matches.
        model: of a test: digest of the checkpoint; None where it is not known (yet).
        weights: digests of the files with the frozen weights, by part; None where they are not
            known (yet), or there is no file.
        data: digest of labels and file sizes of the images that are used; None where it is not
            known (yet).
        labels: digests of the files with labels, by path from the data folder. Two runs may
            differ in them: what they say of the images is part of `data`.
    """

    kind: Kind
    trainer: Name
    dataset: str
    subsample: str
    shots: int
    seed: int
    settings: dict[str, Any]
    split: Digest | None = None
    model: Digest | None = None
    weights: dict[str, Digest] | None = None
    data: Digest | None = None
    labels: dict[str, Digest] | None = None

    def differences(self, other: Identity, defaults: Mapping[str, Any]) -> list[str]:
        """Return in words what `other`, which comes now, has otherwise.

        Args:
            other: compared with this one, which is there.
            defaults: value of a key that this one's version did not have.
        """
        pairs = {
            name: (getattr(self, name), getattr(other, name))
            for name in self.__struct_fields__
            if name not in ("settings", "labels")
        }
        for name in UNKNOWN_AT_FIRST:
            if None in pairs[name]:
                del pairs[name]
        if any(pairs[name][0] != pairs[name][1] for name in DRAWN_BY if name in pairs):
            pairs.pop("data", None)  # other images are drawn
        settings = {
            key: (self.settings.get(key, defaults.get(key)), value)
            for key, value in other.settings.items()
        }
        # another trainer has other settings anyway
        return _differences(pairs) or _differences(settings)

    def completed_by(self, other: Identity) -> Identity:
        """Return this identity with what only `other` knows, and the files with labels of now."""
        known = {key: getattr(self, key) or getattr(other, key) for key in UNKNOWN_AT_FIRST}
        labels = self.labels if other.labels is None else other.labels
        return msgspec.structs.replace(self, labels=labels, **known)


def _differences(pairs: Mapping[str, tuple[Any, Any]]) -> list[str]:
    return [
        "labels or image files have changed since"
        if name == "data"
        else f"{name}: there {shown(there, 200)}, now {shown(now, 200)}"
        for name, (there, now) in pairs.items()
        if there != now
    ]


class RunRecord(msgspec.Struct, frozen=True):
    """Content of ``run.json``; `version` is that of dplq which began the run."""

    format: Literal[1]
    identity: Identity
    version: str = ""


def recorded_identity(folder: Path) -> Identity | None:
    """Return whose run lies in a folder; None where no ``run.json`` says so.

    Raises:
        UserError: ``run.json`` is damaged.
    """
    path = folder / RUN_FILE
    if not is_file(path):
        return None
    remedy = (
        "Restore it, or delete this one file: the results and checkpoints beside it tell whose "
        "run it is."
    )
    return read_json(path, RunRecord, remedy=remedy).identity


class RunFolder:
    """Folder of a run, locked by this process.

    Args:
        path: the folder; it is made.

    Attributes:
        to_be_cleared: whether the run that lies here is to be deleted once the new one can begin.

    Raises:
        UserError: another process writes there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.to_be_cleared = False
        self._lock = RunLock(path)
        self._lock.acquire()
        for folder in (path, path / MODEL_FOLDER):
            clear_temporaries(folder, all=True)  # of runs that were killed

    def check(self) -> None:
        """Make sure that the folder is still this process's: it may have been deleted.

        Raises:
            UserError: it is not.
        """
        self._lock.check()

    def release(self) -> None:
        """Let other processes write here."""
        self._lock.release()

    def claim(
        self,
        identity: Identity,
        earlier: Identity | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        settings: str = "",
        record: bool = True,
    ) -> None:
        """Make this folder that of a run; ``run.json`` says so.

        Args:
            identity: of the run.
            earlier: what the files of a version without ``run.json`` tell of their run.
            defaults: of config keys, for records of versions that lack some.
            settings: content of ``settings.txt``; "" for none.
            record: write ``run.json``; False where `earlier` is not known to be right yet.

        Raises:
            UserError: it is another run's; the differences are named.
        """
        recorded = self.recorded()
        there = recorded or earlier
        found = self.work()
        if found and there is None:
            raise UserError(
                f"{self.path} holds {few(found, 3)}, but no {RUN_FILE} that says of which run. "
                f"{CURE}."
            )
        if found and there is not None:
            differences = there.differences(identity, defaults or {})
            if differences:
                raise UserError(
                    f"{self.path} holds another run: {few(differences, 6, '; ')}. {CURE}."
                )
            identity = there.completed_by(identity)
        if not record:
            return
        if identity != recorded:
            self._write(identity)
        path = self.path / SETTINGS_FILE
        if settings and not (identity == recorded and path.is_file()):
            write_bytes_atomically(path, f"{settings}\n".encode())

    def recorded(self) -> Identity | None:
        """Return whose run this is; None where nothing says so.

        Raises:
            UserError: ``run.json`` is damaged, or no file.
        """
        return recorded_identity(self.path)

    def clear(self) -> None:
        """Delete what a run wrote here, but for logs and shared model; ``run.json`` goes last."""
        if (shared := self.path / SHARE_FOLDER).is_dir():
            logger.warning(
                "%s keeps the model of the run that is overwritten; `dplq share` replaces it.",
                shared,
            )
        for pattern in WRITTEN:
            for path in self.path.glob(pattern):
                path.unlink()
        for name in FOLDERS:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.path / name)
        (self.path / RUN_FILE).unlink(missing_ok=True)
        self.to_be_cleared = False

    def work(self) -> list[str]:
        """Return what lies here that took time: results and checkpoints, relative paths."""
        patterns = (RESULTS_FILE, TESTS, *CHECKPOINTS)
        found = {path for pattern in patterns for path in self.path.glob(pattern)}
        return sorted(path.relative_to(self.path).as_posix() for path in found)

    def _write(self, identity: Identity) -> None:
        record = RunRecord(1, identity, __version__)
        content = msgspec.json.format(msgspec.json.encode(record), indent=1)
        write_bytes_atomically(self.path / RUN_FILE, content)


_held: dict[Path, RunFolder] = {}


def _key(path: str | Path) -> Path:
    """Return the one name of a folder, which a link gives another."""
    return Path(os.path.realpath(path))


def is_to_be_cleared(path: str | Path) -> bool:
    """Return whether the run in a folder is to be deleted, so that nothing of it may be used."""
    folder = _held.get(_key(path))
    return folder is not None and folder.to_be_cleared


def hold(path: str | Path) -> RunFolder:
    """Return a run's folder, which this process holds from now on; it is made.

    Raises:
        UserError: it cannot be made, or another process writes there.
    """
    key = _key(path)
    if key not in _held:
        try:
            key.mkdir(parents=True, exist_ok=True)
            _held[key] = RunFolder(Path(path))
        except OSError as error:
            raise UserError(
                f"--output-dir {path} cannot be used: {error.strerror or error}. "
                "Give a folder that can be written to."
            ) from error
    return _held[key]


@atexit.register  # the train.py of a host tree does not call it
def release_all() -> None:
    """Let other processes write to all folders that this one holds."""
    while _held:
        _held.popitem()[1].release()
