"""Which classes were trained: class names matched by the text that prompts make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dplq.clip.templates import prompt_name


def have_same_prompts(classnames: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether two lists of classes are the same, in the same order, to prompts."""
    return list(map(prompt_name, classnames)) == list(map(prompt_name, others))


def _words(name: str) -> str:
    return " ".join(prompt_name(name).split()).casefold()


def trained_rows(classnames: Sequence[str], trained: Sequence[str]) -> list[int | None]:
    """Return the position of each class among the trained ones; None where it is not trained.

    Names match where their prompts are the same, so "parking_lot" is "parking lot", or differ in
    case and spaces around or between words alone. The n-th class of a name is the n-th trained one
    of that name; exact spelling comes first. So every class keeps its position where the names are
    the trained ones, duplicates included.

    Args:
        classnames: K names.
        trained: names of the trained classes.
    """
    rows: list[int | None] = [None] * len(classnames)
    free = dict(enumerate(trained))
    spellings: tuple[Callable[[str], str], ...] = (str, prompt_name, _words)
    for spelled in spellings:
        places: dict[str, list[int]] = {}
        for row, name in free.items():
            places.setdefault(spelled(name), []).append(row)
        for k, name in enumerate(classnames):
            found = places.get(spelled(name))
            if rows[k] is None and found:
                row = rows[k] = found.pop(0)
                del free[row]
    return rows
