"""Groups from DICOM files: the images of a patient have one PatientID."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from itertools import chain
from typing import NamedTuple

from dplq.errors import UserError, few
from dplq.images.dicom import ENDINGS, patient_id
from dplq.images.stored import Refusal

from ..protocol import Item, Split

SAMPLE = 500  # headers of a part that a warning reads


def groups_from_patients(image_dir: str, paths: Iterable[str]) -> dict[str, str]:
    """Return the group of every path, a digest of the PatientID: groups are written to tables.

    Args:
        image_dir: folder that the paths are relative to.
        paths: POSIX paths of DICOM files.

    Raises:
        UserError: some files are no DICOM or have no PatientID, or pydicom is not installed.
    """
    found = {path: _group(image_dir, path) for path in paths}
    absent = sorted(path for path, name in found.items() if not name)
    if absent:
        raise UserError(
            f"DATASET.GROUP is PatientID, but {len(absent)} of {len(found)} images are no DICOM "
            f"or have none: {few(absent, 3)}. Leave them out, or name the groups in a table "
            "(column group) or by a regular expression."
        )
    return found


class Repeated(NamedTuple):
    """Patients that are in train and in test.

    Attributes:
        number: how many, of those that were looked up.
        examples: the first three, by their files.
        is_constant: whether all files of some class have one PatientID, which may be no patient's.
    """

    number: int
    examples: list[str]
    is_constant: bool


def repeated_patients(image_dir: str, split: Split) -> Repeated | None:
    """Return which patients are in train and in test; None where no PatientID tells patients apart.

    Of each part 500 DICOM files are read at most, evenly spaced; without pydicom, none. Files that
    cannot be read do not count.

    Args:
        image_dir: folder that the paths of the split are relative to.
        split: any split.
    """
    parts = [_sampled(image_dir, part) for part in (split.train, split.test)]
    by_class: dict[int, list[str]] = {}
    for name, item in chain(*parts):
        by_class.setdefault(item.label, []).append(name)
    if len(set(chain(*by_class.values()))) < 2:
        return None  # one name for everybody names nobody
    train, test = ({name: item.path for name, item in reversed(part)} for part in parts)
    both = sorted(train.keys() & test.keys())
    return Repeated(
        len(both),
        [f"{train[name]} in train, {test[name]} in test" for name in both[:3]],
        any(len(names) > 1 and len(set(names)) == 1 for names in by_class.values()),
    )


def _sampled(image_dir: str, items: Sequence[Item]) -> list[tuple[str, Item]]:
    """Return some images of DICOM files that name their patient, each with its PatientID."""
    known = [item for item in items if item.path.lower().endswith(ENDINGS)]
    found = []
    for item in known[:: -(-len(known) // SAMPLE) or 1]:
        with suppress(Refusal, OSError):
            if patient := patient_id(os.path.join(image_dir, item.path)):
                found.append((patient, item))
    return found


def _group(image_dir: str, path: str) -> str:
    full = os.path.join(image_dir, path)
    try:
        patient = patient_id(full)
    except (Refusal, OSError) as error:
        raise UserError(f"DATASET.GROUP PatientID: {full}: {error}") from error
    return blake2b(patient.encode(), digest_size=6).hexdigest() if patient else ""
