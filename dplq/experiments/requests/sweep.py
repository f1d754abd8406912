"""Sweep files: protocols x datasets x trainers x shots x seeds x settings, as YAML."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from dplq.errors import UserError, few, shown, suggest
from dplq.experiments.engines import ENGINES, LOCAL
from dplq.experiments.requests import flags
from dplq.experiments.requests.common_settings import (
    COMMON,
    check_common,
    check_sections,
    has_effect,
    own_options,
)
from dplq.experiments.requests.names import find_dataset, find_trainers
from dplq.experiments.requests.request import (
    PROTOCOLS,
    SEEDS,
    Request,
    Variant,
    effective_shots,
    find_protocol,
)
from dplq.experiments.requests.values import RESERVED, Options, recorded
from dplq.io.imports import located
from dplq.io.protocols import add_configs
from dplq.io.validation.paths import name_problem
from dplq.io.validation.yaml_file import read_yaml

logger = logging.getLogger(__name__)
T = TypeVar("T")
Text = Annotated[str, Meta(min_length=1)]
Seed = Annotated[int, Meta(ge=0, lt=2**32)]
Shots = Annotated[int, Meta(ge=-1, le=2**53)]
Scalar = bool | int | float | str
Value = Scalar | list[Scalar] | None
VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")  # a part of a folder's name
REMEDY = "docs/run.md describes sweep files."


class Exclusion(msgspec.Struct, forbid_unknown_fields=True):
    """Runs that are left out: those that have one of the values of every key that is given."""

    protocol: Text | list[Text] | None = None
    dataset: Text | list[Text] | None = None
    trainer: Text | list[Text] | None = None
    shots: Shots | list[Shots] | None = None
    seed: Seed | list[Seed] | None = None
    settings: Text | list[Text] | None = None


class SweepFile(msgspec.Struct, forbid_unknown_fields=True):
    """The content of a sweep file; docs/run.md explains the keys."""

    protocols: Text | list[Text]
    datasets: Text | list[Text]
    trainers: Text | list[Text] | None = None
    shots: Shots | list[Shots] | None = None
    seeds: Seed | list[Seed] = msgspec.field(default_factory=lambda: list(SEEDS))
    settings: dict[str, dict[str, Value]] = {}
    options: dict[str, Value] = {}
    exclude: list[Exclusion] = []
    configs: dict[str, str] = {}
    targets: Text | list[Text] = []
    generalised: bool = False
    depth: Annotated[int, Meta(ge=1)] | None = None
    precision: str | None = None
    backbone: str | None = None
    engine: Text | dict[str, Any] | None = None  # the engine validates its options
    data: Text | None = None
    out: Text | None = None
    imports: Text | list[Text] = []
    config_folder: Text | None = None


@dataclass(frozen=True)
class Sweep:
    """What a sweep file asks for: its requests, and the engine's name and options."""

    requests: list[Request]
    engine: tuple[str, dict[str, Any]]


def read_sweep(
    path: Path,
    caller: Path,
    *,
    data: str | None = None,
    out: str | None = None,
    options: Options = (),
    imports: Sequence[str] = (),
    config_folder: str | None = None,
) -> Sweep:
    """Return what a sweep file asks for.

    Args:
        path: the file.
        caller: folder that relative paths begin in.
        data: folder of the datasets, in place of the file's.
        out: folder of the results, likewise.
        options: config keys and values for all runs, besides the file's.
        imports: modules, besides the file's.
        config_folder: of more config files, in place of the file's.

    Raises:
        UserError: a key or a value is wrong; file and key are named.
    """
    content: SweepFile = read_yaml(path, SweepFile, remedy=REMEDY)
    if own := config_folder or content.config_folder:
        add_configs(flags.folder(own, f"{path}: config_folder", caller))
    content.imports = [*_several(content.imports), *imports]
    reader = _Reader(path, content, caller, options)
    folders = {
        "data": flags.data_folder(data or content.data or "data", f"{path}: data", caller),
        "out": flags.folder(out or content.out or "output", f"{path}: out", caller),
    }
    return Sweep(list(reader.requests(folders)), reader.engine())


