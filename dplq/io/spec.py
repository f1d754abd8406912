"""Provenance record of a frozen backbone or domain encoder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dplq.errors import UserError
from dplq.io.files import file_digest
from dplq.io.validation.paths import user_path
from dplq.io.validation.schema import InvalidContent, Name, convert

LOCAL_DIR = "local-dir:"
HUB = ("hf-hub:", "hf_hub:")
DIGEST = "weights_sha256"
CONFIG_DIGEST = "config_sha256"
PARTS = "parts"
PLAIN = ("name", "weights", "pretrained", "seed")
NUMBERS = ("mean", "std")  # options that are lists of numbers
Places = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def as_texts(given: Places) -> str | list[str]:
    """Return a path, or several, as text."""
    if isinstance(given, (str, os.PathLike)):
        return os.fspath(given)
    return [os.fspath(place) for place in given]


class SpecEntry(msgspec.Struct):
    """A `Spec` in a checkpoint's header; every other key is one of its options."""

    name: Name
    weights: str = ""
    pretrained: bool = True
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    weights_sha256: str = ""
    config_sha256: str = ""
    parts: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Spec:
    """Arguments that rebuild a frozen part, and what identifies it.

    Attributes:
        name: the loader's first argument: `ViT-B/16`, `NAME:TAG`, `local-dir:PATH`, a timm name.
        weights: file name of the local checkpoint it was loaded from; "" if there was none.
        pretrained: False for random weights.
        seed: of the random weights.
        sha256: of a local checkpoint, or of a model's folder or repository with its config, in hex;
            "" where there was none.
        config_sha256: of the config of a folder or repository, where `sha256` is that of a local
            checkpoint beside it, in hex.
        options: the loader's other arguments, such as a domain encoder's `feature`.
        parts: of several encoders whose features are concatenated, their own records.
        places: paths at which the run of a checkpoint had the weights and the folder; they are the
            run's record, and not in the checkpoint.
    """

    name: str
    weights: str = ""
    pretrained: bool = True
    seed: int = 0
    sha256: str = ""
    config_sha256: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[Spec, ...] = ()
    places: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def from_header(cls, entry: Mapping[str, Any], where: str = "A header") -> Spec:
        """Return the record that `header` wrote into a checkpoint.

        Args:
            entry: the record.
            where: what it was read from, for messages.

        Raises:
            InvalidContent: it is not such a record; the key is named.
        """
        known: SpecEntry = convert(dict(entry), SpecEntry, where=where)
        options = {
            k: v for k, v in entry.items() if k not in (*PLAIN, DIGEST, CONFIG_DIGEST, PARTS)
        }
        for key, value in options.items():  # msgspec does not name the keys of a dict
            try:
                kind: Any = list[float] if key in NUMBERS else str | float | bool | None
                convert(value, kind, where=where)
            except InvalidContent as error:
                raise error.at(key) from error
        plain = {key: getattr(known, key) for key in PLAIN}
        parts = tuple(cls.from_header(part, where) for part in known.parts)
        return cls(
            **plain,
            sha256=known.weights_sha256,
            config_sha256=known.config_sha256,
            options=options,
            parts=parts,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as one JSON-able dict; digests and parts only where there are any."""
        flat = {key: getattr(self, key) for key in PLAIN} | dict(self.options)
        if self.parts:
            flat[PARTS] = [part.as_dict() for part in self.parts]
        digests = {DIGEST: self.sha256, CONFIG_DIGEST: self.config_sha256}
        return flat | {key: value for key, value in digests.items() if value}

    def header(self) -> dict[str, Any]:
        """Return `as_dict` without absolute paths: ``local-dir:/a/b`` becomes ``local-dir:b``."""
        entry = self.as_dict()
        if self.folder:
            entry["name"] = LOCAL_DIR + self.folder.name
        if self.parts:
            entry[PARTS] = [part.header() for part in self.parts]
        return entry

    def identity(self) -> dict[str, Any]:
        """Return the entries that must match for a checkpoint: a file's digest, not its name."""
        if self.parts:
            return {PARTS: [part.identity() for part in self.parts]}
        entry = self.header()
        if self.sha256:
            del entry["weights"]
            covers_config = not self.weights or self.config_sha256
            if self.folder or (self.is_repository and covers_config):
                del entry["name"]
        return entry

    def without_unrecorded(self, then: Spec) -> Spec:
        """Return this record as a version without digests of folders or of configs wrote it.

        Args:
            then: the record of a checkpoint.

        Returns:
            This record; without the digests that `then` lacks and earlier versions did not write.
        """
        if self.parts and len(self.parts) == len(then.parts):
            pairs = zip(self.parts, then.parts, strict=True)
            return replace(self, parts=tuple(now.without_unrecorded(old) for now, old in pairs))
        if self.is_repository and then.is_repository and then.pretrained and not then.sha256:
            return replace(self, sha256="", config_sha256="")
        return self if then.config_sha256 else replace(self, config_sha256="")

    @property
    def is_repository(self) -> bool:
        """Whether the name is that of a local folder or of a repository of the hub."""
        return self.name.startswith((LOCAL_DIR, *HUB))

    @property
    def folder(self) -> Path | None:
        """Return the folder of a `local-dir:` name, else None."""
        local = self.name.startswith(LOCAL_DIR)
        return Path(self.name.removeprefix(LOCAL_DIR)) if local else None

    def loader_arguments(
        self, given: Places, checkpoint: str | os.PathLike, argument: str
    ) -> dict[str, Any]:
        """Return the loader's arguments, with local paths resolved.

        Args:
            given: where the user says it is, a file or folder; "" leaves `places`, the current
                folder and the checkpoint's.
            checkpoint: the file whose header this record comes from.
            argument: name of the argument `given`, for messages.

        Raises:
            UserError: `given` does not exist, is several places or a folder in place of a file, or
                nothing is found.
        """
        given = as_texts(given)
        if not isinstance(given, str):
            raise UserError(
                f"{argument} names {len(given)} places, but {checkpoint} was trained with "
                f"{self.name} alone: give one."
            )
        digests = (DIGEST, CONFIG_DIGEST)
        arguments = {key: value for key, value in self.as_dict().items() if key not in digests}
        given = str(user_path(given, argument)) if given else ""
        if given and not os.path.exists(given):
            raise UserError(f"{argument} is {given}, which does not exist.")
        if self.weights:
            inside = os.path.join(given, self.weights) if os.path.isdir(given) else given
            usual = self._usual_places(self.weights, checkpoint)
            arguments["weights"] = self._found([inside], usual, self.weights, checkpoint, argument)
        elif given and self.sha256 and not self.folder:  # in place of the one in a cache
            arguments |= self._in_place_of_cached(given, argument)
        if self.folder:
            folder = str(self.folder)
            named, usual = [given], self._usual_places(folder, checkpoint)
            if self.weights:
                near = os.path.dirname(os.path.abspath(arguments["weights"]))
                named += [os.path.join(given, folder)] if given else []
                usual += [near, os.path.join(near, folder)]
                named = [place for place in named if _describes_a_model(place)]
                usual = [place for place in usual if _describes_a_model(place)]
            found = self._found(named, usual, folder, checkpoint, argument)
            arguments["name"] = LOCAL_DIR + found
        return arguments

    def _in_place_of_cached(self, given: str, argument: str) -> dict[str, str]:
        """Return the loader's arguments for a file, or for a repository's folder, that is given."""
        if not os.path.isdir(given):
            return {"weights": given}
        if self.is_repository:
            return {"name": LOCAL_DIR + given}
        raise UserError(f"{argument} is {given}, a folder: name the weights file of {self.name}.")

    def _usual_places(self, local: str, checkpoint: str | os.PathLike) -> list[str]:
        """Return where a file or folder may be: at `places`, here, and beside the checkpoint."""
        return [*self._recorded(local), local, os.path.join(os.path.dirname(checkpoint), local)]

    def _recorded(self, local: str) -> list[str]:
        """Return those of `places` that end in the name of a file or folder."""
        return [place for place in self.places if Path(place).name == Path(local).name]

    def _found(
        self,
        named: Sequence[str],
        usual: Sequence[str],
        local: str,
        checkpoint: str | os.PathLike,
        argument: str,
    ) -> str:
        """Return the path of a file or folder.

        Args:
            named: what the user gives; the first that is there is taken, whatever it holds.
            usual: where it is looked for otherwise. Several may have its name: one that
                `_looks_right` goes before the others.
            local: its recorded name.
            checkpoint: as for `loader_arguments`.
            argument: as for `loader_arguments`.
        """
        if there := _existing(named):
            return there[0]
        if there := _existing(usual):
            return next(filter(self._looks_right, there), there[0]) if there[1:] else there[0]
        places = ["in the current folder", "beside the checkpoint"]
        places = [*(f"at {place}" for place in self._recorded(local)[:1]), *places]
        raise UserError(
            f"{checkpoint} was trained with {local}, which is neither {' nor '.join(places)}: "
            f"say where it is with {argument}=..."
        )

    def _looks_right(self, place: str) -> bool:
        """Return whether a folder has a config, or a file the recorded content."""
        if os.path.isdir(place):
            return _describes_a_model(place)
        return not self.sha256 or file_digest(place) == self.sha256


def _existing(places: Sequence[str]) -> list[str]:
    """Return the places that exist, one of each."""
    there = {os.path.realpath(place): place for place in places[::-1] if os.path.exists(place)}
    return list(there.values())[::-1]


def _describes_a_model(folder: str) -> bool:
    """Return whether a folder holds a config, as timm, transformers and open_clip write it."""
    return bool(folder) and any(Path(folder).glob("*config.json"))
