"""Code blocks of Markdown pages, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from tests.runner import PROJECT

FENCE = re.compile(r"^( *)```(.*)$")
ASSIGNMENT = re.compile(r"([A-Z][A-Z_]*)=(.*)", re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its page, the line of its fence, what the fence names, and its text."""

    page: str
    line: int
    language: str
    words: str
    text: str

    @property
    def place(self) -> str:
        """Where it is."""
        return f"{self.page}:{self.line}"


class Command(NamedTuple):
    """A command line: where it is, its variables, its words."""

    place: str
    environment: dict[str, str]
    words: tuple[str, ...]


def pages() -> dict[str, str]:
    """Return the texts of the documents that have commands or code, by path."""
    found = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md"]
    found += sorted(path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("docs/*.md"))
    return {name: (PROJECT / name).read_text(encoding="utf-8") for name in found}


def blocks(text: str, page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page.

    Raises:
        ValueError: a fence is not closed.
    """
    fence: tuple[str, str, int] | None = None
    body: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if fence is not None and line.strip() == "```":
            language, _, words = fence[1].partition(" ")
            yield Block(page, fence[2], language, words, "\n".join(body) + "\n")
            fence, body = None, []
        elif fence is not None:
            body.append(line.removeprefix(fence[0]))
        elif match := FENCE.match(line):
            fence = (match[1], match[2], number)
    if fence is not None:
        raise ValueError(f"{page}:{fence[2]}: the fence is not closed")


def without_blocks(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def commands(block: Block) -> Iterator[Command]:
    """Yield the command lines of a shell block; ``&&`` separates two."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            cut = words.index("&&") if "&&" in words else len(words)
            yield command(words[:cut], block.place)
            words = words[cut + 1 :]


def command(words: list[str], place: str) -> Command:
    """Return a command line with the variables in front of it taken off."""
    environment = {}
    while words and (match := ASSIGNMENT.fullmatch(words[0])):
        environment[match[1]] = match[2]
        words = words[1:]
    return Command(place, environment, tuple(words))


PAGES = pages()
BLOCKS = [block for name, text in PAGES.items() for block in blocks(text, name)]
