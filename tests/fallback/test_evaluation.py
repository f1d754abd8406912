"""The result block, its numbers, and the metrics."""

from __future__ import annotations

import pytest
import torch
from dassl.config import clean_cfg, get_cfg_default
from dassl.evaluation import build_evaluator
from dassl.metrics import compute_accuracy, compute_distance_matrix
from dassl.utils import InputError

TRUE = torch.tensor([0, 0, 0, 1, 1, 2])
PRED = torch.tensor([0, 0, 1, 1, 2, 2])


def _evaluate(cfg) -> dict:
    evaluator = build_evaluator(cfg, lab2cname={0: "ant", 1: "bee", 2: "cat"})
    for part in (slice(0, 4), slice(4, 6)):
        evaluator.process(torch.eye(3)[PRED[part]], TRUE[part])
    return evaluator.evaluate()


def test_numbers_and_lines(tmp_path, capsys):
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR, cfg.TEST.PER_CLASS_RESULT, cfg.TEST.COMPUTE_CMAT = str(tmp_path), True, True
    results = _evaluate(cfg)
    # F1: ant 2*2/(2+3), bee 2*1/(2+2), cat 2*1/(2+1)
    assert list(results) == ["accuracy", "error_rate", "macro_f1", "perclass_accuracy"]
    expected = [400 / 6, 200 / 6, 100 * (4 / 5 + 1 / 2 + 2 / 3) / 3, 100 * (2 / 3 + 1 / 2 + 1) / 3]
    assert list(results.values()) == pytest.approx(expected)
    assert all(type(value) is float for value in results.values())
    assert capsys.readouterr().out.splitlines()[1:-1] == [
        "=> result",
        "* total: 6",
        "* correct: 4",
        "* accuracy: 66.7%",
        "* error: 33.3%",
        "* macro_f1: 65.6%",
        "=> per-class result",
        "* class: 0 (ant)\ttotal: 3\tcorrect: 2\tacc: 66.7%",
        "* class: 1 (bee)\ttotal: 2\tcorrect: 1\tacc: 50.0%",
        "* class: 2 (cat)\ttotal: 1\tcorrect: 1\tacc: 100.0%",
        "* average: 72.2%",
    ]
    matrix = torch.load(tmp_path / "cmat.pt", weights_only=True)
    rows = [[2 / 3, 1 / 3, 0], [0, 0.5, 0.5], [0, 0, 1]]
    assert torch.allclose(matrix, torch.tensor(rows, dtype=torch.float64))


def test_nothing_to_evaluate():
    evaluator = build_evaluator(get_cfg_default())
    with pytest.raises(InputError, match="no image has been processed"):
        evaluator.evaluate()


def test_accuracy_and_distances():
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    first, second = compute_accuracy(scores, torch.tensor([1, 2, 0, 0]), topk=(1, 2))
    assert (first.item(), second.item(), tuple(first.shape)) == (50.0, 75.0, (1,))
    a, b = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    squared = compute_distance_matrix(a, b)
    assert torch.allclose(squared, torch.tensor([[25.0, 13.0], [1.0, 5.0]]))
    cosine = compute_distance_matrix(a, b[1:], "cosine")
    assert torch.allclose(cosine, torch.tensor([[0.2], [1.0]]))


def test_config_copies_are_independent_and_can_be_cleaned():
    cfg = get_cfg_default()
    cfg.INPUT.SIZE, cfg.DATALOADER.TRAIN_X.BATCH_SIZE = (9, 9), 3
    assert get_cfg_default().INPUT.SIZE == (224, 224)
    assert cfg.DATALOADER.TRAIN_U.BATCH_SIZE == get_cfg_default().DATALOADER.TRAIN_X.BATCH_SIZE
    clean_cfg(cfg, "fixmatch")
    assert sorted(cfg.TRAINER) == ["FIXMATCH", "NAME"]
