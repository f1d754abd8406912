"""Prompt methods against the originals, run unmodified beside ours.

Skipped without checkouts of the originals and of Dassl (see tests/peers.py).
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

import dplq.trainers  # noqa: F401 (makes `import dassl` work)
from tests.peers import peer
from tests.references.originals import CASES, Bench, compare, relative
from tests.references.run_original import run_trainers

TOLERANCE = 1e-4
ROUNDED = 1e-3  # of the change of weights that are much larger than it
# What an original's code takes for granted: layers, and the widths of ViT-B/16.
SIZES = {"MaPLe": (3, (512, 768)), "TCP": (10, (512, 64))}
OTHERS = (3, (64, 64))
SAVED = (
    *("CoOp, words", "CoOp, end, class-specific", "CoCoOp, words", "MaPLe", "VPT, deep", "IVLP"),
    *("KgCoOp, words", "ProGrad, words", "TCP", "BiomedCoOp"),
)


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """The CLIP of each trainer; most share one that is small."""
    peer("Dassl.pytorch")  # or skip

    @cache
    def of_size(layers, widths):
        folder = tmp_path_factory.mktemp("clip")
        return Bench(folder, layers=layers, image_size=32, widths=widths)

    return lambda case: of_size(*SIZES.get(case.trainer, OTHERS))


@pytest.fixture(scope="module")
def answers(benches, tmp_path_factory):
    """What the originals answer, all of a tree in one process: case -> answer, checkpoints."""
    saved, started = tmp_path_factory.mktemp("saved"), {}

    def run(name):
        more = {"save": str(saved / name)} if name in SAVED else {}
        return benches(CASES[name]).run(CASES[name], **more)

    def answer(name):
        tree = CASES[name].tree
        peer(tree), peer(CASES[name].dassl)  # or skip
        names, future = started[tree]
        return future.result()[names.index(name)], saved / name

    with ThreadPoolExecutor() as pool:
        for tree in {case.tree for case in CASES.values()}:
            with contextlib.suppress(pytest.skip.Exception):
                names = [name for name, case in CASES.items() if case.tree == tree]
                dassl = peer(CASES[names[0]].dassl)
                places = (peer(tree), {}, [run(name) for name in names], dassl)
                started[tree] = names, pool.submit(run_trainers, *places)
        yield answer


@pytest.mark.parametrize("name", CASES)
def test_equals_the_original(name, benches, answers):
    """Logits, gradients and the weights after one step of SGD."""
    case = CASES[name]
    found = compare(benches(case), case, answers(name)[0])
    assert max(found.logits, found.gradients, found.weights) <= TOLERANCE, found
    assert found.step <= ROUNDED, found


@pytest.mark.parametrize("name", SAVED)
def test_the_original_s_checkpoint_gives_its_logits(name, benches, answers):
    answer, folder = answers(name)
    case, bench = CASES[name], benches(CASES[name])
    for epoch in (1, None):
        trainer = bench.ours(case)
        trainer.load_model(str(folder), epoch)
        trainer.model.eval()
        logits = trainer.model_inference(bench.batch()[0])
        assert relative(logits, answer["after"]) <= TOLERANCE
        assert relative(answer["logits"], answer["after"]) > 10 * TOLERANCE
        assert trainer.tested_epoch == 1
