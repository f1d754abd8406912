"""`model.predict` and `model.image_features`, for every method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from dplq import METHODS, UserError, create_model
from dplq.methods.heads.base import HeadModel
from dplq.methods.prediction import Prediction
from tests.images.noise import write_noise
from tests.methods.test_load import IMAGES, NAMES, SETTINGS, model_of
from tests.tiny import tiny_backbone

# Methods whose image features are CLIP's: what they learn is in the text tower or behind.
PLAIN = {
    *("CoOp", "CoCoOp", "KgCoOp", "ProGrad", "TCP", "BiomedCoOp", "ZeroshotCLIP"),
    *("TipAdapterF", "CLAP", "TaskRes", "SSText", "GDA"),
}


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone()


@pytest.fixture
def files(tmp_path):
    return write_noise(tmp_path)[:5]


def moved(method, clip):
    """A model whose learnable weights are not those that it began with."""
    model, generator = model_of(method, clip), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.prompt_learner.parameters():
            if parameter.is_floating_point():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def compared(model, monkeypatch):
    """The image features that a forward pass compares with the classes."""
    found = []
    name = "classify" if isinstance(model, HeadModel) else "logits"
    if model.method == "CLIPAdapter":
        name = "cosine_logits"
    own = getattr(model, name)
    monkeypatch.setattr(model, name, lambda x, *rest: found.append(x) or own(x, *rest))
    model(IMAGES)
    monkeypatch.undo()
    if model.method == "TextMap":
        return model.prompt_learner.mapped(model.unit(found[0]))
    return model.joint(found[0]) if isinstance(model, HeadModel) else found[0]


def test_every_method_is_tested():
    assert set(SETTINGS) >= set(METHODS)


@pytest.mark.parametrize("method", SETTINGS)
def test_image_features_are_those_that_the_model_compares(method, clip, monkeypatch):
    model = moved(method, clip)
    with torch.no_grad():
        found, plain = model.image_features(IMAGES), model.image_features(IMAGES, adapted=False)
        reference = F.normalize(clip.encode_image(IMAGES), dim=-1)
    assert torch.equal(plain, reference)
    assert torch.equal(found, compared(model, monkeypatch))
    assert torch.allclose(found.norm(dim=-1), torch.ones(len(IMAGES)))
    is_plain = found.shape == plain.shape and torch.allclose(found, plain, atol=1e-6)
    assert is_plain == (method in PLAIN)


def test_domain_features_may_be_given(clip):
    model = model_of("DCPL", clip)
    with torch.no_grad():
        given = model.domain(IMAGES)
        found = model.image_features(IMAGES, domain_features=given)
        assert torch.equal(found, model.image_features(IMAGES))
        assert not torch.equal(found, model.image_features(IMAGES, domain_features=given + 1))


@pytest.mark.parametrize("method", ["CoOp", "QuaternionPrompt", "LinearProbe", "CLIPLoRA"])
def test_predictions_are_the_softmax_of_the_logits(method, clip, files):
    model = moved(method, clip)
    images = [Image.open(path) for path in files]
    batch = torch.stack([model.preprocess(image) for image in images])
    with torch.no_grad():
        expected = model(batch).softmax(dim=1)
    found = model.predict(files, batch_size=len(files))
    for prediction, shares in zip(found, expected, strict=True):
        assert dict(prediction.top) == dict(zip(NAMES, shares.tolist(), strict=True))
        assert prediction.label == NAMES[int(shares.argmax())]
        assert prediction.probability == float(shares.max())
        assert [share for _, share in prediction.top] == sorted(shares.tolist(), reverse=True)
    size = len(files)
    assert model.predict(images, batch_size=size) == found
    assert model.predict(batch, batch_size=size) == found
    assert model.predict(list(batch), batch_size=size) == found
    assert model.predict(map(Path, files), batch_size=size, workers=2) == found


def test_one_image_many_images_and_a_mixture(clip, files):
    model = model_of("CoOp", clip)
    (alone,) = model.predict(files[0], topk=2)
    assert isinstance(alone, Prediction)
    assert len(alone.top) == 2
    tensor = model.preprocess(Image.open(files[1]))
    mixed = model.predict([files[0], tensor, tensor[None], Image.open(files[0])], topk=2)
    assert [one.label for one in mixed[2:]] == [mixed[1].label, alone.label]
    assert mixed[0] == mixed[3] == alone
    assert model.predict([]) == []


def test_of_equal_logits_the_first_class_is_predicted(clip, files, monkeypatch):
    model = model_of("CoOp", clip)
    monkeypatch.setattr(model, "forward", lambda images: torch.tensor([[1.0, 2.0, 2.0]]))
    (found,) = model.predict(files[0])
    assert [name for name, _ in found.top] == ["river", "parking_lot", "forest"]


def test_modes_are_restored_and_training_goes_on(clip, files):
    """Text features that `predict` kept are of use in training, which inference tensors are not."""
    model = create_model("CLIPSVD", clip, NAMES, seed=0, encoder="image")
    model.train()
    model.prompt_learner.eval()
    modes = [module.training for module in model.modules()]
    model.predict(files)
    assert [module.training for module in model.modules()] == modes
    model.train()
    terms, _ = model.losses(IMAGES, torch.tensor([0, 1]))
    terms["ce"].backward()
    assert all(p.grad is not None for p in model.prompt_learner.parameters())


@pytest.mark.parametrize(
    ("images", "more", "said"),
    [
        (7, {}, "images is 7; give paths, PIL images or tensors"),
        (["a.png", 7], {}, "images[1] is 7; give paths"),
        (["absent.png"], {}, "absent.png cannot be opened"),
        (torch.zeros(32, 32), {}, "shape (32, 32)"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), {}, "dtype torch.uint8"),
        ([torch.zeros(3, 32, 32), torch.zeros(3, 16, 16)], {}, "of several sizes"),
        (torch.zeros(3, 16, 16), {}, "16x16"),
        ([], {"topk": 4}, "topk is 4; it must be a whole number from 1 to 3"),
        ([], {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_is_no_image_is_refused(clip, images, more, said):
    with pytest.raises(UserError) as caught:
        model_of("CoOp", clip).predict(images, **more)
    assert said in str(caught.value)


def test_logits_that_are_not_finite_are_refused(clip):
    model = model_of("CoOp", clip)
    with torch.no_grad():
        model.prompt_learner.ctx.fill_(np.nan)
    with pytest.raises(UserError, match="logits of 2 of the 2 images"):
        model.predict(IMAGES)
