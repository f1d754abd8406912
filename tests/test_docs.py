"""References to files: every document and path that the project names exists."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from tests.documents import without_blocks
from tools.check_site import loaded_from_elsewhere

PROJECT = Path(__file__).resolve().parents[1]
TEXT = {".py", ".md", ".sh", ".yaml", ".toml"}
FOLDERS = "benchmarks|configs|datasets|docs|dplq|scripts|tests|tools|trainers"
INSTALLED = ("dplq/configs", "dplq/datasets", "dplq/trainers")  # in a checkout: beside dplq/
# Written by benchmarks/step.py; of CoOp's repository.
ELSEWHERE = {"step.md", "DATASETS.md"}

DOCUMENT = re.compile(r"(?<![\w./:-])[\w./-]*\w\.md\b")
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
PATH = re.compile(rf"(?<![\w./<-])(?:{FOLDERS})/[\w./+*<>{{}}-]*")
MADE_FILE = re.compile(r"^```\w+ file=(\S+)", re.MULTILINE)  # what the page has its reader write
MODULE = re.compile(r"python -m ((?:dplq|tools)[\w.]*)")
SECTION = re.compile(r'docs/method\.md, ("[^"]+"(?:(?:, | and )"[^"]+")*)')
# A part of a path without its suffix: X, TRAINER, <name>, ...
PLACEHOLDER = re.compile(r"[A-Z]|[A-Z_]{2,}|.*[<{].*|\.\.\..*")


def missing_documents(text: str, source: str, files: set[str]) -> Iterator[str]:
    """Yield the Markdown files that `text` names and `files` lacks.

    A name counts from the root or from the folder of `source`.
    """
    for name in set(DOCUMENT.findall(text)) - ELSEWHERE:
        beside = str(PurePosixPath(source).parent / name)
        if not {name, beside} & files:
            yield f"{source} names {name}"


def missing_paths(text: str, source: str, files: set[str]) -> Iterator[str]:
    """Yield the paths and modules that the Markdown `text` names and `files` lacks.

    Parts that are placeholders (X.yaml, TRAINER, <name>) match anything, ``*`` as in a shell.
    """
    files = files | set(MADE_FILE.findall(text))
    all_there = files | {str(parent) for file in files for parent in PurePosixPath(file).parents}
    for name in set(PATH.findall(text)):
        parts = name.rstrip("./").split("/")
        if "/".join(parts[:2]) in INSTALLED:
            parts = parts[1:]
        stems = [part.partition(".")[0] or part for part in parts]
        pattern = "/".join(
            "*" + part[len(stem) :] if PLACEHOLDER.fullmatch(stem) else part
            for part, stem in zip(parts, stems, strict=True)
        )
        if pattern not in all_there and not fnmatch.filter(all_there, pattern):
            yield f"{source} names {name}"
    for name in set(MODULE.findall(text)):
        path = name.replace(".", "/")
        if not {f"{path}.py", f"{path}/__main__.py"} & files:
            yield f"{source} names python -m {name}"


def broken_links(text: str, source: str, documents: dict[str, str]) -> Iterator[str]:
    """Yield the relative links of a page to files that are no document, or sections of none."""
    for path, section in LINK.findall(without_blocks(text)):
        name = os.path.normpath(os.path.join(os.path.dirname(source), path)) if path else source
        slugs = {slug(heading) for heading in HEADING.findall(documents.get(name, ""))}
        if section and section not in slugs:
            yield f"{source} links to {name}#{section}"
        elif name not in documents:
            yield f"{source} links to {name}"


def rendered_otherwise(text: str, source: str) -> Iterator[str]:
    """Yield the lines of a page that the site would show in another way than code hosts do."""
    for line in re.findall(r"\n *\n( {1,3}\S.*)", text):
        yield f"{source}: indented by less than four spaces: {line}"
    paragraphs = re.sub(r"^ {4,}.*$", "", text, flags=re.MULTILINE)
    for line in re.findall(r".*<(?!!--)[A-Za-z/].*", re.sub(r"`[^`]*`", "", paragraphs)):
        yield f"{source}: HTML: {line}"


def slug(heading: str) -> str:
    """Return the anchor of a heading, as mkdocs and code hosts make it."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def missing_sections(text: str, source: str, headings: set[str]) -> Iterator[str]:
    """Yield the sections of docs/method.md that `text` names and `headings` lacks."""
    unwrapped = re.sub(r"\s+(?:# )?", " ", text)
    for names in SECTION.findall(unwrapped):
        for name in re.findall('"([^"]+)"', names):
            if name not in headings:
                yield f"{source} names section {name}"


