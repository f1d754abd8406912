"""A folder of own images that is edited: the images are known by what is in them."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

from dplq.datasets import OwnImages
from dplq.datasets._engine.protocol import Split

from .lookalikes import make_config

MAX_IMAGES = 14  # of a class


class ChangingFolder:
    """A folder of own images, and what has been seen of its splits.

    Every image has a number in its bytes, all images have one size: nothing but their content, and
    the name of their files, tells them apart.

    Attributes:
        data: the folder, `DATASET.ROOT`.
        numbered_alone: file names count from 0 in every class, so that many are alike.
        fixed: classes of which no image was added, moved or renamed since they were first drawn.
        forgotten: images that were drawn before the stored split was deleted, and not since.
        worst: the part in which each image was last, by its number.
    """

    parts = ("",)
    grouped = False

    def __init__(self, root: Path, seed: int) -> None:
        self.data, self.limbo = root / "data", root / "limbo"
        self.random = random.Random(seed)
        self.numbered_alone = self.random.random() < 0.5
        self.count = 0
        self.fixed: dict[str, frozenset[str]] = {}
        self.forgotten: set[int] = set()
        self.worst: dict[int, int] = {}
        for name in "abcdef"[: self.random.randint(4, 6)]:
            self.make_class(f"class_{name}")

    # what is there

    def classes(self) -> list[str]:
        folders = [p for part in self.parts for p in (self.data / part).iterdir() if p.is_dir()]
        return sorted({folder.name for folder in folders})

    def images(self, name: str) -> list[Path]:
        return sorted(p for part in self.parts for p in (self.data / part / name).rglob("*.png"))

    def class_of(self, path: Path) -> str:
        return path.relative_to(self.data).parts[len(self.parts) - 1]

    def number(self, path: Path) -> int:
        return int(path.read_bytes()[-8:])

    def group(self, path: Path) -> str:
        return ""

    # edits; each returns the classes whose images it has touched

    def write(self, folder: Path, name: str = "") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        self.count += 1
        number = len(list(folder.iterdir())) if self.numbered_alone else self.count
        path = folder / (name or f"{number:03d}.png")
        while path.exists():
            number += 1
            path = folder / f"{number:03d}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 60 + f"{self.count:08d}".encode())
        return path

    def make_class(self, name: str) -> set[str]:
        for _ in range(self.random.randint(5, 9)):
            self.write(self.place(name))
        return set()

    def place(self, name: str) -> Path:
        return self.data / name

    def new_name(self) -> str:
        self.count += 1
        return f"new_{self.count}"

    def any_class(self) -> str:
        return self.random.choice(self.classes())

    def add_class(self) -> set[str]:
        return self.make_class(self.new_name())

    def add_images(self) -> set[str]:
        name = self.any_class()
        if len(self.images(name)) < MAX_IMAGES:
            for _ in range(self.random.randint(1, 3)):
                self.write(self.place(name))
        return {name}

    def rename_folder(self) -> set[str]:
        old, new = self.any_class(), self.new_name()
        self.move_class(old, new)
        self.edit_names({old: new})
        return {old, new}

    def exchange_folders(self) -> set[str]:
        """The names of two folders were mixed up."""
        one, other = self.random.sample(self.classes(), 2)
        for old, new in ((one, "between"), (other, one), ("between", other)):
            self.move_class(old, new)
        return {one, other}

    def move_class(self, old: str, new: str) -> None:
        for part in self.parts:
            (self.data / part / old).rename(self.data / part / new)

    def rename_image(self) -> set[str]:
        name = self.any_class()
        path = self.random.choice(self.images(name))
        path.rename(path.with_name(f"renamed_{self.count}_{path.name}"))
        return {name}

    def move_image(self) -> set[str]:
        """An image was in the wrong class."""
        one, other = self.random.sample(self.classes(), 2)
        path = self.random.choice(self.images(one))
        new = Path(*[other if step == one else step for step in path.parts])
        if len(self.images(one)) > 5 and not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            path.rename(new)
        return {one, other}

    def remove_class(self) -> set[str]:
        path = self.data / "classes.json"
        listed = json.loads(path.read_text()) if path.exists() else self.classes()
        if len(listed) > 3:
            name = self.any_class()
            for part in self.parts:
                (self.limbo / part).mkdir(parents=True, exist_ok=True)
                (self.data / part / name).rename(self.limbo / part / name)
            self.edit_names({name: ""})
        return set()

    def bring_back(self) -> set[str]:
        """A class that was removed comes back, perhaps under another name."""
        away = sorted({p.name for part in self.parts for p in (self.limbo / part).glob("*")
                       if p.name not in self.parts and p.is_dir()})  # fmt: skip
        if not away:
            return set()
        name = self.random.choice(away)
        new = self.random.choice([name, self.new_name()])
        for part in self.parts:
            (self.limbo / part / name).rename(self.data / part / new)
        return {new} if new != name else set()

    def edit_names(self, new: dict[str, str]) -> None:
        """Rename or remove folders in classes.json, as its owner would."""
        path = self.data / "classes.json"
        if path.exists():
            names = json.loads(path.read_text())
            renamed = {new.get(folder, folder): prompt for folder, prompt in names.items()}
            path.write_text(json.dumps({f: p for f, p in renamed.items() if f}))

    def name_classes(self) -> set[str]:
        """Put all classes into classes.json, in any order, with any prompts."""
        names = self.classes()
        self.random.shuffle(names)
        prompts = {name: f"{name} {self.random.randint(0, 3)}" for name in names}
        (self.data / "classes.json").write_text(json.dumps(prompts))
        return set()

    def leave_out_class(self) -> set[str]:
        self.name_classes()
        if len(self.classes()) > 4:
            self.edit_names({self.any_class(): ""})
        return set()

    def forget_names(self) -> set[str]:
        (self.data / "classes.json").unlink(missing_ok=True)
        return set()

    # loading

    def load(self, shots: int = -1, **keys: object) -> tuple[OwnImages, dict[str, list[Path]]]:
        """Load it; return the dataset and its parts."""
        cfg = make_config(self.data, shots=shots, CHECK_IMAGES=False, **keys)
        dataset = OwnImages(cfg)
        items = {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}
        return dataset, {part: [Path(i.impath) for i in items[part]] for part in Split._fields}


class NestedFolder(ChangingFolder):
    """Class folders of patients' folders; some patients have images in two classes."""

    grouped = True

    def make_class(self, name: str) -> set[str]:
        for i in range(self.random.randint(4, 6)):
            patient = self.random.choice([1, 2, 3]) if i == 2 else self.count
            folder = self.data / name / f"patient{patient}"
            for _ in range(self.random.randint(1, 3)):
                self.write(folder)
        return set()

    def place(self, name: str) -> Path:
        patients = sorted(p.name for p in (self.data / name).iterdir())
        return self.data / name / self.random.choice([*patients, f"patient{self.count}"])

    def group(self, path: Path) -> str:
        """Return the folder; a class with one folder alone is split one by one, and it is said."""
        return path.parent.name if len(list(path.parents[1].iterdir())) > 1 else ""


