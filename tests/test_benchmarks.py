"""benchmarks/step.py on tiny models: it runs, and its report is correct."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import (
    frozen_cache,
    step,
    step_checks,
    step_meters,
    step_profile,
    step_report,
    step_switches,
)
from benchmarks.step_originals import TREES, Original
from benchmarks.step_sides import build_ours, build_side, class_names, inputs
from tests.peers import peer

CPU = torch.device("cpu")
ONCE = ["--tiny", "--sides", "ours", "plain", "--repeats", "1", "--warmup", "0", "--no-memory"]
ONCE += ["--device", "cpu", "--batch", "2", "--eval-batch", "2"]


@pytest.fixture(scope="module")
def ours():
    return build_ours(True, CPU, "auto")


def run(folder, *words):
    """Return the benchmark's JSON, and its rows by side, kind and K."""
    assert step.main([*ONCE, "--out", str(folder), *words]) == 0
    content = json.loads((folder / "step.json").read_text())
    return content, {(r["side"], r["what"], r["classes"]): r for r in content["rows"]}


def test_smoke(tmp_path, capsys):
    content, rows = run(tmp_path, "--classes", "3", "--cached-features")
    sides = ["ours", "plain", "domain"]
    expected = {(side, what, 3) for side in sides for what in ("train", "eval")}
    assert rows.keys() == expected | {("ours, cached", "eval", 3)}
    for row in rows.values():
        assert row["seconds"] > 0
        assert row["how"] == "measured"
        assert row["flops"] > 0
    plain, fast = rows["plain", "train", 3], rows["ours", "train", 3]
    assert plain["flops"] > 5 * fast["flops"]
    assert plain["time_over_ours"] == plain["seconds"] / fast["seconds"]
    encoder = rows["domain", "eval", 3]["flops"]
    assert rows["ours, cached", "eval", 3]["flops"] == rows["ours", "eval", 3]["flops"] - encoder
    assert len(content["checks"]) == 2
    assert all(c["passed"] for c in content["checks"])
    assert {c["what"] for c in content["checks"] if "gradients" in c} == {"train"}
    table = (tmp_path / "step.md").read_text()
    assert table in capsys.readouterr().out
    assert "| plain " in table
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")


def test_profile_of_a_step(capsys):
    words = ["--tiny", "--device", "cpu", "--precision", "fp32", "--repeats", "1"]
    assert step_profile.main([*words, "--classes", "3", "--batch", "2", "--sides", "ours"]) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["side", "launched"]
    ours, _one, _by, _one, batch, classes, wall, *on_device = row.split()
    assert (ours, batch, classes, float(wall) > 0) == ("ours", "2", "3", True)
    assert {float(value) for value in on_device} == {0}  # this CPU has no kernels


def test_switches_of_fp32():
    rows = step_switches.compare(CPU, tiny=True, batch=2, classes=3)
    assert [row[:3] for row in rows] == [(False, False, "any"), (False, False, "math")]
    assert all(float(value) < 1e-5 for row in rows for value in row[3:])


def test_chunks_are_not_counted_twice(tmp_path):
    """Recomputation to save memory does not change the FLOP count."""
    counts = []
    for chunk in ("auto", "1"):
        words = ["--classes", "40", "--what", "train", "--sides", "ours", "--text-chunk", chunk]
        _, rows = run(tmp_path / chunk, *words)
        counts.append(rows["ours", "train", 40]["flops"])
    assert counts[0] == counts[1] > 0


def test_plain_in_parts(tmp_path):
    """Each check uses weights that the earlier sizes have trained."""
    content, rows = run(tmp_path, "--classes", "1", "3", "--what", "train", "--limit", "0")
    assert {r["how"] for (side, *_), r in rows.items() if side == "plain"} == {step.PARTS}
    assert [check["whole batch"] for check in content["checks"]] == [False] * 2


def test_a_difference_is_found(ours):
    plain = build_side("plain", ours)
    images, labels = inputs(ours, 2, 3)
    fast = build_side("ours", ours)
    for side in (fast, plain):
        side.set_classes(class_names(3))
    plain.model.tokens[0, 3] += 1
    found = step_checks.against_plain(fast, plain, "eval", images, labels, True)
    assert not found["passed"]
    assert "NOT THE SAME" in step_report.check_line(
        {"what": "eval", "batch": 2, "classes": 3, **found}
    )


