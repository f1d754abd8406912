"""Command line of the reports: ``dplq report RUN|OUT``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from dplq.io.exit_code import DONE, exit_code

REPORT_FILE = "report.html"


def run(args: argparse.Namespace) -> int:
    """Write the page that the arguments ask for; print where it is."""
    from dplq.io.atomic import write_bytes_atomically
    from dplq.io.validation.paths import user_path
    from dplq.report import Options, RunPage, render_run

    path = user_path(args.path, "RUN")
    root = user_path(args.root, "--root") if args.root else None
    page = RunPage.read(path, Options(not args.no_images, not args.no_explanations, root))
    out = user_path(args.out, "--out") if args.out else page.folder / REPORT_FILE
    write_bytes_atomically(out, render_run(page).encode())
    print(f"Report: {out}")
    if args.open:
        _open(out)
    return DONE


def _open(path: Path) -> None:
    import webbrowser

    webbrowser.open(path.absolute().as_uri())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dplq report",
        description="Write the page of a finished run: one HTML file that needs nothing else.",
        epilog="examples:\n"
        "  dplq report output/mine                     output/mine/report.html\n"
        "  dplq report output/mine --no-images         without pictures and names of images\n"
        "  dplq report output --out all.html           every run below a folder",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("path", metavar="RUN|OUT", help="folder of a run, or one with runs below it")
    add("--out", metavar="FILE", help="the page (default: report.html in the folder)")
    add("--no-images", action="store_true", help="no pictures, paths and groups of images")
    add("--no-explanations", action="store_true", help="nothing for which the model must run")
    add("--root", metavar="DATA", help="folder of the dataset, where it has moved")
    add("--open", action="store_true", help="open the page in the browser")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