@pytest.fixture(scope="module")
def files():
    """Paths of the project's files, relative to its root; git's view, which knows case."""
    if not shutil.which("git") or not (PROJECT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if (PROJECT / name).is_file()}


@pytest.fixture(scope="module")
def texts(files):
    """The project's text files by path, except this one, whose examples do not exist."""
    here = Path(__file__).relative_to(PROJECT).as_posix()
    chosen = (name for name in sorted(files - {here}) if Path(name).suffix in TEXT)
    return {name: (PROJECT / name).read_text(encoding="utf-8") for name in chosen}


def test_documents_exist(texts, files):
    found = [bad for name, text in texts.items() for bad in missing_documents(text, name, files)]
    assert not found, "\n".join(sorted(found))


def test_paths_in_documents_exist(texts, files):
    documents = {name: text for name, text in texts.items() if name.endswith(".md")}
    found = [bad for name, text in documents.items() for bad in missing_paths(text, name, files)]
    assert not found, "\n".join(sorted(found))


def test_links_lead_to_files_and_sections(texts, files):
    """On the site a strict build checks those between its pages; this is the code host's view."""
    documents = {name: text for name, text in texts.items() if name.endswith(".md")}
    found = [bad for name, text in documents.items() for bad in broken_links(text, name, documents)]
    assert not [bad for bad in found if bad.rpartition(" ")[2] not in files], "\n".join(found)


def test_sections_of_the_method_exist(texts):
    headings = set(re.findall("^## (.+)$", texts["docs/method.md"], flags=re.MULTILINE))
    found = [bad for name, text in texts.items() for bad in missing_sections(text, name, headings)]
    assert not found, "\n".join(sorted(found))


def test_pages_are_rendered_as_on_code_hosts(texts):
    """Python-Markdown wants four spaces in lists, and takes <x> outside of code for HTML."""
    pages = {name: without_blocks(text) for name, text in texts.items() if name.startswith("docs/")}
    assert not [bad for name, text in pages.items() for bad in rendered_otherwise(text, name)]


def test_the_first_page_is_short(texts):
    assert len(texts["README.md"].splitlines()) <= 150


def test_every_page_is_in_the_navigation_of_the_site(files):
    pages = {name.removeprefix("docs/") for name in files if re.fullmatch(r"docs/\w+\.md", name)}
    site = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"^ +- (\w+\.md)$", site, flags=re.MULTILINE)
    assert sorted(named) == sorted(pages)


def test_every_trainer_has_a_source_and_equations(texts):
    """A row of docs/trainers.md names the paper, and leads to a section with a formula."""
    rows = re.findall(r"^\| (\[.+?) \| (.+) \|$", texts["docs/trainers.md"], flags=re.MULTILINE)
    parts = re.split(r"^#{2,3} +(.+)$", texts["docs/method.md"], flags=re.MULTILINE)
    sections = dict(zip(map(slug, parts[1::2]), parts[2::2], strict=True))
    found = set()
    for names, source in rows:
        assert re.search(r"\b20\d\d\b", source), names
        for name, anchor in re.findall(r"\[([\w, ]+)\]\(method\.md#([\w-]+)\)", names):
            assert re.search(r"^ {4,}.*(=|tower:)", sections[anchor], re.MULTILINE), name
            found |= set(name.split(", "))
    assert found == {path.name for path in (PROJECT / "configs/trainers").iterdir()}


