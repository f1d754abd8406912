"""Varied captions of the demo's pictures, for contrastive training."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import yaml

# The template of zero-shot classification is the most frequent one.
ZERO_SHOT = "a photo of a {}."
SHORT = (ZERO_SHOT, ZERO_SHOT, ZERO_SHOT, "a photo of a {}", "a {}", "{}", "{}.")
VIEWS = {
    "aerial": (
        "an aerial photo of a {}.", "an aerial view of a {}", "a satellite image of {}",
        "a satellite photo of a {}.", "a {} seen from above", "a bird's eye view of a {}",
        "a drone shot of a {}", "an overhead picture of {}", "a remote sensing image of {}.",
    ),
    "tissue": (
        "a micrograph of {}.", "a histology image of {}", "{} under the microscope",
        "a microscope photo of {}.", "a tissue section showing {}", "a pathology slide of {}",
    ),
}  # fmt: skip
STYLES = {
    "photo": ("a photo of {}", "a picture of a {}", "a color photo of a {}"),
    "clear photo": ("a clear photo of a {}.", "a sharp picture of {}", "a good photo of the {}."),
    "old photo": ("an old photo of a {}", "a faded photo of {}", "a blurry photo of a {}."),
    "cartoon": ("a cartoon of a {}", "a cartoon {}.", "a comic drawing of {}"),
    "drawing": ("a textbook drawing of {}", "a drawing of {}.", "an illustration of {}"),
    "map": ("a flat illustration of a {}", "a simple picture of {}", "a map-like view of a {}"),
    "sketch": ("a sketch of a {}.", "a drawing of a {}", "a pencil drawing of {}"),
    "painting": ("a painting of a {}.", "a painted {}", "artwork showing a {}"),
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAMED_SHARE = 0.8  # captions that use the class name itself


@functools.cache
def synonyms() -> dict[str, list[str]]:
    """Return the synonyms of each class name."""
    return yaml.safe_load(Path(__file__).with_name("synonyms.yaml").read_text("utf-8"))


def caption(classname: str, facts: dict, generator: np.random.Generator) -> str:
    """Describe a picture in one of many ways.

    Args:
        classname: the picture's class.
        facts: `Picture.facts`.
        generator: the only source of randomness.

    Returns:
        A caption with the class name, or in about a fifth of the cases one of its synonyms.
    """
    subject = classname
    if generator.random() > NAMED_SHARE:
        subject = _pick(synonyms()[classname], generator)
    kind = generator.random()
    if kind < 0.5:
        return _pick(SHORT, generator).format(subject)
    if kind < 0.65:
        return _pick(VIEWS[facts["family"]], generator).format(subject)
    templates = STYLES.get(facts["style"], SHORT) if kind < 0.85 else SHORT[:3]
    line = _pick(templates, generator).format(subject)
    details = _details(facts)
    if kind < 0.72 or not details:
        return line
    return f"{line.rstrip('.')} {_pick(details, generator)}"


def _pick(choices: tuple | list, generator: np.random.Generator) -> str:
    return choices[int(generator.random() * len(choices))]


def _details(facts: dict) -> list[str]:
    """Return the details that can end a caption."""
    colours, season = facts["colours"], facts["season"]
    details = [f"in {' and '.join(colours[:2])}"] if colours else []
    if len(colours) > 1:
        details.append(f"with {colours[-1]} parts")
    details += [f"with {count_phrase(n, noun)}" for noun, n in facts["counts"].items() if n]
    details += [f"with {noun}" for noun in facts["clutter"]]
    details += [f"and {noun} beside it" for noun in facts["clutter"]]
    if facts["family"] == "aerial":
        details.append(f"in {'the ' if ' ' in season else ''}{season}")
    return details


def count_phrase(number: int, noun: str) -> str:
    """Return ``two tanks``, ``many cars``: exact up to nine."""
    word = NUMBERS[number] if number < len(NUMBERS) else "many"
    return f"{word} {noun}" + ("" if number == 1 else "s")
