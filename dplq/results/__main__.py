"""Command line of the results tables: ``dplq results OUT...``; its imports are late."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dplq.errors import UserError
from dplq.io.exit_code import DONE, exit_code
from dplq.io.validation.paths import user_path
from dplq.results import ACCURACY, FORMATS, METRICS

if TYPE_CHECKING:
    from dplq.results.rendering import Table
    from dplq.results.runs import Run

GRIDS = ("shots", "target")
UNUSED = {  # by a kind of table
    "runs": ("composite", "curve", "diagram", "ci95"),
    "compare": ("curve", "ci95"),
}
EXAMPLES = """examples:
    dplq results output
    dplq results output --format github --ci95
    dplq results output --compare CoOp
    dplq results output --where shots=16 --by trainer --format latex
    dplq results output --runs --format csv"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="dplq results",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Print base, new and H (or all-class) accuracy of every finished run below the"
        "\nfolders OUT: mean +- population standard deviation over seeds. H is the"
        "\nharmonic mean of the averaged base and new accuracy; its deviation is over seeds.",
        epilog="Runs are folders DATASET/shots_N/TRAINER/CONFIG/seedS below train_base and test_new"
        "\nwith a results.json, or with only a log.txt as CoOp and MaPLe write it (rounded)."
        f"\n\n{EXAMPLES}",
    )
    add = parser.add_argument
    add("out", nargs="+", metavar="OUT", help="folder to search, e.g. output")
    add("--format", choices=FORMATS, default="simple", help="default: simple")
    add(
        "--ci95",
        action="store_true",
        help="Student's 95 %% interval of the mean in place of the standard deviation",
    )
    add(
        "--metric",
        choices=METRICS,
        default=ACCURACY,
        help="what the table shows; all but the accuracy need results.json files of tests that"
        " wrote predictions.csv, and are for tables without grid, comparison or figure",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--costs",
        action="store_true",
        help="add learnable parameters, seconds per step, peak memory and checkpoint size; lines"
        " in the order of the folders",
    )
    kind.add_argument(
        "--by",
        metavar="COLUMNS",
        help="a line per group, such as --by trainer,shots: for each seed the mean over all else;"
        " columns: output, trainer, config, dataset, shots. shots or target alone is a grid of"
        " all-class runs, a line per trainer: accuracy over shots, or on the source and on each"
        " target of cross-dataset tests",
    )
    kind.add_argument(
        "--runs",
        action="store_true",
        help="a line per run with all metrics and costs; --format simple, github or csv",
    )
    add(
        "--where",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN=VALUE",
        help="only runs with these values, such as trainer=CoOp,MaPLe shots=16 dataset=demo_*, or"
        " all but these: shots!=1; of the columns of --by, classes and seed",
    )
    kind.add_argument(
        "--compare",
        metavar="TRAINER",
        help="every trainer against this one, over the pairs of equal dataset, shots and seed: mean"
        " difference, paired t-test, Wilcoxon; average ranks",
    )
    add(
        "--composite",
        action="store_true",
        help="add a row of two models: the best head that only knows its own classes, on base, and"
        " the best zero-shot CLIP, on new",
    )
    add("--curve", metavar="PNG", help="also draw accuracy over shots into this file")
    add(
        "--diagram",
        metavar="PNG",
        help="also draw the average ranks in H (or all) over datasets and seeds, with bars over"
        " trainers that cannot be told apart (needs scikit-posthocs)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (2 for bad input)."""

    def run() -> int:
        args = build_parser().parse_args(argv)
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        report(args)
        return DONE

    return exit_code(run)


def report(args: argparse.Namespace) -> None:
    """Print the table, and draw the curve, that the arguments select."""
    from dplq.results.comparison import comparison
    from dplq.results.composite import composites
    from dplq.results.curve import draw_curve
    from dplq.results.diagram import draw_diagram
    from dplq.results.frames import listed, select
    from dplq.results.runs import collect

    _refuse_unused(args)
    curve = None if args.curve is None else user_path(args.curve, "--curve")
    diagram = None if args.diagram is None else user_path(args.diagram, "--diagram")
    if args.metric != ACCURACY:
        others = ("compare", "composite", "curve", "diagram")
        given = [f"--{name}" for name in others if _is_given(args, name)]
        if given := (["--by"] if args.by in GRIDS else []) + given:
            raise UserError(f"{given[0]} shows accuracies: leave it out, or --metric {args.metric}")
    runs = collect(args.out, args.metric)
    if args.where:
        runs = select(runs, args.where)
    if args.runs:
        print(listed(runs, args.format))
        return
    if args.composite:
        runs += composites(runs)
    beside = sys.stderr if args.format == "csv" else sys.stdout
    if args.compare is not None:
        print(comparison(runs, args.compare))
    else:
        table = make_table(args, runs)
        print(table.render(args.format, ci95=args.ci95))
        if args.format == "csv":
            print(table.full_note(), file=sys.stderr)
        if curve:
            draw_curve(runs, curve, ci95=args.ci95)
            print(f"Curve: {curve}", file=beside)
    if diagram:
        draw_diagram(runs, diagram)
        print(f"Diagram: {diagram}", file=beside)


def _refuse_unused(args: argparse.Namespace) -> None:
    """Refuse (UserError) options that change nothing of what is asked for."""
    for kind, unused in UNUSED.items():
        if _is_given(args, kind) and (given := [n for n in unused if _is_given(args, n)]):
            raise UserError(f"--{kind} makes no use of --{given[0]}: leave one of them out")
    if args.compare is not None and args.format != "simple":
        raise UserError(f"--compare has no format {args.format}: leave it out")


def _is_given(args: argparse.Namespace, name: str) -> bool:
    return getattr(args, name) not in (None, False)


def make_table(args: argparse.Namespace, runs: Sequence[Run]) -> Table:
    """Return the table that the arguments select."""
    from dplq.results.frames import grouped_table
    from dplq.results.grids import shots_table, transfer_table
    from dplq.results.summary import summarise
    from dplq.results.tables import accuracy_table

    if args.by is not None and args.by not in GRIDS:
        by = [name.strip() for name in args.by.split(",") if name.strip()]
        return grouped_table(runs, by, ci95=args.ci95, metric=args.metric)
    if args.by:
        table = shots_table if args.by == "shots" else transfer_table
        return table(runs, ci95=args.ci95)
    rows = summarise(runs, keep_order=args.costs)
    return accuracy_table(rows, ci95=args.ci95, costs=args.costs, metric=args.metric)


if __name__ == "__main__":
    sys.exit(main())
