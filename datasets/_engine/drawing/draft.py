"""Drawing a split: per class, or by group; and what the log says about it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dplq.errors import few

from ..layout.names import is_numeric
from ..options import NO_GROUPS, PATIENT
from ..protocol import Item, Split, by_label, by_place, split_classes
from .groups import (
    deviations,
    groups_from_pattern,
    repeated_folders,
    repeated_subjects,
    split_by_group,
)
from .patients import groups_from_patients, repeated_patients

logger = logging.getLogger(__name__)
FEW_GROUPS = 4  # fewer are rather arms of a study, or scanners


class Draft(NamedTuple):
    """A split that may yet be stored, and between which of its parts images were drawn."""

    image_dir: str
    split: Split
    drawn: tuple[str, ...]


def groups_of(image_dir: str, paths: Sequence[str], pattern: str) -> dict[str, str]:
    """Return the group by path that `DATASET.GROUP` finds; none if it is empty or `none`.

    Args:
        image_dir: folder that the paths are relative to.
        paths: of all images.
        pattern: a regular expression, or `PatientID`.

    Raises:
        UserError: it finds no group in some paths.
    """
    if pattern == PATIENT:
        return groups_from_patients(image_dir, paths)
    return groups_from_pattern(paths, pattern) if pattern not in ("", NO_GROUPS) else {}


def draw(
    items: Sequence[Item], groups: Mapping[str, str], source: str, fractions: Sequence[float]
) -> Split:
    """Draw train, val and test: by group in classes that have groups, else per class.

    Args:
        items: all images.
        groups: group by path.
        source: the name of the data in an error message.
        fractions: see `protocol.split_sizes`.
    """
    classes = by_label(items)
    grouped = {label for label, some in classes.items() if any(i.path in groups for i in some)}
    plain = (item for item in items if item.label not in grouped)
    by_class = split_classes(plain, source, fractions)
    if not grouped:
        return by_class
    whole = [item for item in items if item.label in grouped]
    by_group = split_by_group(whole, groups, source, fractions)
    pairs = zip(by_class, by_group, strict=True)
    return Split(*(sorted([*one, *other], key=by_place) for one, other in pairs))


def warn_of_groups(
    name: str,
    image_dir: str,
    split: Split,
    groups: Mapping[str, str],
    pattern: str,
    fractions: Sequence[float] | None,
) -> None:
    """Warn of groups in several parts, of classes without val, and of subjects in several parts.

    The PatientID of DICOM files is compared whatever the groups are; names only where each image is
    a group of its own.

    Args:
        name: of the dataset.
        image_dir: folder that the paths of the split are relative to.
        split: the split in use.
        groups: group by path, as far as known.
        pattern: `DATASET.GROUP`.
        fractions: wanted share of train and val; None: the split was given, not drawn.
    """
    if not fractions:
        _warn_of_lacking_val(name, split)
    if pattern not in (NO_GROUPS, PATIENT):
        is_told = _warn_of_repeated_patients(name, image_dir, split, is_given=fractions is None)
        if not (is_told or pattern) and len(set(groups.values())) == len(groups):
            _warn_of_repeated_subjects(name, split, is_given=fractions is None)
    if not groups:
        return
    _warn_of_torn_groups(name, split, groups, is_given=fractions is None)
    if fractions:
        _warn_of_shares(name, split, groups, fractions)


def _warn_of_torn_groups(
    name: str, split: Split, groups: Mapping[str, str], *, is_given: bool
) -> None:
    """Warn of groups in several parts."""
    parts: dict[str, set[str]] = {}
    for part in Split._fields:
        for item in getattr(split, part):
            if item.path in groups:
                parts.setdefault(groups[item.path], set()).add(part)
    kept = "; the split is given, so it is kept" if is_given else ""
    for where, has_test in (("test and in train or val", True), ("train and in val", False)):
        torn = sorted(
            group
            for group, found in parts.items()
            if len(found) > 1 and ("test" in found) == has_test
        )
        if torn:
            logger.warning(
                "%s: %d groups are in %s: %s%s", name, len(torn), where, few(torn, 3), kept
            )


def _warn_of_shares(
    name: str, split: Split, groups: Mapping[str, str], fractions: Sequence[float]
) -> None:
    """Warn of shares that groups do not allow, and of so few that they may be something else."""
    for text in deviations(split, groups, fractions):
        logger.warning("%s: %s", name, text)
    if len(names := sorted(set(groups.values()))) < FEW_GROUPS:
        logger.warning(
            "%s: there are %d groups only (%s), each in one part as a whole. If they are no "
            "patients, sites or scenes, set DATASET.COLUMNS.GROUP none (of a table) or "
            "DATASET.GROUP none.",
            *(name, len(names), few(names)),
        )


def _warn_of_lacking_val(name: str, split: Split) -> None:
    """Warn of trained classes without a val image: what is chosen on val does not count them."""
    train, val = by_label(split.train), by_label(split.val)
    lacking = [items[0].classname for label, items in train.items() if label not in val]
    if val and lacking:
        logger.warning(
            "%s: %d of %d classes have no val image (%s): what is chosen on val does not count "
            "them. A val part that is taken from train is of whole groups, so it needs several of "
            "each class.",
            *(name, len(lacking), len(train), few(lacking)),
        )


def _warn_of_repeated_patients(name: str, image_dir: str, split: Split, *, is_given: bool) -> bool:
    """Warn of patients in train and test; return whether DICOM files tell patients apart."""
    found = repeated_patients(image_dir, split)
    if found is None:
        return False
    cure = f"{_cure(PATIENT, is_given)}; if they are no patients,"
    if found.is_constant:
        cure = "All files of a class have one PatientID: if that is no patient's,"
    if found.number:
        logger.warning(
            "%s: patients (PatientID of DICOM files) that are in train and in test: at least %d "
            "(%s). The test accuracy may be too high. %s set DATASET.GROUP none.",
            *(name, found.number, few(found.examples, 3), cure),
        )
    return True


def _warn_of_repeated_subjects(name: str, split: Split, *, is_given: bool) -> None:
    what, found = "folders", repeated_folders(split)
    if not found:
        what, found = "file names", repeated_subjects(split)
    if found:
        pattern, count, examples = found
        logger.warning(
            "%s: %s look like several images of one subject, and %d such subjects are in "
            "train and in test (%s): the test accuracy may be too high. %s; if "
            "they are none, set DATASET.GROUP none.",
            *(name, what, count, few(examples, 3), _cure(pattern, is_given)),
        )


def _cure(pattern: str, is_given: bool) -> str:
    """Return how subjects are kept together."""
    cure = "To keep subjects together set"
    if is_given:
        cure = "The split is given, so it is kept; one that is drawn keeps subjects together by"
    return f"{cure} DATASET.GROUP '{pattern}'"


def warn_of_numbers(name: str, classnames: Sequence[str]) -> None:
    """Warn of class names that are numbers, which are no words for a prompt."""
    if is_numeric(classnames):
        logger.warning(
            "%s: the class names are numbers (%s): 'a photo of a %s.' says nothing to CLIP. Name "
            'the classes in classes.json: {"%s": "name in words", ...}.',
            name,
            few(classnames, 4),
            classnames[-1],
            classnames[0],
        )
