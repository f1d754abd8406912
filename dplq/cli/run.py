"""Command line of experiments: ``dplq run base2new ...``, or ``dplq run sweep.yaml``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dplq.errors import UserError, few, suggest
from dplq.io.exit_code import exit_code
from dplq.io.imports import add_import

if TYPE_CHECKING:
    from dplq.experiments.plan import Plan
    from dplq.experiments.requests.request import Request

# flags of the request, which a sweep file says itself
OF_REQUEST = (
    *("trainers", "seeds", "shots", "config", "targets", "generalised"),
    *("depth", "precision", "backbone"),
)
EPILOG = """examples:
    dplq run base2new demo_aerial --trainers CoOp --seeds 1
    dplq run compare demo_aerial --trainers CoOp MaPLe --depth 6 --jobs 2
    dplq run few-shot rsscn7 whurs19 --data my_data --shots 1 4 16 --per-gpu 4
    dplq run cross-dataset rsscn7 --data my_data --targets aid whurs19
    dplq run base2new my_scenes --import my_scenes --config-folder my_configs --data my_data
    dplq run sweep.yaml --dry-run
    dplq run sweep.yaml --engine slurm --engine-options partition=gpu time=120

The same command continues what was interrupted; finished runs are not repeated. docs/run.md has the
keys of sweep files, engines and folders. Exit code: 0 done, 2 bad input, 130 Ctrl-C, else that of
the first run that failed."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    from dplq.experiments.engines import ENGINES, LOCAL
    from dplq.experiments.requests.request import PROTOCOLS

    parser = argparse.ArgumentParser(
        prog="dplq run",
        description="Carry out an experiment: its runs, in folders of their own, and the tables of"
        " results.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    add = parser.add_argument
    add(
        "what",
        metavar="PROTOCOL|SWEEP.yaml",
        help=f"{', '.join(PROTOCOLS)}; or a file that combines them",
    )
    add(
        "datasets",
        nargs="*",
        default=[],
        metavar="DATASET",
        help="files of configs/datasets, or NAMEs in them; default: the built-in demo_aerial",
    )
    of_request = parser.add_argument_group("what is run (a sweep file says it itself)")
    add = of_request.add_argument
    add("--trainers", nargs="+", metavar="NAME", help="or all; default: the protocol's")
    add("--seeds", nargs="+", metavar="N", help="default: 1 2 3")
    add("--shots", nargs="+", metavar="N", help="images per class; -1: all (the protocol's)")
    add(
        "--config",
        nargs="+",
        metavar="[TRAINER=]CFG",
        help="files of configs/trainers/TRAINER (demo for built-in datasets, else the protocol's)",
    )
    add("--targets", nargs="+", metavar="DATASET", help="of transfer (those of the domain)")
    add("--generalised", action="store_true", help="base2new: test all class names together, too")
    add("--depth", metavar="N", help="layers with prompts, in every trainer's own keys")
    add("--precision", metavar="NAME", help="fp32, fp16, amp or bf16, for all trainers")
    add("--backbone", metavar="NAME", help="CLIP of all trainers, as MODEL.BACKBONE.NAME")
    own = parser.add_argument_group("your own trainers, datasets and configs")
    add_import(own)
    own.add_argument(
        "--config-folder",
        metavar="FOLDER",
        help="with datasets/*.yaml and trainers/TRAINER/*.yaml, over those of configs/",
    )
    places = parser.add_argument_group("where")
    add = places.add_argument
    add("--data", metavar="FOLDER", help="of the datasets (data)")
    add("--out", metavar="FOLDER", help="for the results (output)")
    add("--engine", metavar="NAME", help=f"{', '.join(ENGINES)} (default: {LOCAL})")
    add("--engine-options", nargs="+", default=[], metavar="KEY=VALUE", help="of the engine")
    add("--jobs", type=int, metavar="N", help="runs at once, on this machine")
    add(
        "--per-gpu",
        metavar="K",
        help="runs at once on each GPU of this machine; auto: as many as its memory holds",
    )
    add("--dry-run", action="store_true", help="show the runs and their states, start none")
    parser.add_argument(
        "options", nargs="*", default=[], metavar="-- KEY VALUE", help="config keys for all runs"
    )
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments before ``--``; datasets may follow flags."""
    return build_parser().parse_intermixed_args(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    args = parse(words[:cut])
    from dplq.experiments.signals import run_until_stopped

    return run_until_stopped(lambda: exit_code(lambda: run(args, words[cut + 1 :])))


def run(args: argparse.Namespace, options: list[str]) -> int:
    """Carry out what the arguments ask for, or show it."""
    from dplq.experiments.carry_out import carry_out
    from dplq.experiments.engines import LOCAL, engine_settings, open_engine

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    plan, (name, settings) = planned(args, options, Path.cwd())
    if args.dry_run:
        from dplq.experiments.check_configs import check_configs
        from dplq.experiments.dry_run import overview

        check_configs(plan.runs, here=name == LOCAL)
        engine_settings(name, settings)
        print(overview(plan))
        return 0
    if name == "slurm" and plan.out:  # beside the logs, whichever protocols there are
        from dplq.experiments.engines.slurm.settings import FOLDER

        settings.setdefault("folder", str(plan.out / FOLDER))
    return carry_out(
        plan,
        lambda: open_engine(name, settings),
        live=sys.stdout.isatty(),
        here=name == LOCAL,
    )


def planned(
    args: argparse.Namespace, options: list[str], caller: Path
) -> tuple[Plan, tuple[str, dict[str, Any]]]:
    """Return the plan, and the engine's name and options."""
    from dplq.experiments.engines import LOCAL
    from dplq.experiments.requests.common_settings import check_sections
    from dplq.experiments.requests.request import make_plan
    from dplq.experiments.requests.values import pairs

    given = pairs(options, caller, "the flags of dplq run: see its --help")
    check_sections(given)
    engine: tuple[str, dict[str, Any]] = (LOCAL, {})
    if args.what.lower().endswith((".yaml", ".yml")) or os.path.isfile(args.what):
        from dplq.experiments.requests.sweep import read_sweep

        if wrong := [name for name in ("datasets", *OF_REQUEST) if getattr(args, name)]:
            flags = (name if name == "datasets" else f"--{name}" for name in wrong)
            raise UserError(f"{few(flags)}: {args.what} says this itself; change it there.")
        sweep = read_sweep(
            Path(args.what),
            caller,
            data=args.data,
            out=args.out,
            options=given,
            imports=args.imports,
            config_folder=args.config_folder,
        )
        try:
            plan, engine = make_plan(sweep.requests), sweep.engine
        except UserError as error:  # such as a config that a trainer has not
            raise UserError(f"{args.what}: {error}") from error
    else:
        plan = make_plan([request_of(args, given, caller)])
    return plan, engine_of(args, engine)


def request_of(
    args: argparse.Namespace, options: tuple[tuple[str, str], ...], caller: Path
) -> Request:
    """Return the request of a command line with a protocol."""
    from dplq.experiments.requests import flags
    from dplq.experiments.requests.common_settings import COMMON, check_common
    from dplq.experiments.requests.names import find_dataset, find_trainers
    from dplq.experiments.requests.request import (
        DATASET,
        PROTOCOLS,
        SEEDS,
        Request,
        find_protocol,
    )
    from dplq.io.imports import located
    from dplq.io.protocols import add_configs

    if args.config_folder:
        add_configs(flags.folder(args.config_folder, "--config-folder", caller))
    protocol = find_protocol(args.what)
    default = PROTOCOLS[protocol]
    if args.targets and not default.targets:
        raise UserError(f"--targets is for cross-dataset and domain-generalization, not {protocol}")
    if args.generalised and default.configs != "base2new":
        raise UserError(f"--generalised is for base2new and compare, not {protocol}")
    common = {name: str(getattr(args, name)) for name in COMMON if getattr(args, name) is not None}
    check_common(common)
    if not args.datasets:
        print(f"No DATASET given: this is the built-in demo ({DATASET}).", flush=True)
    return Request(
        protocol=protocol,
        datasets=tuple(dict.fromkeys(map(find_dataset, args.datasets or [DATASET]))),
        trainers=find_trainers(args.trainers or default.trainers),
        out=flags.folder(args.out or "output", "--out", caller),
        data=flags.data_folder(args.data or "data", "--data", caller),
        shots=flags.shots(args.shots or [], "--shots") or default.shots,
        seeds=flags.seeds(args.seeds or []) or SEEDS,
        configs=configs_of(args.config or []),
        common=common,
        options=options,
        targets=tuple(dict.fromkeys(map(find_dataset, args.targets or []))),
        generalised=args.generalised,
        imports=located(args.imports),
    )


def configs_of(words: Sequence[str]) -> dict[str, str]:
    """Return configs by trainer, that of all others for "", from ``[TRAINER=]CFG`` words."""
    from dplq.experiments.requests.names import find_trainers

    found: dict[str, str] = {}
    for word in words:
        trainer, equals, config = word.rpartition("=")
        key = find_trainers([trainer])[0] if equals else ""
        if found.get(key, config) != config:
            raise UserError(
                f"--config gives {key or 'all trainers'} both {found[key]} and {config}"
            )
        found[key] = config
    return found


def engine_of(
    args: argparse.Namespace, given: tuple[str, dict[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """Return the engine's name and options: those of a sweep file, and over them the flags'."""
    from dplq.experiments.engines import LOCAL, option_names

    name, options = given
    if args.engine and args.engine != name:
        name, options = args.engine, {}
    options = dict(options)
    for word in args.engine_options:
        key, equals, value = word.partition("=")
        if not equals:
            known = option_names(name)
            raise UserError(f"--engine-options {word}: give KEY=VALUE.{suggest(key, known)}")
        options[key] = value
    local = {"jobs": args.jobs, "per_gpu": args.per_gpu}
    for key, number in local.items():
        if number is not None:
            if name != LOCAL:
                flag = f"--{key.replace('_', '-')}"
                raise UserError(f"{flag} is for the engine {LOCAL}; the engine is {name}.")
            options[key] = number
    return name, options
