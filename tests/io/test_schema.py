"""JSON files: strict syntax, then the whole content against a type."""

from __future__ import annotations

import time

import msgspec
import pytest

from dplq.errors import UserError
from dplq.io.validation.schema import Count, Name, parse_json, read_json


class Record(msgspec.Struct):
    name: Name
    seeds: list[Count]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": "a", "seeds": [1, NaN]}', "it is not valid JSON (NaN is not a finite number)"),
        ('{"name": "a", "seeds": [1e999]}', "1e999 is not a finite number"),
        ('{"name": "a", "name": "b", "seeds": []}', "the key 'name' is there twice"),
        ('{"name": "a", "seeds": [1, 0.5]}', "seeds[1]: expected `int`, got `float`"),
        ('{"name": "", "seeds": []}', "name: expected `str` of length >= 1"),
        ('{"name": null, "seeds": []}', "name: expected `str`, got `null`"),
        ('{"seeds": []}', "object missing required field `name`"),
        ('{"name": "a", "seeds": [-1]}', "seeds[0]: expected `int` >= 0"),
        ("[]", "expected `object`, got `array`"),
        ("", "it is not valid JSON"),
        ("[" * 100_000 + "]" * 100_000, "it is nested too deeply"),
        ("9" * 5000, "it is not valid JSON"),
    ],
)
def test_one_message_names_file_and_key(tmp_path, text, words):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_json(path, Record, remedy="Delete it.")
    message = str(error.value)
    assert message.startswith(f"{path} cannot be used: ")
    assert words in message
    assert message.endswith(". Delete it.")
    assert "\n" not in message


def test_a_repeated_key_among_many_is_found_at_once():
    text = "{" + ", ".join(f'"{number}": 0' for number in [*range(200_000), 7]) + "}"
    began = time.monotonic()
    with pytest.raises(UserError, match="the key '7' is there twice"):
        parse_json(text, dict[str, int], where="text")
    assert time.monotonic() - began < 10


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(UserError, match="it is a folder, not a file"):
        read_json(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(UserError, match="it is not UTF-8 text"):
        read_json(tmp_path / "latin.json")
    (tmp_path / "long.json").write_text("[1, 2, 3]")
    with pytest.raises(UserError, match="it has 9 bytes, more than 8"):
        read_json(tmp_path / "long.json", max_bytes=8)
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    with pytest.raises(UserError, match="Too many levels of symbolic links"):
        read_json(tmp_path / "loop.json")


def test_what_is_right_is_returned(tmp_path):
    path = tmp_path / "record.json"
    path.write_text('\ufeff{"name": "a", "seeds": [0, 1], "of a later version": 1}', "utf-8")
    assert read_json(path, Record) == Record("a", [0, 1])
    assert parse_json('{"a": [1.5]}', dict[str, list[float]], where="text") == {"a": [1.5]}
