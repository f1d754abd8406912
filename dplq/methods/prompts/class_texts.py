"""Several texts for every class, as language models write them, from a file of the user's.

The published ones of BiomedCoOp are a Python dictionary in its repository; it is read there as
data, no code is run.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from dplq.clip.templates import fill_templates, imagenet_templates
from dplq.errors import UserError, few
from dplq.io.validation.paths import is_file, user_path
from dplq.io.validation.schema import InvalidContent, Name, convert, read_json, read_text

IN_A_CHECKOUT = "trainers/prompt_templates.py"  # of BiomedCoOp's repository
VARIABLE = "BIOMEDCOOP_TEMPLATES"
TEMPLATES = "templates"  # in place of a file: OpenAI's 80 for ImageNet
WANTED = (
    "a checkout of BiomedCoOp's repository, a JSON file {class name: [texts]}, or "
    f"'{TEMPLATES}' for OpenAI's templates in place of a language model's texts"
)


def class_texts(source: str, classnames: Sequence[str], count: int) -> list[list[str]]:
    """Return the first `count` texts of every class.

    Args:
        source: a checkout, a file (JSON, or Python with the variable of the release), or
            "templates".
        classnames: K class names; underscores are spaces, and case does not matter.
        count: texts of each class.

    Raises:
        UserError: there is no such file, or it lacks classes or texts of theirs.
    """
    if not source:
        raise UserError(f"TEXTS is empty; give {WANTED}.")
    if source == TEMPLATES:
        texts = {name: fill_templates(imagenet_templates(), name) for name in classnames}
    else:
        texts = _read(source)
    known = {_plain(name): own for name, own in texts.items()}
    missing = [name for name in classnames if _plain(name) not in known]
    if missing:
        raise UserError(
            f"TEXTS {source} has no texts for {few(missing, 4)}: add them to a file, "
            "{class name: [texts]}."
        )
    chosen = [known[_plain(name)][:count] for name in classnames]
    for name, own in zip(classnames, chosen, strict=True):
        if len(own) < count:
            raise UserError(
                f"N_PROMPTS is {count}, but TEXTS {source} has {len(own)} texts for {name}: set it "
                "lower, or add texts."
            )
    return chosen


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _read(source: str) -> dict[str, list[str]]:
    path = user_path(source, "TEXTS")
    path = path / IN_A_CHECKOUT if path.is_dir() else path
    if not is_file(path):
        raise UserError(f"TEXTS is {source}, but {path} is not there; give {WANTED}.")
    shape, remedy = dict[Name, list[Name]], f"Give {WANTED}."
    if path.suffix != ".py":
        return read_json(path, shape, remedy=remedy)
    return convert(_variable(path, remedy), shape, where=str(path), remedy=remedy)


def _variable(path: Path, remedy: str) -> object:
    """Return the value that a Python file gives to `VARIABLE`, without running the file."""
    try:
        for node in ast.parse(read_text(path, remedy=remedy)).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == VARIABLE:
                return ast.literal_eval(node.value)
    except (ValueError, SyntaxError, RecursionError) as error:
        raise InvalidContent(str(path), f"it is no table of texts ({error})", remedy) from error
    raise InvalidContent(str(path), f"it has no variable {VARIABLE}", remedy)
