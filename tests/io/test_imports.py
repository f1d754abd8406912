"""`--import MODULE`: found as Python finds modules, in the current folder, or in its own."""

from __future__ import annotations

import sys

import pytest

from dplq.errors import UserError
from dplq.io.imports import import_modules, located


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a current folder with modules; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_pack").mkdir()
    files = {
        "own_one.py": "import own_two",
        "own_two.py": "",
        "own_fails.py": "1 / 0",
        "own_pack/__init__.py": "",
        "own_pack/deep.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def test_modules_are_given_as_folder_and_name(folder, tmp_path_factory, monkeypatch):
    """Another process imports them from any folder."""
    names = ["own_one", "own_pack", "own_pack.deep", "own_two.py", "own_one"]
    found = located(names)
    assert found == tuple(f"{folder}/{name}" for name in ("own_one", *names[1:3], "own_two"))
    assert "own_one" not in sys.modules, "planning imports none"
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(folder)])
    assert located(found) == found
    import_modules(found)
    deep = sys.modules["own_pack.deep"]
    assert deep.__file__ == f"{folder}/own_pack/deep.py"
    assert {"own_one", "own_two"} <= sys.modules.keys()
    assert sys.path[-1] == str(folder), "modules of its folder replace no others"


def test_a_module_without_a_file_is_named_alone():
    assert located(["sys"]) == ("sys",)


def test_relative_folders_begin_in_the_current_one(folder, monkeypatch):
    monkeypatch.chdir(folder / "own_pack")
    assert located(["../own_one.py"]) == (f"{folder}/own_one",)
    import_modules(["../own_one.py"])
    assert "own_one" in sys.modules


@pytest.mark.parametrize("do", [import_modules, located])
def test_what_is_not_there(folder, do):
    for name in ("own_nothing", "own_nothing.deep", "own_pack.other", f"{folder}/own_none.py"):
        with pytest.raises(UserError) as caught:
            do([name])
        assert str(caught.value).startswith(f"--import {name}: ")
        assert str(caught.value).endswith("on PYTHONPATH, or FOLDER/MODULE.")


def test_what_cannot_be_imported(folder):
    with pytest.raises(UserError, match=r"it cannot be imported .*ZeroDivision"):
        import_modules(["own_fails"])


@pytest.mark.parametrize("do", [import_modules, located])
def test_another_module_of_that_name(folder, do):
    """It would be imported in silence."""
    (folder / "json.py").touch()
    with pytest.raises(UserError, match=r"Python finds another module 'json' first, in /.*\. Give"):
        do([f"{folder}/json"])