class FolderOfParts(ChangingFolder):
    """Train and test folders; val is drawn from train."""

    parts = ("train", "test")

    def make_class(self, name: str) -> set[str]:
        for _ in range(self.random.randint(4, 6)):
            self.write(self.data / "train" / name)
        self.write(self.data / "test" / name, "t0.png")
        self.write(self.data / "test" / name, "t1.png")
        return set()

    def place(self, name: str) -> Path:
        return self.data / self.random.choice(self.parts) / name


class Table(ChangingFolder):
    """A table of the images below class folders; its labels and order are edited, too."""

    def load(self, shots: int = -1, **keys: object) -> tuple[OwnImages, dict[str, list[Path]]]:
        self.write_table()
        return super().load(shots, **keys)

    def rows(self) -> list[dict[str, str]]:
        path = self.data / "classes.json"
        listed = json.loads(path.read_text()) if path.exists() else self.classes()
        return [
            {"path": str(image.relative_to(self.data)), "label": name}
            for name in listed
            for image in self.images(name)
        ]

    def write_table(self) -> None:
        rows = self.rows()
        self.random.shuffle(rows)
        with open(self.data / "labels.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


class TableOfGroups(Table):
    """A table with a column of patients; a patient's number is decided by the image."""

    grouped = True

    def rows(self) -> list[dict[str, str]]:
        return [{**row, "patient": self.group(self.data / row["path"])} for row in super().rows()]

    def group(self, path: Path) -> str:
        return f"p{self.number(path) // 2}"
