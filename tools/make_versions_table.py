"""Page of the lowest versions: ``nox -s lowest`` calls it and writes docs/versions.md.

The floors and their reasons are those of setup.py; what is installed must be these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "docs/versions.md"
LINE = re.compile(r'"([A-Za-z][^"]*?[<>=][^"]*)"[\],]*  # (.+)')  # a requirement of setup.py
HEADERS = ("package", "setup.py", "installed", "why not older")
INTRODUCTION = """# Lowest versions

Every requirement has a lowest version, and the test suite passes with all of these at once: `nox -s
lowest` installs them with [uv](https://docs.astral.sh/uv/) (`--resolution lowest-direct`; what they
need in turn is the newest that fits), writes this page by `tools/make_versions_table.py`, builds
the site and runs the suite. It needs Python 3.11: the lowest versions have no wheels for later
ones, and mkdocstrings (extra `docs`) none for 3.10. Do not edit this page; the versions and reasons
are those of setup.py.

With torch 2.4, `.pt2` files are written and `.onnx` files are refused: they need a later torch. The
types are checked (`nox -s types`) with the newest versions alone.

"""


def requirements() -> dict[str, tuple[Requirement, str]]:
    """Return every requirement of setup.py and its reason, by package."""
    found = LINE.findall((ROOT / "setup.py").read_text(encoding="utf-8"))
    parsed = [(Requirement(text), reason) for text, reason in found]
    return {canonicalize_name(one.name): (one, reason) for one, reason in parsed}


def floor(requirement: Requirement) -> Version:
    """Return the lowest version that a requirement allows."""
    (lowest,) = (one.version for one in requirement.specifier if one.operator == ">=")
    return Version(lowest)


def versions_page(installed: Mapping[str, str]) -> str:
    """Return the page as Markdown.

    Args:
        installed: version by package.

    Raises:
        SystemExit: a package is not installed, or in another version than the lowest.
    """
    rows = []
    for name, (requirement, reason) in sorted(requirements().items()):
        found = installed.get(name)
        if found is None or Version(found) != floor(requirement):
            raise SystemExit(
                f"{name}: {found or 'nothing'} is installed, expected {floor(requirement)}, the "
                "lowest of setup.py: run nox -s lowest"
            )
        rows.append((f"`{name}`", f"`{requirement.specifier}`", found, reason))
    return INTRODUCTION + tabulate(rows, HEADERS, "github", disable_numparse=True) + "\n"


def main() -> None:
    """Write the page from the versions that are installed."""
    installed = {}
    for name in requirements():
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    PATH.write_text(versions_page(installed), encoding="utf-8")


if __name__ == "__main__":
    main()
