"""A valid split file, nonsense for it, and what every split must be that is read."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from dplq.datasets._engine.entries import in_prompt
from dplq.datasets._engine.protocol import Split

CLASSES = ("apple tree", "boat", "dune")
VALID: dict[str, Any] = {
    part: [
        [f"{name}/{part}{i}.jpg", label, name]
        for label, name in enumerate(CLASSES)
        for i in range(count)
    ]
    for part, count in (("train", 3), ("val", 1), ("test", 2))
}
NONSENSE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 4),
    st.sampled_from([0.5, 1.0, -0.0, float("nan"), float("inf"), 2**53, 10**400, -(10**30)]),
    st.sampled_from(["", " ", "boat", "BOAT ", "apple_tree", "../x.jpg", "/x.jpg", "C:\\x.jpg"]),
    st.sampled_from(["boat/train0.jpg", "boat/./train0.jpg", "a\nb", "a\0", "\udce9", "x" * 9999]),
    st.sampled_from([[], {}, [[]], [["a", 0, "b"]], {"a": {"b": [1]}}]),
    st.text(max_size=8),
)


def require_sound(split: Split) -> None:
    items = [item for part in split for item in part]
    names = {item.label: item.classname for item in items}
    assert sorted(names) == list(range(len(names)))
    assert all(type(item.label) is int and names[item.label] == item.classname for item in items)
    assert len({in_prompt(name) for name in names.values()}) == len(names)
    assert len({item.path: item.label for item in items}) == len(
        {(item.path, item.label) for item in items}
    )
    for item in items:
        assert item.path.strip()
        assert item.classname.strip()
        assert item.path[0] != "/"
        assert ".." not in item.path.split("/")
        assert not re.search("[\0\n]", item.path + item.classname)
        (item.path + item.classname).encode()
    for part in (split.train, split.test):
        assert {item.label for item in part} == set(names)
