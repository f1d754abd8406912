"""What goes wrong with files and values: nonsense in place of a value, damaged bytes."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

DEEP: list[Any] = []
for _ in range(400):
    DEEP = [DEEP]
NAN, INF = float("nan"), float("inf")
NUMBERS = (0, 1, -1, 2, 0.5, 1.0, -0.0, 1e30, 1e308, 5e-324, 2**31, 2**53, 2**64, 10**400)
NOT_FINITE = (NAN, INF, -INF)
TEXTS = (
    *("", " ", "x", "x" * 9999, "None", "null", "true", "nan", "1", "-1", "a\nb", "a\0", "a\tb"),
    *("../x", "/", "~nobody-has-this-name/x", "C:\\x", "\udce9", "\ud800", "caf\u00e9", "\u2028"),
    *("{}", "[", "%s", "{0}", "$HOME", "\u202e", "\ufeff", "1e999", "9" * 5000),
)
COMPOUND: tuple[Any, ...] = ([], {}, [[]], [None], {"a": {"b": [1]}}, {"": 0}, [0] * 999, DEEP)
NONSENSE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    *map(st.sampled_from, (NUMBERS, NOT_FINITE, TEXTS, COMPOUND)),
)
PIECES = (
    *(
        b"\0",
        b"\0" * 8,
        b"\xff" * 4,
        b"\x7f\xff\xff\xff",
        b"\x80\0\0\0",
        b"9" * 5000,
        b"-1",
        b"1e999",
    ),
    *(b"null", b"NaN", b"[" * 2000, b"{", b"}", b"]", b'"', b",", b":", b"\n", b"\r", b"\t", b"- "),
    *(
        b"\xe9",
        b"\xef\xbb\xbf",
        b"\\ud800",
        b"*a",
        b"&a ",
        b"<<: ",
        b"!!float ",
        b"? ",
        b"%",
        b"../",
    ),
)


def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value below a node."""
    keys = list(node) if isinstance(node, dict) else range(len(node))
    found = []
    for key in keys:
        found.append((*at, key))
        if isinstance(node[key], dict | list):
            found += places(node[key], (*at, key))
    return found


@st.composite
def trees(draw: st.DrawFn, valid: Any, nonsense: st.SearchStrategy[Any] = NONSENSE) -> Any:
    """Draw a tree of lists and dicts that is a mutation of a valid one.

    One to three values are dropped, replaced by nonsense or by another value of the tree, repeated,
    nested, or have their key renamed.
    """
    content = copy.deepcopy(valid)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        every = places(content) if isinstance(content, dict | list) else []
        if not every:
            break
        *above, key = draw(st.sampled_from(every))
        node = content
        for step in above:
            node = node[step]
        how = draw(st.sampled_from(["drop", "nonsense", "nonsense", "other", "repeat", "nest"]))
        if how == "drop":
            del node[key]
        elif how == "nonsense":
            node[key] = copy.deepcopy(draw(nonsense))
        elif how == "other":
            node[key] = copy.deepcopy(_at(content, draw(st.sampled_from(every))))
        elif how == "nest":
            node[key] = [node[key]]
        elif isinstance(node, list):
            node.insert(key, copy.deepcopy(node[key]))
        else:
            node[draw(st.text(max_size=5))] = node.pop(key)
    return draw(st.sampled_from([content] * 20 + [[content], None, {"a": content}]))


def _at(node: Any, path: Sequence[Any]) -> Any:
    for step in path:
        node = node[step]
    return node


@st.composite
def damaged(draw: st.DrawFn, content: bytes, head: int = 0) -> bytes:
    """Draw bytes that are a damaged copy: bits flipped, pieces lost, repeated, put in, the end cut.

    Args:
        draw: of hypothesis.
        content: that is damaged.
        head: of this many bytes at the beginning, which half of all mutations are in; 0: anywhere.
    """
    for _ in range(draw(st.sampled_from([1, 1, 2, 4]))):
        size = len(content)
        end = min(head, size) if head and draw(st.booleans()) else size
        at = draw(st.integers(0, max(end - 1, 0)))
        length = draw(st.sampled_from([1, 1, 2, 4, 16, 300]))
        how = draw(
            st.sampled_from(["flip", "flip", "byte", "drop", "repeat", "put", "over", "cut"])
        )
        piece = draw(st.sampled_from(PIECES)) if how in ("put", "over") else b""
        if how == "flip":
            bit = 1 << draw(st.integers(0, 7))
            content = (
                content[:at] + bytes(b ^ bit for b in content[at : at + 1]) + content[at + 1 :]
            )
        elif how == "byte":
            content = content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
        elif how == "drop":
            content = content[:at] + content[at + length :]
        elif how == "repeat":
            content = content[: at + length] + content[at:]
        elif how == "put":
            content = content[:at] + piece + content[at:]
        elif how == "over":
            content = content[:at] + piece + content[at + len(piece) :]
        else:
            content = content[:at]
    return content


def as_json(value: Any) -> bytes:
    """Return a value as JSON, or what Python writes in its place: NaN, thousands of digits."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value).encode()
    finally:
        sys.set_int_max_str_digits(limit)


def json_files(valid: Any, nonsense: st.SearchStrategy[Any] = NONSENSE) -> st.SearchStrategy[bytes]:
    """Return a strategy of JSON files: a mutated tree, or the bytes of the valid one damaged."""
    content = as_json(valid)
    return st.one_of(trees(valid, nonsense).map(as_json), damaged(content))
