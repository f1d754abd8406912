"""Command line of sharing: ``dplq share RUN --to FOLDER|hf-hub:org/name``."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from dplq.cli.model_options import add_epoch
from dplq.errors import UserError, shown
from dplq.io.exit_code import DONE, exit_code
from dplq.io.imports import add_import, import_modules

EXAMPLES = """examples:
    dplq share output/tissue --to tissue-prompts
    dplq share output/tissue --to hf-hub:my-lab/tissue-prompts --private --license cc-by-4.0
    dplq predict hf-hub:my-lab/tissue-prompts images/      # what others do with it

The folder holds the learned state, config, class names, numbers and a model card; no images, no
predictions, and file names in place of this machine's paths. Exit code 2: bad input, or no upload.
"""
LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # as the Hub writes its ids


def run(args: argparse.Namespace) -> int:
    """Write the folder, upload it where a repository is named, and say what was done."""
    from dplq.io.shared import FILES, is_hub_name, split_hub_name
    from dplq.io.validation.paths import user_path
    from dplq.share.folder import write_folder
    from dplq.share.source import read_source

    if args.license and not LICENCE.fullmatch(args.license):
        raise UserError(
            f"--license is {shown(args.license)}: give an id of the Hub, such as cc-by-4.0, of "
            "letters, digits, '.', '-' and '_'."
        )
    repository = ""
    if is_hub_name(args.to):
        repository = _repository(args.to, split_hub_name(args.to))
    import_modules(args.imports)
    source = read_source(args.model, args.epoch)
    folder = _beside(source.path) if repository else user_path(args.to, "--to")
    place = f"hf-hub:{repository}" if repository else ""
    write_folder(source, folder, place=place, licence=args.license)
    print(f"{folder}: {', '.join(FILES)}")
    for note in source.notes:
        print(f"  {note}")
    if not args.license:
        print("  No licence is stated: --license adds one (an id of the Hub, such as cc-by-4.0).")
    if repository:
        from dplq.share.push import push

        address = push(folder, repository, private=args.private, message=args.message)
        print(f"Pushed to {address}")
    command = shlex.join(["dplq", "predict", str(place or folder), "images/"])
    print(f"Use it:\n  {command}")
    return DONE


def _repository(given: str, parts: tuple[str, str | None]) -> str:
    repository, revision = parts
    if revision:
        raise UserError(f"--to {given} names a revision: it is pushed to the main branch; drop it.")
    return repository


def _beside(path: Path) -> Path:
    """Return the folder for what is pushed: in the run's, or beside what is shared."""
    from dplq.io.runs.files import MODEL_FOLDER, SHARE_FOLDER
    from dplq.io.shared import is_whole

    folder = path.absolute().parent
    if is_whole(folder):  # a shared model, whose folder holds nothing else
        return folder.with_name(f"{folder.name}-share")
    if path.parent.name == MODEL_FOLDER:
        return path.parent.parent / SHARE_FOLDER
    return path.with_name(f"{path.stem}-share")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dplq share",
        description="Make a folder, or a repository of the Hugging Face Hub, from a run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="RUN|CHECKPOINT", help="a run's folder, or a checkpoint")
    parser.add_argument(
        "--to", required=True, metavar="FOLDER|hf-hub:org/name", help="where to share it"
    )
    add_epoch(parser)
    parser.add_argument(
        "--license", default="", metavar="ID", help="of what was learned, as the Hub writes it"
    )
    parser.add_argument("--private", action="store_true", help="a new repository is private")
    parser.add_argument("--message", default="", help="of the commit")
    add_import(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
