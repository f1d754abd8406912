"""Base-to-new table of all trainers on several fields, made by one command.

    python benchmarks/fair_table.py [--fields FILE] [--seeds 1 2 3 4 5 6] [--jobs 2] [--table FILE]

A field is a dataset with the options of its runs. demo_aerial and demo_tissue are built in; a YAML
file adds others (benchmarks/README.md). Trainers and configs are those of configs/protocols.yaml.
Every trainer of a field is one call of scripts/base2new.sh, so that the same command goes on after
an interruption. A trainer that fails is named before the table, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.script_runs import ROOT, base2new, check_marks, in_parallel, write_table
from dplq.errors import UserError, suggest
from dplq.experiments.protocols import DEMO, default_config, read_protocols, trainers
from dplq.io.validation.yaml_file import read_yaml
from dplq.results import Row, Run, Table, collect, summarise
from dplq.results.composite import composites
from dplq.results.names import row_names
from dplq.results.rendering import Line
from dplq.results.tables import COST_COLUMNS, cost_notes, note, seed_text

PARTS = ("train_base", "test_new", "test_all")
COLUMNS = ("base", "new", "H", "gen. base", "gen. new", "gen. H")
COSTS = ("learnable_parameters", "seconds_per_step", "peak_memory_mib")
COLD = {"TRAIN.FEATURE_CACHE": 0}  # seconds and memory do not depend on what ran before
Scalar = bool | int | float | str


class Field(msgspec.Struct, forbid_unknown_fields=True):
    """Dataset of a table, and the options of its runs; benchmarks/README.md explains the keys."""

    dataset: str
    root: str = ""
    config: str = ""
    options: dict[str, Scalar] = msgspec.field(default_factory=dict)
    trainers: dict[str, dict[str, Scalar]] = msgspec.field(default_factory=dict)
    leave_out: list[str] = msgspec.field(default_factory=list)


class Call(NamedTuple):
    """One call of the script: a trainer with one of its configs on a field."""

    field: str
    trainer: str
    config: str


FIELDS = {name: Field(dataset=name, config=DEMO) for name in ("demo_aerial", "demo_tissue")}


def read_fields(path: Path) -> dict[str, Field]:
    """Return the fields of a YAML file by name.

    Raises:
        UserError: a key or a value is wrong, or a trainer is unknown.
    """
    fields: dict[str, Field] = read_yaml(path, dict[str, Field])
    known = trainers()
    for name, field in fields.items():
        if name in FIELDS:
            raise UserError(f"{path}: the field {name} is built in: give another name")
        for trainer in [*field.trainers, *field.leave_out]:
            if trainer not in known:
                raise UserError(
                    f"{path}: {name} names the trainer '{trainer}'.{suggest(trainer, known)}"
                )
    return fields


def configs_of(trainer: str, field: Field, shots: int) -> list[str]:
    """Return the configs of a trainer on a field: its default, and that with each variant."""
    plain = field.config or default_config(trainer, "base2new", shots)
    entry = read_protocols().get(trainer)
    variants = entry.variants if entry else []
    return [plain, *(f"{plain}_{variant}" for variant in variants)]


def calls_of(fields: Mapping[str, Field], chosen: Iterable[str], shots: int) -> list[Call]:
    """Return all calls, field by field, trainers in the order of configs/protocols.yaml."""
    return [
        Call(name, trainer, config)
        for name, field in fields.items()
        for trainer in chosen
        if trainer not in field.leave_out
        for config in configs_of(trainer, field, shots)
    ]


def run(
    call: Call, field: Field, folder: Path, out: Path, seeds: Sequence[int], shots: int
) -> None:
    """Run all seeds of a call; relative paths of the field begin in `folder`."""
    environment = {
        **{"OUT": str(out / call.field), "TRAINERS": call.trainer, "CFG": call.config},
        **{"SHOTS": str(shots), "GENERALISED": "yes"},
        **({"DATA": field.root} if field.root else {"DATA": str(ROOT / "data")}),
    }
    settings = COLD | field.options | field.trainers.get(call.trainer, {})
    base2new(field.dataset, seeds, settings, environment, folder)


def runs_of(call: Call, field: Field, out: Path, seeds: Sequence[int], shots: int) -> list[Run]:
    """Return the finished runs of a call; none where it failed at once."""
    place = f"{field.dataset}/shots_{shots}/{call.trainer}/{call.config}"
    folders = [out / call.field / "base2new" / part / place for part in PARTS]
    there = [folder for folder in folders if any(folder.glob("seed*/results.json"))]
    return [run for run in collect(there) if run.seed in seeds] if there else []


def with_composites(runs: Sequence[Run], plain: str) -> list[Run]:
    """Return the runs of a field and those of its composite, where it has one."""
    try:
        return [*runs, *composites(runs, plain)]
    except UserError:  # no head, or no zero-shot runs
        return runs


def make_table(by_field: Mapping[str, Sequence[Run]], fields: Mapping[str, Field]) -> Table:
    """Return the table of the runs of all fields, with the composites."""
    lines, rows, devices = [], [], set()
    for field, finished in by_field.items():
        runs = with_composites(finished, fields[field].config)
        names = row_names((run.setting for run in runs), fields[field].config)
        of_field = summarise(runs, keep_order=True)
        lines += [_line(field, names[row.setting], row) for row in of_field]
        rows += of_field
        devices |= {device for row in of_field for device in row.devices}
    ran_on = f"Run on: {'; '.join(sorted(devices)) or 'not known'}; several runs at once."
    return Table(
        lines=lines,
        columns=COLUMNS,
        note=[*note(rows, ci95=True), *cost_notes(COSTS), ran_on],
        numbers={name: COST_COLUMNS[name] for name in COSTS},
        dropped=(),
        noted=("seeds",),
        group=("field",),
    )


def _line(field: str, name: str, row: Row) -> Line:
    labels = {"field": field, "trainer": name, "seeds": seed_text(row.seeds)}
    return Line(labels, row.stats, row.rounded, row.costs, row.values)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--fields", type=Path, metavar="FILE", help="YAML file with more fields")
    add("--only", nargs="+", metavar="FIELD", help="fields of the table (default: all)")
    add("--trainers", nargs="+", metavar="TRAINER", help="default: all with configs")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    add("--shots", type=int, default=16)
    add("--jobs", type=int, default=2, help="calls at once")
    add("--out", type=Path, default=ROOT / "output/fair_table", help="folder of the runs")
    add("--table", type=Path, help="write the table between the marks of this file")
    return parser


def _chosen(words: Sequence[str] | None, known: Sequence[str], what: str) -> list[str]:
    """Return the known names, or those of them that were given, in their own order.

    Raises:
        UserError: a given one is unknown.
    """
    for word in words or ():
        if word not in known:
            raise UserError(f"the {what} '{word}' is unknown.{suggest(word, known)}")
    return [name for name in known if not words or name in words]


def make(args: argparse.Namespace) -> int:
    """Make the runs and the table that the arguments select; return the exit code."""
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}: give 1 or more")
    if args.table:
        check_marks(args.table)
    more = read_fields(args.fields) if args.fields else {}
    every, folder = FIELDS | more, args.fields.resolve().parent if args.fields else ROOT
    fields = {name: every[name] for name in _chosen(args.only, list(every), "field")}
    chosen, out = _chosen(args.trainers, trainers(), "trainer"), args.out.resolve()
    calls = calls_of(fields, chosen, args.shots)
    tasks = {
        call: partial(run, call, fields[call.field], folder, out, args.seeds, args.shots)
        for call in calls
    }
    failed = [(call, error) for call, error in in_parallel(tasks, args.jobs) if error]
    for call, error in failed:
        print(f"error: {' '.join(call)}: {error}", file=sys.stderr)
    by_field: dict[str, list[Run]] = {name: [] for name in fields}
    for call in calls:
        by_field[call.field] += runs_of(call, fields[call.field], out, args.seeds, args.shots)
    if not any(by_field.values()):
        print("error: there is no table: no run of these fields has finished", file=sys.stderr)
        return 1
    table = make_table({name: rows for name, rows in by_field.items() if rows}, fields)
    text = table.render("github", ci95=True)
    print(text)
    if args.table:
        write_table(args.table, text)
    return int(bool(failed))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    try:
        return make(build_parser().parse_args(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
