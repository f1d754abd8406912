"""BiomedCoOp: its loss written out, the selection of texts, where these come from."""

from __future__ import annotations

import json
import statistics

import pytest
import torch
from torch.nn import functional as F

import dplq
import dplq.trainers
from dplq.errors import UserError
from dplq.methods.prompts.biomedcoop import BiomedCoOpModel, without_outliers
from dplq.methods.prompts.class_texts import class_texts
from dplq.trainers.biomedcoop import BiomedCoOp
from tests.tiny import tiny_backbone

NAMES = ["river", "parking_lot"]
TEXTS = {
    "River": ["a long blue band", "water that bends", "a bridge over water", "green banks", "x"],
    "parking lot": ["rows of cars", "grey ground", "white lines", "a large roof", "many cars"],
}


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(TEXTS))
    return str(path)


def unit(features):
    return features / features.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("tau", [1.0, 9.0])
def test_the_loss_written_out(tau, clip, file):
    weights = {"sccm_lambda": 2.0, "kdsp_lambda": 3.0}
    model = BiomedCoOpModel(clip, NAMES, texts=file, n_prompts=5, tau=tau, seed=0, **weights)
    size = clip.image_size
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 0, 1])
    terms, logits = model.losses(images, labels)

    image = unit(clip.encode_image(images))
    every = torch.stack([unit(clip.encode_text(clip.tokenize(own))) for own in TEXTS.values()])
    scores = []
    for number in range(5):
        best = [max(float(clip.logit_scale * x @ t) for t in every[:, number]) for x in image]
        scores.append(statistics.fmean(best))
    # As the paper has it: median and median deviation, then the standard score of that.
    median = statistics.median(scores)
    z = [(s - median) / statistics.median(abs(s - median) for s in scores) for s in scores]
    kept = [abs(v - statistics.fmean(z)) / statistics.stdev(z) <= tau for v in z]
    assert sum(kept) == {1.0: 4, 9.0: 5}[tau]
    selected = unit(every[:, torch.tensor(kept)].mean(dim=1))
    p = (clip.logit_scale * image @ selected.T).softmax(dim=1)
    q = logits.softmax(dim=1)
    text = model.text_features(model.prompts(images))[0]
    expected = {
        "ce": F.cross_entropy(logits, labels),
        "text": 2 * (text - unit(every.mean(dim=1))).square().sum() / text.numel(),
        "logits": 3 * (p * (p / q).log()).sum() / q.numel(),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits, model(images))
    sum(terms.values()).backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        "prompt_learner.ctx"
    }


def test_equal_scores_are_no_outliers():
    assert without_outliers(torch.full((4,), 0.5), 1.0).all()
    far = without_outliers(torch.tensor([1.0, 1.1, 0.9, 9.0]), 1.25)
    assert far.tolist() == [True, True, True, False]


def test_texts_of_a_checkout_are_read_without_running_it(tmp_path):
    file = tmp_path / "trainers/prompt_templates.py"
    file.parent.mkdir()
    file.write_text(f"raise SystemExit\nOTHER = 1\nBIOMEDCOOP_TEMPLATES = {TEXTS!r}\n")
    expected = [own[:3] for own in TEXTS.values()]
    assert class_texts(str(tmp_path), NAMES, 3) == expected
    assert class_texts(str(file), NAMES, 3) == expected
    file.write_text("BIOMEDCOOP_TEMPLATES = dict(a=open('x'))\n")
    with pytest.raises(UserError, match=r"prompt_templates\.py cannot be used: it is no table of"):
        class_texts(str(tmp_path), NAMES, 3)
    file.write_text("OTHER = {}\n")
    with pytest.raises(UserError, match=r"it has no variable BIOMEDCOOP_TEMPLATES\. Give a"):
        class_texts(str(tmp_path), NAMES, 3)


def test_templates_in_place_of_a_file():
    first, second = class_texts("templates", NAMES, 2)
    assert first == ["a bad photo of a river.", "a photo of many river."]
    assert second == ["a bad photo of a parking lot.", "a photo of many parking lot."]


@pytest.mark.parametrize(
    ("content", "names", "message"),
    [
        (TEXTS, ["river", "lake"], "has no texts for lake: add them to a file"),
        (TEXTS, NAMES, "N_PROMPTS is 6, but TEXTS .* has 5 texts for river: set it lower, or add"),
        (
            {"river": "one"},
            ["river"],
            "cannot be used: .*expected `array`, got `str`. Give a checkout",
        ),
        (None, ["river"], r"texts\.json is not there; give a checkout of BiomedCoOp's repository"),
    ],
)
def test_texts_that_cannot_be_used(content, names, message, tmp_path):
    path = tmp_path / "texts.json"
    if content is not None:
        path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        class_texts(str(path), names, 6)


def test_missing_texts_are_reported_before_the_first_step(clip):
    trainer = BiomedCoOp.__new__(BiomedCoOp)
    trainer.__dict__["model"] = BiomedCoOpModel(clip, NAMES)
    with pytest.raises(UserError) as caught:
        trainer.before_train()
    assert str(caught.value) == (
        "TRAINER.BIOMEDCOOP.TEXTS is empty; give a checkout of BiomedCoOp's repository, a JSON "
        "file {class name: [texts]}, or 'templates' for OpenAI's templates in place of a language "
        "model's texts."
    )


def test_a_model_without_texts_classifies(clip, file, tmp_path):
    model = BiomedCoOpModel(clip, NAMES, texts=file, n_prompts=5, seed=0).eval()
    model.save(tmp_path / "m.safetensors")
    assert b"texts.json" not in (tmp_path / "m.safetensors").read_bytes()
    again = dplq.load(tmp_path / "m.safetensors", ["lake", "forest"], clip=clip)
    images = torch.zeros(1, 3, clip.image_size, clip.image_size)
    assert again(images).shape == (1, 2)
    with pytest.raises(UserError, match="TEXTS is empty"):
        again.losses(images, torch.tensor([0]))


def test_the_release_s_checkpoint_is_known(clip, tmp_path):
    context = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    state = {"prompt_learner.ctx": context, "logit_scale": torch.zeros(())}
    state |= {"prompt_learner.ZS_image_encoder.proj": torch.ones(2, 2)}
    torch.save({"state_dict": state, "epoch": 50}, tmp_path / "model.pth.tar-50")
    model = dplq.load(tmp_path / "model.pth.tar-50", NAMES, clip=clip)
    assert model.method == "BiomedCoOp"
    assert torch.equal(model.prompt_learner.ctx, context)


def test_texts_follow_the_classes(clip, file):
    model = BiomedCoOpModel(clip, NAMES, texts=file, n_prompts=5)
    first = model.reference_text()
    assert first.shape == (1, 2, 5, clip.embed_dim)
    model.set_classnames(NAMES[::-1])
    torch.testing.assert_close(model.reference_text(), first.flip(1))