class _Reader:
    """The parts of a sweep file as parts of requests; errors name the file and the key."""

    def __init__(self, path: Path, content: SweepFile, caller: Path, options: Options) -> None:
        self.path, self.content, self.caller, self.given = path, content, caller, options
        self.datasets = self._names("datasets", find_dataset)
        self.protocols = self._names("protocols", find_protocol)
        self.targets = self._names("targets", find_dataset)
        self.exclusions = [
            self._exclusion(one, number) for number, one in enumerate(content.exclude)
        ]
        self.used: set[int] = set()  # numbers of the exclusions that leave something out
        if not self.datasets or not self.protocols:
            raise self._error("datasets" if self.protocols else "protocols", "name at least one.")

    def requests(self, folders: Mapping[str, Path]) -> Iterator[Request]:
        """Yield the requests: those combinations whose seeds are the same are one.

        Raises:
            UserError: a key or a value is wrong.
        """
        configs, shared = self._configs(), self._common()
        with self._named("imports"):
            imports = located(_several(self.content.imports))
        for_all = self._pairs("options", self.content.options)
        variants = [self._variant(name) for name in self.content.settings] or [Variant()]
        plain = [name for name, values in self.content.settings.items() if not values]
        self._warn_of_unused(
            {"options": for_all} | {f"settings.{v.name}": v.options for v in variants}
        )
        found = 0
        for protocol, variant, dataset in itertools.product(
            self.protocols, variants, self.datasets
        ):
            for trainer, shots in self._trainers_and_shots(protocol):
                own = own_options(variant.options, trainer)
                name = variant.name if own or has_effect(variant.common, trainer) else ""
                point: dict[str, set[Any]] = {
                    **{"protocol": {protocol}, "dataset": {dataset}, "trainer": {trainer}},
                    # what is left of other settings may be the plain ones, which have names, too
                    **{"shots": {shots}, "settings": {variant.name, *([] if name else plain)}},
                }
                if seeds := self._seeds(point):
                    found += 1
                    yield Request(
                        protocol=protocol,
                        datasets=(dataset,),
                        trainers=(trainer,),
                        shots=(shots,),
                        seeds=seeds,
                        configs=configs,
                        common=shared,
                        options=own_options(for_all, trainer),
                        given=own_options(self.given, trainer),
                        variant=replace(variant, name=name, options=own),
                        targets=self.targets,
                        generalised=self.content.generalised,
                        imports=imports,
                        **folders,
                    )
        if not found:
            raise self._error("exclude", "nothing is left to run.")
        for number in sorted(set(range(len(self.exclusions))) - self.used):
            logger.warning("%s: exclude[%d] leaves out nothing.", self.path, number)

    def _warn_of_unused(self, options: Mapping[str, Options]) -> None:
        """Warn of config keys of trainers that are not in this sweep.

        Args:
            options: by their key in the file.
        """
        trainers = {one for protocol in self.protocols for one in self._trainers(protocol)}
        for key, pairs in options.items():
            used = {pair for trainer in trainers for pair in own_options(pairs, trainer)}
            if unused := [name for name, value in pairs if (name, value) not in used]:
                logger.warning(
                    "%s: %s: %s changes nothing: its trainer is not in this sweep.",
                    *(self.path, key, few(unused)),
                )

    def engine(self) -> tuple[str, dict[str, Any]]:
        """Return the name and the options of the engine; the default where none is named."""
        given = self.content.engine
        options = {"name": given} if isinstance(given, str) else dict(given or {})
        name = options.pop("name", LOCAL)
        if not isinstance(name, str):
            raise self._error("engine.name", f"{shown(name)} is no name.", ENGINES)
        return name, options

    def _trainers(self, protocol: str) -> tuple[str, ...]:
        given = _several(self.content.trainers)
        with self._named("trainers"):
            return find_trainers(given or PROTOCOLS[protocol].trainers)

    def _trainers_and_shots(self, protocol: str) -> Iterator[tuple[str, int]]:
        shots = self._shots(protocol)
        for trainer in self._trainers(protocol):
            for number in effective_shots(protocol, trainer, shots):
                yield trainer, number

    def _shots(self, protocol: str) -> tuple[int, ...]:
        given = tuple(dict.fromkeys(_several(self.content.shots)))
        if 0 in given:
            raise self._error("shots", "0: give numbers above 0, or -1 for all images.")
        return given or PROTOCOLS[protocol].shots

    def _seeds(self, point: Mapping[str, set[Any]]) -> tuple[int, ...]:
        """Return the seeds of a combination, values by the keys of exclusions, that remain."""
        left_out: set[int] = set()
        seeds = dict.fromkeys(_several(self.content.seeds))
        for number, exclusion in enumerate(self.exclusions):
            of_seeds = exclusion.get("seed", set(seeds)) & seeds.keys()
            if of_seeds and all(of & point[key] for key, of in exclusion.items() if key != "seed"):
                self.used.add(number)
                left_out |= of_seeds
        return tuple(seed for seed in seeds if seed not in left_out)

    def _exclusion(self, given: Exclusion, number: int) -> dict[str, set[Any]]:
        """Return the values of the keys that an exclusion names."""
        key = f"exclude[{number}]"
        named = {name: _several(of) for name, of in msgspec.structs.asdict(given).items()}
        found: dict[str, set[Any]] = {name: set(of) for name, of in named.items() if of}
        finders = {"protocol": find_protocol, "dataset": find_dataset}
        for name, find in finders.items():
            if name in found:
                with self._named(f"{key}.{name}"):
                    found[name] = set(map(find, found[name]))
        if "trainer" in found:
            with self._named(f"{key}.trainer"):
                found["trainer"] = set(find_trainers(list(named["trainer"])))
        unknown = found.get("settings", set()) - self.content.settings.keys()
        if unknown:
            raise self._error(
                f"{key}.settings", f"there is no '{few(unknown)}'.", self.content.settings
            )
        if not found:
            raise self._error(key, "it names nothing: it would leave all out.")
        return found

    def _variant(self, name: str) -> Variant:
        key = f"settings.{name}"
        if not VARIANT.fullmatch(name) or name_problem(name):
            raise self._error(key, "give a name of letters, digits and _ . + - for folders.")
        values = self.content.settings[name]
        with self._named(key):
            common = {of: _text(values[of], of) for of in COMMON if of in values}
            check_common(common)
        return Variant(name, common, self._pairs(key, values))

    def _common(self) -> dict[str, str]:
        given = {name: getattr(self.content, name) for name in COMMON}
        common = {name: str(value) for name, value in given.items() if value is not None}
        with self._named(""):
            check_common(common)
        return common

    def _pairs(self, key: str, values: Mapping[str, Value]) -> Options:
        for name in values:
            if name in RESERVED:
                raise self._error(f"{key}.{name}", "the plan sets this itself.")
            if name not in COMMON and "." not in name:
                raise self._error(f"{key}.{name}", "neither a config key nor one of", COMMON)
            if name in COMMON and key == "options":
                raise self._error(f"{key}.{name}", "write it beside options.")
        found = tuple(
            (name, recorded(name, _text(value, name), self.caller))
            for name, value in values.items()
            if name not in COMMON
        )
        with self._named(key):
            check_sections(found)
        return found

    def _configs(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for trainer, config in self.content.configs.items():
            with self._named("configs"):
                key = "" if trainer == "all" else find_trainers([trainer])[0]
            found[key] = config
        return found

    def _names(self, key: str, find: Any) -> tuple[str, ...]:
        with self._named(key):
            return tuple(dict.fromkeys(map(find, _several(getattr(self.content, key)))))

    @contextmanager
    def _named(self, key: str) -> Iterator[None]:
        """Have the message of a UserError begin with the file and a key."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{self.path}: {f'{key}: ' * bool(key)}{error}") from error

    def _error(self, key: str, problem: str, choices: Any = ()) -> UserError:
        return UserError(f"{self.path}: {key}: {problem}{suggest('', choices) if choices else ''}")


def _several(value: T | list[T] | None) -> list[T]:
    """Return one value, several or none as a list."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def _text(value: Value, key: str) -> str:
    """Return a value of a config key as on a command line."""
    if isinstance(value, list):
        # a list is a Python literal, but names and paths of domain encoders are written plainly
        written = str if key.startswith("DOMAIN.") else repr
        return f"[{', '.join(map(written, value))}]"
    return str(value)
