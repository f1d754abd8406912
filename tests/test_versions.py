"""Lowest versions: every requirement of setup.py has one, and the page lists them."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.packaged import setup_arguments
from tools.make_versions_table import PATH, floor, requirements, versions_page

ROW = re.compile(r"^\| `([^`]+)` +\| `[^`]+` +\| (\S+)", re.MULTILINE)


def test_every_requirement_has_a_lowest_version_and_a_reason():
    given = setup_arguments()
    lists = [given["install_requires"], *given["extras_require"].values()]
    every = {Requirement(text) for one in lists for text in one}
    assert {canonicalize_name(one.name) for one in every} == requirements().keys()
    assert {one for one, _ in requirements().values()} == every
    assert all(reason for _, reason in requirements().values())
    assert all(floor(one) for one in every)


def test_the_page_is_that_of_the_lowest_versions():
    page = PATH.read_text(encoding="utf-8")
    listed = dict(ROW.findall(page))
    lowest = {name: floor(one) for name, (one, _) in requirements().items()}
    assert {name: Version(found) for name, found in listed.items()} == lowest
    assert page == versions_page(listed), "docs/versions.md is outdated: run nox -s lowest"


@pytest.mark.parametrize(
    ("found", "said"),
    [({}, "nothing is installed"), ({"alembic": "99"}, "alembic: 99 is installed")],
)
def test_other_versions_are_not_listed(found, said):
    with pytest.raises(SystemExit, match=said):
        versions_page(found)
