"""A request for an experiment, and its plan: a function of it and of ``configs/``.

Targets of transfer that are not named are the datasets that lie in the data folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dplq.errors import UserError, few, suggest
from dplq.experiments.base2new import base2new
from dplq.experiments.few_shot import few_shot, shots_of
from dplq.experiments.plan import Plan, TableRequest, merge, replaced_files
from dplq.experiments.requests.common_settings import expand, merged, without_effect
from dplq.experiments.requests.names import find_config
from dplq.experiments.requests.values import Options
from dplq.experiments.series import Series
from dplq.experiments.transfer import CROSS, WHOLE, default_targets, transfer, warnings_of


@dataclass(frozen=True)
class Protocol:
    """What a protocol runs where the request does not say it.

    Attributes:
        configs: name of its default configs, one of `dplq.io.protocols.PROTOCOLS`.
        trainers: names; ("all",) for all.
        shots: training images per class.
        targets: kind of its default targets, as `default_targets` has it; "": it has none.
        flags: of the table at the end.
    """

    configs: str
    trainers: tuple[str, ...] = ("QuaternionPrompt",)
    shots: tuple[int, ...] = (16,)
    targets: str = ""
    flags: tuple[str, ...] = ()


PROTOCOLS = {
    "base2new": Protocol("base2new"),
    "compare": Protocol("base2new", trainers=("all",), flags=("--costs",)),
    "few-shot": Protocol(
        "few_shot",
        trainers=("ZeroshotCLIP", "QuaternionPrompt"),
        shots=(1, 2, 4, 8, 16),
        flags=("--by", "shots"),
    ),
    "cross-dataset": Protocol("transfer", targets=CROSS, flags=("--by", "target")),
    "domain-generalization": Protocol("transfer", targets=WHOLE, flags=("--by", "target")),
}
DATASET, SEEDS = "demo_aerial", (1, 2, 3)  # where none are given


@dataclass(frozen=True)
class Variant:
    """Named settings of a sweep, which take precedence over those of all runs.

    Attributes:
        name: a part of the folders' names; "": there are none.
        common: values for all trainers, by a name of `COMMON`.
        options: config keys and values.
    """

    name: str = ""
    common: Mapping[str, str] = field(default_factory=dict)
    options: Options = ()


@dataclass(frozen=True)
class Request:
    """A protocol with what it is to run; all names exist.

    Attributes:
        protocol: a key of `PROTOCOLS`.
        datasets: files of ``configs/datasets``, without their ending; sources for transfer.
        trainers: folders of ``configs/trainers``.
        out: folder of all results.
        data: folder of the datasets.
        shots: training images per class, each with runs of its own; -1 for all.
        seeds: of the runs.
        configs: files of ``configs/trainers`` by trainer; that of "" is for all others.
        common: values for all trainers, by a name of `COMMON`.
        options: config keys and values.
        variant: settings besides, whose name is a part of the folders' names.
        given: config keys and values of the command line, over all others.
        targets: of transfer; empty: the source's own.
        generalised: base-to-new tests among all class names together, too.
        imports: modules with trainers and datasets of a user's own, as `located` returns them.
    """

    protocol: str
    datasets: tuple[str, ...]
    trainers: tuple[str, ...]
    out: Path
    data: Path
    shots: tuple[int, ...] = (16,)
    seeds: tuple[int, ...] = SEEDS
    configs: Mapping[str, str] = field(default_factory=dict)
    common: Mapping[str, str] = field(default_factory=dict)
    options: Options = ()
    variant: Variant = Variant()
    given: Options = ()
    targets: tuple[str, ...] = ()
    generalised: bool = False
    imports: tuple[str, ...] = ()


def find_protocol(name: str) -> str:
    """Return the protocol of a name, whatever the case; ``_`` may stand for ``-``.

    Raises:
        UserError: there is none.
    """
    found = name.lower().replace("_", "-")
    if found not in PROTOCOLS:
        raise UserError(f"unknown protocol '{name}'.{suggest(name, PROTOCOLS)}")
    return found


def effective_shots(protocol: str, trainer: str, shots: Sequence[int]) -> Sequence[int]:
    """Return the numbers of shots that a trainer is run with in a protocol."""
    return shots_of(trainer, shots) if protocol == "few-shot" else shots


def make_plan(requests: Sequence[Request]) -> Plan:
    """Return the plan of requests; runs that they share are done once.

    Raises:
        UserError: a trainer has no config for it, or two different runs share a folder.
    """
    targets = _default_targets(requests)
    plan = merge(
        _plan(request, dataset, request.targets or targets.get((request.protocol, dataset), ()))
        for request in requests
        for dataset in request.datasets
    )
    common: dict[str, str] = {}
    for request in requests:
        common |= {**request.common, **request.variant.common}
    trainers = dict.fromkeys(name for request in requests for name in request.trainers)
    notes = [*without_effect(common, trainers), *replaced_files(plan.runs), *plan.notes]
    out = {request.out for request in requests}
    common_out = out.pop() if len(out) == 1 else None
    return Plan(plan.runs, plan.folders, _joined(plan.tables), notes, common_out)


def _default_targets(requests: Sequence[Request]) -> dict[tuple[str, str], list[str]]:
    """Return the targets by protocol and source, for the requests that name none."""
    sources: dict[tuple[str, Path, tuple[str, ...]], dict[str, None]] = {}
    for request in requests:
        if PROTOCOLS[request.protocol].targets and not request.targets:
            key = (request.protocol, request.data, request.imports)
            sources.setdefault(key, {}).update(dict.fromkeys(request.datasets))
    return {
        (protocol, source): targets
        for (protocol, data, imports), of in sources.items()
        for source, targets in default_targets(
            list(of), data, PROTOCOLS[protocol].targets, imports
        ).items()
    }


def _plan(request: Request, dataset: str, targets: Sequence[str]) -> Plan:
    """Return the plan of a request for one of its datasets."""
    protocol = PROTOCOLS[request.protocol]
    series = list(_series(request, dataset))
    if protocol.targets:
        plans = [
            Plan(notes=warnings_of(dataset, targets, protocol.targets)),
            *(transfer(one, targets) for one in series),
        ]
    elif request.protocol == "few-shot":
        plans = [few_shot(one) for one in series]
    else:
        plans = [base2new(one, generalised=request.generalised) for one in series]
    whole = merge(plans)
    return Plan(whole.runs, whole.folders, [_table(request, dataset, whole)], whole.notes)


def _series(request: Request, dataset: str) -> Iterator[Series]:
    kind = PROTOCOLS[request.protocol].configs
    for trainer in request.trainers:
        for shots in effective_shots(request.protocol, trainer, request.shots):
            config = find_config(trainer, dataset, kind, shots, request.configs)
            yield Series(
                dataset,
                trainer,
                config,
                request.seeds,
                request.out,
                shots,
                request.data,
                _options(request, trainer, config),
                request.variant.name,
                request.imports,
            )


def _options(request: Request, trainer: str, config: str) -> Options:
    """Return the options of a series: those of a variant over those of all runs.

    Raises:
        UserError: the command line has a key of the variant, whose name would mislead.
    """
    variant, given = request.variant, request.given
    own = expand(variant.common, variant.options, trainer, config)
    if twice := [key for key, _ in given if key in dict(own)]:
        raise UserError(
            f"settings.{variant.name} of {trainer} sets {few(twice)}, as the command line does: "
            f"results in {config}@{variant.name} would be of other settings. Change one of them."
        )
    shared = expand(request.common, request.options, trainer, config)
    return merged(merged(shared, own), given)


def _table(request: Request, dataset: str, plan: Plan) -> TableRequest:
    flags, title = PROTOCOLS[request.protocol].flags, request.protocol
    if "--by" in flags:  # a table of one dataset
        title = f"{title}, {dataset}"
    if request.protocol == "few-shot":  # a line of its table is a trainer, whatever its config
        variant = request.variant.name
        title += f", {variant}" if variant else ""
        name = f"few_shot@{variant}.png" if variant else "few_shot.png"
        flags = (*flags, "--curve", str(request.out / dataset / name))
    return TableRequest(title, plan.folders, flags)


def _joined(tables: Iterable[TableRequest]) -> list[TableRequest]:
    """Return tables of one title as one."""
    folders: dict[tuple[str, tuple[str, ...]], dict[Path, None]] = {}
    for table in tables:
        folders.setdefault((table.title, table.flags), {}).update(dict.fromkeys(table.folders))
    return [TableRequest(title, list(of), flags) for (title, flags), of in folders.items()]
