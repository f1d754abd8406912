"""Look a dataset over before a run does: what is missing, misspelt, damaged or there twice.

Everything is read the way the loader reads it (`dplq.datasets`);
only the memory of the images found good is written, no split.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dplq import datasets
from dplq.data.download import file_digest
from dplq.data.survey import Report, some, survey
from dplq.datasets._engine import splits
from dplq.datasets._engine.images import ImageCheck
from dplq.errors import UserError

PARTS = ("train", "val", "test")


class UnwrittenStore:
    """Reads what a dataset's store has; remembers instead of writing."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.written: list[str] = []

    def find(self, filename: str) -> Path | None:
        """As the real one."""
        return self._store.find(filename)

    def write(self, filename: str, payload: Any) -> Path:
        """Write nothing."""
        self.written.append(filename)
        return Path(filename)


def problem(declaration: Any, root: str) -> str:
    """What keeps the dataset from being loaded from `root`, "" if nothing. Writes nothing."""
    try:
        with _overheard([]):
            _load(declaration.at(root))
    except UserError as error:
        return str(error)
    return ""


def _load(dataset: Any) -> tuple[Any, str]:
    """The split that a run would use, and where it is from."""
    real = dataset.store
    dataset.store = UnwrittenStore(real)
    try:
        split = dataset.load_split()
        is_new = bool(dataset.store.written)
    finally:
        dataset.store = real
    return split, "not made yet, the first run does it" if is_new else dataset.split_path


def check(declaration: Any, root: str, *, quick: bool = False) -> Report:
    """Look at the data of a dataset under `root`.

    Args:
        declaration: a subclass of `FolderDataset`.
        root: absolute `DATASET.ROOT`.
        quick: names and counts only; no image is opened.
    """
    name = declaration.__name__
    report = Report(name, declaration.find_dataset_dir(declaration.__new__(declaration), root))
    try:
        dataset = declaration.at(root)
        split, refusal = _try_split(dataset, report)
        is_whole = True
        if split and (dataset.list_files or not dataset.table.rows):
            _classes_from_split(dataset, split, report)
        else:
            is_whole = survey(dataset, report)
    except UserError as error:
        cure = f"`python -m dplq.data get {name} --root {root}` gets the data or says how."
        is_there = os.path.isdir(report.folder) and os.listdir(report.folder)
        report.add(str(error), "Mend this first, then check again." if is_there else cure)
        return report
    if is_whole and refusal:
        report.add(refusal, "No run starts before this is mended.")
    _compare_counts(dataset, report)
    if split:
        _compare_parts(dataset, split, dataset.image_dir, report)
    elif split := _split_as_written(dataset, report):
        _compare_parts(dataset, split, report.image_dir, report)
    if not quick:
        broken = _decode(dataset, report)
        _find_duplicates(report, broken)
    return report


def _try_split(dataset: Any, report: Report) -> tuple[Any, str]:
    """The split as a run would read it, or None and why not."""
    try:
        with _overheard(report.notes):
            split, report.split = _load(dataset)
    except UserError as error:
        report.split = "none, as long as there are problems"
        return None, str(error)
    return split, ""


def _split_as_written(dataset: Any, report: Report) -> Any:
    """What the split file says of the images that are there, even if no run would take it."""
    own = dataset.store.find(splits.OWN_NAME.format(dataset.name))
    path = splits.find_foreign_split(dataset.dataset_dir, dataset.name, dataset.split_files) or own
    try:
        with _overheard([]):
            split = splits.read_split(path) if path else None
    except UserError:
        return None
    if split is None:
        return None
    there = {path for paths in report.images for path in paths}
    report.split = f"{path} (no run would take it as it is)"
    return type(split)(*([item for item in part if item.path in there] for part in split))


@contextmanager
def _overheard(notes: list[str]) -> Iterator[None]:
    """Take the loader's warnings down as notes; what its listing warns of is told by `survey`."""
    loader = logging.getLogger(datasets.__name__)
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: (
        None if record.name.endswith(".listing") else notes.append(record.getMessage())
    )
    propagate, loader.propagate = loader.propagate, False
    loader.addHandler(handler)
    try:
        yield
    finally:
        loader.removeHandler(handler)
        loader.propagate = propagate


def _classes_from_split(dataset: Any, split: Any, report: Report) -> None:
    """Where no table and no folder names say which image is what, the split does."""
    report.image_dir = dataset.image_dir
    report.prompts = splits.classes_of(split)
    report.images = [[] for _ in report.prompts]
    report.spellings = [[] for _ in report.prompts]
    for item in (item for part in split for item in part):
        report.images[item.label].append(item.path)


