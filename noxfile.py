"""Sessions of checks: ``nox -s tests lowest examples docs lint types wheel``."""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests", "examples", "docs", "wheel"]
nox.options.reuse_existing_virtualenvs = True
EXTRAS = "[test]"
COVERED = 95  # per cent of lines and branches; 96 when it was set
LOWEST_PYTHON = "3.11"  # the one that all lowest versions run on


@nox.session
def tests(session: nox.Session) -> None:
    """Run the suite in two processes, with coverage."""
    session.install("-e", f".{EXTRAS}", "coverage>=7.10")  # the first that measures child processes
    floor = f"--cov-fail-under={COVERED}"
    session.run("python", "-m", "pytest", "-n", "2", "--cov", floor, *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the suite and build the site with the lowest versions; list them in docs/versions.md."""
    version = session.run("python", "--version", silent=True)
    if version and not version.startswith(f"Python {LOWEST_PYTHON}."):
        session.error(f"the lowest versions need Python {LOWEST_PYTHON}: add -P {LOWEST_PYTHON}")
    session.install("uv")
    lowest = ["--upgrade", "--resolution", "lowest-direct"]
    session.run("python", "-m", "uv", "pip", "install", *lowest, "-e", ".[all,docs,test]")
    session.run("python", "-m", "tools.make_versions_table")
    # Not session.create_tmp(), which would put the folders of the tests into the checkout.
    session.run("mkdocs", "build", "--strict", "--site-dir", f"{session.virtualenv.location}/site")
    session.run("python", "-m", "pytest", "-n", "2", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Run the notebooks."""
    session.install("-e", f".{EXTRAS}")
    session.run("python", "-m", "pytest", "-m", "examples", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Run ruff, with the versions of setup.py."""
    session.install("ruff>=0.17,<0.18")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Run mypy."""
    session.install("-e", f".{EXTRAS}")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site, where a warning is an error, and search it without network."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", *session.posargs)
    session.run("python", "-m", "tools.try_search", "site", "harmonic mean")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build sdist and wheel, install the wheel alone, and run it outside the checkout."""
    session.install("build")
    session.run("python", "-m", "build", "--outdir", "dist")
    (built,) = sorted(Path("dist").glob("*.whl"))[-1:]
    session.install(str(built.absolute()))
    session.install("--force-reinstall", "--no-deps", str(built.absolute()))  # an earlier build
    session.chdir(session.create_tmp())
    session.run("dplq", "--version")
    session.run("dplq", "demo", "--seeds", "1", "--out", "demo", "--", "OPTIM.MAX_EPOCH", "1")
