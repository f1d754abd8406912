"""Whatever a split file, a table or classes.json says: a sound split, or one message."""

from __future__ import annotations

import json
import os
import re

import pytest
from hypothesis import HealthCheck, given, settings

from dplq.datasets import OwnImages
from dplq.datasets._engine.entries import check_class_names, repeated_names
from dplq.datasets._engine.splits import read_split
from dplq.errors import UserError
from tests.fuzz.mutations import as_json, trees
from tests.oddities import KINDS, make_odd

from .lookalikes import make_classes, make_config
from .sound_splits import NONSENSE, VALID, require_sound


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=trees(VALID, NONSENSE))
def test_a_mutated_split_file_is_a_sound_split_or_one_message(tmp_path, content):
    path = tmp_path / "split_zhou_Toy.json"
    path.write_bytes(as_json(content))
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
    assert "left out: 3 links lead to no file: dune, a/x.jpg, a/y.jpg" in caplog.text
    assert "left out: 1 is called like an image, but is a pipe or device: a/z.jpg" in caplog.text


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
