"""No edit of a folder moves an image from train to test.

What holds, and when:

* As long as the stored split is there (beside the data, or in the cache folder): an image that was
  ever in train is never in val or test, one that was in val is never in test, whatever was renamed,
  moved, reordered, added or dropped; it is known by its content. No group is in two drawn parts.
* Where the stored split was deleted, the draw is made again, keyed by class folder and file name: a
  class of which no image was added, renamed or moved since it was first drawn is split as before.
  For others nothing can be promised, as nothing remembers them; nor with groups, where the parts of
  a class depend on the classes that have images of the same group.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dplq.datasets._engine import store as store_module
from dplq.errors import UserError

from .changing_folder import (
    ChangingFolder,
    FolderOfParts,
    NestedFolder,
    Table,
    TableOfGroups,
)

FOLDER_EDITS = [
    "add_class", "add_images", "rename_folder", "exchange_folders", "rename_image", "move_image",
    "remove_class", "bring_back", "name_classes", "leave_out_class", "forget_names",
]  # fmt: skip
STORE_EDITS = ["delete_checked", "set_cache", "unset_cache", "read_only", "writable"]
REFUSALS = (
    "no test image",
    "no train image",
    "too few images",
    "of one group only",
    "found no way",
    "do not exist",
)
OTHERS = ["add_class", "rename_folder", "remove_class", "name_classes", "forget_names"]
EDITS = st.lists(
    st.lists(
        st.sampled_from([*FOLDER_EDITS * 2, *STORE_EDITS, "delete_split"]), min_size=1, max_size=3
    ),
    min_size=4,
    max_size=8,
)
FAST = settings(
    derandomize=True, deadline=None, database=None, max_examples=12,
    phases=[Phase.generate], suppress_health_check=list(HealthCheck),
)  # fmt: skip
done = {"edits": 0, "loads": 0, "refused": 0}


class Places:
    """Where splits are stored: cache folder set or not, data folder writable or not."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, monkeypatch
        self.is_read_only = False
        real = store_module.atomic_write

        def atomic_write(path: Path) -> object:
            if self.is_read_only and path.is_relative_to(root / "data"):
                raise OSError(30, "Read-only file system")
            return real(path)

        monkeypatch.setattr(store_module, "atomic_write", atomic_write)
        monkeypatch.setenv("HOME", str(root / "home"))

    def edit(self, what: str) -> None:
        if what == "set_cache":
            self.patch.setenv("DPLQ_CACHE", str(self.root / "cache"))
        elif what == "unset_cache":
            self.patch.delenv("DPLQ_CACHE", raising=False)
        elif what in ("read_only", "writable"):
            self.is_read_only = what == "read_only"
        else:
            pattern = "split_dplq_*" if what == "delete_split" else "images_checked.json"
            for path in self.root.rglob(pattern):
                path.unlink()


def forget(folder: ChangingFolder) -> None:
    """The stored split is gone: keep what the keyed draw still promises."""
    folder.forgotten = set(folder.worst)
    if folder.grouped:
        folder.worst = {}


def is_promised(folder: ChangingFolder, path: Path) -> bool:
    """Return whether an image must be in the part in which it was, or in an earlier one."""
    name = folder.class_of(path)
    untouched = folder.fixed.get(name) == frozenset(p.name for p in folder.images(name))
    return untouched or folder.number(path) not in folder.forgotten


def require_no_leak(folder: ChangingFolder, parts: dict[str, list[Path]]) -> None:
    groups: list[set[str]] = []
    drawn = ("train", "val") if len(folder.parts) > 1 else tuple(parts)
    for rank, part in enumerate(parts):
        for path in parts[part]:
            number = folder.number(path)
            if part in drawn:
                worst = folder.worst.get(number, rank) if is_promised(folder, path) else rank
                assert rank <= worst, f"{path} is in {part} now"
                folder.worst[number] = rank
        groups.append({folder.group(path) for path in parts[part]} - {""})
    seen = {folder.number(path) for path in itertools.chain(*parts.values())}
    folder.forgotten -= seen
    assert not any(a & b for a, b in itertools.combinations(groups, 2)), "a group in two parts"


@pytest.mark.parametrize(
    "kind", [ChangingFolder, NestedFolder, FolderOfParts, Table, TableOfGroups]
)
def test_no_image_goes_from_train_to_test(kind, tmp_path_factory):
    @FAST
    @given(EDITS, st.integers(0, 10_000))
    def run(rounds, seed):
        root = tmp_path_factory.mktemp("edited")
        with pytest.MonkeyPatch.context() as patch:
            places = Places(root, patch)
            folder = kind(root, seed)
            for edits in [[], *rounds]:
                apply(folder, places, edits)
                done["loads"] += 1
                parts = load(folder)
                require_no_leak(folder, parts)
                for name in map(folder.class_of, itertools.chain(*parts.values())):
                    files = frozenset(p.name for p in folder.images(name))
                    folder.fixed.setdefault(name, files)

    run()


def load(folder: ChangingFolder) -> dict[str, list[Path]]:
    """Return the parts; none where what is left of a class cannot be split."""
    try:
        return folder.load()[1]
    except UserError as error:
        if not any(text in str(error) for text in REFUSALS):
            raise
        done["refused"] += 1
        return {}


def apply(folder: ChangingFolder, places: Places, edits: list[str]) -> None:
    for edit in edits:
        done["edits"] += 1
        if hasattr(folder, edit):
            for name in getattr(folder, edit)():
                folder.fixed[name] = frozenset()
        else:
            places.edit(edit)
    if "delete_split" in edits:
        forget(folder)


def test_enough_edits_were_tried():
    if not done["loads"]:
        pytest.skip("the edits were tried in another process")
    assert done["edits"] >= 200
    assert done["refused"] <= done["loads"] // 10


@settings(FAST, max_examples=10)
@given(st.lists(st.sampled_from(OTHERS), min_size=3, max_size=6), st.integers(0, 10_000))
def test_shots_of_a_class_do_not_depend_on_the_others(tmp_path_factory, edits, seed):
    folder = ChangingFolder(tmp_path_factory.mktemp("shots"), seed)
    before = {shots: shots_of_a(folder, shots) for shots in (1, 2, 4)}
    assert set(before[1]) < set(before[2]) <= set(before[4])
    for edit in edits:
        folder.any_class = lambda: folder.random.choice(folder.classes()[1:])
        getattr(folder, edit)()
        assert {shots: shots_of_a(folder, shots) for shots in (1, 2, 4)} == before


def shots_of_a(folder: ChangingFolder, shots: int) -> list[int]:
    """Return the training images of the first class."""
    paths = folder.load(shots)[1]["train"]
    return [folder.number(path) for path in paths if path.parent.name == "class_a"]
