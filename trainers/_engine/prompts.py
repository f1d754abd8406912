"""The log's list of prompts: which text stands for which class."""

from __future__ import annotations

import sys
from typing import Any

from dplq.methods.base import CLIPModel

SHOWN = 10  # classes on the terminal; the log file has all


def print_prompts(model: CLIPModel) -> None:
    """Print every class with its prompt: the first ten; the others go to the log file only."""
    texts = model.prompt_texts()
    if texts:
        print(f"Prompts ({model.prompt_kind()}):")
        lines = [_line(name, own) for name, own in zip(model.classnames, texts, strict=True)]
    else:
        print(f"Prompts: none, {model.method} uses no text. The classes:")
        lines = [f"  {name}" for name in model.classnames]
    print("\n".join(lines[:SHOWN]))
    if len(lines) > SHOWN:
        _print_rest(lines[SHOWN:])


def _print_rest(lines: list[str]) -> None:
    """Print how many lines there are more; they go to the file of Dassl's Logger, if it is open."""
    stdout: Any = sys.stdout
    file = getattr(stdout, "file", None)
    if file is None:
        print(f"  and {len(lines)} more")
        return
    print(f"  and {len(lines)} more, in the log file", file=stdout.console)
    print("\n".join(lines), file=file)


def _line(name: str, texts: list[str]) -> str:
    more = f" (and {len(texts) - 1} more texts)" if len(texts) > 1 else ""
    return f"  {name} -> {texts[0]}{more}"
