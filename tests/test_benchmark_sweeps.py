"""benchmarks/packing.py and sweep_scan.py: they run, and their figures are right."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest

from benchmarks import fair_table, packing, sweep_scan, torchrun
from tests.experiments.stand_in import stand_in  # noqa: F401  (a fixture)
from tools import compare_engines

RESULTS = {
    **{"format": 1, "trainer": "CoOp", "dataset": "DemoAerial", "subsample": "base", "shots": 1},
    **{"seed": 1, "accuracy": 50, "seconds": {"step": 0.25}, "peak_memory_mib": 900.0},
    **{"device": "cpu"},
}


def test_packing(tmp_path, stand_in, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("RESULTS", json.dumps(RESULTS))
    words = ["--at-once", "1", "3", "--device", "cpu", "--trainer", "CoOp", "--out", str(tmp_path)]
    assert packing.main([*words, "--", "OPTIM.MAX_EPOCH", "1"]) == 0
    assert sorted(stand_in.names()) == ["train 1", "train 1", "train 2", "train 3"]
    one, three = json.loads((tmp_path / "packing.json").read_text())
    assert (one["steps per second"], three["steps per second"]) == (4, 12)
    assert three["runs per hour"] == pytest.approx(3 * 3600 / three["seconds"])
    assert "| 12.00 | 3.00 | 900 |" in capsys.readouterr().out
    monkeypatch.setenv("FAIL", "train 3")
    assert packing.main(words) == 1
    assert "error: 3 runs at once: one failed" in capsys.readouterr().out


def test_frozen_features_are_computed_in_every_run_that_is_measured(tmp_path, monkeypatch):
    found = {}

    def execute(plan, engine):
        found["packing"] = plan.runs[0].options
        return 1

    def call(command, **_):
        words = list(map(str, command))
        found["torchrun"] = list(pairwise(words))
        return SimpleNamespace(returncode=0, stdout="")

    def base2new(dataset, seeds, settings, environment, folder):
        found["fair_table"] = [(key, str(value)) for key, value in settings.items()]

    monkeypatch.setattr(packing, "execute", execute)
    monkeypatch.setattr(torchrun.subprocess, "run", call)
    monkeypatch.setattr(fair_table, "base2new", base2new)
    words = ["--at-once", "1", "--device", "cpu", "--out", str(tmp_path), "--", "OPTIM.LR", "1"]
    assert packing.main(words) == 1
    assert found["packing"][1:] == (("OPTIM.LR", "1"),)
    torchrun.train(tmp_path, 1, SimpleNamespace(batch=1, trainer="CoOp"))
    field = fair_table.Field("demo_aerial", options={"OPTIM.LR": 1})
    fair_table.run(fair_table.Call("a", "CoOp", "demo"), field, tmp_path, tmp_path, [1], 1)
    assert found["fair_table"][1:] == [("OPTIM.LR", "1")]
    found["compare_engines"] = compare_engines.sweep(tmp_path).runs[0].options
    assert len(found) == 4
    for options in found.values():
        assert ("TRAIN.FEATURE_CACHE", "0") in options
    assert ("DOMAIN.CACHE", "False") in found["compare_engines"]


def test_packing_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit):
        packing.main([])
    assert "nvidia-smi finds no GPU; --device cpu measures the CPU" in capsys.readouterr().err


def test_sweep_scan(tmp_path):
    figures = sweep_scan.measure(tmp_path, 60, 0.5)
    assert figures["found"] == {
        **{"finished": 30, "unfinished": 10, "failed early": 10, "not begun": 10}
    }
    assert figures["start"]["peak MiB"] >= figures["states"]["peak MiB"] > 1
