"""Every declared dataset, on a look-alike made from its declaration."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
import yaml

from dplq import datasets
from dplq.datasets import DECLARED
from dplq.datasets._engine.layout.layouts import Layout
from dplq.errors import UserError

from .lookalikes import make_config, make_lookalike, parts, write_image

HOME = Path(datasets.__file__).parent
NO_TABLE = ("OwnImages", "DemoAerial", "DemoAerialv2", "DemoTissue", "DemoTissuev2")
NAMES = sorted(set(DECLARED) - set(NO_TABLE))
SPLIT = [name for name in NAMES if not DECLARED[name].test_only]
WHOLE = [name for name in NAMES if DECLARED[name].test_only]


def layouts_of(name: str) -> list[Layout]:
    declared = DECLARED[name]
    return [] if declared.list_files else declared.at("/data").layouts()


def moved(layout: Layout, root: Path) -> Layout:
    return layout._replace(image_dir=str(root / Path(layout.image_dir).relative_to("/data")))


def load(name: str, root: Path, **keys):
    return DECLARED[name](make_config(root, CHECK_IMAGES=False, **keys))


def sizes_per_class(dataset) -> list[Counter]:
    named = (dataset.train_x, dataset.val, dataset.test)
    return [Counter(item.label for item in part) for part in named]


@pytest.mark.parametrize(
    ("name", "index"),
    [(name, i) for name in NAMES for i in range(len(layouts_of(name))) if not name.endswith("v2")],
)
def test_every_layout_gives_the_same_classes(name, index, tmp_path):
    layout = moved(layouts_of(name)[index], tmp_path)
    _, prompts, sizes = make_lookalike(DECLARED[name], tmp_path, layout)
    dataset = load(name, tmp_path)
    assert dataset.classnames == prompts
    assert dataset.image_dir == layout.image_dir
    for counts, size in zip(sizes_per_class(dataset), sizes, strict=True):
        assert counts == (dict.fromkeys(range(len(prompts)), size) if size else {})


@pytest.mark.parametrize("name", SPLIT)
def test_shots_halves_and_a_second_run(name, tmp_path):
    _, prompts, sizes = make_lookalike(DECLARED[name], tmp_path, per_class=10)
    full = load(name, tmp_path)
    assert full.classnames == prompts
    assert parts(load(name, tmp_path)) == parts(full)
    everything = [path for part in parts(full).values() for path, *_ in part]
    if DECLARED[name].val_from != "test":
        assert len(set(everything)) == len(everything)
    few = parts(load(name, tmp_path, shots=3))
    assert [len(few[part]) / len(prompts) for part in few] == [3, min(3, sizes[1]), sizes[2]]
    assert few["test"] == parts(full)["test"]
    half = -(-len(prompts) // 2)
    for subset, names in (("base", prompts[:half]), ("new", prompts[half:])):
        dataset = load(name, tmp_path, shots=3, SUBSAMPLE_CLASSES=subset)
        assert dataset.classnames == names
        for part, items in parts(dataset).items():
            assert {name for *_, name in items} == set(names)
            shift = prompts.index(names[0])
            assert [(p, label + shift, n) for p, label, n in items] == [
                item for item in few[part] if item[2] in names
            ]


@pytest.mark.parametrize("name", WHOLE)
def test_an_all_test_dataset_has_only_test_images(name, tmp_path):
    folder, prompts, (count, _, _) = make_lookalike(DECLARED[name], tmp_path)
    got = parts(load(name, tmp_path, shots=2))
    assert len(got["test"]) == count * len(prompts)
    assert got["train"] == got["test"]
    assert not got["val"]
    assert not list(folder.rglob("split*"))
    with pytest.raises(UserError, match=f"{name} is tested as a whole: .*_CLASSES all, not new"):
        load(name, tmp_path, SUBSAMPLE_CLASSES="new")


@pytest.mark.parametrize("name", [name for name in NAMES if DECLARED[name].v2_name])
def test_variants_share_the_data_of_their_first(name, tmp_path):
    first, second = DECLARED[name], DECLARED[DECLARED[name].v2_name]
    make_lookalike(first, tmp_path)
    assert second.__name__ == f"{name}v2"
    assert issubclass(second, first)
    assert second.test_only
    v1, v2 = parts(load(name, tmp_path)), parts(load(second.__name__, tmp_path))
    assert sorted(v1["train"] + v1["val"] + v1["test"]) == sorted(v2["test"])


STRICT = [n for n in SPLIT if DECLARED[n].class_table and not DECLARED[n].needs_split]


@pytest.mark.parametrize("name", STRICT)
def test_a_stray_folder_is_reported_and_no_class(name, tmp_path, caplog):
    layout = moved(layouts_of(name)[0], tmp_path)
    _, prompts, sizes = make_lookalike(DECLARED[name], tmp_path, layout)
    write_image(Path(layout.folders()[0], "notes of mine", "plot.png"))
    (Path(layout.folders()[0]) / "README.md").touch()
    dataset = load(name, tmp_path)
    assert dataset.classnames == prompts
    assert len(dataset.test) == sizes[2] * len(prompts)
    text = f"{layout.folders()[0]}: not a class of {name}, ignored: notes of mine"
    assert text in caplog.text
    assert "README" not in caplog.text


@pytest.mark.parametrize("name", NAMES)
def test_datasheet(name):
    declared = DECLARED[name]
    assert declared.domain in ("remote sensing", "medical", "SAR", "natural")
    assert "{}" in declared.template.format("{}")
    assert declared.template.count("{}") == 1
    for text in (declared.homepage, declared.licence, declared.citation, declared.modality):
        assert text
        assert len(text) < 120
    assert declared.homepage == "unknown" or declared.homepage.startswith("http")
    counts = declared.images_per_class
    if isinstance(counts, tuple):
        assert len(counts) == len(declared.class_table)
        assert sum(counts) == declared.total_images
    elif counts and declared.class_table:
        assert counts * len(declared.class_table) == declared.total_images
    for url, checksum, _ in declared.download:
        assert url
        assert len(checksum) in (0, 32, 64)


def test_every_dataset_has_a_two_line_config():
    folder = HOME.parent / "configs" / "datasets"
    named = {}
    for path in folder.glob("*.yaml"):
        assert len(path.read_text().splitlines()) == 2, path
        named[yaml.safe_load(path.read_text())["DATASET"]["NAME"]] = path.name
    assert set(named) == set(DECLARED)


def declarations() -> list[tuple[str, str, ast.ClassDef, int]]:
    """Per class with a `dataset_dir`: file, name, node, and its lines beside the class table."""
    found = []
    for path in sorted(HOME.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.ClassDef):
                continue
            sets = {n.targets[0].id: n for n in node.body if isinstance(n, ast.Assign)}
            if "dataset_dir" in sets:
                table = sets.get("class_table")
                rows = table.end_lineno - table.lineno + 1 if table else 0
                found.append((path.name, node.name, node, node.end_lineno - node.lineno + 1 - rows))
    return found


FAMILIES = {"biomedcoop.py": 11, "imagenet.py": 5}  # one release, one set of classes


def test_one_declaration_per_file_named_as_its_config():
    per_file = Counter(file for file, *_ in declarations())
    assert {file: count for file, count in per_file.items() if count > 1} == FAMILIES
    for path in (HOME.parent / "configs" / "datasets").glob("*.yaml"):
        declared = DECLARED[yaml.safe_load(path.read_text())["DATASET"]["NAME"]]
        file = declared.__module__.rpartition(".")[2]
        assert f"{file}.py" in FAMILIES or path.stem in (file, f"{file}v2")


def test_a_declaration_is_short_and_is_no_code():
    for file, name, node, lines in declarations():
        if name in NO_TABLE:
            continue
        assert lines <= 40, f"{file}: {name} has {lines} lines beside its class table"
        assert ast.get_docstring(node), f"{file}: {name}"
    assert len(declarations()) > 40


def test_no_six_lines_stand_twice():
    """Blank lines and imports do not count."""
    seen: dict[tuple[str, ...], str] = {}
    for path in sorted(HOME.glob("*.py")):
        lines = [line.strip() for line in path.read_text().splitlines()]
        lines = [line for line in lines if line and not line.startswith(("import ", "from "))]
        for i in range(len(lines) - 5):
            run = tuple(lines[i : i + 6])
            place = f"{path.name}: {run[0]}"
            assert seen.setdefault(run, place) == place, f"{seen[run]} and {place}"
