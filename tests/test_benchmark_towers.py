"""benchmarks/towers.py on a few models: its counts, and the combinations it runs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.towers import Report, run_small, survey

# the last one is no model
PAIRS = [("RN50", "openai"), ("RN50", "cc12m"), ("ViT-B-32", "openai"), ("nothing", "x")]


def test_counts_are_in_pairs_and_a_combination_runs(tmp_path: Path) -> None:
    report = Report(PAIRS)
    survey(report)
    assert report.towers["RN50"] == ("ResNet", "causal, argmax")
    del report.towers["ViT-B-32"]  # one combination is enough
    run_small(report, tmp_path)
    text = report.markdown()
    assert text.startswith("4 pairs, 3 architectures; 3 pairs build.\n")
    for row in ("image prompts | 1", "text prompts | 3", "both | 1", "changed weights | 1"):
        assert f"| {row} |" in text
    methods = "ZeroshotCLIP, LinearProbe, CoOp, CoCoOp"
    assert f"| ResNet | causal, argmax | 2 | RN50 | {methods} |" in text
    assert text.splitlines()[-1].startswith("* nothing: UserError: unknown CLIP model 'nothing'")
    assert list(report.failed) == ["nothing"]
