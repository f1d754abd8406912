"""benchmarks/packing.py and sweep_scan.py: they run, and their figures are right."""

from __future__ import annotations

import json

import pytest

from benchmarks import packing, sweep_scan
from tests.experiments.stand_in import stand_in  # noqa: F401  (a fixture)

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
