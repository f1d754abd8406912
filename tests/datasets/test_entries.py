"""Whatever a split file, a table or classes.json says: a sound split, or one message."""

from __future__ import annotations

import copy
import json
import os
import re
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dplq.datasets import OwnImages
from dplq.datasets._engine.entries import check_class_names, in_prompt, repeated_names
from dplq.datasets._engine.protocol import Split
from dplq.datasets._engine.splits import read_split
from dplq.errors import UserError
from tests.oddities import KINDS, make_odd

from .lookalikes import make_classes, make_config

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


def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value below a node."""
    keys = list(node) if isinstance(node, dict) else range(len(node))
    found = []
    for key in keys:
        found.append((*at, key))
        if isinstance(node[key], list | dict):
            found += places(node[key], (*at, key))
    return found


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    content = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        every = places(content)
        if not every:
            break
        *above, key = draw(st.sampled_from(every))
        node = content
        for step in above:
            node = node[step]
        how = draw(st.sampled_from(["drop", "replace", "replace", "repeat", "nest"]))
        if how == "drop":
            del node[key]
        elif how == "replace":
            node[key] = copy.deepcopy(draw(NONSENSE))
        elif how == "nest":
            node[key] = [node[key]]
        elif isinstance(node, list):
            node.insert(key, copy.deepcopy(node[key]))
    return draw(st.sampled_from([content, content, content, [content], None]))


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


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=mutated())
def test_a_mutated_split_file_is_a_sound_split_or_one_message(tmp_path, content):
    path = tmp_path / "split_zhou_Toy.json"
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        path.write_text(json.dumps(content))
    finally:
        sys.set_int_max_str_digits(limit)
    try:
        split = read_split(path)
    except UserError as error:
        message = str(error)
        assert message.startswith(str(path))
        assert "\n" not in message
        message.encode()
    else:
        require_sound(split)


def test_the_valid_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "split_zhou_Toy.json"
    path.write_text(json.dumps(VALID))
    split = read_split(path)
    require_sound(split)
    assert [[list(item) for item in part] for part in split] == list(VALID.values())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["boat", "boat"], "classes 0 and 1 have one name, 'boat' and 'boat'"),
        (["a", "apple_tree", "Apple  Tree"], "classes 1 and 2 have one name, 'apple_tree' and "),
        (["caf\u00e9", "cafe\u0301"], "classes 0 and 1 have one name"),
        (["a", " "], "the name ' ' is empty"),
        (["a", "b\u2028c"], r"the name 'b\u2028c' has a control character"),
        (["a", "\udce9"], r"the name '\xe9' is not UTF-8"),
    ],
)
def test_class_names_that_cannot_be_told_apart(names, said):
    with pytest.raises(UserError, match=re.escape(f"here: {said}")):
        check_class_names(names, "here")


def test_names_that_two_classes_may_have():
    same = repeated_names(["crane", "fox", "Crane"])
    assert same == {"crane", "Crane"}
    check_class_names(["crane", "Crane", "fox"], "here", same=same)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": "boat", "b": "Boat"}', "share the spelling"),
        ('{"a": "b\\nc", "b": "d"}', r"the name 'b\nc' has a control character"),
        ('{"a": "b", "c\\u0000": "d"}', r"the name 'c\x00' has a control character"),
        ('["a", " "]', "the name '' is empty"),
        ('["a", null]', "[1]: expected `str`, got `null`"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_nonsense_in_classes_json_is_refused(tmp_path, content, said):
    make_classes(tmp_path, ["a", "b"], 4)
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(said)):
        OwnImages(make_config(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_what_only_has_the_name_of_classes_json_is_refused(tmp_path, kind):
    make_classes(tmp_path, ["a", "b"], 4)
    make_odd(tmp_path / "classes.json", kind)
    with pytest.raises(UserError, match=r"classes\.json (is a|cannot be used)"):
        OwnImages(make_config(tmp_path))


def test_a_table_with_line_breaks_in_its_labels_is_refused(tmp_path):
    make_classes(tmp_path / "pictures", ["a", "b"], 4)
    images = sorted(tmp_path.glob("pictures/*/*"))
    rows = [f'{path.relative_to(tmp_path)},"{path.parent.name}\n!"' for path in images]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(UserError, match=r"has line breaks or .* in 8 of 8 rows: row 2 'a\\n!'"):
        OwnImages(make_config(tmp_path))


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nb"])
@pytest.mark.parametrize("place", ["{}/1.jpg", "a/{}.jpg", "a/{}/1.jpg"])
def test_names_that_cannot_be_written_are_refused_by_name(tmp_path, name, place):
    make_classes(tmp_path, ["a", "b"], 4)
    image = next(tmp_path.glob("a/*.jpg"))
    target = tmp_path / place.format(os.fsdecode(name))
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(image.read_bytes())
    with pytest.raises(UserError, match=r"this name (is|has) .*\. Rename it\.$") as e:
        OwnImages(make_config(tmp_path))
    shown = {b"caf\xe9": r"caf\xe9", b"a\nb": r"a\nb"}[name]
    assert place.format(shown).split("/")[0] in str(e.value)
    assert shown in str(e.value)
    assert "\n" not in str(e.value)


def test_a_class_folder_that_is_a_link_to_itself_is_said(tmp_path, caplog):
    make_classes(tmp_path, ["a", "b"], 4)
    make_odd(tmp_path / "dune", "link to itself")
    make_odd(tmp_path / "a" / "x.jpg", "link to itself")
    make_odd(tmp_path / "a" / "y.jpg", "link to nothing")
    make_odd(tmp_path / "a" / "z.jpg", "pipe")
    dataset = OwnImages(make_config(tmp_path))
    assert dataset.classnames == ["a", "b"]
    assert "3 links lead to no file, left out: dune, a/x.jpg, a/y.jpg" in caplog.text
    assert "1 are called like images, but are pipes or devices, left out: a/z.jpg" in caplog.text


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("~nobody-has-this-name/x", "the home folder of ~nobody-has-this-name is not known"),
        ("x\0y", r"'x\x00y'; it must be a text without null characters"),
        ("a" * 5000, "DATASET.ROOT has 5,000 characters; at most 4,096 are possible"),
        ("caf\udce9", r"'caf\udce9'; it must be a text without null characters, in UTF-8"),
    ],
)
def test_a_root_that_is_no_path(root, said):
    with pytest.raises(UserError, match=re.escape(said)) as error:
        OwnImages(make_config(root))
    assert str(error.value).startswith("DATASET.ROOT ")
    assert len(str(error.value)) < 500


def test_a_root_that_is_a_link_to_itself(tmp_path):
    make_odd(tmp_path / "data", "link to itself")
    with pytest.raises(UserError, match=r"data, which cannot be used: Too many levels of symb"):
        OwnImages(make_config(tmp_path / "data"))
