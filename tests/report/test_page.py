"""The page of a run: what is in it, what is not, and that nothing of a run can break it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dplq.cli.report import main
from dplq.errors import UserError
from dplq.evaluation.prediction_table import PredictionTable
from dplq.evaluation.summary import summarise
from dplq.report import Options, RunPage, render_run
from dplq.report.confusions import confusion, never_right
from dplq.report.labels import LONGEST, labels_of
from tests.report.runs import CLASSES, Page, table, write_images, write_run

HOSTILE = [
    '<script>alert("x")</script>',
    'a & b\'s $x^2$ "quoted"',
    "\u732b \u202e caf\u00e9",
    'id="a" #010105',
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose images are there."""
    predictions = table()
    write_images(tmp_path, predictions.paths)
    return write_run(tmp_path, predictions)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a run, which several tests read and none changes."""
    folder, predictions = tmp_path_factory.mktemp("run"), table()
    write_images(folder, predictions.paths)
    return write_run(folder, predictions)


@pytest.fixture(scope="module")
def page(unchanged: Path) -> str:
    """The page of such a run."""
    return rendered(unchanged)


@cache
def metrics() -> dict[str, Any]:
    """Return the summary of the predictions; do not change it."""
    return summarise(table())


def rendered(folder: Path, **options: object) -> str:
    return render_run(RunPage.read(folder, Options(**options)))  # type: ignore[arg-type]


def headings(html: str) -> list[str]:
    return re.findall(r"<h2[^>]*>(.*?)</h2>", html)


def test_a_run_has_all_sections_and_a_link_to_each(page):
    expected = ["Results", "What was run", "Confusion matrix", "Classes", "Calibration"]
    assert headings(page)[:7] == [*expected, "ROC curves", "Mistakes and uncertain hits"]
    parsed = Page(page)
    anchors = {a["href"] for a in parsed.all("a")}
    assert anchors == {f"#{s['id']}" for s in parsed.all("section")}


def test_the_numbers_are_those_of_the_predictions(page):
    predictions = table()
    right = float((predictions.labels == predictions.predictions).mean())
    first = re.search(r'<dt>Accuracy</dt><dd><span class="value">([\d.]+)', page)
    assert first is not None
    assert first[1] == f"{100 * right:.1f}"
    assert "bootstrap over the 20 groups" in page


def test_the_page_needs_nothing_else(page):
    parsed = Page(page)
    names = ("src", "href", "xlink:href", "action", "data", "poster", "srcset")
    links = [t[name] for _, t in parsed.tags for name in names if t.get(name)]
    assert links
    assert [link for link in links if not link.startswith(("#", "data:image/", "data:,"))] == []
    assert re.findall(r"@import|url\((?!#)|https?://", page) == []
    assert not parsed.all("script")


def test_the_same_run_gives_the_same_bytes(unchanged, page):
    assert rendered(unchanged) == page


def test_every_figure_and_picture_has_words(page):
    parsed = Page(page)
    assert len(parsed.all("figure")) == 4
    drawn = [d for d in parsed.all("div") if d.get("role") == "img"]
    assert len(drawn) == 4
    assert all(len(d["aria-label"] or "") > 30 for d in drawn)
    pictures = [image for image in parsed.all("img") if image["src"]]
    assert len(pictures) == 24 - max(0, 12 - _wrong(table()))
    assert all(image["alt"] for image in pictures)
    captions = [p for p in parsed.all("p") if p.get("class") == "caption"]
    labels = [t["aria-label"] for t in parsed.all("table")]
    assert len(labels) == len(captions) > 0
    assert all(labels)


def _wrong(predictions: PredictionTable) -> int:
    return int((predictions.labels != predictions.predictions).sum())


def test_ids_are_unique(page):
    ids = [t["id"] for _, t in Page(page).tags if t.get("id")]
    assert len(ids) == len(set(ids))


def test_names_cannot_break_the_page(tmp_path):
    predictions = table(HOSTILE)
    predictions.paths[:] = [f"<img src=x onerror=alert({k})>\n'\".png" for k in range(60)]
    html = rendered(write_run(tmp_path, predictions))
    page = Page(html)
    assert not page.all("script")
    assert [i for i in page.all("img") if not str(i["src"]).startswith("data:image/jpeg;")] == []
    assert [t for _, t in page.tags if any(name.startswith("on") for name in t)] == []
    for name in HOSTILE[:2]:
        assert name in page.text
    assert HOSTILE[2] in page.text
    assert 'id="a" #010105' in page.text  # in figures too, as it is
    assert re.search(r"onerror=alert\(\d+\)>\\n'", page.text)


def test_no_images_leaves_out_what_names_a_patient(run, tmp_path):
    predictions = table()
    html = rendered(run, images=False)
    assert not Page(html).all("img")
    for name in (*predictions.paths, *predictions.groups, str(tmp_path)):
        assert name not in html
    wrong = np.flatnonzero(predictions.labels != predictions.predictions)
    certainty = predictions.probabilities[wrong].max(1)
    line = int(wrong[certainty.argmax()]) + 2
    rows = re.findall(r'<th scope="row">(\d+)</th><td>(\w+)</td>', html)
    assert rows[0] == (str(line), CLASSES[int(predictions.labels[line - 2])])


def test_images_that_are_gone_are_named_and_found_elsewhere(run, tmp_path):
    (tmp_path / "class0").rename(tmp_path / "moved")
    html = rendered(run)
    assert "pictures cannot be shown" in html
    assert "class0/" in html
    assert "Where the images have moved" in html
    assert "does not move with" not in html
    for name in ("class1", "class2", "moved"):
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / "new" / name.replace("moved", "class0"))
    assert "pictures cannot be shown" not in rendered(run, root=tmp_path / "new")


def test_absolute_paths_do_not_move(tmp_path):
    predictions = table()
    predictions.paths[:] = [str(tmp_path / "gone" / path) for path in predictions.paths]
    folder = write_run(tmp_path, predictions)
    html = rendered(folder, root=tmp_path)
    assert "does not move with <code>--root</code>" in html
    assert "Where the images have moved" not in html


def test_the_pictures_are_the_most_certain_mistakes(page):
    predictions = table()
    wrong = np.flatnonzero(predictions.labels != predictions.predictions)
    order = wrong[np.argsort(-predictions.probabilities[wrong].max(1), kind="stable")]
    shown = re.findall(r'<p class="path">(.*?)</p>', page)
    assert shown[: min(12, len(order))] == [predictions.paths[k] for k in order[:12]]


def test_a_run_without_predictions_says_how_to_make_them(tmp_path):
    html = rendered(write_run(tmp_path, None))
    assert headings(html) == ["Results", "What was run", "Classes"]
    assert "has no predictions.csv" in html
    assert "--eval-only --model-dir" in html
    assert "results-Lakes-all-test.json" in html


def test_recorded_metrics_stand_for_a_file_that_was_too_large(page, tmp_path):
    html = rendered(write_run(tmp_path, None, metrics=metrics()))
    assert headings(html) == [
        *("Results", "What was run", "Confusion matrix", "Classes", "Calibration")
    ]
    assert _tiles(html) == _tiles(page)
    assert len(_tiles(html)) == 5
    assert "There is no predictions.csv, so ROC curves, pictures" in html
    assert "20,000,000 probabilities" in html
    assert "TEST.PREDICTIONS" not in html


def _tiles(html: str) -> list[str]:
    return re.findall(r'<dt>[^<]*</dt><dd><span class="value">.*?</dd>', html)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("accuracy", 64.2, "metrics.accuracy"),
        ("per_class", {}, "metrics.per_class"),
        ("confusion_matrix", [[1, 2], [3]], "metrics.confusion_matrix"),
        ("reliability", None, "metrics.reliability"),
    ],
)
def test_recorded_metrics_are_checked(tmp_path, key, value, said):
    folder = write_run(tmp_path, None, metrics={**metrics(), key: value})
    with pytest.raises(UserError, match=said):
        rendered(folder)


def test_results_of_version_0_1_0_have_a_page():
    folder = Path(__file__).parents[1] / "fixtures" / "written_by_0_1_0" / "QuaternionPrompt"
    html = rendered(folder)
    assert headings(html)[:2] == ["Results", "What was run"]
    assert "has no predictions.csv" in html


@pytest.mark.parametrize(
    ("skill", "images", "said"),
    [
        (1.0, 400, "no difference seen"),
        (2.0, 1, "too little to judge by"),
        (40.0, 5, "too little to judge by"),  # of two groups
    ],
)
def test_calibration_is_judged_outside_the_interval_alone(tmp_path, skill, images, said):
    html = rendered(write_run(tmp_path, table(images=images, skill=skill)), images=False)
    assert said in html
    assert "certain enough" not in html


@pytest.mark.parametrize(("power", "said"), [(9, "it is too certain"), (0.2, "not certain enough")])
def test_calibration_that_is_off_is_said(tmp_path, power, said):
    predictions = table(images=200)
    sharper = predictions.probabilities.astype(np.float64) ** power
    predictions.probabilities = (sharper / sharper.sum(1, keepdims=True)).astype(np.float32)
    assert said in rendered(write_run(tmp_path, predictions), images=False)


def test_the_calibration_error_has_no_interval(page):
    assert "Calibration error (ECE)</dt>" in page
    assert [tile for tile in _tiles(page) if "ECE" in tile and "interval" in tile] == []
    assert sum("interval" in tile for tile in _tiles(page)) == 4
    row = re.search(r'<th scope="row">Calibration error.*?</tr>', page)
    assert row is not None
    assert row[0].endswith('<td class="number">-</td></tr>')
    for name in ("ECE", "Macro AUROC", "Brier score", "Log loss"):
        assert re.search(rf"<li>[^:]*{name}\)?: ", page), name


def test_classes_that_begin_alike_are_told_apart_in_figures():
    start = "histology of the large intestine, "
    names = [f"{start}{end}" for end in ("benign", "malign")]
    middle = [f"{'a' * 20}{k}{'b' * 20}" for k in range(3)]
    labels = list(labels_of([*names, *middle, "short"]).values())
    assert len(set(labels)) == 6
    assert labels[0].endswith("benign")
    assert labels[3].endswith(" (2)")
    assert labels[5] == "short"
    assert max(map(len, labels)) <= LONGEST + 4


def test_a_class_without_images_has_no_outline(tmp_path):
    predictions = table((*CLASSES, "absent"))
    predictions.labels[predictions.labels == 3] = 0
    counts = confusion(predictions)
    counts[1, 2] += counts[1, 1]
    counts[1, 1] = 0
    assert never_right(counts) == [1]
    assert "Outlined" not in rendered(write_run(tmp_path, predictions), images=False)


def test_two_classes_have_one_curve(tmp_path):
    html = rendered(write_run(tmp_path, table(("healthy", "ill"))), images=False)
    assert "ill against healthy; the other way round the area is the same." in html
    assert "ROC curve of ill against healthy: area" in html


def test_one_image_is_singular(tmp_path):
    html = rendered(write_run(tmp_path, table(images=1)), images=False)
    assert "1 images" not in html
    assert "1 image " in html
    assert "Of 1 image." in html


def test_many_classes_stay_small(tmp_path):
    names = [f"class {k}" for k in range(200)]
    html = rendered(write_run(tmp_path, table(names, 400, skill=5.0)), images=False)
    assert len(html) < 2_000_000
    assert "30 of 200 classes with the most mistakes" in html
    assert "The 40 lowest of 200 classes" in html
    assert "Only the 40 smallest of 200" in html


def test_one_class_and_no_mistake(tmp_path):
    html = rendered(write_run(tmp_path, table(["only"], 5)), images=False)
    assert "No image was taken for another class." in html
    assert "No image was misclassified." in html
    assert "ROC curves" not in headings(html)


def test_predictions_of_another_test_are_refused(run):
    write_run(run, None, total=61)
    with pytest.raises(UserError, match=r"60 images and results\.json 61"):
        RunPage.read(run)


def test_a_damaged_training_log_is_said(run):
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "events.out.tfevents.1").write_bytes(b"\xff" * 64)
    assert headings(rendered(run))  # whatever it says, there is a page


def test_the_curve_of_the_training_is_drawn(run):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run / "tensorboard")) as writer:
        for step in range(8):
            writer.add_scalar("train/loss", 4.0 if step < 4 else 1.5, step)
    html = rendered(run)
    assert "Training loss by epoch: 4 in the first, 1.5 in the last of 2." in html
    assert "Training" in headings(html)


class TestCommand:
    def test_writes_beside_the_results(self, run, capsys):
        assert main([str(run)]) == 0
        assert capsys.readouterr().out == f"Report: {run / 'report.html'}\n"
        assert (run / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        assert not list(run.glob(".*part*"))

    def test_another_test_of_the_run(self, run, capsys):
        for kind, end in (("results", "json"), ("predictions", "csv")):
            (run / f"{kind}.{end}").rename(run / f"{kind}-Lakes-all-test.{end}")
        assert main([str(run / "results-Lakes-all-test.json"), "--no-images"]) == 0
        assert (run / "report-Lakes-all-test.html").is_file()

    def test_settings_that_differ_are_shown(self, run, tmp_path):
        out = tmp_path / "there" / "x.html"
        assert main([str(run), "--out", str(out)]) == 0
        html = out.read_text(encoding="utf-8")
        assert "Config keys that differ from their defaults (2)" in html
        assert '<th scope="row">OPTIM.MAX_EPOCH</th>' in html

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["absent"], "does not exist"),
            ([".", "--root", "absent"], "--root absent is no folder"),
            (["."], "no finished run"),
            (["predictions.csv"], "is no results*.json: give the folder of the run"),
            (["run.json"], "is no results*.json: give the folder of the run"),
            ([".", "--out", "folder"], "--out folder is a folder: give a file"),
            ([".", "--out", "run.json"], "--out run.json is there, and is no page by its name"),
        ],
    )
    def test_bad_input_is_one_line(self, arguments, said, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder").mkdir()
        for name in ("predictions.csv", "run.json"):
            (tmp_path / name).write_text("x", encoding="utf-8")
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_predictions_of_another_accuracy_are_refused(tmp_path):
    folder = write_run(tmp_path, table(), accuracy=12.5)
    with pytest.raises(UserError, match=r"%, results\.json 12\.50 %: they are not of one test"):
        rendered(folder)


def test_a_generalised_test_has_its_three_numbers(tmp_path):
    html = rendered(write_run(tmp_path, table(), generalised={"base": 30.0, "new": 60.0}))
    for name, value in (("images of base classes", "30.0"), ("harmonic mean of both", "40.0")):
        assert re.search(rf"Generalised: [^<]*{name}.*?{value} %", html, re.DOTALL), name
    assert "Generalised" not in rendered(write_run(tmp_path / "plain", table()))


def test_probabilities_of_one_and_few_groups_are_said(tmp_path):
    predictions = table(images=6)
    predictions.groups = ["a", "b"] * 3
    sure = np.eye(3, dtype=np.float32)[predictions.predictions]
    predictions.probabilities = np.where(np.arange(6)[:, None] < 4, sure, predictions.probabilities)
    html = rendered(write_run(tmp_path, predictions), images=False)
    assert "No intervals: a bootstrap over the 2 groups tells too little" in html
    assert "Of 4 images a class has the probability 1 to the last digit" in html


def test_an_exact_interval_is_called_so(tmp_path):
    predictions = table(images=90, skill=40.0)
    predictions.groups = [""] * 90
    html = rendered(write_run(tmp_path, predictions), images=False)
    assert "Interval of the accuracy: 95 %, exact (Clopper and Pearson), over the 90 images" in html
    assert "bootstrap over" not in html
