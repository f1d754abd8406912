"""Command line of the published models: ``dplq models list | info | get``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dplq.io.exit_code import DONE, PROBLEMS, exit_code
from dplq.io.validation.paths import user_path
from dplq.models.catalogue import DOMAINS, KINDS, MIN_MAX, UNKNOWN, PublishedModel, catalogue, find
from dplq.models.weights import KEYS, how_to_get, weights_on_disk

EXAMPLES = """Exit code: 0 done, 1 no automatic download, 2 bad input or no network.

examples:
    dplq models list --domain medical
    dplq models info biomedclip
    dplq models get biomedclip"""


def run_list(args: argparse.Namespace) -> int:
    """Print the table of all models."""
    from tabulate import tabulate

    rows = [
        [
            name,
            model.kind,
            model.domain,
            model.layout,
            model.licence or UNKNOWN,
            "by hand" if not model.can_be_downloaded else "gated" if model.gated else "get",
            "refused" if model.refused else "yes",
        ]
        for name, model in catalogue().items()
        if args.domain in (None, model.domain) and args.kind in (None, model.kind)
    ]
    headers = ["name", "kind", "domain", "layout", "licence", "download", "loads"]
    print(tabulate(rows, headers, disable_numparse=True))
    return DONE


def run_info(args: argparse.Namespace) -> int:
    """Print all that is known of one model."""
    name = find(args.name)
    model = catalogue()[name]
    found = weights_on_disk(name)
    rows = {
        "kind": f"{model.kind}, {model.domain}",
        "page": model.page,
        "weights": _weights_text(model),
        "licence": model.licence or UNKNOWN,
        "gated": _yes_no(model.gated),
        "sha256": model.sha256 or UNKNOWN,
        "layout": model.layout,
        "architecture": _architecture(model),
        "activation": _or_unknown(model.activation) if model.kind == "clip" else "",
        "mean, std": _statistics(model),
        "image size": _or_unknown(model.image_size),
        "pooling": _or_unknown(model.pool),
        "loads": "no" if model.refused else "yes",
        "tested": model.test,
        "note": model.note,
        "on disk": str(found) if found else "no",
    }
    print(f"{name}: {model.title}")
    width = max(map(len, rows))
    print("\n".join(f"  {key:<{width}}  {value}" for key, value in rows.items() if value))
    if not found:
        print(how_to_get(name))
    return DONE


def _weights_text(model: PublishedModel) -> str:
    if model.hub:
        return f"{model.file} of hub repository {model.hub}"
    return model.url or f"{model.file or 'file'} on the page"


def _architecture(model: PublishedModel) -> str:
    changes = model.config or model.args
    words = [model.architecture, ", ".join(f"{k}={_short(v)}" for k, v in changes.items())]
    return "; ".join(filter(None, words))


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}={_short(v)}" for k, v in value.items()) + "}"
    return str(value)


def _yes_no(value: bool | None) -> str:
    return UNKNOWN if value is None else "yes" if value else "no"


def _or_unknown(value: object) -> str:
    return UNKNOWN if value is None else str(value)


def _statistics(model: PublishedModel) -> str:
    """Return mean and std, or that images are scaled by their own minimum and maximum."""
    if model.mean:
        return f"{_numbers(model.mean)}; {_numbers(model.std)}"
    from dplq.domain.recipes import RECIPES  # takes torch, which `list` does without

    recipe = RECIPES.get(model.architecture)
    return MIN_MAX if recipe is not None and recipe.min_max else UNKNOWN


def _numbers(values: Sequence[float] | None) -> str:
    return " ".join(f"{value:.6g}" for value in values or ())


def run_get(args: argparse.Namespace) -> int:
    """Download the weights of a model; print where they are and the config lines."""
    from dplq.models.download import download, how_to_unlock

    name = find(args.name)
    model = catalogue()[name]
    folder = user_path(args.to, "--to") if args.to else None
    found = weights_on_disk(name) if folder is None else None
    if found is None and not model.can_be_downloaded:
        print(how_to_get(name))
        return PROBLEMS
    if found is None:
        if model.gated:
            print(f"{name} is gated. {how_to_unlock(model)}.", file=sys.stderr)
        found = download(name, folder)
    print(f"{name} is in {found}. Licence: {model.licence or UNKNOWN}.")
    print(f"Use it:\n{config_lines(name, found)}")
    return DONE


def config_lines(name: str, path: Path) -> str:
    """Return the two config lines that use a model, as for the command line."""
    name_key, weights_key = KEYS[catalogue()[name].kind]
    return f"  {name_key} {name}\n  {weights_key} {path}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dplq models",
        description="List, describe and download published CLIPs and domain encoders.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    listing = command("list", run_list, "the table of all models")
    listing.add_argument("--domain", choices=DOMAINS, help="only those of this domain")
    listing.add_argument("--kind", choices=KINDS, help="only those of this kind")
    named = (
        command("info", run_info, "what is known of one: source, licence, architecture, tests"),
        command("get", run_get, "download its weights, or say how to get them"),
    )
    for sub in named:
        sub.add_argument("name", metavar="NAME", help="a name of `list`; case does not count")
    named[1].add_argument(
        "--to",
        metavar="FOLDER",
        help="where to store the file (default: the hub's cache, else the cache of dplq)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""

    def run() -> int:
        args = _parser().parse_args(argv)
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        return args.run(args)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
