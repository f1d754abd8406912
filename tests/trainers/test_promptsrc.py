"""PromptSRC: equal to the authors' trainer; its losses, aggregation, command line and resume."""

from __future__ import annotations

import json
import math
import signal

import open_clip
import pytest
import torch

import dplq.trainers  # noqa: F401 (makes `import dassl` work)
from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.methods.aggregation import GaussianAverage
from dplq.methods.promptsrc import PromptSRCModel
from dplq.trainers._engine.base import PromptTrainer
from tests.peers import peer
from tests.references.originals import Bench, Case
from tests.references.run_original import run_trainers
from tests.runner import make_project, train
from tests.tiny import tiny_backbone
from tests.trainers import parity
from tests.trainers.test_resume import signal_at_step

EPOCHS = 3
KEYS = {
    "N_CTX_TEXT": 4,
    "N_CTX_VISION": 3,
    "CTX_INIT": "a photo of a",
    "PROMPT_DEPTH_TEXT": 2,
    "PROMPT_DEPTH_VISION": 3,
    "TEXT_LOSS_WEIGHT": 25,
    "IMAGE_LOSS_WEIGHT": 10,
    "GPA_MEAN": 2,
    "GPA_STD": 1,
}
CASE = Case("PromptSRC", "promptsrc", "PromptSRC", KEYS)
NAMES = ["forest", "parking_lot", "storage tank"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("clip"), layers=3, image_size=32, widths=(64, 64))


@pytest.fixture(scope="module")
def original(bench, tmp_path_factory):
    """Three epochs of two steps of the authors' trainer, which saves its weights in the end."""
    saved = tmp_path_factory.mktemp("saved")
    run = parity.run(bench, CASE, epochs=EPOCHS, per_epoch=2, save=str(saved))
    return run, run_trainers(peer("PromptSRC"), {}, [run])[0], saved


@pytest.fixture
def trainer(bench, monkeypatch):
    """Ours, which neither validates nor saves."""
    monkeypatch.setattr(PromptTrainer, "after_epoch", lambda self: None)
    return bench.ours(CASE, EPOCHS)


def test_equals_the_authors_trainer(trainer, original):
    """Logits, gradients, every loss, one step's weights, and the aggregated ones in the end."""
    run, answer, _ = original
    parity.assert_same(trainer, run, answer, PromptSRCModel.public.translate)


def test_terms_equal_the_authors(trainer, original):
    run, answer, _ = original
    model, names = trainer.model, PromptSRCModel.public.translate
    model.set_classnames(parity.CLASSNAMES)
    model.prompt_learner.load_state_dict(names(parity.part(answer, "state")))
    terms, logits = model.losses(run.given["images"][0], run.given["labels"][0])
    theirs = {
        "ce": answer["terms.cross_entropy.0"],
        "text": answer["terms.l1_loss.0"] * 25,
        "image": answer["terms.l1_loss.1"] * 10,
        "logits": answer["terms.kl_div.0"] / logits.numel(),
    }
    for name, value in theirs.items():
        torch.testing.assert_close(terms[name], value, rtol=parity.TOLERANCE, atol=0)


def test_the_authors_checkpoint_gives_their_logits(trainer, original):
    run, answer, saved = original
    trainer.model.set_classnames(parity.CLASSNAMES)
    trainer.load_model(str(saved), EPOCHS)
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(run.given["images"][0])
    torch.testing.assert_close(logits, answer["after"], rtol=parity.TOLERANCE, atol=1e-5)


@pytest.fixture(scope="module")
def model():
    clip = tiny_backbone()
    sizes = {"prompt_depth_text": 2, "prompt_depth_vision": 3, "n_ctx_text": 4, "n_ctx_vision": 3}
    return PromptSRCModel(clip, NAMES, seed=0, **sizes)


