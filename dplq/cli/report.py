"""Command line of the reports: ``dplq report RUN|OUT``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dplq.errors import UserError, printable
from dplq.io.exit_code import DONE, PROBLEMS, exit_code
from dplq.io.imports import add_import, import_modules
from dplq.io.runs.files import REPORT_FILE, RESULTS, RESULTS_FILE

if TYPE_CHECKING:
    from dplq.report import Options

logger = logging.getLogger(__name__)

EXAMPLES = """examples:
    dplq report output/mine                 # write output/mine/report.html
    dplq report output/mine --no-images     # without pictures and names of images
    dplq report output/mine/results-RSSCN7-all-test.json    # of another test of the run
    dplq report output                      # compare all runs below it; a page of each

Exit code: 0 done, 1 pages of some runs could not be made, 2 bad input."""


def run(args: argparse.Namespace) -> int:
    """Write the page, or pages, that the arguments ask for; print where they are."""
    from dplq.io.validation.paths import user_path
    from dplq.report import Options

    import_modules(args.imports)
    path = user_path(args.path, "RUN")
    root = user_path(args.root, "--root") if args.root else None
    if root is not None and not root.is_dir():
        raise UserError(f"--root {root} is no folder: give the one with the images.")
    if not path.exists():
        raise UserError(f"{path} does not exist: give the folder of a run, or one with runs in it.")
    if path.is_file() and not (path.suffix == ".json" and path.stem.startswith(RESULTS)):
        raise UserError(
            f"{path} is no results*.json: give the folder of the run, or a results*.json in it."
        )
    out = user_path(args.out, "--out") if args.out else None
    if out is not None and out.is_dir():
        raise UserError(f"--out {out} is a folder: give a file, such as {out / REPORT_FILE}.")
    options = Options(not args.no_images, not args.no_explanations, root)
    if path.is_file() or (path / RESULTS_FILE).is_file():
        page, done = write_run(path, out, options), DONE
    else:
        page, done = write_overview(path, out, options, args.index_only)
    print(f"Report: {printable(str(page))}")
    if args.open:
        _open(page)
    return done


def write_run(path: Path, out: Path | None, options: Options) -> Path:
    """Write the page of a run's folder, or of one ``results*.json``; return where it is."""
    from dplq.report import RunPage, render_run

    _check_out(out)
    page = RunPage.read(path, options)
    changed = _changed(page.config, page.results.trainer)
    page.options = replace(page.options, changed=changed)
    out = out or page.file.with_name(page.file.stem.replace("results", "report", 1) + ".html")
    _write(out, render_run(page))
    return out


def write_overview(
    path: Path, out: Path | None, options: Options, index_only: bool
) -> tuple[Path, int]:
    """Write the page of all runs below a folder, and of each of them but with `index_only`.

    Returns:
        Where it is, and the exit code: a run whose page cannot be made is warned of, and the
        others are made.
    """
    from dplq.report import render_overview
    from dplq.results import collect

    _check_out(out)
    runs = collect([path])
    pages: dict[Path, Path] = {}
    failed = False
    folders = [f for f in dict.fromkeys(r.folder for r in runs) if (f / RESULTS_FILE).is_file()]
    for number, folder in enumerate(folders, 1):
        there = folder / REPORT_FILE
        if index_only:
            pages |= {folder: there} if there.is_file() else {}
            continue
        try:
            pages[folder] = write_run(folder, None, options)
            print(f"[{number}/{len(folders)}] {printable(str(pages[folder]))}", file=sys.stderr)
        except UserError as error:
            failed = True
            logger.warning("no page of %s: %s", printable(str(folder)), error)
    out = out or path / REPORT_FILE
    _write(out, render_overview(runs, out.parent, pages))
    return out, PROBLEMS if failed else DONE


def _changed(config: dict[str, object], trainer: str) -> dict[str, object]:
    import dplq.plugin  # registers the trainers, whose keys have defaults  # noqa: F401
    from dplq.host.changed import changed_settings

    return changed_settings(config, trainer)


def _check_out(out: Path | None) -> None:
    """Refuse (UserError) to replace a file that is no page."""
    if out is not None and out.exists() and out.suffix.lower() not in (".html", ".htm"):
        raise UserError(
            f"--out {printable(str(out))} is there, and is no page by its name: give one that ends "
            "in .html."
        )


def _write(path: Path, page: str) -> None:
    from dplq.io.atomic import write_bytes_atomically

    write_bytes_atomically(path, page.encode("utf-8", "backslashreplace"))


def _open(path: Path) -> None:
    import webbrowser

    webbrowser.open(path.absolute().as_uri())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dplq report",
        description="Write the page of a finished run, or of all runs below a folder: one HTML"
        " file that needs nothing else.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("path", metavar="RUN|OUT", help="folder of a run, or one with runs below it")
    add("--out", metavar="FILE", help="the page (default: report.html in the folder)")
    add("--index-only", action="store_true", help="of OUT: not the page of each run")
    add("--no-images", action="store_true", help="no pictures, paths and groups of images")
    add("--no-explanations", action="store_true", help="nothing for which the model must run")
    add("--root", metavar="DATA", help="folder of the dataset, where it has moved (relative paths)")
    add("--open", action="store_true", help="open the page in the browser")
    add_import(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
