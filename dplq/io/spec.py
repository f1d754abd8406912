"""Provenance record of a frozen backbone or domain encoder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dplq.errors import UserError
from dplq.io.validation.paths import user_path
from dplq.io.validation.schema import InvalidContent, Name, convert

LOCAL_DIR = "local-dir:"
DIGEST = "weights_sha256"
PLAIN = ("name", "weights", "pretrained", "seed")


class SpecEntry(msgspec.Struct):
    """A `Spec` in a checkpoint's header; every other key is one of its options."""

    name: Name
    weights: str = ""
    pretrained: bool = True
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    weights_sha256: str = ""


@dataclass(frozen=True)
class Spec:
    """Arguments that rebuild a frozen part, and what identifies it.

    Attributes:
        name: the loader's first argument: `ViT-B/16`, `NAME:TAG`, `local-dir:PATH`, a timm name.
        weights: file name of the local checkpoint it was loaded from; "" if there was none.
        pretrained: False for random weights.
        seed: of the random weights.
        sha256: of a local checkpoint, in hex; "" where there was none.
        options: the loader's other arguments, such as a domain encoder's `feature`.
    """

    name: str
    weights: str = ""
    pretrained: bool = True
    seed: int = 0
    sha256: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

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
        options = {k: v for k, v in entry.items() if k not in (*PLAIN, DIGEST)}
        for key, value in options.items():  # msgspec does not name the keys of a dict
            try:
                convert(value, str | float | bool | None, where=where)
            except InvalidContent as error:
                raise error.at(key) from error
        plain = {key: getattr(known, key) for key in PLAIN}
        return cls(**plain, sha256=known.weights_sha256, options=options)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as one JSON-able dict; the digest only if there is one."""
        flat = {key: getattr(self, key) for key in PLAIN} | dict(self.options)
        return flat | ({DIGEST: self.sha256} if self.sha256 else {})

    def header(self) -> dict[str, Any]:
        """Return `as_dict` without absolute paths: ``local-dir:/a/b`` becomes ``local-dir:b``."""
        return self.as_dict() | ({"name": LOCAL_DIR + self.folder.name} if self.folder else {})

    def identity(self) -> dict[str, Any]:
        """Return the entries that must match for a checkpoint: a file's digest, not its name."""
        entry = self.header()
        if self.sha256:
            del entry["weights"]
            if self.folder:
                del entry["name"]
        return entry

    @property
    def folder(self) -> Path | None:
        """Return the folder of a `local-dir:` name, else None."""
        local = self.name.startswith(LOCAL_DIR)
        return Path(self.name.removeprefix(LOCAL_DIR)) if local else None

    def loader_arguments(
        self, given: str, checkpoint: str | os.PathLike, argument: str
    ) -> dict[str, Any]:
        """Return the loader's arguments, with local paths resolved.

        Args:
            given: where the user says it is; "" leaves the current folder and the checkpoint's.
            checkpoint: the file whose header this record comes from.
            argument: name of the argument `given`, for messages.

        Raises:
            UserError: `given` does not exist, or nothing is found.
        """
        arguments = {key: value for key, value in self.as_dict().items() if key != DIGEST}
        given = str(user_path(given, argument)) if given else ""
        if given and not os.path.exists(given):
            raise UserError(f"{argument} is {given}, which does not exist.")
        local = self.weights or (str(self.folder) if self.folder else "")
        if not local:
            return arguments
        for candidate in (given, local, os.path.join(os.path.dirname(checkpoint), local)):
            if candidate and os.path.exists(candidate):
                key, value = (
                    ("weights", candidate) if self.weights else ("name", LOCAL_DIR + candidate)
                )
                return {**arguments, key: value}
        raise UserError(
            f"{checkpoint} was trained with {local}, which is neither in the current folder nor "
            f"beside the checkpoint: say where it is with {argument}=..."
        )
