"""Training steps from a graph end with the same weights, bit for bit."""

from __future__ import annotations

import logging
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from dplq.trainers._engine import base
from dplq.training.frozen.batch import FrozenBatch
from dplq.training.seeding import seed_all
from dplq.training.step_graph import MOST, WARM_UP, CUDARecorder, NotRecordable, StepGraph
from tests.fuzz.tiny_runs import build, quiet

# trainer -> keys beside those of the tiny project
TRAINERS = {
    "CoOp": {"N_CTX": 2},
    "CoCoOp": {"N_CTX": 2},
    "KgCoOp": {},
    "ProGrad": {},
    "TCP": {"CLASS_LAYER": 1},
    "BiomedCoOp": {"TEXTS": "templates", "N_PROMPTS": 5},
    "VPT": {"PROMPT_DEPTH_VISION": 2},
    "IVLP": {"PROMPT_DEPTH_VISION": 2, "PROMPT_DEPTH_TEXT": 2},
    "MaPLe": {"PROMPT_DEPTH": 2},
    "PromptSRC": {"PROMPT_DEPTH_VISION": 2, "PROMPT_DEPTH_TEXT": 2},
    "DCPL": {"PROMPT_DEPTH": 2},
    "QuaternionPrompt": {"PROMPT_DEPTH": 2},
    "CLIPLoRA": {"ITERATIONS": 0},
    "CLIPSVD": {},
    "GDPL": {"PROMPT_DEPTH": 2, "DELTA_DEPTH": 2},
}
MORE = {"residual_head": ("QuaternionPrompt", {"PRESET": "residual_head", "PROMPT_DEPTH": 2})}
CASES = {**{name: (name, keys) for name, keys in TRAINERS.items()}, **MORE}
CASES["adamw"] = CASES["CoOp"]  # which counts its steps on the CPU
pytestmark = pytest.mark.usefixtures("own_cache")
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Launches(TorchDispatchMode):
    """What a step launches: operations, their numbers, the tensors from outside that they read."""

    def __init__(self) -> None:
        super().__init__()
        self.log, self._own = [], set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given, _ = tree_flatten((args, kwargs or {}))
        read = [x.data_ptr() for x in given if isinstance(x, Tensor)]
        numbers = [x for x in given if isinstance(x, (bool, int, float, str))]
        self.log.append((str(func), numbers, [p for p in read if p and p not in self._own]))
        found = func(*args, **(kwargs or {}))
        made, _ = tree_flatten(found)
        self._own |= {x.data_ptr() for x in made if isinstance(x, Tensor)} - set(self.log[-1][2])
        return found


class Again:
    """A recorder that computes a recorded step anew, into the tensors of the record."""

    def __init__(self, parameters, generators=()) -> None:
        self.parameters, self.replays = parameters, 0
        self.generators = [torch.default_generator, *generators]

    def warm_up(self, function):
        return function()

    check = warm_up

    def record(self, function):
        states = [generator.get_state() for generator in self.generators]
        numbers = function()
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)  # a record computes nothing
        gradients = [own.grad for own in self.parameters]

        def replay() -> None:
            self.replays += 1
            found = function()
            for old, new in zip(numbers, found, strict=True):
                old.copy_(new)
            for old, own in zip(gradients, self.parameters, strict=True):
                if old is not None:
                    old.copy_(own.grad)

        return numbers, replay


def config(project, case, out, graph, *, precision="fp32", use_cuda=False, workers=0):
    name, keys = CASES[case]
    cfg = project.clone()
    cfg.TRAINER.NAME, cfg.OUTPUT_DIR, cfg.OPTIM.MAX_EPOCH = name, str(out), 2
    cfg.OPTIM.WARMUP_EPOCH, cfg.USE_CUDA, cfg.TRAIN.CUDA_GRAPH = -1, use_cuda, graph
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.OPTIM.NAME = "adamw" if case == "adamw" else "sgd"
    for key, value in {**keys, "PREC": precision}.items():
        cfg.TRAINER[name.upper()][key] = value
    return cfg


def learned(trainer) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in trainer.model.prompt_learner.state_dict().items()}


def test_every_trainer_whose_steps_are_recorded_is_tested(project):
    from dplq.host.dassl import registered_trainers

    recording = {one.__name__ for one in registered_trainers() if getattr(one, "records_steps", 0)}
    assert recording == set(TRAINERS)


