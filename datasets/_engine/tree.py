"""Draws the tree of folders and files that a dataset should consist of."""

from __future__ import annotations

from collections.abc import Sequence

MAX_FOLDERS = 3


def expected_tree(
    folder: str,
    classes: Sequence[str],
    files: Sequence[str] = (),
    roots: Sequence[str | tuple[str, ...]] = (),
    parts: Sequence[str] = (),
) -> str:
    """A small tree for messages: what the data folder should look like.

    Args:
        folder: the data folder.
        classes: class folders by label; only some are drawn. Empty where a file names them.
        files: files beside the images that are needed.
        roots: folders of images, drawn where the classes are not known.
        parts: train, val and test folders, if the class folders lie in such; "" for an absent one.
    """
    parts = list(dict.fromkeys(filter(None, parts)))
    lines = [f"  {folder}/", *(f"    {file}" for file in files)]
    if not classes:
        return "\n".join([*lines, *(f"    {root}/" for root in roots if isinstance(root, str))])
    indent = "      " if parts else "    "
    lines += [f"    {part}/" for part in parts[:1]]
    for label, name in enumerate(classes[:MAX_FOLDERS]):
        lines += [f"{indent}{name}/"] + ([f"{indent}  *.jpg"] if label == 0 else [])
    lines.append(f"{indent}... ({len(classes)} class folders)")
    return "\n".join([*lines, *(f"    {part}/ (the same)" for part in parts[1:])])