def _compare_counts(dataset: Any, report: Report) -> None:
    """Compare with the numbers of the declaration, per class where they are known."""
    each, total = dataset.images_per_class, dataset.total_images
    classes = len(report.prompts)
    report.expected = list(each) if isinstance(each, Sequence) else [each] * classes
    if len(report.expected) != classes:  # some are left out
        report.expected = [None] * classes
    counts = [len(set(paths)) for paths in report.images]
    other = [
        f"'{name}' {count} instead of {wanted}"
        for name, count, wanted in zip(report.prompts, counts, report.expected, strict=True)
        if wanted is not None and count != wanted
    ]
    if other or (total is not None and sum(counts) != total):
        whole = f"{sum(counts):,} images" + f", {total:,} expected" * (total is not None)
        report.add(
            f"{whole}{': ' * bool(other)}{some(other)}.",
            "Too few: a part of the archive, or a sample? Too many: copies? Compare with "
            f"{dataset.homepage}; published results are for all images.",
        )


def _compare_parts(dataset: Any, split: Any, image_dir: str, report: Report) -> None:
    """Note which image is in which part, and report those in two."""
    prefix = os.path.relpath(image_dir, report.image_dir)
    for part in PARTS:
        paths = (os.path.join(prefix, item.path) for item in getattr(split, part))
        report.parts[part] = {Path(os.path.normpath(path)).as_posix() for path in paths}
    if dataset.test_only:
        report.parts = {"test": report.parts["test"]}
    elif report.parts["val"] == report.parts["test"]:  # as CoOp has it for ImageNet
        del report.parts["val"]
    for one, other in combinations(report.parts, 2):
        shared = report.parts[one] & report.parts[other]
        if shared:
            report.add(
                f"{report.split}: {len(shared)} image(s) are in {one} and in {other}: "
                f"{some(sorted(shared))}.",
                "Delete the file to have a new split made, or get the published one again.",
            )


def _every_image(report: Report) -> list[str]:
    listed = (path for paths in report.images for path in paths)
    return sorted({*listed, *(path for paths in report.parts.values() for path in paths)})


def _decode(dataset: Any, report: Report) -> set[str]:
    """Decode every image; those that cannot be are returned."""
    check = ImageCheck(report.image_dir, dataset.store)
    broken = check.broken(_every_image(report))
    if broken:
        report.add(
            f"{len(broken)} image(s) in {report.image_dir} cannot be decoded: "
            f"{some(f'{path} ({why})' for path, why in broken.items())}.",
            "Get these files again, or set DATASET.SKIP_BROKEN True to do without them.",
        )
    return set(broken)


def _find_duplicates(report: Report, broken: set[str]) -> None:
    """Compare the bytes of the images: across train, val and test, across classes, within."""
    part_of = {path: part for part, paths in report.parts.items() for path in paths}
    label_of = {path: i for i, paths in enumerate(report.images) for path in paths}
    across, contradicting, within = [], [], []
    for group in equal_files(report.image_dir, set(_every_image(report)) - broken):
        text = some((f"{p} ({part_of[p]})" if p in part_of else p for p in group), link=" = ")
        is_across = len({part_of[path] for path in group if path in part_of}) > 1
        is_contradicting = len({label_of.get(path) for path in group}) > 1
        across += [text] * is_across
        contradicting += [text] * is_contradicting
        within += [text] * (not is_across and not is_contradicting)
    if across:
        report.add(
            f"{len(across)} duplicate(s) across train, val and test (equal bytes): {some(across)}.",
            f"They make test results look better. {_cure_of_duplicates(report)}",
        )
    if contradicting:
        report.add(
            f"{len(contradicting)} image(s) in two classes (equal bytes): {some(contradicting)}.",
            "Only one class can be right: delete the others.",
        )
    if within and not report.parts:
        report.add(
            f"{len(within)} duplicate(s) (equal bytes), and no split to say where: {some(within)}.",
            "Delete all but one of each before a split is made.",
        )
    elif within:
        report.notes.append(f"{len(within)} duplicate(s) within one part: {some(within)}.")


def _cure_of_duplicates(report: Report) -> str:
    name = os.path.basename(report.split)
    if name.startswith("split_dplq_"):
        return f"Delete all but one of each, and {report.split} to have a new split made."
    if name.startswith("split_"):
        return f"{name} is published: keep it, and mention them with your results."
    return "Delete all but one of each."


def equal_files(folder: str, paths: Iterable[str]) -> list[list[str]]:
    """Groups of files with the same content. Only files of one size are read.

    Args:
        folder: what `paths` are relative to.
        paths: files.

    Returns:
        Sorted groups of two paths or more.
    """
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in sorted(paths):
        by_size[os.path.getsize(os.path.join(folder, path))].append(path)
    todo = [path for same in by_size.values() if len(same) > 1 for path in same]
    by_content: dict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        digests = pool.map(file_digest, (os.path.join(folder, path) for path in todo))
        bar = tqdm(digests, "Comparing images", len(todo), leave=False, disable=None)
        for path, digest in zip(todo, bar, strict=True):
            by_content[digest].append(path)
    return sorted(same for same in by_content.values() if len(same) > 1)
