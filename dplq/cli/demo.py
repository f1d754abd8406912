"""Command line of the demo: ``dplq demo``, the whole method on built-in images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dplq.errors import UserError, few, suggest
from dplq.experiments.requests.values import RESERVED, Options
from dplq.io.exit_code import DONE, exit_code
from dplq.io.validation.paths import user_path

DATASET, CONFIG, SHOTS = "demo_aerial", "demo", 16
SEEDS, OUT, TRAINER = (1, 2, 3), "output/demo", "QuaternionPrompt"
EPILOG = """examples:
    dplq demo
    dplq demo --seeds 1 --out first_demo
    dplq demo --trainer CoOp --seeds 1 2
    dplq demo --seeds 1 --out quick_demo -- OPTIM.MAX_EPOCH 2

The same command continues an interrupted demo; finished runs are not repeated. On two CPU cores a
seed takes about a minute. Exit code: 0 done, 2 bad input, 130 Ctrl-C, else that of a failed run."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="dplq demo",
        description="Train on ten classes of built-in aerial images, 16 images each, test on these"
        " and\non ten new classes, and print the table of base and new accuracy and their"
        " harmonic\nmean H. No data, no downloads.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("--seeds", nargs="+", type=int, default=list(SEEDS), metavar="N", help="default: 1 2 3")
    add("--out", default=OUT, metavar="FOLDER", help=f"for all results (default: {OUT})")
    add("--trainer", default=TRAINER, metavar="NAME", help=f"default: {TRAINER}")
    add("opts", nargs="*", metavar="KEY VALUE", help="after --: config keys for all runs")
    return parser


def run(args: argparse.Namespace) -> int:
    """Carry out the plan and print the table."""
    from dplq.experiments.base2new import base2new
    from dplq.experiments.check_configs import check_configs
    from dplq.experiments.execute import execute
    from dplq.experiments.series import Series

    out = user_path(args.out, "--out").absolute()
    series = Series(
        DATASET,
        find_trainer(args.trainer),
        CONFIG,
        seeds=check_seeds(args.seeds),
        shots=SHOTS,
        out=out,
        options=pairs(args.opts),
    )
    plan = base2new(series)
    check_configs(plan.runs)
    code = execute(plan)
    if code == DONE:
        print_table([folder for folder in plan.folders if folder.is_dir()])
        print_places(out, plan.runs[0].folder)
    return code


def find_trainer(name: str) -> str:
    """Return the trainer of that name, whatever its case, if it has a demo config.

    Raises:
        UserError: there is none; names the nearest ones.
    """
    from dplq.io.protocols import CONFIGS

    known = {path.parent.name for path in (CONFIGS / "trainers").glob(f"*/{CONFIG}.yaml")}
    found = next((one for one in known if one.lower() == name.lower()), None)
    if found is None:
        raise UserError(f"--trainer {name} is not in the demo.{suggest(name, known)}")
    return found


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds, each once.

    Raises:
        UserError: one is below 0, which would draw a new seed.
    """
    if negative := [seed for seed in seeds if seed < 0]:
        raise UserError(f"--seeds: {few(negative)}: give whole numbers from 0.")
    return tuple(dict.fromkeys(seeds))


def pairs(words: Sequence[str]) -> Options:
    """Return the config keys and values of the command line.

    Raises:
        UserError: an odd number of words, or a key that the demo sets.
    """
    if len(words) % 2:
        raise UserError(f"Config keys come in pairs KEY VALUE; '{words[-1]}' has no partner.")
    found = tuple(zip(words[::2], words[1::2], strict=True))
    if reserved := [key for key, _ in found if key in RESERVED]:
        raise UserError(f"{few(reserved)}: the demo sets this itself; see --help for its flags.")
    return found


def print_table(folders: Sequence[Path]) -> None:
    """Print the table of accuracies of the runs below these folders."""
    from dplq.results import accuracy_table, collect, summarise

    print(accuracy_table(summarise(collect(list(map(str, folders))))).render("simple"))


def print_places(out: Path, first: Path) -> None:
    """Print where everything is, and which commands come next."""
    print(
        f"\nAll runs, with their logs, checkpoints and results: {out}\n"
        "Next:\n"
        f"  dplq report {out}\n"
        f"  dplq predict {first} IMAGES\n"
        "  dplq data check OwnImages --root YOUR_IMAGES"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return exit_code(lambda: run(build_parser().parse_args(argv)))
