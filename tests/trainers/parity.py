"""Many steps of an original's trainer against ours; `originals` compares one step of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.references.originals import Bench, Case, relative
from tests.references.run_original import Run

TOLERANCE = 1e-4
CLASSNAMES = ["river", "parking_lot"]
IMAGES, SEED = 2, 7
Names = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def run(bench: Bench, case: Case, *, epochs: int, per_epoch: int, **settings: Any) -> Run:
    """The original's run with that many epochs and steps; `settings` as of `Run`."""
    generator = torch.Generator().manual_seed(SEED)
    steps, pixels = epochs * per_epoch, bench.image_size
    common = {"classnames": CLASSNAMES, "epochs": epochs, "seed": SEED, "optim": {}}
    run = bench.run(case, **{**common, **settings})
    run.given = {
        "images": torch.randn(steps, IMAGES, 3, pixels, pixels, generator=generator),
        "labels": torch.randint(len(CLASSNAMES), (steps, IMAGES), generator=generator),
    }
    return run


def part(answer: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The entries ``NAME.*`` of an answer."""
    return {k.split(".", 1)[1]: v for k, v in answer.items() if k.startswith(f"{name}.")}


def assert_same(trainer: Any, run: Run, answer: dict[str, Tensor], names: Names) -> None:
    """Let our trainer take the steps of a run; all numbers must be those of the answer.

    Args:
        trainer: ours, built (`originals.Bench.ours`).
        run: what the original did.
        answer: its numbers.
        names: their names of learnable tensors -> ours.
    """
    learner, epochs = trainer.model.prompt_learner, run.settings["epochs"]

    def theirs(name: str) -> dict[str, Tensor]:
        return names(part(answer, name))

    def evaluate() -> Tensor:
        trainer.model.eval()
        trainer.model.noise_generator.manual_seed(SEED)
        with torch.no_grad():
            return trainer.model(run.given["images"][0])

    def same(what: str, values: dict[str, Tensor], reference: dict[str, Tensor]) -> None:
        assert values.keys() == reference.keys()
        wrong = {n: relative(values[n].detach(), reference[n]) for n in values}
        assert max(wrong.values()) <= TOLERANCE, (what, wrong)

    trainer.model.set_classnames(CLASSNAMES)
    learner.load_state_dict(theirs("state"))
    same("logits", {"": evaluate()}, {"": answer["logits"]})
    trainer.model.train()
    losses, trainer.max_epoch = [], epochs
    trainer.num_batches = len(run.given["images"]) // epochs
    batches = zip(run.given["images"], run.given["labels"], strict=True)
    for step, (images, labels) in enumerate(batches):
        trainer.epoch, trainer.batch_idx = divmod(step, trainer.num_batches)
        trainer.model.noise_generator.manual_seed(SEED + 1 + step)
        losses.append(trainer.forward_backward({"img": images, "label": labels})["loss"])
        if not step:
            parameters = dict(learner.named_parameters())
            same("gradients", {n: p.grad for n, p in parameters.items()}, theirs("grad"))
            same("one step", parameters, theirs("first"))
        if trainer.batch_idx + 1 == trainer.num_batches:
            trainer.after_epoch()
    same("losses", {"": torch.tensor(losses)}, {"": answer["loss"]})
    same("last weights", dict(learner.named_parameters()), theirs("last"))
    same("last logits", {"": evaluate()}, {"": answer["after"]})
