"""``predictions.csv``: round trip, refusals, and the file that is continued."""

import tracemalloc

import numpy as np
import pytest

from dplq.errors import UserError
from dplq.evaluation.prediction_rows import distinct_names, names_before
from dplq.evaluation.prediction_table import PredictionTable, PredictionWriter

CLASSES = ["dense forest", "beach, sandy", 'the "port"']
HEADER = "path,label,prediction,group,p:cat,p:dog\n"
ROW = "a.png,cat,dog,,0.25,0.75\n"


def table_of(images=50, classes=CLASSES, seed=0):
    random = np.random.default_rng(seed)
    numbers = random.dirichlet(np.full(len(classes), 0.1), images).astype(np.float32)
    return PredictionTable(
        list(classes),
        [f"folder, {index}/bild ä{index}.png" for index in range(images)],
        random.integers(-1, len(classes), images),
        numbers.argmax(1),
        [f"patient {index // 3}" if index % 2 else "" for index in range(images)],
        numbers,
    )


def assert_equal(one, other):
    assert (one.classes, one.paths, one.groups) == (other.classes, other.paths, other.groups)
    for name in ("labels", "predictions", "probabilities"):
        got, expected = getattr(one, name), getattr(other, name)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_what_is_written_reads_back_bit_for_bit(tmp_path):
    table = table_of(2000)
    table.write(tmp_path / "predictions.csv")
    assert_equal(PredictionTable.read(tmp_path / "predictions.csv"), table)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\x85", '"', " "])
def test_any_name_of_a_file_reads_back(tmp_path, end):
    """Before 3.13 Python's writer quotes no carriage return, and a reader ends the line there."""
    table = table_of(3)
    table.paths[1], table.groups[2] = f"one{end}two.png", f"{end}x{end}"
    table.write(tmp_path / "predictions.csv")
    assert_equal(PredictionTable.read(tmp_path / "predictions.csv"), table)


def test_memory_for_writing_does_not_grow_with_the_rows(tmp_path):
    table = table_of(10_000, [f"class {index}" for index in range(20)])
    tracemalloc.start()
    try:
        table.write(tmp_path / "x.csv")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6e6  # all cells at once: 20 MB


def test_the_file_is_as_documented(tmp_path):
    table = PredictionTable(
        ["cat", "dog"],
        ["a.png", "b,c.png"],
        np.array([0, -1]),
        np.array([1, 0]),
        ["", "p1"],
        np.array([[0.1, 0.9], [1, 0]], dtype=np.float32),
    )
    table.write(tmp_path / "x.csv")
    expected = HEADER + 'a.png,cat,dog,,0.1,0.9\n"b,c.png",,cat,p1,1.0,0.0\n'
    assert (tmp_path / "x.csv").read_bytes() == expected.encode()


def test_every_kind_of_float32_reads_back(tmp_path):
    bits = np.random.default_rng(0).integers(0, np.float32(1).view(np.uint32), 30_000)
    low = np.minimum(bits.astype(np.uint32).view(np.float32), np.float32(1)).astype(np.float32)
    numbers = np.stack([low, (1 - low).astype(np.float32)], 1)
    n = len(low)
    zeros = np.zeros(n, dtype=np.int64)
    table = PredictionTable(["a", "b"], ["x"] * n, zeros, zeros, [""] * n, numbers)
    table.write(tmp_path / "x.csv")
    assert_equal(PredictionTable.read(tmp_path / "x.csv"), table)


def test_a_file_that_excel_saved_is_read(tmp_path):
    content = (HEADER + ROW).replace("\n", "\r\n").encode("utf-8-sig")
    (tmp_path / "x.csv").write_bytes(content)
    table = PredictionTable.read(tmp_path / "x.csv")
    assert (table.paths, table.labels.tolist(), table.predictions.tolist()) == (["a.png"], [0], [1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        ("a,b\n1,2\n", "line 1: the column 'path' is missing; expected path,label,prediction"),
        (HEADER.replace("group,", ""), "the column 'group' is missing"),
        (HEADER.replace("p:dog", "p:cat"), "the column 'p:cat' is there twice"),
        (HEADER.replace("p:dog", "dog"), "the column 'dog' is unknown"),
        (HEADER.replace("path,label", "label,path"), "the columns are in another order"),
        ("path,label,prediction,group\n", "no class is there"),
        (HEADER.replace("p:dog", "p: "), "the class name ' ' is empty"),
        (HEADER + ROW + ROW.replace(",cat", ",cow"), "line 3: the label 'cow' is no class."),
        (HEADER + ROW.replace(",dog", ","), "line 2: the prediction '' is no class."),
        (HEADER + ROW.replace("0.25", "nan"), "line 2: the probability of 'cat' is 'nan'"),
        (HEADER + ROW.replace("0.25", "-0.25"), "expected a number from 0 to 1"),
        (HEADER + ROW.replace("0.25", "1.25"), "the probability of 'cat' is '1.25'"),
        (HEADER + ROW.replace("0.25", "x"), "the probability of 'cat' is 'x'"),
        (HEADER + ROW.replace("0.25", "0.26"), "line 2: its probabilities have the sum 1.01"),
        (HEADER + ROW.replace("a.png", ""), "line 2: the path is empty"),
        (HEADER + ROW + "b.png,cat,dog,,0.25\n", "line 3: it has 5 cells, and the header 6"),
        (HEADER + ROW + ROW[:-1], "line 3: it is cut: the file does not end in a line feed"),
        (HEADER + ROW + '"b', "line 3: it is cut"),
        (HEADER + '"b.png,cat\n' + ROW, "line 2: unexpected end of data"),
        (HEADER + '"b"c.png,cat,dog,,0.25,0.75\n', "line 2: ',' expected"),
    ],
)
def test_a_foreign_file_is_refused_with_its_line(tmp_path, content, message):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(UserError, match=r"x\.csv cannot be used") as caught:
        PredictionTable.read(tmp_path / "x.csv")
    assert message in str(caught.value)


