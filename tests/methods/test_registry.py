"""Model classes that a checkpoint must lead back to, class names, and inference mode."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import dplq
from dplq.errors import UserError
from dplq.methods.coop import CoOpModel
from dplq.methods.heads.fitting import FitData, Labelled
from dplq.methods.settings import MethodSettings, option
from tests.tiny import tiny_backbone


def test_a_class_that_its_method_does_not_lead_to_is_not_saved(tmp_path):
    class Other(CoOpModel):
        pass

    class Nameless(CoOpModel):
        method = ""

    for cls, said in (
        (Other, r"'CoOp', which is that of dplq\.methods\.coop"),
        (Nameless, "is ''"),
    ):
        model = cls(tiny_backbone(), ["a", "b"], n_ctx=2)
        with pytest.raises(UserError, match=said):
            model.save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\ud800"])
def test_class_names_that_no_file_can_hold_are_refused(name):
    with pytest.raises(UserError, match=r"classnames\[1\] "):
        dplq.create_model("CoOp", tiny_backbone(), ["sea", name], n_ctx=2)


@pytest.mark.parametrize("method", ["KgCoOp", "ProGrad", "CLIPSVD"])
def test_a_step_after_inference_mode(method):
    keys = {"encoder": "image"} if method == "CLIPSVD" else {"n_ctx": 2}
    model = dplq.create_model(method, tiny_backbone(), ["a", "b"], **keys)
    images, labels = torch.randn(2, 3, *[model.clip.image_size] * 2), torch.tensor([0, 1])
    with torch.inference_mode():
        model.eval()(images)
        if hasattr(model, "reference_text"):
            model.reference_text()
    terms, _ = model.train().losses(images, labels)
    sum(terms.values()).backward()
    assert any(p.grad is not None for p in model.prompt_learner.parameters())


def test_tcp_in_double_precision():
    """Its prompts are made of text features that are kept in float32."""
    names = ["a", "b"]
    model = dplq.create_model("TCP", tiny_backbone(), names, n_ctx=2, class_layer=1).eval()
    images = torch.rand(2, 3, *[model.clip.image_size] * 2)
    with torch.no_grad():
        single, double = model(images), model.double()(images.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"input": "RGB"}, "is not written, as nothing could open it: in its header, input"),
        ({"format": "png"}, "The header has format of its own"),
        ({"epoch": 3.5}, "is not written, as nothing could open it: in its header, epoch"),
        ({"split": 3}, "is not written, as nothing could open it: in its header, split"),
    ],
)
def test_a_header_that_could_not_be_read_is_not_written(tmp_path, extra, said):
    model = dplq.create_model("CoOp", tiny_backbone(), ["a", "b"], n_ctx=2)
    with pytest.raises(UserError, match=said):
        model.save(tmp_path / "model.safetensors", **extra)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["LinearProbe", "GDA", "TipAdapter", "SSText", "CLAP"])
def test_a_head_that_is_not_fitted_names_no_class(tmp_path, method):
    model = dplq.create_model(method, tiny_backbone(), ["a", "b"]).eval()
    images = torch.rand(2, 3, *[model.clip.image_size] * 2)
    with pytest.raises(UserError, match=f"{method} is not fitted: call model.fit"):
        model(images)
    flat = Labelled(model.features(images), torch.tensor([0, 1]))
    with pytest.raises(UserError, match=r"the shape \(2, \d+\); it must be \(V, N, d\)"):
        model.fit(FitData(flat))
    model.prompt_learner.load_state_dict(model.prompt_learner.state_dict())
    assert model(images).shape == (2, 2)


def test_settings_of_ones_own_say_what_they_lack():
    @dataclass(frozen=True)
    class Bare(MethodSettings):
        scale: float = 1.0

    @dataclass(frozen=True)
    class Numbers(MethodSettings):
        scales: list[float] = option((1.0,), "scales")  # noqa: RUF009

    with pytest.raises(UserError, match=r"scale of Bare has no option\(DEFAULT, HELP\)"):
        Bare.config_fields()
    with pytest.raises(UserError, match=r"scales has the type list\[float\]: a setting is one of"):
        Numbers()
