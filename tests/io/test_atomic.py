"""Atomic writes: the whole new file, or the old one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from dplq.io.atomic import atomic_write


def test_a_block_that_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text("old")

    def interrupted():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_many_may_write_one_file(tmp_path):
    path = tmp_path / "sheet.png"

    def write(number: int) -> str:
        with atomic_write(path) as temporary:
            temporary.write_text(str(number) * 10_000)
        return temporary.suffix

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, [*range(10)] * 5)) == {".png"}
    assert path.read_text() in {str(number) * 10_000 for number in range(10)}
    assert list(tmp_path.iterdir()) == [path]