@pytest.mark.parametrize("case", CASES)
def test_recorded_steps_end_with_the_same_weights(project, tmp_path, case):
    """On the CPU a stand-in computes what is recorded; the first epoch's features are kept."""
    plain = build(config(project, case, tmp_path / "plain", graph=False))
    graphed = build(config(project, case, tmp_path / "graphed", graph=True))
    start = learned(graphed)
    recorder = Again(graphed.optimized_parameters, [graphed.model.noise_generator])
    graphed.gradients_of = StepGraph(
        graphed.compute_gradients, graphed.model, graphed.optimized_parameters, recorder
    )
    with quiet():
        plain.train()
        graphed.train()
    assert recorder.replays >= 2
    expected = learned(plain)
    assert any(not torch.equal(start[key], expected[key]) for key in expected)
    for key, tensor in learned(graphed).items():
        assert torch.equal(tensor, expected[key]), key
    files = [tmp_path / run / "predictions.csv" for run in ("plain", "graphed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def launched(trainer, images, labels):
    """What a training step launches that begins without gradients."""
    trainer.set_model_mode("train")
    trainer.optim.zero_grad()
    with Launches() as launches:
        trainer.compute_gradients(images, labels)
    return launches.log


@pytest.mark.parametrize("case", [*CASES, "TwoStage"])
def test_all_steps_launch_the_same(project, tmp_path, case):
    """When it is recorded, and after validations, a test and the loading of the best model."""
    if case == "TwoStage":
        cfg = config(project, "CoOp", tmp_path / "run", graph=False)
        cfg.TRAINER.NAME, cfg.TRAINER.TWOSTAGE.ITERATIONS = "TwoStage", 0
        cfg.TRAINER.TWOSTAGE.PREC = "fp32"
    else:
        cfg = config(project, case, tmp_path / "run", graph=False)
    cfg.TEST.FINAL_MODEL = "last_step" if case == "TwoStage" else "best_val"
    cfg.TRAIN.FEATURE_CACHE = 0.0  # all features are computed
    trainer, logs, given = build(cfg), [], []

    def step(images, labels):
        given.append((images, labels))
        if len(given) == WARM_UP + 1:
            logs.append(launched(trainer, *given[0]))
        return trainer.compute_gradients(images, labels)

    trainer.gradients_of = step
    with quiet():
        trainer.train()
    logs.append(launched(trainer, *given[0]))
    assert len(logs[0]) > 100
    assert (logs[0] == logs[1]) == (case != "TwoStage")


def test_a_subclass_says_for_itself_that_its_steps_are_recorded():
    from dplq.trainers.coop import CoOp

    class Other(CoOp):
        pass

    for kind, is_recorded in ((CoOp, True), (Other, False)):
        given = SimpleNamespace(TRAIN=SimpleNamespace(CUDA_GRAPH=True))
        trainer = kind.__new__(kind)
        trainer.cfg, trainer.device = given, torch.device("cuda")
        trainer.optim, trainer.model = SimpleNamespace(param_groups=[]), None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(base, "CUDARecorder", lambda *given: None)
            given.MODEL = SimpleNamespace(COMPILE="", GRAD_CHECKPOINTING=False)
            trainer.model = SimpleNamespace(noise_generator=None)
            assert isinstance(trainer._gradient_function(), StepGraph) == is_recorded


@pytest.mark.gpu
@ON_GPU
@pytest.mark.parametrize("precision", ["fp32", "fp16", "amp", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_a_graph_on_a_gpu_ends_with_the_same_weights(project, tmp_path, caplog, case, precision):
    ends = {}
    for graph in (False, True):
        out = tmp_path / str(graph)
        given = config(project, case, out, graph, precision=precision, use_cuda=True, workers=1)
        trainer = build(given)
        if trainer.scaler is not None:  # the tiny CLIP's gradients overflow at the usual scale
            trainer.scaler = torch.amp.GradScaler("cuda", init_scale=1024)
        caplog.clear()
        with quiet(), caplog.at_level(logging.INFO):
            trainer.train()
        ends[graph] = learned(trainer)
        assert ("launched as a CUDA graph" in caplog.text) == graph, caplog.text
    for key, tensor in ends[True].items():
        assert torch.equal(tensor, ends[False][key]), key


def reads_a_value(tensor):
    assert tensor.detach().sum().item() < 1e9


def waits_for_all(tensor):
    torch.cuda.synchronize()


@pytest.mark.gpu
@ON_GPU
@pytest.mark.parametrize(
    ("wait", "reason"),
    [(reads_a_value, "called a synchronizing CUDA operation"), (waits_for_all, "captur")],
)
def test_a_step_that_waits_for_the_device_is_not_recorded(caplog, wait, reason):
    """It is said once, and the steps and their random numbers go on as without a graph."""
    device = torch.device("cuda")
    generator = torch.Generator(device)
    weight = torch.nn.Parameter(torch.ones(3, device=device))

    def step(images, labels):
        weight.grad = None
        noise = torch.randn(3, device=device, generator=generator)
        noise = noise + torch.randn(3, device=device)
        loss = (weight * images * noise).sum()
        if waits:
            wait(loss)
        loss.backward()
        return loss.detach(), noise

    ends = {}
    for waits in (False, True):
        torch.manual_seed(3)
        generator.manual_seed(4)
        run = StepGraph(step, Plain(), [weight], CUDARecorder(device, [generator]))
        images, labels = torch.ones(3, device=device), torch.zeros(1, device=device)
        ends[waits] = [run(images, labels)[1].cpu() for _ in range(WARM_UP + 5)]
    (said,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert said.startswith("Training steps are not recorded as a CUDA graph: ")
    assert reason in said
    assert all(torch.equal(a, b) for a, b in zip(*ends.values(), strict=True))


class Records(Again):
    """One that leaves the generators as a record does that draws outside the GPU."""

    def record(self, function):
        return function(), lambda: None


class Plain:
    """A model of which nothing is known."""

    frozen_batch = None


def linear_step(weight):
    def step(images, labels):
        weight.grad = None
        logits = images @ weight
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        return loss.detach(), logits.detach()

    return step


def batch(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 5, generator=generator), torch.arange(size) % 3


def test_every_kind_of_step_has_a_graph_of_its_own():
    weight = torch.nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)))
    recorder = Again([weight])
    run, plain = StepGraph(linear_step(weight), Plain(), [weight], recorder), linear_step(weight)
    for turn in range(WARM_UP + 2):
        for size in (2, 3):
            expected = plain(*batch(size, turn))
            gradient = weight.grad.clone()
            found = run(*batch(size, turn))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
            assert torch.equal(weight.grad, gradient)
    assert recorder.replays == 4
    sizes = range(4, 4 + MOST)
    for _ in range(WARM_UP + 2):
        for size in sizes:
            run(*batch(size))
    assert recorder.replays == 4 + 2 * (MOST - 2)  # no more graphs than MOST


def test_a_step_that_cannot_be_recorded_is_made_as_ever(caplog):
    weight = torch.nn.Parameter(torch.zeros(5, 3))

    class Refuses(Again):
        def record(self, function):
            raise NotRecordable("operation not permitted")

    run = StepGraph(linear_step(weight), Plain(), [weight], Refuses([weight]))
    losses = [float(run(*batch(2))[0]) for _ in range(WARM_UP + 3)]
    assert len(set(losses)) == 1
    said = "Training steps are not recorded as a CUDA graph: operation not permitted"
    assert [record.message for record in caplog.records] == [said]


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(1)])
def test_draws_outside_the_gpu_are_not_recorded(caplog, draw):
    """The draws go on as without a graph."""
    weight = torch.nn.Parameter(torch.zeros(5, 3))
    plain = linear_step(weight)
    numbers = {}

    def step(images, labels):
        numbers[name].append(float(draw()))
        return plain(images, labels)

    for name in ("plain", "graph"):
        numbers[name] = []
        seed_all(3)
        run = step if name == "plain" else StepGraph(step, Plain(), [weight], Records([weight]))
        for _ in range(WARM_UP + 3):
            run(*batch(2))
    assert numbers["graph"][:WARM_UP] == numbers["plain"][:WARM_UP]
    assert numbers["graph"][-3:] == numbers["plain"][-3:]
    said = (
        "Training steps are not recorded as a CUDA graph: it draws random numbers outside the GPU"
    )
    assert [record.message for record in caplog.records] == [said]


