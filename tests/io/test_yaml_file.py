"""YAML files: what plain values are read as."""

from __future__ import annotations

import pytest

from dplq.io.validation.yaml_file import read_yaml


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *((text, text) for text in ("4:00:00", "0:30", "-1:30", "190:20:30.15", "1-12:00:00")),
        *(("14400", 14400), ("-3", -3), ("1.5", 1.5), ("+1_000", 1000), ("0x10", 16)),
        *(("a:b", "a:b"), ("yes", True), ("~", None)),
    ],
)
def test_times_stay_text_and_numbers_do_not(tmp_path, written, value):
    """YAML 1.1 has integers of base 60: four hours became 14400 minutes."""
    path = tmp_path / "a.yaml"
    path.write_text(f"a: {written}\nb: [{written}]\n")
    assert read_yaml(path) == {"a": value, "b": [value]}