@pytest.mark.parametrize("name", TREES)
def test_originals(ours, name):
    tree = peer(TREES[name])
    original = Original(name, tree, ours, ours.settings["prompt_depth"])
    images, labels = inputs(ours, 2, 2)
    before = torch.zeros(1).half().dtype
    original.set_classes(class_names(2))
    assert torch.zeros(1).half().dtype == before == torch.float16
    original.train()(images, labels).backward()
    gradients = {n: p.grad for n, p in original.learnable().items()}
    assert gradients
    assert all(g is not None for n, g in gradients.items() if "visual_net" not in n)
    assert all(n.startswith("model.prompt_learner.") for n in gradients)
    if name == "dplq":
        fast = build_side("ours", ours)
        fast.set_classes(class_names(2))
        assert step_checks.against_release(fast, original, images)["passed"]


def row(side, classes, seconds, how="measured", memory=None):
    found = {"step": memory, "absolute": memory, "by": "test"} if memory else None
    size = {"what": "train", "batch": 2, "classes": classes, "flops": 100}
    return {**size, "side": side, "seconds": seconds, "how": how, "memory": found}


def test_extrapolated_rows_are_marked():
    rows = [row("ours", k, 1.0, memory=10) for k in (10, 20, 100)]
    rows += [row("plain", 10, 3.0, memory=50), row("plain", 20, 5.0, memory=90)]
    rows += [row("plain", 100, None, step.GROWS), row("cocoop", 10, 2.0)]
    rows += [row("cocoop", 100, None, step.GROWS)]
    step_report.complete(rows, peak=50)
    plain, cocoop = rows[5], rows[7]
    assert (plain["seconds"], plain["how"]) == (21.0, step_report.EXTRAPOLATED)
    assert plain["memory_guess"] == 410
    assert plain["time_over_ours"] == 21
    assert (cocoop["seconds"], cocoop["how"]) == (None, step.GROWS)
    assert rows[0]["fraction_of_bound"] == 2.0
    told = "\n".join(step_report.summary(rows))
    assert "K = 100: plain / ours 21.00 (extrapolated, linear in K)" in told
    assert "plain / ours 41.00 (memory extrapolated, linear in K)" in told


class Masked(nn.Module):
    """A linear layer with a tensor in a plain attribute."""

    def __init__(self):
        super().__init__()
        self.layer, self.mask = nn.Linear(8, 4, bias=False), torch.ones(4)

    def forward(self, x):
        self.mask = self.mask.to(x.device)
        return (self.layer(x) * self.mask).sum()


def test_flops_without_computing():
    module = Masked()
    count = step_meters.count_flops(module, lambda f, x: f(x).backward(), [torch.ones(3, 8)])
    assert count == 2 * (2 * 3 * 8 * 4)  # forward, and the weight's gradient
    assert module.mask.device == CPU
    assert module.layer.weight.grad is None


def test_flops_of_attention():
    attention = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    with torch.no_grad():
        x = torch.ones(1, 5, 16)
        found = step_meters.count_flops(attention, lambda f, x: f(x, x, x), [x])
    assert found == 2 * (4 * 5 * 16 * 16 + 2 * 5 * 5 * 16)


def test_memory_of_a_call():
    found = step_meters.memory(lambda: torch.ones(64, 2**18).sum(), CPU)
    if found["by"] == "VmHWM":
        assert 60 <= found["step"] <= 90
    assert found["absolute"] >= found["step"]


def test_memory_of_a_side_in_a_process_of_its_own(capsys):
    assert step.main([*ONCE, "--memory-of", "ours", "train", "2", "3"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 < found["step"] < found["absolute"]


def test_class_names():
    for count in (10, 45, 1000):
        names = class_names(count)
        assert len(names) == len(set(names)) == count
    assert class_names(1000)[:23] == class_names(23)


def test_losses_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    labels = torch.tensor([0, 3, 1])
    F.cross_entropy(logits, labels).backward()
    torch.testing.assert_close(step_checks._losses_gradient(logits, labels), logits.grad)


def test_sweep_with_kept_features(capsys):
    """Weights are equal on both sides, and the table says so."""
    words = ["--tiny", "--settings", "2", "--steps", "1", "--trainers", "QuaternionPrompt", "CoOp"]
    assert frozen_cache.main(words) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "bit" not in line]
    assert [[row[1].strip(), row[-2].strip()] for row in rows[1:]] == [
        ["QuaternionPrompt", "2 of 2"],
        ["CoOp", "2 of 2"],
    ]
