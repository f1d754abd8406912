"""Tables of images: every way people write them, and what the errors say."""

from __future__ import annotations

import json
import logging
import os
import re
import unicodedata
from pathlib import Path

import pytest

from dplq.datasets._engine.layout.names import in_order
from dplq.datasets._engine.splits import read_split
from dplq.datasets._engine.tables import image_index
from dplq.datasets._engine.tables.columns import COMMON_NAMES, PART_NAMES
from dplq.datasets._engine.tables.image_index import ImageIndex, posix
from dplq.datasets._engine.tables.table import (
    Columns,
    Row,
    Table,
    find_table,
    read_table,
    table_warnings,
)
from dplq.errors import UserError

FILES = ("oak/a.png", "oak/b.png", "pine/c.jpg", "pine/d.jpg")
PLAIN = [Row("oak/a.png", "oak"), Row("oak/b.png", "oak"), Row("pine/c.jpg", "pine")]
PLAIN.append(Row("pine/d.jpg", "pine"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    make(root, *FILES)
    return root


def make(root: Path, *files: str) -> None:
    """Write empty files; a table needs names only."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def read(root: Path, text: str | bytes, name: str = "labels.csv", **columns: str) -> Table:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_table(path, str(root), Columns(**columns))


def lines(*rows: str, header: str = "path,label") -> str:
    return "\n".join([header, *rows]) + "\n"


def rows_of(paths: dict[str, str] | None = None) -> str:
    """The four images, with other texts for their paths."""
    texts = (paths or {}).get
    return lines(*(f"{texts(row.path, row.path)},{row.label}" for row in PLAIN))


def refusal(root: Path, text: str | bytes, **columns: str) -> str:
    """The error message, without the path of the table in front."""
    with pytest.raises(UserError) as error:
        read(root, text, **columns)
    message = str(error.value)
    assert "\n" not in message
    return message.replace(f"{root}/labels.csv", "TABLE").replace(str(root), "DATA")


LONG = "x" * 9000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{LONG},label\na.png,oak\n", "has no column for the path: "),
        (f"path,{LONG}\na.png,oak\n", "has no column for the label: "),
        (f"path,label\n{LONG},oak\n", "images are not in"),
        (f"path,label\na.png,{LONG}\nb.png,{LONG.upper()}\n", "are one number, or differ in"),
        (f"path,label,prompt\na.png,oak,{LONG}\nb.png,oak,y\n", "has two prompts, "),
        (f"{LONG}.png,{LONG}\n", "has no known column name"),
    ],
)
def test_a_long_cell_is_quoted_by_its_start(folder, text, said):
    message = refusal(folder, text)
    assert said in message
    assert "characters)" in message or "x" * 200 in message
    assert len(message) < 2000


def test_path_and_label_are_enough(folder):
    table = read(folder, rows_of())
    assert table == Table(
        rows=PLAIN,
        image_dir=str(folder),
        classes=["oak", "pine"],
        prompts={"oak": "oak", "pine": "pine"},
        groups={},
        has_split=False,
    )
    assert table_warnings(table) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace(",", "|"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace("\n", "\n,\n", 2),
        lambda text: text.replace("\n", ",,\n").replace("label,,", "label"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace(",", " , "),
        lambda text: re.sub(r"([^,\n]+)", r'"\1"', text),
        lambda text: "sep=;\n" + text.replace(",", ";"),
        lambda text: "," + "\n7,".join(text.split()),  # pandas writes its index
    ],
)
def test_delimiters_line_ends_quotes_blank_lines(folder, change):
    assert read(folder, change(rows_of())).rows == PLAIN


def test_byte_order_mark(folder):
    assert read(folder, b"\xef\xbb\xbf" + rows_of().encode()).rows == PLAIN


def test_commas_and_line_ends_inside_quotes(folder):
    make(folder, "oak/a, b.png")
    text = 'path,label,remark\n"oak/a, b.png",oak,"oak, a\ntree"\nmissing.png,pine,pine\n'
    assert refusal(folder, text).startswith("TABLE: column 'path': 1 of 2 images are not in DATA: ")
    assert "row 4 'missing.png'" in refusal(folder, text)
    table = read(folder, text.replace("missing.png", "c.jpg"))
    assert table.rows[0].path == "oak/a, b.png"
    said = refusal(folder, text.replace("remark", "prompt"))
    assert "column 'prompt' has line breaks or control characters in 1 of 2 rows: row 2" in said


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.replace("/", "\\"),
        lambda path: "./" + path,
        lambda path: ".\\" + path.replace("/", "\\\\"),
        lambda path: path.rsplit("/", 1)[-1],
        lambda path: os.path.splitext(path.rsplit("/", 1)[-1])[0],
        lambda path: os.path.splitext(path)[0],
        lambda path: f"oak/../{path}",
    ],
)
def test_ways_to_write_a_path(folder, write):
    assert read(folder, rows_of({path: write(path) for path in FILES})).rows == PLAIN


def test_absolute_paths_inside_the_data_folder(folder):
    assert read(folder, rows_of({path: f"{folder}/{path}" for path in FILES})).rows == PLAIN
    message = refusal(folder, rows_of({"oak/a.png": "/elsewhere/oak/a.png"}))
    assert (
        "1 of 4 images are not in DATA: row 2 '/elsewhere/oak/a.png'. There is oak/a.png" in message
    )
    message = refusal(folder, rows_of({path: f"C:\\data\\{path.upper()}" for path in FILES}))
    assert "There is oak/a.png, oak/b.png" in message
    assert "write these paths, or the file names alone, in the case of the files." in message


def test_table_in_a_folder_of_its_own(folder):
    text = rows_of({path: f"../{path}" for path in FILES})
    assert read(folder, text, "tables/mine.csv").rows == PLAIN
    assert read(folder, rows_of(), "tables/mine.csv").rows == PLAIN
    outside = folder.parent / "mine.csv"
    outside.write_text(rows_of({path: f"data/{path}" for path in FILES}))
    assert read_table(outside, str(folder)).rows == PLAIN


def test_the_folder_of_the_table_comes_first(folder):
    make(folder, "a.png", "sub/a.png", "sub/b.png")
    text = lines("a.png,oak", "b.png,pine")
    assert [row.path for row in read(folder, text, "sub/mine.csv").rows] == [
        "sub/a.png",
        "sub/b.png",
    ]
    assert read(folder, lines("a.png,oak", "c.jpg,pine")).rows[0].path == "a.png"


def test_hidden_files_and_other_systems_leftovers_are_no_images(folder):
    make(folder, "oak/._a.png", ".thumbs/a.png", "__MACOSX/oak/a.png", "split_fewshot/a.png")
    assert read(folder, rows_of({path: path.rsplit("/")[-1] for path in FILES})).rows == PLAIN


def test_linked_folders_are_followed_and_a_cycle_ends(folder):
    elsewhere = folder.parent / "elsewhere"
    make(elsewhere, "e.png")
    (folder / "elm").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    assert ImageIndex(str(folder), (".png",)).paths == ["elm/e.png", "oak/a.png", "oak/b.png"]


def test_a_folder_is_listed_only_where_a_value_is_no_path(folder, monkeypatch):
    """`dplq predict` takes a table that may lie in a home folder."""
    make(folder, ".hidden/h.png", "oak/mask.txt")
    listed = []
    real = image_index._files_below
    monkeypatch.setattr(image_index, "_files_below", lambda path: listed.append(path) or real(path))
    index = ImageIndex(str(folder), (".png", ".jpg"), anywhere=True)
    values = ("oak/a.png", f"{folder}/pine/c.jpg", "./oak/../oak/b.png", ".hidden/h.png")
    expected = ["oak/a.png", "pine/c.jpg", "oak/b.png", f"{folder}/.hidden/h.png"]
    assert [index.at(value, str(folder)) for value in values] == expected
    assert not listed
    assert index.at("oak/mask.txt", str(folder)) == ""
    assert index.find("c") == ["pine/c.jpg"]
    assert listed == [str(folder)]


def test_accents_are_compared_composed(folder):
    name = unicodedata.normalize("NFD", "forêt.png")
    make(folder, f"oak/{name}")
    text = unicodedata.normalize("NFC", lines("forêt.png,forêt", "c.jpg,pine"))
    table = read(folder, text)
    assert table.rows[0].path == f"oak/{name}"
    assert table.classes == [unicodedata.normalize("NFC", "forêt"), "pine"]


@pytest.mark.parametrize(
    "header",
    ["File Name,Class", "image_id,dx", "Image Index,Finding Labels", "img,y", "FILEPATH,Category"],
)
def test_common_names_of_columns(folder, header):
    assert read(folder, rows_of().replace("path,label", header)).rows == PLAIN


def test_coordinates_of_a_box_are_no_labels(folder):
    header = "Image Index,Finding Label,Bbox [x,y,w,h]"
    text = lines(*(f"{r.path},{r.label},1.5,{i},3,4" for i, r in enumerate(PLAIN)), header=header)
    assert read(folder, text).rows == PLAIN


@pytest.mark.parametrize("name", ["Patient No", "patientno", "MRN", "patient_number"])
def test_names_of_patient_columns(folder, name):
    text = lines(*(f"{r.path},{r.label},{r.label}1" for r in PLAIN), header=f"path,label,{name}")
    assert read(folder, text).groups == {r.path: f"{r.label}1" for r in PLAIN}


def test_all_columns(folder):
    header = "patient_id,split,filename,diagnosis,prompt,age"
    text = lines(
        "p1,Training,a.png,0,an oak tree,5",
        "p1,TRAIN,b.png,0,an oak tree,5",
        "p2,valid,c.jpg,1,a pine,5",
        "p3,hold-out,d.jpg,1,a pine,5",
        header=header,
    )
    table = read(folder, text)
    assert table.rows[0] == Row("oak/a.png", "0", "train", "p1", "an oak tree")
    assert [row.split for row in table.rows] == ["train", "train", "val", "test"]
    assert table.prompts == {"0": "an oak tree", "1": "a pine"}
    assert table.groups == {f: p for f, p in zip(FILES, ("p1", "p1", "p2", "p3"), strict=True)}
    assert table.has_split
    assert table_warnings(table) == []


def test_named_columns(folder):
    text = lines("a.png,x,oak,s1", "c.jpg,y,pine,s2", header="foo,label,tree kind,bar")
    table = read(folder, text, path="foo", label="Tree_Kind", group="Column 4")
    assert table.rows == [Row("oak/a.png", "oak", "", "s1"), Row("pine/c.jpg", "pine", "", "s2")]
    assert refusal(folder, text, path="fo", label="label") == (
        "TABLE has no column 'fo' (DATASET.COLUMNS.PATH). Did you mean 'foo'? Choices: bar, foo, "
        "label, tree kind."
    )


def test_a_column_with_a_role_has_no_other(folder):
    text = lines("a.png,harbour", "c.jpg,river", header="image,scene")
    assert refusal(folder, text) == (
        "TABLE has no column for the label: 'image', 'scene'. Set DATASET.COLUMNS.LABEL to one of "
        "them, or call one of them label."
    )
    table = read(folder, text, label="scene")
    assert (table.classes, table.groups) == (["harbour", "river"], {})


def test_none_turns_an_optional_column_off(folder):
    header = "path,label,subset,site,caption"
    text = lines("a.png,oak,s0,x,one", "b.png,oak,s0,x,two", "c.jpg,pine,s1,y,three", header=header)
    assert "DATASET.COLUMNS.SPLIT none" in refusal(folder, text)
    assert "DATASET.COLUMNS.PROMPT none" in refusal(folder, text, split="none")
    table = read(folder, text, split="none", group="None", prompt="none")
    assert table.rows == PLAIN[:3]


def test_two_columns_for_one_role(folder):
    text = lines("a.png,0,oak", "c.jpg,1,pine", header="path,target,class")
    assert refusal(folder, text).startswith(
        "TABLE has several columns for the label: 'class', 'target'. Set DATASET.COLUMNS.LABEL"
    )
    assert read(folder, text, label="class").classes == ["oak", "pine"]
    text = lines("a.png,p1,l1,oak", "c.jpg,p2,l2,pine", header="path,patient_id,lesion_id,dx")
    table = read(folder, text)
    assert set(table.groups.values()) == {"p1", "p2"}
    assert table_warnings(table) == [
        "groups are those of column 'patient_id', not 'lesion_id' (DATASET.COLUMNS.GROUP)",
        "2 images are not in the table and not used: oak/b.png, pine/d.jpg",
    ]


def test_of_two_path_columns_the_one_with_images_counts(folder):
    text = lines("17,a.png,oak", "18,c.jpg,pine", header="image_id,name,label")
    assert [row.path for row in read(folder, text).rows] == ["oak/a.png", "pine/c.jpg"]
    text = lines("a.png,oak/a.png,oak", "c.jpg,pine/c.jpg,pine", header="image,path,label")
    assert [row.path for row in read(folder, text).rows] == ["oak/a.png", "pine/c.jpg"]


def test_class_names_beside_numbers_are_prompts(folder):
    text = lines("0,a.png,0,Oak Tree", "1,c.jpg,1,Pine", header=",Filename,Label,ClassName")
    assert read(folder, text).prompts == {"0": "Oak Tree", "1": "Pine"}
    text = lines("a.png,OakTree", "c.jpg,Pine", header="Filename,ClassName")
    assert read(folder, text).prompts == {"OakTree": "Oak Tree", "Pine": "Pine"}


def test_folds_that_are_no_parts_are_left_alone(folder):
    text = lines("a.png,oak,1", "c.jpg,pine,2", header="path,label,fold")
    table = read(folder, text)
    assert not table.has_split
    note = "column 'fold' is not used: its values are not train, val, test"
    assert table_warnings(table)[0] == note
    text = text.replace(",1", ",train").replace(",2", ",test")
    assert read(folder, text).has_split


def test_without_a_header(folder):
    text = "TRAIN,a.png,0\nVALIDATION,b.png,0\nTEST,c.jpg,1\n"
    table = read(folder, text)
    assert table.rows == [
        Row("oak/a.png", "0", "train"),
        Row("oak/b.png", "0", "val"),
        Row("pine/c.jpg", "1", "test"),
    ]
    assert table.notes[0] == "no header; columns by content: path 2, split 1, label 3"
    assert read(folder, "a.png,site\nc.jpg,case\n").classes == ["case", "site"]
    make(folder, "0.png", "1.png")  # labels that are stems of images, too
    assert read(folder, "a.png,0\nc.jpg,1\n").rows[0] == Row("oak/a.png", "0")


def test_without_a_header_and_ambiguous(folder):
    text = "a.png,oak,5\nc.jpg,pine,6\n"
    assert refusal(folder, text) == (
        "TABLE: its first row (a.png, oak, 5) has no known column name, and columns 2, 3 may be "
        "the label. Add a first row with the names of the columns (path, label, split, group, "
        "prompt), or set DATASET.COLUMNS.PATH and .LABEL to what the first row calls them (where "
        "there is no such row: column1, column2, ...)."
    )
    assert read(folder, text, label="column2", group="3").rows[1] == Row(
        "pine/c.jpg", "pine", "", "6"
    )
    assert "no column names images below DATA" in refusal(folder, "x,oak\ny,pine\n")
    assert "no column is left for the label" in refusal(folder, "a.png\nc.jpg\n")
    assert "DATASET.COLUMNS.LABEL is 'tree', which" in refusal(folder, text, label="tree")
    assert "row 1 'x.png'" in refusal(folder, "x.png,oak\na.png,oak\nc.jpg,pine\n")


def test_numbers_are_sorted_as_numbers(folder):
    make(folder, *(f"n/{i}.png" for i in range(12)))
    table = read(folder, lines(*(f"n/{i}.png,{i}" for i in range(12))))
    assert table.classes == [str(i) for i in range(12)]
    assert in_order(["10.0", "-1", "2.0"]) == ["-1", "2.0", "10.0"]
    assert in_order(["grade 10", "grade 2", "1"]) == ["1", "grade 10", "grade 2"]
    assert in_order(["nan", "inf", "1"]) == ["1", "inf", "nan"]


def test_prompts_are_labels_in_words(folder):
    text = lines("a.png,DenseResidential", "c.jpg,storage_tanks")
    assert list(read(folder, text).prompts.values()) == ["Dense Residential", "storage tanks"]


def test_missing_images(folder):
    make(folder, "oak/e.heic")
    text = lines(*(f"x{i}.png,oak" for i in range(5)), "c.jpg,pine", "e.heic,oak")
    message, _, extensions = refusal(folder, text).partition("; images end in ")
    assert extensions.startswith(".jpg .jpeg .png")
    assert message == (
        "TABLE: column 'path': 6 of 7 images are not in DATA: row 2 'x0.png', row 3 'x1.png', "
        "row 4 'x2.png' and 3 more. Not read as images, by extension: e.heic. Paths may be "
        "relative to the folder of the table, to the data folder or to any folder in it, with or "
        "without extension"
    )


def test_ambiguous_images(folder):
    make(folder, "pine/a.png", "pine/a.tif")
    text = rows_of({path: path.rsplit("/")[-1] for path in FILES})
    assert refusal(folder, text) == (
        "TABLE: column 'path': 1 of 4 values fit more than one image: row 2 'a.png' (oak/a.png, "
        "pine/a.png). Write the path from DATA on."
    )
    message = refusal(folder, rows_of({"oak/a.png": "pine/a"}))
    assert "row 2 'pine/a' (pine/a.png, pine/a.tif)" in message


def test_repeated_images(folder):
    text = lines("a.png,oak", "c.jpg,pine", "oak/a.png,oak", ".\\oak\\a.png,pine")
    assert refusal(folder, text) == (
        "TABLE: 2 rows name an image again, 1 of them with another label: oak/a.png in rows 2 and "
        "4, oak/a.png in rows 2 and 5 as 'oak' and 'pine'. Keep one row per image; images with "
        "several labels cannot be used."
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ",oak,train,p1",
            "column 'path' has no value in 1 of 2 rows: row 3. In these, write the path of the "
            "image, or remove the row.",
        ),
        (
            "c.jpg,,train,p1",
            "column 'label' has no value in 1 of 2 rows: row 3. In these, write a label, or remove "
            "the row.",
        ),
        (
            "c.jpg,NaN,train,p1",
            "column 'label' has no label in 1 of 2 rows: row 3 'NaN'. In these, write a label, or "
            "remove the row.",
        ),
        (
            "c.jpg,pine,,p1",
            "column 'split' has no value in 1 of 2 rows: row 3. In these, write train, val or "
            "test.",
        ),
        (
            "c.jpg,pine,extra,p1",
            "column 'split' has no part of a split in 1 of 2 rows: row 3 'extra'. In these, "
            "write one of train, training, tr, trn; val, valid, validation, validate, dev; test, "
            "testing, tst, te, holdout, hold-out; if the column means something else, set "
            "DATASET.COLUMNS.SPLIT none.",
        ),
        (
            "c.jpg,pine,train,nan",
            "column 'patient' has no group in 1 of 2 rows: row 3 'nan'. In these, write the group, "
            "any text of its own for a single image, or set DATASET.COLUMNS.GROUP none to have no "
            "groups.",
        ),
    ],
)
def test_cells_without_meaning(folder, row, message):
    text = lines("a.png,oak,test,p0", row, header="path,label,split,patient")
    assert refusal(folder, text) == f"TABLE: {message}"


def test_prompts_that_contradict(folder):
    text = lines("a.png,0,oak", "b.png,0,an oak", "c.jpg,1,oak", header="path,label,prompt")
    assert refusal(folder, text) == (
        "TABLE: label '0' has two prompts, 'oak' (row 2) and 'an oak' (row 3). Write one, or set "
        "DATASET.COLUMNS.PROMPT none if the column is no class name."
    )
    assert refusal(folder, text.replace("an oak", "oak")) == (
        "TABLE: labels '0', '1' have one prompt, 'oak'. Give every class a prompt of its own."
    )


@pytest.mark.parametrize("pair", [("Oak", "oak"), ("oak tree", "oak_tree"), ("1", "1.0")])
def test_labels_that_differ_in_spelling_only(folder, pair):
    message = refusal(folder, lines(f"a.png,{pair[0]}", f"c.jpg,{pair[1]}"))
    assert f"'{pair[0]}' (row 2) and '{pair[1]}' (row 3) are one number, or differ in" in message


def test_groups_on_both_sides_of_a_given_split(folder):
    header = "path,label,split,scene"
    text = lines(
        "a.png,oak,train,s1", "b.png,oak,test,s1", "c.jpg,pine,train,s2", "d.jpg,pine,test,s3",
        header=header,
    )  # fmt: skip
    table = read(folder, text)
    assert [row.split for row in table.rows] == ["train", "test", "train", "test"]
    assert table_warnings(table) == [
        "1 of 3 groups are in more than one part (s1 in train and test): the split column is kept, "
        "so test images are not independent of training"
    ]


def test_files_that_are_no_tables(folder):
    latin = rows_of().replace("pine", "forêt").encode("latin-1")
    assert refusal(folder, latin) == (
        "TABLE is not UTF-8 text: byte 0xea in line 4. Save it as UTF-8 (Excel: 'CSV UTF-8'), or "
        "convert it: iconv -f LATIN1 -t UTF-8 labels.csv > labels_utf8.csv"
    )
    assert "TABLE is UTF-16 text. Save it" in refusal(folder, rows_of().encode("utf-16"))
    assert "no text file, perhaps a spreadsheet" in refusal(folder, b"PK\x03\x04\0\0")
    assert refusal(folder, "\n\n").startswith("TABLE is empty.")
    assert refusal(folder, "path,label\n").startswith("TABLE has a header, but no row.")
    assert refusal(folder, 'path,label\n"a.png,oak\n').startswith("TABLE: row 2 cannot be read: ")
    assert refusal(folder, "path,label\na.png,oak\n\nb.png,oak,5\n").startswith(
        "TABLE: row 4 has 3 cells, row 1 has 2."
    )
    with pytest.raises(UserError, match=r"absent\.csv cannot be read: No such file"):
        read_table(folder / "absent.csv", str(folder))


def test_no_label_column(folder):
    text = lines("a.png,5,0", "c.jpg,0,1", header="image,MEL,NV")
    assert refusal(folder, text).startswith("TABLE has no column for the label: 'image', 'MEL'")


def test_a_column_of_0_and_1_per_class(folder):
    text = lines("a.png,1,0.0,7", "c.jpg,0,1.0,9", header="image,MEL,NV,age")
    assert refusal(folder, text) == (
        "TABLE has no column for the label, but 2 columns of 0 and 1: 'MEL', 'NV'. If these are "
        "the classes, write the name of the one that is 1 into a column 'label' (pandas: "
        "table[columns].idxmax(axis=1)); images with several cannot be used."
    )


def test_labels_that_join_others_are_said(folder):
    make(folder, "d.png", "e.png")
    table = read(folder, lines("a.png,oak", "c.jpg,fir | elm", "d.png,oak|yew", "e.png,pine"))
    assert (
        table_warnings(table)
        == [
            "1 labels join others and are classes of their own: oak|yew; images that show several "
            "classes cannot be used, so leave their rows out",
            *table.notes,
        ][::-1]
    )


def test_a_header_without_known_names(folder):
    text = refusal(folder, lines("a.png,oak", "c.jpg,pine", header="foo,bar"))
    assert "row 1 'foo'. If that is a header, set DATASET.COLUMNS.PATH and .LABEL to" in text
    assert "header" not in refusal(folder, "x.png,oak\na.png,oak\nc.jpg,pine\n")


def test_the_documentation_has_the_names_of_columns_and_parts():
    text = Path(__file__).parents[2].joinpath("docs/data.md").read_text(encoding="utf-8")
    for role, names in [*COMMON_NAMES.items(), *PART_NAMES.items()]:
        assert f"| {role} | {', '.join(f'`{name}`' for name in names)} |" in text


def test_find_table(folder):
    assert find_table(str(folder)) is None
    make(folder, "mine.csv", "notes.txt", ".hidden.csv", "oak/other.csv")
    assert find_table(str(folder)) == folder / "mine.csv"
    assert find_table(str(folder), alone=False) is None
    make(folder, "more.tsv")
    with pytest.raises(
        UserError, match=r"has 2 tables: mine.csv, more.tsv. Set DATASET.SPLIT_FILE"
    ):
        find_table(str(folder))
    (folder / "mine.csv").rename(folder / "train.csv")
    (folder / "more.tsv").rename(folder / "test.tsv")
    with pytest.raises(UserError, match="put them into one table with a column split"):
        find_table(str(folder))
    make(folder, "Labels.tsv")
    assert find_table(str(folder)) == folder / "Labels.tsv"
    make(folder, "split.csv")
    with pytest.raises(UserError, match=r"has 2 tables: Labels.tsv, split.csv"):
        find_table(str(folder), alone=False)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.png", "a/b.png"),
        ("a\\b.png", "a/b.png"),
        (".\\a\\\\b.png", "a/b.png"),
        ("././a//b.png", "a/b.png"),
        (".hidden/b.png", ".hidden/b.png"),
        ("/a/b.png", "/a/b.png"),
    ],
)
def test_posix(path, expected):
    assert posix(path) == expected


def test_split_file_with_back_slashes(tmp_path, caplog):
    rows = [["oak\\a.png", 0, "oak"], [".\\pine\\c.jpg", 1, "pine"], ["pine/d.jpg", 1, "pine"]]
    path = tmp_path / "split_zhou_Toy.json"
    path.write_text(json.dumps({"train": rows, "val": [], "test": rows}))
    with caplog.at_level(logging.INFO):
        split = read_split(path)
    assert [item.path for item in split.train] == ["oak/a.png", "pine/c.jpg", "pine/d.jpg"]
    assert f"{path}: back slashes in 4 paths are read as slashes" in caplog.messages


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["P1", "p 1", "7", "007"], "(P1 and p 1, 7 and 007)"),
        (["1_11", "11_1", "P-1-11", "P 11-1"], ""),
        (["12345678901234567890", "12345678901234567891", "a", "b"], ""),  # one float64
    ],
)
def test_groups_that_are_spelled_in_several_ways_are_named(folder, names, said):
    rows = [f"{row.path},{row.label},{name}" for row, name in zip(PLAIN, names, strict=True)]
    table = read(folder, lines(*rows, header="path,label,patient"))
    warned = [text for text in table_warnings(table) if "kept apart" in text]
    assert [said in text for text in warned] == [True] * bool(said)


def test_groups_of_one_part_are_not_torn_by_their_spelling(folder):
    rows = [f"{row.path},{row.label},{name},{part}" for row, name, part in zip(
        PLAIN, ["P1", "p1", "b", "c"], ["train", "train", "test", "test"], strict=True
    )]  # fmt: skip
    table = read(folder, lines(*rows, header="path,label,patient,split"))
    assert not [text for text in table_warnings(table) if "kept apart" in text]


def test_the_plain_name_of_a_label_column_is_taken(folder):
    for name in ("Finding Label", "y"):
        text = lines(*(f"{r.path},{r.label},x" for r in PLAIN), header=f"path,label,{name}")
        table = read(folder, text)
        assert table.rows == PLAIN
        assert table.notes == (
            f"labels are those of column 'label', not '{name}' (DATASET.COLUMNS.LABEL)",
        )