def test_text_of_another_encoding_is_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes((HEADER + ROW.replace("a.", "ä.")).encode("latin1"))
    with pytest.raises(UserError, match="line 2 is not UTF-8"):
        PredictionTable.read(tmp_path / "x.csv")


def test_no_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        PredictionTable.read(tmp_path / "x.csv")
    with pytest.raises(UserError, match="is a folder"):
        PredictionTable.read(tmp_path)


def test_sums_within_the_tolerance_are_accepted(tmp_path):
    (tmp_path / "x.csv").write_text(HEADER + ROW.replace("0.25", "0.2509"))
    assert len(PredictionTable.read(tmp_path / "x.csv")) == 1


def written_in_batches(path, table, batch=7):
    with PredictionWriter(path, table.classes) as writer:
        start = len(writer.done)
        for begin in range(start, len(table), batch):
            rows = slice(begin, begin + batch)
            writer.add(
                table.paths[rows],
                table.probabilities[rows],
                labels=table.labels[rows],
                predictions=table.predictions[rows],
                groups=table.groups[rows],
            )
    return start


def test_the_writer_writes_what_the_table_does(tmp_path):
    table = table_of()
    table.write(tmp_path / "whole.csv")
    assert written_in_batches(tmp_path / "new" / "rows.csv", table) == 0
    whole = (tmp_path / "whole.csv").read_bytes()
    assert (tmp_path / "new" / "rows.csv").read_bytes() == whole
    assert written_in_batches(tmp_path / "whole.csv", table) == 50


def test_a_file_cut_at_any_byte_is_continued(tmp_path):
    table = table_of(2, CLASSES[1:])
    table.write(tmp_path / "whole.csv")
    whole = (tmp_path / "whole.csv").read_bytes()
    for size in range(len(whole) + 1):
        (tmp_path / "cut.csv").write_bytes(whole[:size])
        kept = written_in_batches(tmp_path / "cut.csv", table, batch=1)
        assert kept == max(0, whole[:size].count(b"\n") - 1)
        assert (tmp_path / "cut.csv").read_bytes() == whole


def test_rows_are_on_disk_before_the_next_batch(tmp_path):
    writer = PredictionWriter(tmp_path / "x.csv", ["cat", "dog"])
    writer.add(["a.png"], [[0.25, 0.75]])
    assert (tmp_path / "x.csv").read_text() == HEADER + "a.png,,dog,,0.25,0.75\n"
    writer.close()
    with PredictionWriter(tmp_path / "x.csv", ["cat", "dog"]) as again:
        assert again.done == ["a.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER.replace("cat", "cow") + ROW, "it has the classes cow, dog, not cat, dog"),
        ("notes of mine", "the column 'path' is missing"),
        (HEADER + ROW.replace("0.25", "0.9") + ROW, "line 2: its probabilities have the sum 1.65"),
        (HEADER + '"b.png,cat\n' + ROW, "line 2: unexpected end of data"),
    ],
)
def test_a_file_of_something_else_is_not_continued(tmp_path, content, message):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(UserError) as caught:
        PredictionWriter(tmp_path / "x.csv", ["cat", "dog"])
    assert message in str(caught.value)
    assert (tmp_path / "x.csv").read_text() == content


def test_a_path_that_is_not_utf8_is_refused(tmp_path):
    with (
        PredictionWriter(tmp_path / "x.csv", ["cat", "dog"]) as writer,
        pytest.raises(UserError, match=r"b\\xff.png is not UTF-8"),
    ):
        writer.add(["a.png", "b\udcff.png"], [[1, 0], [0, 1]])
    assert (tmp_path / "x.csv").read_text() == HEADER  # nothing of the batch


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classes", ["a", "a"], "one name"),
        ("classes", ["a"], r"expected \(1, 1\)"),
        ("labels", [2], "labels must be from -1 to 1"),
        ("labels", [0, 1], "labels has 2 entries, not 1"),
        ("predictions", [-1], "predictions must be from 0 to 1"),
        ("groups", [], "groups has 0 entries"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(key, value, message):
    good = {
        "classes": ["a", "b"],
        "paths": ["x"],
        "labels": [0],
        "predictions": [1],
        "groups": [""],
        "probabilities": [[0.5, 0.5]],
    }
    assert len(PredictionTable(**good)) == 1
    with pytest.raises(ValueError, match=message):
        PredictionTable(**{**good, key: value})


def test_equal_class_names_get_numbers():
    assert distinct_names(["crane", "bird", "crane"]) == ["crane", "bird", "crane (2)"]
    names = ["a", "a", "a (2)", "a"]
    assert distinct_names(names) == ["a", "a (3)", "a (2)", "a (4)"]
    assert distinct_names(CLASSES) == CLASSES


@pytest.mark.parametrize("names", [["crane", "bird", "crane", "crane"], ["a", "a (2)", "a"]])
def test_repeated_names_come_back(names):
    shown = distinct_names(names)
    assert distinct_names(names_before(shown)) == shown


def test_only_repeats_lose_their_number():
    assert names_before(["crane", "bird", "crane (2)", "crane (3)"]) == ["crane", "bird"] + 2 * [
        "crane"
    ]
    assert names_before(["bird (2)", "crane"]) == ["bird (2)", "crane"]
    assert names_before(["crane", "crane (4)"]) == ["crane", "crane (4)"]
