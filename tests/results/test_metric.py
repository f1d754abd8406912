"""Tables of another metric than the accuracy: ``python -m dplq.results --metric NAME``."""

import json

import pytest

from dplq.results import collect, summarise
from dplq.results.__main__ import main
from tests.results.test_results import write_log, write_pairs, write_run


def add_metrics(out, **metrics):
    for path in out.rglob("results.json"):
        content = json.loads(path.read_text())
        share = content["accuracy"] / 200  # another number for each run
        path.write_text(json.dumps({**content, "metrics": {"macro_auroc": share, **metrics}}))


def test_the_metric_stands_for_the_accuracy(tmp_path, capsys):
    write_pairs(tmp_path, base={1: 90.0, 2: 80.0}, new={1: 60.0, 2: 70.0})
    add_metrics(tmp_path)
    (row,) = summarise(collect([tmp_path], "macro_auroc"))
    assert row.stats["base"].mean == pytest.approx(42.5)
    assert row.stats["new"].mean == pytest.approx(32.5)
    assert row.stats["H"].mean == pytest.approx(2 * 42.5 * 32.5 / 75)
    assert main([str(tmp_path), "--metric", "macro_auroc"]) == 0
    shown = capsys.readouterr().out
    assert "42.50 +- 2.50" in shown
    assert "Macro AUROC in %: mean" in shown
    assert "averaged base and new macro AUROC" in shown
    assert main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Top-1 accuracy in %: mean" in shown
    assert "averaged base and new accuracy" in shown


@pytest.mark.parametrize("value", [None, 1.5, "high", True])
def test_a_run_without_the_metric_is_skipped_and_named(tmp_path, caplog, value):
    write_run(tmp_path, "RSSCN7", "all", 1, 90.0)
    add_metrics(tmp_path, macro_auroc=value)
    write_run(tmp_path, "RSSCN7", "all", 2, 80.0)  # of an earlier version
    write_run(tmp_path, "RSSCN7", "all", 3, 70.0)
    path = next(tmp_path.rglob("seed3/results.json"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "metrics": {"macro_auroc": 0.5}}))
    write_log(tmp_path, "RSSCN7", "all", 4, "* accuracy: 81.2%\n")
    (run,) = collect([tmp_path], "macro_auroc")
    assert (run.seed, run.accuracy) == (3, 50.0)
    assert caplog.text.count("results.json has no macro_auroc: test again to have it") == 2
    assert "a log.txt has no macro_auroc" in caplog.text


def test_what_shows_accuracies_refuses_another_metric(tmp_path, capsys):
    write_pairs(tmp_path)
    for option in (["--by", "shots"], ["--compare", "CoOp"], ["--composite"], ["--curve", "x.png"]):
        assert main([str(tmp_path), "--metric", "macro_f1", *option]) == 2
        expected = f"error: {option[0]} shows accuracies: leave it out, or --metric macro_f1"
        assert capsys.readouterr().err.strip() == expected
