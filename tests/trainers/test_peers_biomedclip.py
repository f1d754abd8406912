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
def bench(tmp_path_factory):
    """The CLIP of both sides."""
    peer(TREE)  # or skip
    return BiomedBench(tmp_path_factory.mktemp("biomedclip"))


@pytest.fixture(scope="module")
def answers(bench):
    """What the originals answer, by case."""
    cases = {**CASES, "zero-shot": ZEROSHOT}
    runs = [bench.run(case) for case in cases.values()]
    found = run_trainers(peer(TREE), {}, runs, peer("Dassl.pytorch"))
    return dict(zip(cases, found, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_equals_the_original(name, bench, answers):
    """Logits, gradients and the weights after one step of SGD."""
    found = compare(bench, CASES[name], answers[name])
    assert max(found.logits, found.gradients, found.weights) <= TOLERANCE, found
    assert found.step <= ROUNDED, found


def test_zero_shot_equals_the_original(bench, answers):
    trainer = bench.ours(ZEROSHOT)
    with torch.no_grad():
        logits = trainer.model_inference(bench.batch()[0])
    assert relative(logits, answers["zero-shot"]["logits"]) <= TOLERANCE
