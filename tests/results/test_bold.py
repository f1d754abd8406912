"""Bold numbers: the best of a column, and what cannot be told apart from it."""

import html.parser

import pytest

from dplq.results import Stat, collect, render, summarise
from dplq.results.rendering import BOLD_NOTE, Line, Table
from dplq.results.statistics import best_ones, compare
from dplq.results.summary import stat
from tests.results.test_results import write_pairs

BASES = {  # MaPLe is always 1 to 3 points behind; CoOp scatters
    "QuaternionPrompt": {1: 90.0, 2: 88.0, 3: 89.0, 4: 91.0},
    "MaPLe": {1: 88.0, 2: 87.0, 3: 86.0, 4: 88.5},
    "CoOp": {1: 92.0, 2: 82.0, 3: 91.0, 4: 89.0},
}


def table(tmp_path, fmt):
    for trainer, base in BASES.items():
        write_pairs(tmp_path, base=base, new=dict.fromkeys(base, 60.0), trainer=trainer)
    return render(summarise(collect([tmp_path])), fmt)


def test_who_is_alike():
    means = {name: sum(v.values()) / len(v) for name, v in BASES.items()}
    assert best_ones(means, BASES) == {"QuaternionPrompt", "CoOp"}
    assert compare(BASES["QuaternionPrompt"], BASES["MaPLe"]).t_test < 0.05
    assert compare(BASES["QuaternionPrompt"], BASES["CoOp"]).t_test > 0.05


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ({"a": {1: 90.0, 2: 91.0}}, set()),  # of one there is no best
        ({"a": {1: 90.0}, "b": {1: 80.0}}, set()),  # nor of one seed
        ({"a": {1: 90.0, 2: 91.0}, "b": {3: 90.0, 4: 90.0}}, {"a"}),  # no pair
        ({"a": {1: 90.0, 2: 91.0}, "b": {1: 89.0, 2: 90.0}}, {"a"}),  # always the same difference
        ({"a": {1: 90.0, 2: 91.0}, "b": {1: 90.0, 2: 91.0}}, {"a", "b"}),
    ],
)
def test_few_or_equal_values(values, best):
    means = {name: sum(v.values()) / len(v) for name, v in values.items()}
    assert best_ones(means, values) == best


def test_github(tmp_path):
    lines = table(tmp_path, "github").splitlines()
    cells = {
        row[1]: row[6] for row in ([c.strip() for c in line.split("|")] for line in lines[2:5])
    }
    assert cells["QuaternionPrompt"] == "**89.50 +- 1.12**"
    assert cells["MaPLe"] == "87.38 +- 0.96"
    assert cells["CoOp"] == "**88.50 +- 3.91**"
    assert lines[-1] == f"- {BOLD_NOTE}"


def test_latex(tmp_path):
    text = table(tmp_path, "latex")
    assert r"\textbf{\boldmath $89.50 \pm 1.12$}" in text
    assert r"& $87.38 \pm 0.96$" in text
    assert text.splitlines()[-1].startswith("% Bold: ")


def test_html(tmp_path):
    text = table(tmp_path, "html")
    assert "<b>89.50 &plusmn; 1.12</b>" in text
    assert "87.38 &plusmn; 0.96" in text
    assert "<b>87.38" not in text
    assert text.rstrip().splitlines()[-1].startswith("<p>Bold: ")
    assert "p &gt;= 5 %" in text


def test_html_escapes_names():
    line = Line({"trainer": "<a&b>"}, {"base": Stat(1.0, 0.0, 2)})
    text = Table([line], ["base"], ["a < b"], dropped=()).render("html")
    assert "&lt;a&amp;b&gt;" in text
    assert "<p>a &lt; b</p>" in text
    html.parser.HTMLParser().feed(text)


@pytest.mark.parametrize("fmt", ["simple", "csv"])
def test_plain_formats_have_no_bold(tmp_path, fmt):
    text = table(tmp_path, fmt)
    assert "Bold" not in text
    assert "*" not in text


def test_the_best_is_sought_in_each_dataset_by_itself(tmp_path):
    lines = [
        Line(
            {"dataset": name, "trainer": t}, {"base": stat(v)}, values={"base": dict(enumerate(v))}
        )
        for name, values in (
            ("A", ([90.0, 91.0], [10.0, 11.0])),
            ("B", ([50.0, 51.0], [20.0, 22.0])),
        )
        for t, v in zip("xy", values, strict=True)
    ]
    text = Table(lines, ["base"], [], dropped=(), group=("dataset",)).render("github")
    assert text.count("**90.50 +- 0.50**") == text.count("**50.50 +- 0.50**") == 1
    assert Table(lines, ["base"], [], dropped=()).render("github").count("**") == 0


def test_averages_pair_datasets_and_seeds(tmp_path):
    for name in ("AID", "RSSCN7"):
        for trainer, base in BASES.items():
            new = dict.fromkeys(base, 60.0)
            write_pairs(tmp_path, dataset=name, base=base, new=new, trainer=trainer)
    rows = summarise(collect([tmp_path]))
    (row,) = (r for r in rows if r.setting.trainer == "MaPLe" and r.dataset == "average of 2")
    assert row.values["base"][("AID", 3)] == 86.0
    assert len(row.values["base"]) == len(row.values["H"]) == 8
