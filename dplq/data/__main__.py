"""Command line of the datasets: ``dplq data list | info | get | check | sheet``.

The datasets are those of Dassl's registry. Imports are late, so that ``--help`` imports neither
torch nor Dassl.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dplq.errors import UserError
from dplq.io.exit_code import DONE, PROBLEMS, exit_code
from dplq.io.imports import add_import, import_modules
from dplq.io.validation.paths import user_folder, user_path

if TYPE_CHECKING:
    from dplq.datasets import FolderDataset
    from dplq.datasets._engine.options import Options

EXAMPLES = """Exit code: 0 done, 1 problems found or no automatic download, 2 bad input.

examples:
    dplq data list
    dplq data check OwnImages --root my_images
    dplq data sheet RSSCN7 --root data"""


def run_list(args: argparse.Namespace) -> int:
    """Print the table of all datasets."""
    from dplq.data.catalogue import registered, table

    print(table(registered()))
    return DONE


def run_info(args: argparse.Namespace) -> int:
    """Print the datasheet of one dataset."""
    from dplq.data.catalogue import find, registered
    from dplq.data.datasheet import datasheet

    declarations = registered()
    name = find(args.name, declarations)
    print(datasheet(name, declarations, *_layout(declarations[name], "DATA")))
    return DONE


def _layout(cls: type[FolderDataset], root: str) -> tuple[str, str]:
    """Return the expected tree, and the folders and patterns that are searched."""
    dataset = cls.without_data(root)
    layouts = dataset.layouts()
    places = dict.fromkeys(
        f"  {f}/{layout.pattern}" for layout in layouts for f in layout.folders()
    )
    return dataset.expected_layout(), "\n".join(places)


def run_get(args: argparse.Namespace) -> int:
    """Download and unpack a dataset, or print how to get it."""
    from dplq.data.check import problem
    from dplq.data.get import get

    cls, root = _chosen(args)
    name = cls.__name__
    state = problem(cls, root)
    if not state:
        print(f"{name} is there already. Check it: {_command('check', name, args)}")
        return DONE
    if not (cls.download or args.archives):
        print(f"{state.splitlines()[0]}\n\n{_by_hand(cls, root, args)}")
        return PROBLEMS
    archives = [str(user_path(file, "--archive")) for file in args.archives]
    folder = get(cls, root, lambda place: problem(cls, place), archives=archives, keep=args.keep)
    left = problem(cls, root)
    print(f"{name} is in {folder}. Licence: {cls.licence}. Cite: {cls.citation}.")
    if left:
        print(f"It cannot be used yet: {left}")
    print(f"Check it: {_command('check', name, args)}")
    return PROBLEMS if left else DONE


def _by_hand(cls: type[FolderDataset], root: str, args: argparse.Namespace) -> str:
    from dplq.data.datasheet import how_to_get, split_text

    name, (layout, _) = cls.__name__, _layout(cls, root)
    way = how_to_get(cls)
    if way == "manual":
        way = f"cannot be downloaded for you. Get it from: {cls.homepage}"
    lines = [f"{name}: {way}", f"Licence: {cls.licence}", f"Split: {split_text(cls)}"]
    archive = f"{_command('get', name, args)} --archive FILE"
    lines += ["Arrange it like this:", layout, f"or have a zip or tar of it unpacked: {archive}"]
    return "\n".join([*lines, f"Then check it: {_command('check', name, args)}"])


def _command(action: str, name: str, args: argparse.Namespace) -> str:
    return f"python -m dplq.data {action} {name} --root {args.root}"


def run_check(args: argparse.Namespace) -> int:
    """Print what is wrong with the data of a dataset."""
    from dplq.data.check import check
    from dplq.data.report import render

    cls, root = _chosen(args)
    report = check(cls, root, quick=args.quick, options=_options(args))
    print(render(report, cls))
    return PROBLEMS if report.findings else DONE


def run_sheet(args: argparse.Namespace) -> int:
    """Write the contact sheet of a dataset."""
    from dplq.data.check import check
    from dplq.data.contact_sheet import draw, write
    from dplq.data.report import cells

    cls, root = _chosen(args)
    out = user_path(args.out, "--out") if args.out else Path(f"{cls.__name__}.png")
    report = check(cls, root, quick=True, options=_options(args))
    if not any(report.images):
        raise UserError(*report.findings[0].what.splitlines())
    total = sum(map(len, report.images))
    title = f"{report.name}: {total:,} images in {len(report.prompts)} classes"
    write(draw(title, cells(report, cls), per_class=args.per_class, size=args.size), out)
    print(out)
    return DONE


def _chosen(args: argparse.Namespace) -> tuple[type[FolderDataset], str]:
    from dplq.data.catalogue import find, registered

    declarations = registered()
    root = os.path.abspath(user_folder(args.root, "--root"))
    return declarations[find(args.name, declarations)], root


def _options(args: argparse.Namespace) -> Options:
    """Return what a run with these ``KEY VALUE`` pairs reads.

    Raises:
        UserError: an unknown key, or a value of the wrong type.
    """
    from dassl.config import get_cfg_default

    from dplq.datasets._engine.options import Options
    from dplq.host.config import extend_cfg, merge_options

    cfg = get_cfg_default()
    extend_cfg(cfg)
    merge_options(cfg, args.opts)
    return Options.of(cfg)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dplq data",
        description="List, describe, download and check the datasets.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        add_import(added)
        return added

    command("list", run_list, "the table of all datasets")
    named = {
        "info": command("info", run_info, "the datasheet of one: source, layout, split, classes"),
        "get": command("get", run_get, "download it, or say where it is and how to arrange it"),
        "check": command(
            "check",
            run_check,
            "find missing, damaged, misspelt and duplicate images; KEY VALUE pairs at the end are "
            "config keys of the run (DATASET.SPLIT_FILE labels.csv)",
        ),
        "sheet": command("sheet", run_sheet, "a picture: some images per class, with its prompt"),
    }
    for action, sub in named.items():
        sub.add_argument("name", metavar="NAME", help="a name of `list`; case does not count")
        if action != "info":
            default = os.environ.get("DATA") or "data"
            sub.add_argument(
                "--root", default=default, help="folder of the datasets ($DATA, else data)"
            )
    named["get"].add_argument(
        "--archive",
        dest="archives",
        action="append",
        default=[],
        metavar="FILE",
        help="a zip or tar that you have: unpack it in place of a download; may be repeated",
    )
    named["get"].add_argument("--keep", action="store_true", help="keep the downloaded archives")
    named["check"].add_argument(
        "--quick", action="store_true", help="names and counts only; open no image"
    )
    named["sheet"].add_argument("--out", metavar="FILE", help="default: NAME.png")
    for option, images, text in (("--per-class", 4, ""), ("--size", 96, "of an image, pixels; ")):
        named["sheet"].add_argument(
            option, type=_positive, default=images, help=f"{text}default: {images}", metavar="N"
        )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> int:
        parser = _parser()
        args, rest = parser.parse_known_args(argv)
        if rest and args.run not in (run_check, run_sheet):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        args.opts = rest
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        import dplq.plugin  # noqa: F401  registers the datasets

        import_modules(args.imports)
        return args.run(args)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
