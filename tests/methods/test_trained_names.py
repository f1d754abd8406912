"""Which classes were trained: matching of class names."""

from __future__ import annotations

import pytest

from dplq.methods.trained_names import have_same_prompts, prompt_name, trained_rows

TRAINED = ["river", "missile", "forest", "missile"]


@pytest.mark.parametrize(
    ("names", "trained", "rows"),
    [
        (TRAINED, TRAINED, [0, 1, 2, 3]),
        (["missile", "lake", "missile", "river"], TRAINED, [1, None, 3, 0]),
        (["missile", "missile", "missile"], TRAINED, [1, 3, None]),
        (["parking lot", "a_b_c"], ["a b_c", "parking_lot"], [1, 0]),
        (["a b", "a_b"], ["a_b", "a b"], [1, 0]),
        (["a b", "a_b", "a b"], ["a_b", "a_b"], [1, 0, None]),
        (["River"], TRAINED, [0]),
        (["river"], [], [None]),
    ],
)
def test_rows(names: list[str], trained: list[str], rows: list[int | None]) -> None:
    assert trained_rows(names, trained) == rows


def test_the_name_in_a_prompt() -> None:
    assert prompt_name("dense_residential area") == "dense residential area"


def test_the_same_prompts() -> None:
    assert have_same_prompts(["a_b", "c"], ["a b", "c"])
    assert not have_same_prompts(["a_b", "c"], ["c", "a b"])
    assert not have_same_prompts(["a_b"], ["a b", "c"])


def test_case_and_spaces_do_not_make_another_class():
    """A tokenizer in lower case gives them the same prompts."""
    assert trained_rows(["Dense Forest ", "RIVER", "lake"], ["river", "dense_forest"]) == [
        1,
        0,
        None,
    ]
    assert trained_rows(["River", "river"], ["river", "River"]) == [1, 0]  # exact spelling first
