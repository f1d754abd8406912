"""Own folders of every kind, drawn at random: what may lie in them, and the keys of the run."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

from tests.datasets.lookalikes import write_image

KINDS = ("flat", "nested", "train and test", "all parts", "test alone", "table", "CoOp")
NAMES = (
    ("alder", "beech", "cedar"),
    ("Dense_Forest", "openWater", "T-shirt", "ash tree"),
    ("0", "1", "2", "10"),
)
TITLES = {
    "path": ("path", "Image Index", "file"),
    "label": ("label", "dx", "class"),
    "split": ("split", "set"),
    "group": ("patient_id", "scene"),
    "prompt": ("prompt", "caption"),
}


class OwnFolder:
    """A folder that is made from a seed.

    Args:
        root: `DATASET.ROOT`.
        kind: one of `KINDS`.
        seed: decides everything else.

    Attributes:
        keys: of `DATASET`, for the run.
        made: what was made, for the message of a failing test.
    """

    def __init__(self, root: Path, kind: str, seed: int) -> None:
        self.root, self.random = root, random.Random(seed)
        self.keys: dict[str, Any] = {}
        self.made = [kind]
        self.names = list(self.random.choice(NAMES))
        root.mkdir()
        {
            "flat": self._flat,
            "nested": self._nested,
            "train and test": lambda: self._parts("train", "test"),
            "all parts": lambda: self._parts("Training", "valid", "testing"),
            "test alone": lambda: self._parts("test"),
            "table": self._table,
            "CoOp": self._coop,
        }[kind]()
        for extra in (self._classes_file, self._keys, self._odd_files, self._empty_class):
            if self.random.random() < 0.5:
                extra()

    def _class(self, folder: Path, name: str, count: int) -> list[Path]:
        paths = [folder / name / f"{name[:1]}{i}_{i // 2:02d}.jpg" for i in range(count)]
        for path in paths:
            write_image(path)
        return paths

    def _flat(self) -> list[Path]:
        few = self.random.random() < 0.1  # too few images of one class
        return [
            path
            for i, name in enumerate(self.names)
            for path in self._class(
                self.root, name, 3 if few and not i else self.random.randint(4, 8)
            )
        ]

    def _nested(self) -> None:
        for name in self.names:
            for patient in self.random.sample(range(9), self.random.randint(2, 5)):
                self._class(self.root / name, f"p{patient}", self.random.randint(1, 3))

    def _parts(self, *parts: str) -> None:
        for part in parts:
            for name in self.names:
                if self.random.random() > 0.05:
                    self._class(self.root / part, name, self.random.randint(2, 5))

    def _table(self) -> None:
        """Images in class folders or in one folder; columns, header and slashes vary."""
        paths = self._flat()
        label = {path: path.parent.name for path in paths}
        if self.random.random() < 0.5:
            (self.root / "all").mkdir()
            moved = {p: self.root / "all" / f"{i:03d}.jpg" for i, p in enumerate(paths)}
            for old, new in moved.items():
                old.rename(new)
            label = {moved[path]: name for path, name in label.items()}
            for name in self.names:
                (self.root / name).rmdir()
        roles = ["path", "label"]
        roles += [r for r in ("split", "group", "prompt") if self.random.random() < 0.4]
        self.made.append(f"columns {roles}")
        rows = [
            {
                "path": self._written(path),
                "label": name,
                "split": ("train", "train", "val", "test")[i % 4],
                "group": f"g{i // 2}",
                "prompt": f"a kind of {name}",
            }
            for i, (path, name) in enumerate(label.items())
        ]
        if self.random.random() < 0.1:
            rows[0]["path"] = "absent.jpg"
        self.random.shuffle(rows)
        titles = [self.random.choice(TITLES[role]) for role in roles]
        name = self.random.choice(["labels.csv", "split.tsv", "mine.csv"])
        if name == "mine.csv":
            self.keys["SPLIT_FILE"] = name
        with open(self.root / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if name.endswith("tsv") else ",")
            if len(roles) > 3 or self.random.random() < 0.7:  # else without a header
                writer.writerow(titles)
            writer.writerows([row[role] for role in roles] for row in rows)

    def _written(self, path: Path) -> str:
        text = path.relative_to(self.root).as_posix()
        return text if self.random.random() < 0.7 else text.replace("/", "\\")

    def _coop(self) -> None:
        paths = self._flat()
        order = self.random.sample(self.names, len(self.names))
        split: dict[str, list[list[object]]] = {"train": [], "val": [], "test": []}
        for i, path in enumerate(paths):
            name = path.parent.name
            part = ("train", "train", "val", "test")[i % 4]
            split[part].append([self._written(path), order.index(name), name])
        file = self.random.choice(["split_zhou_OwnImages.json", "mine.json"])
        if file == "mine.json":
            self.keys["SPLIT_FILE"] = file
        (self.root / file).write_text(json.dumps(split))

    def _classes_file(self) -> None:
        names = self.random.sample(self.names, len(self.names))
        content = self.random.choice(
            [
                {name: f"a {name} in words" for name in names},
                names,
                names[:2],
                {name: f"{name} alone" for name in names[1:]},
                [*names, "absent"],
                names[0],
            ]
        )
        self.made.append(f"classes.json {content}")
        (self.root / "classes.json").write_text(json.dumps(content))

    def _keys(self) -> None:
        self.keys |= self.random.choice(
            [
                {"ALL_TEST": True},
                {"ALL_TEST": True, "SUBSAMPLE_CLASSES": "base"},
                {"GROUP": r"_(\d+)\."},
                {"GROUP": r"_(\d+)\.", "NUM_SHOTS": 2},
                {"GROUP": "[0-9]/x"},
                {"GROUP": "none"},
                {"SUBSAMPLE_CLASSES": "new", "NUM_SHOTS": 1},
                {"SUBSAMPLE_CLASSES": "some"},
                {"SPLIT_FILE": "absent.csv"},
                {"PROTOCOL": "reference"},
            ]
        )

    def _odd_files(self) -> None:
        folders = sorted(path for path in self.root.rglob("*") if path.is_dir())
        folder = self.random.choice(folders)
        image = next(iter(sorted(folder.rglob("*.jpg"))), folder / "x.jpg")
        for path in self.random.sample(
            [
                image.with_name(f"{image.stem}_mask.png"),
                folder / "scan.nii.gz",
                folder / "notes.txt",
                folder / "._hidden.jpg",
                self.root / "loose.jpg",
                self.root / "README.md",
                folder / "below" / "deeper.jpg",
                self.root / "__MACOSX" / "x.jpg",
            ],
            3,
        ):
            self.made.append(str(path.relative_to(self.root)))
            write_image(path)

    def _empty_class(self) -> None:
        parts = [p.name for p in self.root.iterdir() if p.name[:3].lower() in ("tra", "val", "tes")]
        for part in parts or [""]:
            (self.root / part / "empty").mkdir()
        self.made.append("empty class")
        if self.random.random() < 0.6:
            self.keys["SKIP_EMPTY_CLASSES"] = True

    def edit(self) -> None:
        """Change it between two runs."""
        classes = self.root / "classes.json"
        folders = sorted({p.parent for p in self.root.rglob("*.jpg")} - {self.root})
        edit = self.random.choice(("names", "no names", "rename", "add", "image", "relabel"))
        self.made.append(f"then {edit}")
        if edit == "names":
            classes.write_text(json.dumps({name: f"{name} again" for name in self.names[::-1]}))
        elif edit == "no names":
            classes.unlink(missing_ok=True)
        elif edit == "rename":
            folders[-1].rename(folders[-1].with_name("renamed"))
        elif edit == "add":
            self._class(folders[-1].parent, "new", 6)
        elif edit == "image":
            self._class(folders[-1].parent, folders[-1].name, 9)
        else:
            image = next(iter(sorted(folders[0].glob("*.jpg"))))
            image.rename(folders[-1] / f"moved_{image.name}")
