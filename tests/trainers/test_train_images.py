"""What a run says of its training images, and the class weights."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

import dplq.plugin  # noqa: F401 (registers the trainers)
from dplq.errors import UserError
from dplq.host.dassl import registered_trainers
from dplq.methods.heads import logistic
from dplq.methods.promptsrc import PromptSRCModel
from dplq.trainers._engine import train_images
from dplq.trainers._engine.base import PromptTrainer
from tests.runner import make_project, train
from tests.tiny import tiny_backbone

COUNTS = {"forest": 9, "river": 3, "parking lot": 6}
ABOUT = "Training classes are unbalanced: 'forest' has 9 images, 'river' 3."


def trainer_of(counts=COUNTS, *, weights="", sampler="RandomSampler", batch=4, batches=4):
    """The parts of a trainer that the functions use."""
    items = [SimpleNamespace(label=k) for k, n in enumerate(counts.values()) for _ in range(n)]
    x = SimpleNamespace(SAMPLER=sampler, BATCH_SIZE=batch)
    return SimpleNamespace(
        dm=SimpleNamespace(dataset=SimpleNamespace(train_x=items)),
        lab2cname=dict(enumerate(counts)),
        num_classes=len(counts),
        device=torch.device("cpu"),
        train_loader_x=range(batches),
        cfg=SimpleNamespace(
            TRAIN=SimpleNamespace(CLASS_WEIGHTS=weights), DATALOADER=SimpleNamespace(TRAIN_X=x)
        ),
    )


@pytest.mark.parametrize(
    ("given", "by_batches", "expected"),
    [
        (
            {},
            True,
            "What helps: TRAIN.CLASS_WEIGHTS balanced, or DATALOADER.TRAIN_X.SAMPLER "
            "RandomClassSampler DATALOADER.TRAIN_X.N_INS 2.",
        ),
        ({}, False, "What helps: TRAIN.CLASS_WEIGHTS balanced."),
        ({"weights": "balanced"}, True, "In use against it: TRAIN.CLASS_WEIGHTS balanced."),
        (
            {"sampler": "RandomClassSampler"},
            True,
            "In use against it: DATALOADER.TRAIN_X.SAMPLER RandomClassSampler.",
        ),
    ],
)
def test_imbalance_is_said_with_what_helps(capsys, given, by_batches, expected):
    train_images.report_imbalance(trainer_of(**given), by_batches=by_batches)
    assert capsys.readouterr().out == f"{ABOUT} {expected}\n"


def test_below_three_to_one_nothing_is_said(capsys):
    train_images.report_imbalance(trainer_of({"a": 8, "b": 3}), by_batches=True)
    train_images.report_imbalance(trainer_of({"a": 8}), by_batches=True)
    assert not capsys.readouterr().out


def test_weights_and_sampler_together_are_warned_of(capsys, caplog):
    both = trainer_of(weights="balanced", sampler="RandomClassSampler")
    train_images.report_imbalance(both, by_batches=True)
    assert "Both together count rare classes more than once" in caplog.text


@pytest.mark.parametrize("batch", range(1, 12))
@pytest.mark.parametrize("classes", range(2, 8))
def test_the_sampler_accepts_what_is_advised(capsys, batch, classes):
    from dassl.data.samplers import build_sampler

    trainer = trainer_of({str(k): 3 + 12 * k for k in range(classes)}, batch=batch)
    train_images.report_imbalance(trainer, by_batches=True)
    images = int(capsys.readouterr().out.rstrip(".\n").rpartition(" ")[2])
    build_sampler(
        "RandomClassSampler",
        data_source=trainer.dm.dataset.train_x,
        batch_size=batch,
        n_ins=images,
    )


def test_images_that_an_epoch_leaves_out(capsys):
    train_images.report_left_out(trainer_of(batches=4))
    train_images.report_left_out(trainer_of(batches=3, sampler="RandomClassSampler"))
    assert capsys.readouterr().out.splitlines() == [
        "Each epoch leaves out 2 of 18 training images (BATCH_SIZE 4, last partial batch dropped).",
        "Each epoch leaves out 6 of 18 training images (BATCH_SIZE 4, SAMPLER RandomClassSampler).",
    ]
    train_images.report_left_out(trainer_of(batches=9, batch=2))
    train_images.report_left_out(trainer_of(batches=1, batch=32))
    assert not capsys.readouterr().out


def test_weights_are_scikit_learns_and_one_in_the_mean():
    weights = train_images.class_weights(trainer_of(weights="balanced"))
    labels = np.repeat(np.arange(3), list(COUNTS.values()))
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert weights.dtype == torch.float32
    assert float(weights[labels].mean()) == pytest.approx(1)
    assert train_images.class_weights(trainer_of()) is None


LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.5, 0.5, -1.0], [1.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 1, 1, 2])


class Model:
    """A stand-in that returns fixed logits."""

    def __call__(self, images):
        return LOGITS[: len(images)]

    def losses(self, images, labels, cross_entropy):
        return {"ce": cross_entropy(self(images), labels)}, self(images)


GRADIENT = sorted(
    (t for t in registered_trainers() if issubclass(t, PromptTrainer)), key=lambda t: t.__name__
)


def test_the_trainers_that_learn_by_gradient_steps():
    names = {t.__name__ for t in GRADIENT if t.__module__.startswith("dplq.")}
    assert names == {
        *("CoOp", "CoCoOp", "DCPL", "IVLP", "MaPLe", "PromptSRC", "QuaternionPrompt", "VPT"),
        *("BiomedCoOp", "KgCoOp", "ProGrad", "TCP", "CLIPLoRA", "CLIPSVD", "GDPL", "TwoStage"),
    }


@pytest.mark.parametrize("kind", GRADIENT, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("batch", [1, 4])
def test_every_trainer_s_loss_is_weighted(kind, batch):
    trainer = kind.__new__(kind)
    trainer.model = Model()
    images, labels = torch.zeros(batch, 3, 2, 2), LABELS[:batch]
    plain = F.cross_entropy(LOGITS[:batch], labels)
    loss, logits = trainer.compute_loss(images, labels)
    assert torch.equal(loss, plain)
    assert torch.equal(logits, LOGITS[:batch])
    trainer.class_weights = torch.tensor([0.5, 2.0, 1.0])
    loss, _ = trainer.compute_loss(images, labels)
    chosen = -LOGITS.log_softmax(1)[range(4), LABELS] * torch.tensor([0.5, 2.0, 2.0, 1.0])
    torch.testing.assert_close(loss, chosen[:batch].mean())
    assert not torch.equal(loss, plain)


def test_promptsrc_s_model_uses_the_cross_entropy_it_is_given():
    model = PromptSRCModel(
        tiny_backbone(), ["a", "b"], prompt_depth_text=2, prompt_depth_vision=2, seed=0
    )
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1])
    plain, _ = model.losses(images, labels)
    other, _ = model.losses(images, labels, lambda logits, labels: logits.sum() * 0 + 7)
    assert other.pop("ce").item() == 7
    del plain["ce"]
    assert all(torch.equal(other[name], plain[name]) for name in plain)


def test_the_linear_probe_is_weighted_as_scikit_learn_does():
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    x, y = random.normal(size=(30, 4)), np.repeat([0, 1, 2], [20, 6, 4])
    model = logistic.fit_best((x, y), None, "balanced")
    weights = 30 / (3 * np.array([20, 6, 4]))
    expected = LogisticRegression(C=1, max_iter=1000).fit(x, y, sample_weight=weights[y])
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-3)
    assert np.abs(model.coef_ - logistic.fit_best((x, y), None).coef_).max() > 0.01


def test_training_on_test_images_is_refused():
    dataset = SimpleNamespace(test_only=True)
    trainer = SimpleNamespace(
        dm=SimpleNamespace(dataset=dataset),
        cfg=SimpleNamespace(DATASET=SimpleNamespace(NAME="AIDv2")),
    )
    with pytest.raises(UserError) as caught:
        train_images.refuse_test_only(trainer)
    assert str(caught.value) == (
        "AIDv2 has test images only: test a trained model with --eval-only --model-dir FOLDER."
    )
    dataset.test_only = False
    train_images.refuse_test_only(trainer)


def test_training_on_images_that_are_all_to_be_tested_names_the_key():
    given = SimpleNamespace(NAME="OwnImages", ALL_TEST=True)
    dm = SimpleNamespace(dataset=SimpleNamespace(test_only=True))
    with pytest.raises(UserError) as caught:
        train_images.refuse_test_only(SimpleNamespace(dm=dm, cfg=SimpleNamespace(DATASET=given)))
    assert str(caught.value) == (
        "DATASET.ALL_TEST is True, so all images of OwnImages are test images: test a trained "
        "model with --eval-only --model-dir FOLDER, or train without the key."
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Flags of a project with 12 images in three classes and 4 in the last; CoOp."""
    folder = tmp_path_factory.mktemp("unbalanced")
    flags = make_project(folder)
    for index in range(4, 12):
        (folder / f"data/storage_tank/{index}.png").unlink()
    config = (folder / "trainer.yaml").read_text()
    (folder / "trainer.yaml").write_text(config.replace("BATCH_SIZE: 2", "BATCH_SIZE: 3"))
    return [*flags, "OPTIM.MAX_EPOCH", "1"]


