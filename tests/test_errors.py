"""Messages of user errors can be printed, whatever is quoted in them."""

from __future__ import annotations

import pickle

import pytest

from dplq.errors import UserError, suggest
from dplq.images.reader import UnreadableImage


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [("a\nb", "a\\nb"), ("a\0\x1f", "a\\x00\\x1f"), ("\udce9\u2028", "\\xe9\\u2028"), ("é", "é")],
)
def test_what_cannot_be_printed_is_escaped(quoted, shown):
    assert str(UserError(f"The key '{quoted}' is unknown.")) == f"The key '{shown}' is unknown."


def test_lines_stay_lines_and_errors_cross_processes():
    error = UserError("Expected:", "  a\n/", "Get it.")
    assert str(error) == "Expected:\n  a\\n/\nGet it."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    image = UnreadableImage("a\nb.png", "is empty")
    assert str(pickle.loads(pickle.dumps(image))) == str(image) == "a\\nb.png is empty."


@pytest.mark.parametrize("name", [None, 3, True, ["base"]])
def test_nothing_is_near_to_what_is_no_text(name):
    assert suggest(name, ["new", "base"]) == " Choices: base, new."
