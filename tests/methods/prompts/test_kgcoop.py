"""KgCoOp: its loss written out, its hand-written texts, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import dplq
from dplq.errors import UserError
from dplq.methods.coop import CoOpModel
from dplq.methods.prompts.kgcoop import KgCoOpModel
from tests.tiny import tiny_backbone

NAMES = ["river", "parking_lot", "a"]
TEMPLATE = "a satellite photo of {}."


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone()


def batch(clip):
    size = clip.image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return images, torch.tensor([2, 0])


def test_the_loss_written_out(clip):
    model = KgCoOpModel(clip, NAMES, ctx_init="", n_ctx=3, w=2.5, template=TEMPLATE, seed=0)
    images, labels = batch(clip)
    terms, logits = model.losses(images, labels)
    coop = CoOpModel(clip, NAMES, n_ctx=3, seed=0)
    assert torch.equal(logits, coop(images))
    texts = ["a satellite photo of river.", "a satellite photo of parking lot."]
    fixed = clip.encode_text(clip.tokenize([*texts, "a satellite photo of a."]))
    learned = model.text_features(model.prompts(images))[0].detach()
    cosines = [float(a @ b / a.norm() / b.norm()) for a, b in zip(learned, fixed, strict=True)]
    torch.testing.assert_close(terms["ce"], F.cross_entropy(logits, labels))
    assert terms["text"].item() == pytest.approx(2.5 * (1 - sum(cosines) / 3), abs=1e-5)
    assert terms["text"] > 0.1
    sum(terms.values()).backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        "prompt_learner.ctx"
    }


def test_the_same_words_have_no_distance(clip):
    model = KgCoOpModel(clip, NAMES, template="a photo of a {}.")
    terms, _ = model.losses(*batch(clip))
    assert terms["text"].abs().item() < 1e-5


def test_hand_written_texts_follow_the_classes_and_are_encoded_once(clip):
    model = KgCoOpModel(clip, NAMES)
    first = model.reference_text()
    assert model.reference_text() is first
    assert not first.requires_grad
    model.set_classnames(NAMES[::-1])
    torch.testing.assert_close(model.reference_text(), first.flip(1))


def test_a_checkpoint_fits_another_dataset_s_text(clip, tmp_path):
    KgCoOpModel(clip, NAMES, template=TEMPLATE, w=1.0, seed=0).save(tmp_path / "a.safetensors")
    KgCoOpModel(clip, NAMES, seed=1).load(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"settings.n_ctx: there 4, now 5"):
        KgCoOpModel(clip, NAMES, ctx_init="", n_ctx=5).load(tmp_path / "a.safetensors")


def test_a_text_without_a_place_for_the_name_is_refused(clip):
    with pytest.raises(UserError) as caught:
        KgCoOpModel(clip, NAMES, template="a photo")
    assert str(caught.value) == (
        "TEMPLATE 'a photo' has no {}: write it where the class name goes, as in "
        '"a photo of a {}.".'
    )
    with pytest.raises(UserError, match="W is -1; it must be at least 0"):
        KgCoOpModel(clip, NAMES, w=-1)


def test_class_specific_context_names_its_own_key(clip):
    model = KgCoOpModel(clip, NAMES, ctx_init="", csc=True)
    with pytest.raises(UserError, match=r"Train with TRAINER\.KGCOOP\.CSC False"):
        model.set_classnames(["x"])


def test_the_release_s_checkpoint_is_known_by_its_unused_parts(clip, tmp_path):
    context = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    state = {"ctx": context, "bias_vectors": torch.ones(1, 512)}
    state |= {"meta_net.linear1.weight": torch.ones(512, 512)}
    state |= {"token_suffix": torch.ones(3, 71, 64)}
    torch.save({"state_dict": state, "epoch": 100}, tmp_path / "model.pth.tar-100")
    model = dplq.load(tmp_path / "model.pth.tar-100", NAMES, clip=clip)
    assert model.method == "KgCoOp"
    assert torch.equal(model.prompt_learner.ctx, context)