def test_messages_of_the_troubleshooting_page_are_in_the_code(texts):
    code = "\n".join(
        text for name, text in texts.items() if name.startswith(("dplq/", "trainers/", "datasets/"))
    )
    joined = re.sub(r'"\n *f?"', "", code)  # literals that go on in the next line
    rows = re.findall(r"^\| `(.+?)` \|", texts["docs/troubleshooting.md"], flags=re.MULTILINE)
    parts = [part.strip("' ") for row in rows for part in row.split("...")]
    assert len(rows) > 10
    assert [part for part in parts if part not in joined] == []


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("see docs/method.md, [other](other.md) and README.md", []),
        ("see METHOD.md, https://github.com/owner/name/gone.md", ["METHOD.md"]),
        ("see docs/other.md and ../README.md", ["../README.md"]),
    ],
)
def test_a_broken_document_is_found(text, broken):
    files = {"README.md", "docs/method.md", "docs/other.md"}
    found = missing_documents(text, "docs/page.md", files)
    assert sorted(found) == [f"docs/page.md names {name}" for name in broken]


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        (
            "`dplq/clip/backbone.py`, `dplq/clip/`, configs/datasets/X.yaml, dplq/configs/datasets",
            [],
        ),
        ("configs/trainers/TRAINER/CFG.yaml, scripts/*.sh, `python -m dplq.data`", []),
        ("`dplq/clip/gone.py`", ["dplq/clip/gone.py"]),
        ("scripts/*.py, `python -m tools.gone`", ["python -m tools.gone", "scripts/*.py"]),
        ("configs/gone/X.yaml.", ["configs/gone/X.yaml."]),
        ("an original's file, https://github.com/owner/name/blob/main/trainers/gone.py", []),
    ],
)
def test_a_broken_path_is_found(text, broken):
    files = {"dplq/clip/backbone.py", "dplq/data/__main__.py", "scripts/run.sh"}
    files |= {"configs/datasets/aid.yaml", "configs/trainers/CoOp/demo.yaml"}
    found = missing_paths(text, "README.md", files)
    assert sorted(found) == [f"README.md names {name}" for name in broken]


def test_a_broken_section_is_found():
    text = '# (docs/method.md, "Forward pass" and\n    # "Other"), docs/method.md, step 3'
    assert list(missing_sections(text, "x.py", {"Forward pass"})) == ["x.py names section Other"]


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](other.md), [b](other.md#a-part-two), [c](#here), [d](https://x.org/y.md)", []),
        ("[a](gone.md)", ["docs/gone.md"]),
        ("[a](other.md#gone), [b](#gone)", ["docs/other.md#gone", "docs/page.md#gone"]),
        ("[a](../README.md), [b](figure.svg)", ["docs/figure.svg"]),  # a file, which is looked for
    ],
)
def test_a_broken_link_is_found(text, broken):
    documents = {"docs/page.md": "# Here", "docs/other.md": "## A part, two", "README.md": ""}
    found = broken_links(text, "docs/page.md", documents)
    assert sorted(found) == [f"docs/page.md links to {name}" for name in broken]


def test_what_a_page_of_the_site_loads_from_other_hosts_is_found():
    page = """<link rel="canonical" href="https://a.org/">
    <link rel="stylesheet" href="//b.org/x.css">
    <script src="https://c.org/x.js"></script><img src="figure.svg"><img src="http://d.org/x.png">
    <a href="https://e.org/">elsewhere</a>"""
    assert loaded_from_elsewhere(page) == [
        "//b.org/x.css",
        "https://c.org/x.js",
        "http://d.org/x.png",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1. a\n\n    more, `<x>`\n\n        code <y>\n\n<!-- mark -->", []),
        ("1. a\n\n   more", ["indented by less than four spaces:    more"]),
        ("logits <image, text>", ["HTML: logits <image, text>"]),
    ],
)
def test_what_is_rendered_otherwise_is_found(text, found):
    assert list(rendered_otherwise(text, "page")) == [f"page: {one}" for one in found]
