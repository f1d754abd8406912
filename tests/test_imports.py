"""Import contract: an import goes down the list of folders, never up, and there is no cycle.

The checkout's folders `trainers` and `datasets` are part of the package `dplq` (see
`dplq/__init__.py`), which import linters that follow the file system cannot know.
"""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
# From top to bottom; folders on one line do not import each other.
LAYERS = (
    ("dplq.__main__",),
    ("dplq.cli",),
    ("dplq.data", "dplq.experiments"),
    ("dplq.report",),
    ("dplq.results",),
    ("dplq.share",),
    ("dplq.plugin",),
    ("dplq.trainers", "dplq.datasets"),
    ("dplq.host",),
    ("dplq.explain",),
    ("dplq.methods",),
    ("dplq.training", "dplq.evaluation", "dplq.export"),
    ("dplq.domain",),
    ("dplq.clip",),
    ("dplq.images", "dplq.models"),
    ("dplq.io",),
    ("dplq.errors",),
    ("dplq",),
)
RANK = {folder: rank for rank, layer in enumerate(LAYERS) for folder in layer}
# Reached by name only, and the stand-in for another package: on nobody's list.
APART = ("dplq.demo", "dplq._fallback")
LIBRARY = (
    "clip",
    "domain",
    "explain",
    "methods",
    "images",
    "models",
    "io",
    "training",
    "evaluation",
    "report",
    "export",
    "errors",
)
AT_THE_TOP = {
    *("__init__.py", "__main__.py", "errors.py", "plugin.py", "py.typed", "clip", "domain"),
    *("methods", "images", "io", "training", "evaluation", "results", "report", "data"),
    *("experiments", "host", "cli", "demo", "models", "explain", "export", "share"),
    "_fallback",
}


def module_of(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "dplq" else ("dplq", *parts))


def files() -> list[Path]:
    folders = ("dplq", "trainers", "datasets")
    return [path for folder in folders for path in (PROJECT / folder).rglob("*.py")]


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it, but not for type checkers alone."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, *filter(None, [node.module])])
            # `from package import module` imports the module.
            found.update(
                f"{base}.{a.name}" if f"{base}.{a.name}" in modules() else base for a in node.names
            )
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@cache
def modules() -> frozenset[str]:
    return frozenset(module_of(path) for path in files())


@cache
def graph() -> dict[str, set[str]]:
    return {module_of(path): imports_of(path) for path in files()}


def folder_of(module: str) -> str | None:
    if module.startswith(APART):
        return None
    return next((f for f in (module, ".".join(module.split(".")[:2])) if f in RANK), None)


def test_every_module_has_a_place_on_the_list():
    lost = {module for module in graph() if folder_of(module) is None}
    assert {module for module in lost if not module.startswith(APART)} == set()


def test_no_import_goes_up():
    up = [
        f"{module} imports {target}"
        for module, targets in graph().items()
        for target in targets
        if (source := folder_of(module)) and (to := folder_of(target)) and source != to
        if RANK[to] <= RANK[source]
    ]
    assert up == []


def test_no_cycle_of_modules():
    own = {module: {t for t in targets if t in modules()} for module, targets in graph().items()}
    try:
        TopologicalSorter(own).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_the_demo_is_reached_by_name_only():
    users = {m for m, targets in graph().items() if any(t.startswith("dplq.demo") for t in targets)}
    assert {m for m in users if not m.startswith("dplq.demo")} == set()


def test_the_library_knows_neither_dassl_nor_yacs():
    library = tuple(f"dplq.{folder}" for folder in LIBRARY)
    users = {
        module: target
        for module, targets in graph().items()
        for target in targets
        if module.startswith(library) and target.partition(".")[0] in ("dassl", "yacs")
    }
    assert users == {}


def test_nothing_imports_tests_benchmarks_or_tools():
    others = {t.partition(".")[0] for targets in graph().values() for t in targets}
    assert others.isdisjoint({"tests", "benchmarks", "tools", "trainers", "datasets", "train"})


def test_the_top_of_the_package_is_what_the_design_lists():
    there = {path.name for path in (PROJECT / "dplq").iterdir()} - {"__pycache__"}
    assert there <= AT_THE_TOP


@pytest.mark.parametrize(
    ("folder", "mark"), [("trainers", "@register_trainer"), ("datasets", "@declare")]
)
def test_trainers_and_datasets_show_nothing_else(folder, mark):
    """Every module registers something; what they share is in `_engine`."""
    files = [p for p in (PROJECT / folder).glob("*.py") if p.name != "__init__.py"]
    assert len(files) >= 10
    assert [p.name for p in files if mark not in p.read_text(encoding="utf-8")] == []
