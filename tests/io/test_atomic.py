"""Files written aside: whole, or as they were."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from dplq.io.atomic import written_aside


def test_a_block_that_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_aside(path) as aside:
        aside.write_text("half")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_many_may_write_one_file(tmp_path):
    path = tmp_path / "sheet.png"

    def write(number: int) -> str:
        with written_aside(path) as aside:
            aside.write_text(str(number) * 10_000)
        return aside.suffix

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, [*range(10)] * 5)) == {".png"}
    assert path.read_text() in {str(number) * 10_000 for number in range(10)}
    assert list(tmp_path.iterdir()) == [path]
