"""CLIP-LoRA, CLIP-SVD and 2SFS against the originals, run unmodified: logits, gradients, one step.

Skipped without checkouts of CLIP-LoRA, CLIP-SVD and rethinking_fewshot_vlms (see tests/peers.py).
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import dplq.trainers  # noqa: F401 (makes `import dassl` work)
from dplq.methods.registry import create_model
from tests.peers import peer
from tests.references.originals import Bench, relative
from tests.references.run_delta import DECAY, RATE, run

CLASSNAMES = ["river", "parking_lot", "Dense Residential Area", "a"]
OTHERS = ["lake", "storage tank"]
TOLERANCE = 1e-4
QKV = ("q_proj", "k_proj", "v_proj")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("clip"), layers=3, image_size=32, widths=(64, 128))


def moved(model, std=0.05):
    """Move all learnable weights; return by how much."""
    generator, moves = torch.Generator().manual_seed(0), {}
    with torch.no_grad():
        for name, parameter in model.prompt_learner.named_parameters():
            moves[name] = std * torch.randn(parameter.shape, generator=generator)
            parameter += moves[name]
    return moves


def lora_names(tensors):
    """Our tensors under CLIP-LoRA's names."""
    found = {}
    for name, tensor in tensors.items():
        path, part = name.replace("/", ".").rsplit(".in_proj_weight.", 1)
        letter = {"down": "A", "up": "B"}[part]
        found |= {f"{path}.{q}.w_lora_{letter}": tensor[i] for i, q in enumerate(QKV)}
    return found


def svd_names(tensors):
    """Our tensors under CLIP-SVD's names."""
    found = {}
    for name, tensor in tensors.items():
        weight = name.replace("/", ".").removesuffix(".values")
        if weight.endswith("in_proj_weight"):
            path = weight.removesuffix("in_proj_weight")
            found |= {f"{path}{q}.vector_S": tensor[i : i + 1] for i, q in enumerate(QKV)}
        else:
            path = weight.removesuffix(".weight").replace("out_proj", "proj")
            found[f"{path}.vector_S"] = tensor
    return found


def norm_names(tensors):
    """Our tensors under 2SFS' names, the model's own; the classifier apart."""
    return {
        name.removeprefix("deltas.").removesuffix(".value").replace("/", "."): tensor
        for name, tensor in tensors.items()
        if name != "classifier"
    }


def question(bench, state):
    images, labels = bench.batch()
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in CLASSNAMES + OTHERS]
    tokens = bench.backbone.tokenize(texts)
    return {
        **{f"clip.{name}": tensor for name, tensor in bench.clip.items()},
        **{f"state.{name}": tensor for name, tensor in state.items()},
        "images": images,
        "labels": labels,
        "tokens": tokens[: len(CLASSNAMES)],
        "others": tokens[len(CLASSNAMES) :],
    }


def step(model, bench):
    """Logits, gradients and weights after one step of AdamW."""
    images, labels = bench.batch()
    parameters = dict(model.prompt_learner.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=DECAY)
    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    learned = {name: p for name, p in parameters.items() if p.grad is not None}
    grads = {name: p.grad.clone() for name, p in learned.items()}
    optimizer.step()
    return logits.detach(), grads, {name: p.detach().clone() for name, p in learned.items()}


def largest_differences(ours, answer, names):
    """Largest relative difference of logits, gradients and weights after the step."""
    logits, grads, after = ours
    found = [relative(logits, answer["logits"])]
    # A tensor's gradients are compared on the scale of all: some are zero but for rounding.
    scale = max(float(g.abs().max()) for g in grads.values())
    for part, tensors in (("grad", names(grads)), ("after", names(after))):
        theirs = {k.removeprefix(f"{part}."): v for k, v in answer.items() if k.startswith(part)}
        assert tensors.keys() == theirs.keys()
        size = {"grad": scale, "after": 1.0}[part]
        worst = max(
            float((tensors[k].reshape(theirs[k].shape) - theirs[k]).abs().max()) for k in theirs
        )
        found.append(worst / size)
    return found


CASES = {
    "CLIPLoRA": ("CLIP-LoRA", lora_names, {"dropout": 0.0}),
    "CLIPSVD": ("CLIP-SVD", svd_names, {}),
    "TwoStage": ("rethinking_fewshot_vlms", norm_names, {}),
}


def compare(bench, method):
    """Our model after the step, the original's answer, and the largest differences."""
    tree, names, settings = CASES[method]
    model = create_model(method, bench.backbone, CLASSNAMES, seed=1, **settings)
    model.train()
    moves = moved(model)
    if method == "CLIPLoRA":  # of theirs the whole state is given
        moves = dict(model.prompt_learner.named_parameters())
    answer = run(peer(tree), question(bench, names(moves)))
    first = {k: v for k, v in answer.items() if not k.startswith("second.")}
    return model, answer, largest_differences(step(model, bench), first, names)


@pytest.mark.parametrize("method", CASES)
def test_equals_the_original(method, bench):
    _, _, found = compare(bench, method)
    assert max(found) <= TOLERANCE, found


def test_the_second_stage_of_2sfs(bench):
    """The classifier's start, its step, and the rows for classes that were not trained."""
    model, answer, _ = compare(bench, "TwoStage")
    second = {k.removeprefix("second."): v for k, v in answer.items() if k.startswith("second.")}
    mixed = second.pop("mixed")
    model.zero_grad()
    model.begin_second_stage()
    found = largest_differences(step(model, bench), second, lambda tensors: tensors)
    assert max(found) <= TOLERANCE, found
    model.eval()
    model.set_classnames([OTHERS[0], CLASSNAMES[0], OTHERS[1]])
    assert relative(model(bench.batch()[0]), mixed) <= TOLERANCE