def test_the_losses_written_out(model):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(2, 3, 32, 32, generator=generator), torch.tensor([2, 0])
    terms, logits = model.losses(images, labels)

    def unit(features):
        return features / features.norm(dim=-1, keepdim=True)

    def by_name(name):
        texts = [template(name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES[:60]]
        return unit(model.clip.encode_text(model.clip.tokenize(texts)).mean(dim=0))

    text = torch.stack([by_name(name.replace("_", " ")) for name in NAMES])
    image = unit(model.clip.encode_image(images))
    prompts = model.prompt_learner()
    ours_text, ours_image = model.text_features(prompts)[0], model.image_features(images, prompts)
    p, q = (
        (model.clip.logit_scale * a @ b.T).softmax(dim=1)
        for a, b in ((ours_image, ours_text), (image, text))
    )
    expected = {
        "ce": -(p[0, 2].log() + p[1, 0].log()) / 2,
        "text": 25 * (ours_text - text).abs().sum() / text.numel(),
        "image": 10 * (ours_image - image).abs().sum() / image.numel(),
        "logits": (q * (q / p).log()).sum() / p.numel(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(logits.softmax(dim=1), p)
    # The frozen features have no part in the gradient, and only prompts are learned.
    sum(terms.values()).backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == LEARNED


LEARNED = {
    f"prompt_learner.{name}"
    for name in ("ctx", "deep_text.0", "vision", "deep_vision.0", "deep_vision.1")
}


def test_frozen_features_follow_the_classes(model):
    images = torch.zeros(1, 3, 32, 32)
    before = model.frozen_features(images)[1]
    assert model.frozen_features(images)[1] is before
    assert not before.requires_grad
    model.set_classnames(NAMES[::-1])
    after = model.frozen_features(images)[1]
    torch.testing.assert_close(after, before.flip(1))
    model.set_classnames(NAMES)


def test_only_prompts_are_learned(model):
    assert {name for name, p in model.named_parameters() if p.requires_grad} == LEARNED


def test_weights_of_the_average():
    mean, std, epochs = 4.5, 2.0, 9
    density = [math.exp(-0.5 * ((n - mean) / std) ** 2) for n in range(1, epochs + 1)]
    average = GaussianAverage(epochs, mean, std)
    assert average.weights == pytest.approx([d / sum(density) for d in density], rel=1e-12)
    states = torch.randn(epochs, 2, 3, generator=torch.Generator().manual_seed(0))
    for epoch, state in enumerate(states):
        average.add(epoch, {"a": state[0], "b": state[1]})
    expected = sum(d * s.double() for d, s in zip(density, states, strict=True)) / sum(density)
    assert torch.allclose(average.state["a"].double(), expected[0], atol=1e-6)
    assert torch.allclose(average.state["b"].double(), expected[1], atol=1e-6)


def test_average_far_from_its_mean():
    """Where all of the Gaussian's own values are 0 in double precision."""
    assert GaussianAverage(2, mean=100, std=1).weights == pytest.approx([0, 1])
    with pytest.raises(UserError, match="GPA_STD is 0; it must be above 0"):
        GaussianAverage(2, mean=1, std=0)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Flags of a small run, and the folder of one that was never interrupted."""
    folder = tmp_path_factory.mktemp("promptsrc")
    flags = make_project(folder)
    flags[flags.index("--trainer") + 1] = "PromptSRC"
    keys = {"PREC": "fp32", "PROMPT_DEPTH_TEXT": "2", "PROMPT_DEPTH_VISION": "2", "GPA_MEAN": "2"}
    options = [word for key, value in keys.items() for word in (f"TRAINER.PROMPTSRC.{key}", value)]
    options += ["DATASET.NUM_SHOTS", "2", "OPTIM.MAX_EPOCH", "3", "TRAIN.CHECKPOINT_FREQ", "1"]
    done = train(folder / "log", [*flags, "--output-dir", str(folder / "whole"), *options])
    assert done.code == 0, done.err
    return flags, options, folder / "whole", done


def weights(folder, epoch):
    return checkpoint.read(folder / f"prompt_learner/model-{epoch}.safetensors")[0]


def test_command_line(project, tmp_path):
    flags, options, folder, done = project
    assert "The weights are now the Gaussian average of all epochs' weights" in done.out
    result = json.loads((folder / "results.json").read_text())
    assert (result["trainer"], result["epochs"]) == ("PromptSRC", 3)
    # After two of three epochs the average is not yet taken over, and momentum goes on.
    assert not weights(folder, 2)["ctx"].equal(weights(folder, 3)["ctx"])
    new = [*options, "DATASET.SUBSAMPLE_CLASSES", "new"]
    flags = [*flags, "--eval-only", "--model-dir", str(folder), "--output-dir", str(tmp_path / "n")]
    done = train(tmp_path / "log", [*flags, *new])
    assert done.code == 0, done.err
    assert "(epoch = 3)" in done.out


def test_interrupted_and_resumed(project, tmp_path):
    """Killed in the third epoch, when two of three parts are in the average."""
    flags, options, whole, _ = project
    flags = [*flags, "--output-dir", str(tmp_path / "run"), *options]
    killed = train(tmp_path / "log", flags, signal_at_step, 11)  # four steps an epoch
    assert killed.code == -signal.SIGKILL
    again = train(tmp_path / "log", flags)
    assert again.code == 0, again.err
    assert "will resume after epoch 2" in again.out
    for epoch in (1, 2, 3):
        expected, found = weights(whole, epoch), weights(tmp_path / "run", epoch)
        assert all(found[key].equal(expected[key]) for key in expected)