def with_trainer(flags, name, *more):
    at = flags.index("--trainer") + 1
    end = flags.index("OPTIM.MAX_EPOCH")
    return [*flags[:at], name, *flags[at + 1 : end], *more, *flags[end:]]


@pytest.mark.parametrize("name", ["CoOp", "LinearProbe"])
def test_command_line(project, tmp_path, name):
    flags = with_trainer(project, name, "--output-dir", str(tmp_path / "out"))
    plain = train(tmp_path / "plain", flags)
    assert plain.code == 0, plain.err
    assert "'forest' has 6 images, 'storage tank' 2. What helps: TRAIN" in plain.out
    left = "Each epoch leaves out 2 of 20 training images (BATCH_SIZE 3, last" in plain.out
    assert left == (name == "CoOp")
    shutil.rmtree(tmp_path / "out")
    weighted = train(tmp_path / "weighted", [*flags, "TRAIN.CLASS_WEIGHTS", "balanced"])
    assert weighted.code == 0, weighted.err
    assert "In use against it: TRAIN.CLASS_WEIGHTS balanced." in weighted.out
    resumed = train(tmp_path / "again", flags)
    assert "TRAIN.CLASS_WEIGHTS: there 'balanced', now ''" in resumed.err
    wrong = train(tmp_path / "wrong", [*flags, "TRAIN.CLASS_WEIGHTS", "balance"])
    assert "TRAIN.CLASS_WEIGHTS is 'balance'; it must be empty or balanced." in wrong.err


def test_a_dataset_of_test_images_only(tmp_path, project):
    """Zero-shot runs on it; training does not begin."""
    at = project.index("--dataset-config-file")
    flags = [*project[:at], *project[at + 2 :]]
    out = ["--output-dir", str(tmp_path / "out"), "DATASET.NAME", "DemoTissuev2"]
    done = train(tmp_path / "log", [*with_trainer(flags, "CoOp"), *out[2:], "OUTPUT_DIR", out[1]])
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("error: DemoTissuev2 has test images only: test a")
    assert "epoch [1" not in done.out
    zero = [*with_trainer(flags, "ZeroshotCLIP"), "TRAIN.CLASS_WEIGHTS", "balanced"]
    done = train(tmp_path / "zero", [*zero, "OUTPUT_DIR", f"{out[1]}0", *out[2:]])
    assert done.code == 0, done.err
    assert "TRAIN.CLASS_WEIGHTS is not used: ZeroshotCLIP learns nothing." in done.out
    assert "* total: 800" in done.out
