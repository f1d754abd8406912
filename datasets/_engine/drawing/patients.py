"""Groups from DICOM files: the images of a patient have one PatientID."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b

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


def repeated_patients(image_dir: str, split: Split) -> tuple[int, list[str]]:
    """Return how many patients are in train and in test, and the first three by their files.

    Of each part 500 DICOM files are read at most, evenly spaced; without pydicom, none.

    Args:
        image_dir: folder that the paths of the split are relative to.
        split: any split.
    """
    train, test = (_sampled(image_dir, part) for part in (split.train, split.test))
    if len(train.keys() | test.keys()) < 2:
        return 0, []  # one name for everybody names nobody
    both = sorted(train.keys() & test.keys())
    return len(both), [f"{train[name]} in train, {test[name]} in test" for name in both[:3]]


def _sampled(image_dir: str, items: Sequence[Item]) -> dict[str, str]:
    """Return a path by group, of some DICOM files."""
    paths = [item.path for item in items if item.path.lower().endswith(ENDINGS)]
    some = paths[:: -(-len(paths) // SAMPLE) or 1]
    try:
        found = {_group(image_dir, path): path for path in reversed(some)}
    except UserError:  # what reads the images says so
        return {}
    found.pop("", None)
    return found


def _group(image_dir: str, path: str) -> str:
    full = os.path.join(image_dir, path)
    try:
        patient = patient_id(full)
    except (Refusal, OSError) as error:
        raise UserError(f"DATASET.GROUP PatientID: {full}: {error}") from error
    return blake2b(patient.encode(), digest_size=6).hexdigest() if patient else ""
