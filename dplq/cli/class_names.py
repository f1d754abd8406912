"""Class names of ``--classes``, as `dplq predict` and `dplq export` take them."""

from __future__ import annotations

from dplq.errors import UserError, few, printable
from dplq.io.validation.paths import name_problem, user_path


def class_names(text: str) -> list[str]:
    """Return the class names of ``--classes``: ``a,b,c``, or a line each in ``@FILE``.

    Args:
        text: as given.

    Raises:
        UserError: the file cannot be read, or there is no name, one that cannot be a class's, or
            one twice.
    """
    if text.startswith("@"):
        path = user_path(text[1:], "--classes")
        try:
            names = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise UserError(f"--classes: {path} cannot be read: {reason}.") from error
    else:
        names = text.split(",")
    names = [name.strip() for name in names if name.strip()]
    for name in names:
        if problem := name_problem(name):
            raise UserError(f"--classes: the name '{printable(name)}' {problem}.")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--classes names {few(repeated)} twice.")
    if not names:
        raise UserError("--classes names no class. Give them as a,b,c, or a line each in @FILE.")
    return names
