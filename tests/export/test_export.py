"""Exports: the program's logits are the model's, whatever the batch; nothing unused is stored."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

import dplq
from dplq import METHODS, UserError, create_model
from dplq.__main__ import main
from dplq.export import write as writing
from dplq.export.onnx_file import RECORD
from dplq.methods.heads.base import HeadModel
from tests.methods.test_load import fill
from tests.tiny import tiny_backbone

PROJECT = Path(__file__).resolve().parents[2]
NAMES = ["river", "dense forest", "parking_lot"]
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
HAS_ONNX = all(importlib.util.find_spec(name) for name in PACKAGES)
# What takes more of each method's code than its defaults, on towers of two layers.
SETTINGS = {
    "QuaternionPrompt": {"n_ctx": 1, "prompt_depth": 2, "fusion": "axes", "residual": True},
    "DCPL": {"prompt_depth": 2, "noise": False},
    "MaPLe": {"prompt_depth": 2},
    "IVLP": {"prompt_depth_text": 2, "prompt_depth_vision": 2},
    "PromptSRC": {"prompt_depth_text": 2, "prompt_depth_vision": 2},
    "VPT": {"n_ctx_vision": 3, "prompt_depth_vision": 2},
    "CoOp": {"n_ctx": 2, "class_token_position": "middle"},
    "CoCoOp": {"n_ctx": 2},
    "KgCoOp": {},
    "ProGrad": {"n_ctx": 2},
    "TCP": {"class_layer": 1, "n_ctx": 2},
    "BiomedCoOp": {"n_ctx": 2},
    "ZeroshotCLIP": {"templates": ["a photo of a {}.", "{} from above"]},
    "LinearProbe": {"features": "both"},
    "GDA": {},
    "TipAdapter": {"features": "both"},
    "TipAdapterF": {},
    "LPPlusPlus": {"features": "both"},
    "CLAP": {},
    "TaskRes": {},
    "CLIPAdapter": {"features": "both"},
    "SSText": {},
    "TextMap": {"features": "both"},
    "CLIPLoRA": {"params": "qkvo"},
    "CLIPSVD": {},
    "TwoStage": {},
    "GDPL": {"n_ctx": 1, "prompt_depth": 2, "delta_depth": 2, "rank": 2},
}
# One method of every kind of graph.
IN_ONNX = ("CoOp", "CoCoOp", "QuaternionPrompt", "TipAdapter", "CLIPLoRA")
IN_PT2 = ("DCPL", "TwoStage", "CLIPAdapter")  # without --fuzz
PER_IMAGE = {"QuaternionPrompt", "DCPL", "CoCoOp", "GDPL"}  # the text tower is in the program
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="needs onnx, onnxscript and onnxruntime")


def clip_of(layers):
    """A trace takes a time that grows with the layers, not with their widths."""
    sizes = {"vision_layers": layers, "text_layers": layers}
    return tiny_backbone(vision_width=32, text_width=32, embed_dim=32, **sizes)


@pytest.fixture(scope="module")
def clip():
    return clip_of(1)


@pytest.fixture(scope="module")
def deep_clip():
    """For methods that do something else in every layer."""
    return clip_of(2)


def clip_for(method, clip, deep_clip):
    return deep_clip if any("depth" in key for key in SETTINGS[method]) else clip


def model_of(method, clip, **settings):
    """A model whose learned state has moved away from its start."""
    settings = {**SETTINGS[method], **settings}
    uses_domain = METHODS[method].reads_domain(settings)
    parts = {"domain": dplq.load_domain_encoder("clip", backbone=clip)} if uses_domain else {}
    model = create_model(method, clip, NAMES, seed=1, **parts, **settings).eval()
    generator = torch.Generator().manual_seed(2)
    if isinstance(model, HeadModel):
        fill(model)
        return model
    with torch.no_grad():
        for parameter in model.prompt_learner.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    if method == "TwoStage":
        model.begin_second_stage()
    return model


def images(count):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(10 + count))


def logits(model, batch):
    with torch.no_grad():
        return model(batch)


def assert_close(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("method", SETTINGS)
def test_torch_export_of_every_method(method, clip, deep_clip, tmp_path, request):
    """Batches of 1 and 3; the text tower is stored only where images decide its input."""
    if method not in IN_PT2 and not request.config.getoption("--fuzz"):
        pytest.skip("a trace takes seconds; --fuzz 1 tries every method")
    model = model_of(method, clip_for(method, clip, deep_clip))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.export(tmp_path / "model.pt2", information={"trained_by": "a test"})
    extra = {"dplq.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    run = program.module()
    for count in (1, 3):
        assert_close(run(images(count)), logits(model, images(count)))
    record = json.loads(extra["dplq.json"])
    assert record["classes"] == NAMES
    assert record["method"] == method
    assert record["input"]["mean"] == pytest.approx(model.clip.image_mean)
    assert record["trained_by"] == "a test"
    names = "\n".join(program.state_dict)
    assert "token_embedding" not in names
    assert ("clip.transformer.resblocks" in names) == (method in PER_IMAGE)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def residual_head(clip):
    """A fitted model with head and map, and a class that it was not trained on."""
    model = model_of("QuaternionPrompt", clip, preset="residual_head")
    model.fit_features(model.frozen_features(images(6)), torch.tensor([0, 1, 2, 0, 1, 2]))
    model.set_classnames(["river", "parking_lot", "lake", "desert"])
    return model


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_written_program_runs_in_every_gradient_mode(mode, deep_clip, tmp_path):
    model = residual_head(deep_clip)
    model.export(tmp_path / "model.pt2")
    run = torch.export.load(tmp_path / "model.pt2").module()
    with mode():
        found = run(images(3))
    assert_close(found.detach(), logits(model, images(3)))


@needs_onnx
@pytest.mark.parametrize("method", IN_ONNX)
def test_onnxruntime_gives_the_models_logits(method, clip, deep_clip, tmp_path):
    """Batches of 1, 3 and 5, none of which is the traced one."""
    import onnxruntime

    if method == "QuaternionPrompt":
        model = residual_head(deep_clip)
    else:
        model = model_of(method, clip_for(method, clip, deep_clip))
    names = model.classnames
    model.export(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for count in (1, 3, 5):
        (found,) = session.run(["logits"], {"images": images(count).numpy()})
        assert_close(torch.from_numpy(found), logits(model, images(count)))
    record = json.loads(session.get_modelmeta().custom_metadata_map[RECORD])
    assert record["classes"] == names
    assert record["input"]["shape"] == ["batch", 3, 32, 32]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_every_method_is_covered_and_in_the_table():
    assert set(SETTINGS) == set(METHODS)
    text = (PROJECT / "docs/export.md").read_text(encoding="utf-8")
    rows = [
        line
        for line in text.splitlines()
        if line.startswith("| `") and ".pt2" not in line and ".onnx" not in line
    ]
    listed = {name.strip("` "): row for row in rows for name in row.split("|")[1].split(",")}
    assert set(listed) == set(METHODS)
    for method, row in listed.items():
        assert ("in the program" in row) == (method in PER_IMAGE), row


def test_a_fixed_batch(clip, tmp_path):
    model = model_of("ZeroshotCLIP", clip)
    model.export(tmp_path / "model.pt2", batch_size=1)
    run = torch.export.load(tmp_path / "model.pt2").module()
    assert_close(run(images(1)), logits(model, images(1)))
    # An AssertionError in today's torch, a RuntimeError in torch 2.4.
    refused = r"images\.size|args\[0\]\.shape\[0\] to be equal to 1"
    with pytest.raises((AssertionError, RuntimeError), match=refused):
        run(images(2))


def test_a_model_in_training_mode_stays_so(clip, tmp_path):
    model = model_of("ZeroshotCLIP", clip).train()
    modes = [module.training for module in model.modules()]
    model.export(tmp_path / "model.pt2")
    assert [module.training for module in model.modules()] == modes


def test_what_cannot_be_exported_is_refused(clip, deep_clip, tmp_path, monkeypatch):
    model = model_of("ZeroshotCLIP", clip)
    with pytest.raises(UserError, match=r"end it in \.pt2 or \.onnx"):
        model.export(tmp_path / "model.pth")
    with pytest.raises(UserError, match="batch_size is 0"):
        model.export(tmp_path / "model.pt2", batch_size=0)
    noisy = model_of("DCPL", deep_clip, noise=True, noise_at_test=True)
    with pytest.raises(UserError, match="draws random numbers at test time"):
        noisy.export(tmp_path / "model.pt2")
    without = create_model("QuaternionPrompt", clip, NAMES, domain_dim=8, prompt_depth=1).eval()
    with pytest.raises(UserError, match="no domain encoder"):
        without.export(tmp_path / "model.pt2")
    half = model_of("ZeroshotCLIP", tiny_backbone(vision_layers=1, text_layers=1)).half()
    with pytest.raises(UserError, match=r"float32 on a CPU.*torch\.float16"):
        half.export(tmp_path / "model.pt2")
    monkeypatch.setattr(writing, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="logits differ from the model's"):
        model.export(tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_traced_is_refused_in_one_sentence(clip, tmp_path, monkeypatch):
    model = model_of("ZeroshotCLIP", clip)
    forward = type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, x: forward(self, x) if x.sum() > 0 else -self.classes
    )
    with pytest.raises(UserError, match=r"cannot be exported: torch\.export does not"):
        model.export(tmp_path / "model.pt2")


def test_onnx_without_its_packages_names_the_extra(clip, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else found(name)
    )
    needed = "need onnx, onnxscript: pip install onnx onnxscript, or export"
    with pytest.raises(UserError, match=needed):
        model_of("ZeroshotCLIP", clip).export(tmp_path / "model.onnx")


def test_onnx_needs_an_exporter_of_programs(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.onnx, "export", lambda model, args, f: None)  # as in torch 2.4
    with pytest.raises(UserError, match=r"too old to write ONNX files: update it"):
        model_of("ZeroshotCLIP", clip).export(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("classes", "said"),
    [(",", "names no class"), ("a,b,a", "names a twice"), ("@absent", "absent cannot be read")],
)
def test_class_names_that_are_none_are_refused(classes, said, clip, tmp_path, capsys):
    model_of("ZeroshotCLIP", clip).save(tmp_path / "m.safetensors")
    given = ["export", str(tmp_path / "m.safetensors"), "--to", str(tmp_path / "x.pt2")]
    assert main([*given, "--classes", classes]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.pt2").exists()


def test_the_command_writes_other_classes(clip, tmp_path, capsys):
    model_of("ZeroshotCLIP", clip).save(tmp_path / "m.safetensors")
    folder = clip.spec.name.removeprefix("local-dir:")
    given = ["export", str(tmp_path / "m.safetensors"), "--weights", folder, "--to"]
    (tmp_path / "names.txt").write_text("lake\noak tree\n")
    assert main([*given, str(tmp_path / "x.pt2"), "--classes", f"@{tmp_path / 'names.txt'}"]) == 0
    assert "output  logits (B, 2)" in capsys.readouterr().out
    extra = {"dplq.json": ""}
    program = torch.export.load(tmp_path / "x.pt2", extra_files=extra)
    assert json.loads(extra["dplq.json"])["classes"] == ["lake", "oak tree"]
    expected = create_model(
        "ZeroshotCLIP", clip, ["lake", "oak tree"], **SETTINGS["ZeroshotCLIP"]
    ).eval()
    assert_close(program.module()(images(3)), logits(expected, images(3)))
    assert main([*given, str(tmp_path / "x.pt2"), "--batch-size", "many"]) == 2
    assert "--batch-size is 'many'" in capsys.readouterr().err
