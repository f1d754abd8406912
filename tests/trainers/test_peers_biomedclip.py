"""Prompt methods on BiomedCLIP against BiomedCoOp's trainers, run unmodified beside ours.

Skipped without checkouts of BiomedCoOp and of Dassl (see tests/peers.py).
"""

from __future__ import annotations

import pytest
import torch

import dplq.trainers  # noqa: F401 (makes `import dassl` work)
from tests.peers import peer
from tests.references.biomedclip import CASES, TREE, ZEROSHOT, BiomedBench
from tests.references.originals import compare, relative
from tests.references.run_original import run_trainers

TOLERANCE = 1e-4
ROUNDED = 1e-3  # of the change of weights that are much larger than it


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """The CLIP of each case; BiomedCoOp's own method leaves dropout on in the frozen text tower."""
    peer(TREE)  # or skip
    plain = BiomedBench(tmp_path_factory.mktemp("biomedclip"))
    without = BiomedBench(tmp_path_factory.mktemp("no_dropout"), dropout=0.0)
    return lambda case: without if case.trainer == "BiomedCoOp" else plain


@pytest.fixture(scope="module")
def answers(benches):
    """What the originals answer, by case."""
    cases = {**CASES, "zero-shot": ZEROSHOT}
    runs = [benches(case).run(case) for case in cases.values()]
    found = run_trainers(peer(TREE), {}, runs, peer("Dassl.pytorch"))
    return dict(zip(cases, found, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_equals_the_original(name, benches, answers):
    """Logits, gradients and the weights after one step of SGD."""
    case = CASES[name]
    found = compare(benches(case), case, answers[name])
    assert max(found.logits, found.gradients, found.weights) <= TOLERANCE, found
    assert found.step <= ROUNDED, found


def test_zero_shot_equals_the_original(benches, answers):
    bench = benches(ZEROSHOT)
    trainer = bench.ours(ZEROSHOT)
    with torch.no_grad():
        logits = trainer.model_inference(bench.batch()[0])
    assert relative(logits, answers["zero-shot"]["logits"]) <= TOLERANCE