def test_features_are_those_of_the_very_images():
    """Of changed images nothing is known, and nothing is kept."""
    weight = torch.nn.Parameter(torch.ones(1))
    model = SimpleNamespace(frozen_batch=None)

    def step(images, labels):
        weight.grad = None
        frozen = model.frozen_batch
        feature = frozen.feature("clip", images, lambda: images.sum(dim=1))
        loss = (weight * feature).sum()
        loss.backward()
        return loss.detach(), feature

    run = StepGraph(step, model, [weight], Again([weight]))
    for turn in range(WARM_UP + 3):
        images = torch.full((2, 3), float(turn))
        for is_own in (True, False):
            given = FrozenBatch({"clip": torch.tensor([-1.0, -2.0])})
            given.images = images if is_own else images.clone()
            model.frozen_batch = given
            loss, _ = run(images, torch.zeros(2))
            assert float(loss) == (-3.0 if is_own else 6.0 * turn)
            assert given.computed == {}


def test_what_a_step_returned_stays_as_it_was():
    weight = torch.nn.Parameter(torch.zeros(5, 3))
    run = StepGraph(linear_step(weight), Plain(), [weight], Again([weight]))
    for _ in range(WARM_UP + 1):
        first = run(*batch(2, seed=0))
    kept = [tensor.clone() for tensor in first]
    weight.data.fill_(1.0)
    run(*batch(2, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))
