"""Target datasets of transfer runs: ``python -m dplq.data.targets SOURCE ...``.

Prints names of files in ``configs/datasets``, a line for each source, for the plans of
`dplq.experiments.transfer`; the protocols are described in ``docs/protocol.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dplq.errors import UserError, suggest
from dplq.io.imports import add_import, import_modules
from dplq.io.protocols import add_configs, config_files
from dplq.io.validation.paths import refused_paths, user_folder
from dplq.io.validation.yaml_file import read_yaml

if TYPE_CHECKING:
    from dplq.datasets import FolderDataset

KINDS = ("cross", "whole")  # test split of other datasets; all images of them (the v2 variants)
DEMO = "demo"
GIVE = "give targets (--targets, TARGETS)"


class DatasetNode(msgspec.Struct):
    """The node DATASET of a config file."""

    NAME: str = ""


class DatasetConfig(msgspec.Struct):
    """A file of ``configs/datasets``; only the name of the dataset is read."""

    DATASET: DatasetNode | None = None


def config_names(folders: Sequence[Path] = ()) -> dict[str, str]:
    """Return the config file of each dataset, without its extension, by ``DATASET.NAME``.

    Args:
        folders: of config files, in place of `dplq.io.protocols.config_folders`.
    """
    names: dict[str, str] = {}
    for stem, path in config_files("datasets", folders).items():
        content: DatasetConfig | None = read_yaml(path, DatasetConfig | None)
        if content and content.DATASET and content.DATASET.NAME:
            names.setdefault(content.DATASET.NAME, stem)
    return names


def find_targets(
    source: str, root: str, kind: str, configs: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Return the targets of a source: the other datasets of its domain.

    Args:
        source: name of a config file without its extension; case counts.
        root: the folder that holds the datasets.
        kind: "cross": datasets with a test split of their own; "whole": those of which every
            image is test, but not the source's own variant, which holds its training images.
        configs: what `config_names` returns.

    Returns:
        Config files of the targets whose data are under `root`, and of the others.

    Raises:
        UserError: the source is unknown, or its domain is.
    """
    from dplq.datasets import DECLARED  # late: this registers every dataset with Dassl

    configs = config_names() if configs is None else configs
    known = {file: DECLARED[name] for name, file in configs.items() if name in DECLARED}
    if source not in known:
        raise UserError(f"no declared dataset '{source}': {GIVE}.{suggest(source, known)}")
    if known[source].test_only:
        raise UserError(
            f"{source} is tested as a whole, so nothing can be trained on it: choose another source"
        )
    domain = _domain(known[source])
    if domain == "unknown":
        raise UserError(f"the domain of {source} is not known: {GIVE}, the names of datasets")
    folder = user_folder(root, "--root")
    if domain != DEMO and not folder.is_dir():
        raise UserError(f"there is no data folder {folder}: give another (--data, DATA)")
    present: list[str] = []
    absent: list[str] = []
    for file, dataset in known.items():
        if file == source or _domain(dataset) != domain or dataset.test_only != (kind == "whole"):
            continue
        if dataset.__name__ == known[source].v2_name:
            continue
        exists = domain == DEMO or Path(folder, dataset.dataset_dir).is_dir()
        (present if exists else absent).append(file)
    return present, absent


def _domain(dataset: type[FolderDataset]) -> str:
    """Return the domain of a dataset; the demo datasets, drawn on first use, are one domain."""
    from dplq.datasets._engine.families import DemoDataset

    return DEMO if issubclass(dataset, DemoDataset) else dataset.domain


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(prog="python -m dplq.data.targets", description=__doc__)
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="files of configs/datasets, without extension",
    )
    parser.add_argument("--root", default="data", help="folder that holds the datasets")
    parser.add_argument("--kind", choices=KINDS, default="cross")
    parser.add_argument(
        "--config-folder", action="append", default=[], help="of more config files; repeatable"
    )
    add_import(parser)
    args = parser.parse_args(argv)
    try:
        for folder in args.config_folder:
            add_configs(Path(folder))
        import_modules(args.imports)
        with refused_paths():
            lines = [targets_line(source, args.root, args.kind) for source in args.sources]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def targets_line(source: str, root: str, kind: str) -> str:
    """Return the targets of a source that are there, on one line; the others go to stderr.

    Raises:
        UserError: as for `find_targets`, or none is there.
    """
    present, absent = find_targets(source, root, kind)
    if absent:
        print(f"not under {root}, left out: {' '.join(absent)}", file=sys.stderr)
    if not present:
        what = "all-test (v2) dataset" if kind == "whole" else "other dataset"
        raise UserError(f"no {what} of the domain of {source} is in {root}: {GIVE}")
    return " ".join(present)


if __name__ == "__main__":
    sys.exit(main())
