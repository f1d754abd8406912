"""`check` and a run read a dataset alike: classes, prompts, counts, split; and what stops both."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dplq.data.catalogue import registered
from dplq.data.check import check
from dplq.data.survey import Report
from dplq.datasets import OwnImages
from dplq.datasets._engine.options import Options
from dplq.errors import UserError
from tests.datasets.lookalikes import make_config, make_lookalike

from .own_folders import KINDS, OwnFolder

FIRST_RUN = "not made yet, the first run does it"
DECLARED = registered()
# the demo makes its images, `OwnImages` has no folder of its own
ON_DISK = sorted(n for n, cls in DECLARED.items() if not n.startswith(("Demo", "OwnImages")))
NUMBER = 8


def counts(items: Any) -> dict[int, int]:
    return dict(Counter(item.label for item in items))


def require_agreement(cls: Any, root: Path, **keys: Any) -> str:
    """Check, run, and check again; return why the run was refused, "" if it was not."""
    cfg = make_config(root, CHECK_IMAGES=False, **keys)
    try:
        options = Options.of(cfg)
    except UserError as error:  # both read them so
        with pytest.raises(UserError, match=re.escape(str(error))):
            cls(cfg)
        return str(error)
    stored = set(root.rglob("*.*"))
    before = check(cls, str(root), quick=True, options=options)
    assert set(root.rglob("*.*")) == stored, "check writes nothing"
    refusal = ""
    try:
        dataset = cls(cfg)
    except UserError as error:
        refusal = str(error)
    if refusal:
        said = [finding.what for finding in before.findings] + before.notes
        assert before.findings, f"a run is refused: {refusal}"
        assert any(refusal in text for text in said), f"{refusal}\n  is not in: {said}"
        return refusal
    after = check(cls, str(root), quick=True, options=options)
    for report in (before, after):
        require_the_same(report, dataset, whole=not keys.get("NUM_SHOTS"))
    path = dataset.split_path
    assert before.split in (path, f"{path}, which the next run brings up to date", FIRST_RUN)
    assert (before.split == FIRST_RUN) == (bool(path) and Path(path) not in stored)
    assert after.split == path
    stops = [f.what for f in after.findings if f.remedy.startswith(("No run", "Fix this first"))]
    assert stops == []
    return ""


def require_the_same(report: Report, dataset: Any, whole: bool) -> None:
    assert report.split_hash == dataset.split_hash
    assert report.test_only == dataset.test_only
    used = {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}
    label_of = report.label_of()
    half = {"base": 0, "new": -len(dataset.classnames), "all": 0}[dataset.options.subset]
    names = report.prompts[half:][: len(dataset.classnames)]
    assert names == dataset.classnames
    if dataset.options.subset == "all":
        assert report.prompts == dataset.classnames
    first = report.prompts.index(names[0])
    for part, paths in report.parts.items():
        listed = Counter(label_of[path] - first for path in paths)
        listed = {label: n for label, n in listed.items() if 0 <= label < len(names)}
        if whole or part == "test":
            assert counts(used[part]) == listed, part
        else:
            assert counts(used[part]).keys() == listed.keys()


@pytest.mark.parametrize("name", ON_DISK)
def test_registered_datasets_in_every_layout(name, tmp_path):
    cls = DECLARED[name]
    places = [None] if cls.list_files else cls.at(str(tmp_path / "0")).layouts()
    for number in range(len(places)):
        root = tmp_path / str(number)
        layouts = [None] if cls.list_files else cls.at(str(root)).layouts()
        make_lookalike(cls, root, layouts[number])
        assert require_agreement(cls, root) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_own_folders(kind, tmp_path):
    refused = 0
    for seed in range(NUMBER):
        folder = OwnFolder(tmp_path / str(seed), kind, seed)
        try:
            refused += bool(require_agreement(OwnImages, folder.root, **folder.keys))
            folder.edit()
            require_agreement(OwnImages, folder.root, **folder.keys)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {folder.made} {folder.keys}") from error
    assert refused < NUMBER
