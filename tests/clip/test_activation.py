"""Activation of CLIP's towers: chosen, said, and compared with what is known of a file."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from pathlib import Path

import open_clip
import pytest
import torch
from torch import nn

import dplq
from dplq.clip import known_files, sources
from dplq.clip.activation import ACTS, choose_activation, running_activations
from dplq.clip.backbone import Backbone, load_backbone
from dplq.clip.known_files import catalogue_files, find_known
from dplq.clip.sources import Source
from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.io.spec import Spec
from tests.hub import use_hub
from tests.tiny import tiny_backbone, tiny_clip_config, write_clip_dir

NARROW = {"text_width": 16}


@pytest.fixture
def tiny_openai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """CoOp's name ViT-B/16 and open_clip's name tiny-act stand for a tiny model."""
    config = tmp_path / "tiny-act.json"
    config.write_text(json.dumps(tiny_clip_config(**NARROW)), encoding="utf-8")
    open_clip.add_model_config(config)
    monkeypatch.setitem(sources.OPENAI_VITS, "ViT-B/16", "tiny-act")
    tags = {"openai": {}, "plain": {}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-act", tags)
    return "tiny-act"


@functools.cache
def tiny_state() -> dict[str, torch.Tensor]:
    state = tiny_backbone(seed=7, **NARROW).clip.state_dict()
    return {key: value.contiguous() for key, value in state.items()}


@pytest.fixture(autouse=True)
def _built_before_the_log_is_watched() -> None:
    tiny_state()


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tiny_state(), path)
    return path


def image_feature(backbone: Backbone) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return backbone.encode_image(torch.randn(2, 3, 32, 32, generator=generator))


@pytest.mark.parametrize(
    ("name", "act", "expected"),
    [
        ("ViT-B/16", "auto", "quickgelu"),
        ("ViT-B/16", "gelu", "gelu"),
        ("ViT-B/16", "quickgelu", "quickgelu"),
        ("tiny-act", "auto", "gelu"),
        ("tiny-act", "quickgelu", "quickgelu"),
    ],
)
def test_the_activation_of_a_file_is_chosen_and_said(
    tmp_path: Path,
    tiny_openai: str,
    caplog: pytest.LogCaptureFixture,
    name: str,
    act: str,
    expected: str,
) -> None:
    file = save(tmp_path / "mine.pt")
    with caplog.at_level(logging.INFO, "dplq"):
        backbone = load_backbone(name, weights=str(file), act=act)
    assert backbone.activation == expected
    assert f"{name}: activation {expected}" in caplog.text
    assert "mine.pt: with which activation it was trained is not known" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    # As before where nothing else was asked for, so that older headers still fit.
    usual = "quickgelu" if name == "ViT-B/16" else "gelu"
    assert dict(backbone.spec.options) == ({} if act in ("auto", usual) else {"act": act})
    other = {"quickgelu": "tiny-act", "gelu": "ViT-B/16"}[expected]
    same = load_backbone(other, weights=str(file), act=expected)
    assert torch.equal(image_feature(same), image_feature(backbone))
    different = load_backbone(
        name, weights=str(file), act={"gelu", "quickgelu"}.difference({expected}).pop()
    )
    assert not torch.equal(image_feature(different), image_feature(backbone))


@pytest.mark.parametrize(
    ("file", "name", "said"),
    [
        ("RemoteCLIP-ViT-B-32.pt", "tiny-act", "quickgelu (RemoteCLIP ViT-B/32: trained from"),
        ("RS5M_ViT-B-32.pt", "tiny-act", "quickgelu (GeoRSCLIP ViT-B/32: the"),
        ("RS5M_ViT-H-14.pt", "ViT-B/16", "gelu (GeoRSCLIP ViT-H/14: the authors"),
        ("SkyCLIP_ViT_L14_top30pct/epoch_20.pt", "tiny-act", "quickgelu (SkyCLIP ViT-L/14 "),
        ("SkyCLIP_ViT_B32_top50pct/epoch_20.pt", "ViT-B/16", "gelu (SkyCLIP ViT-B/32 (top"),
        ("clip-rsicd-v2/pytorch_model.bin", "tiny-act", "quickgelu (CLIP-RSICD v2 ViT"),
        ("models--vinid--plip/snapshots/1a2b/pytorch_model.bin", "tiny-act", "quickgelu (PLIP V"),
        ("unimed_clip_vit_b16.pt", "tiny-act", "quickgelu (UniMed-CLIP ViT-B/16: "),
        ("MONET/weight_clip.pt", "tiny-act", "quickgelu (MONET ViT-L/14: dermatology"),
        ("chexzero/best.pt", "tiny-act", "quickgelu (CheXzero ViT-B/32: chest"),
        ("b16_400m.pt", "tiny-act", "quickgelu (open_clip's ViT-B-16-quickgelu:metaclip_400m)"),
        ("vit_l_14-laion400m_e32-3d133497.pt", "ViT-B/16", "gelu (open_clip's ViT-L-14:laion400m"),
    ],
)
def test_a_known_file_run_with_the_other_activation_is_warned_of(
    tmp_path: Path,
    tiny_openai: str,
    caplog: pytest.LogCaptureFixture,
    file: str,
    name: str,
    said: str,
) -> None:
    path = save(tmp_path / file)
    load_backbone(name, weights=str(path))
    (warning,) = caplog.messages
    assert f"{path.name} was trained with {said}" in warning
    right = said.partition(" ")[0]
    assert f"'{name}' runs " in warning
    assert warning.endswith(f"set act='{right}' (MODEL.BACKBONE.ACT)")
    caplog.clear()
    load_backbone(name, weights=str(path), act=right)
    assert not caplog.messages


def test_a_file_is_known_by_its_digest(
    tmp_path: Path,
    tiny_openai: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = save(tmp_path / "renamed.pt")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    address = f"https://openaipublic.azureedge.net/clip/models/{digest}/ViT-B-16.pt"
    tags = {"openai": {"url": address, "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-act", tags)
    known_files._open_clip_files.cache_clear()
    try:
        load_backbone("tiny-act", weights=str(path))
        assert "renamed.pt was trained with quickgelu (open_clip's tiny-act:openai)" in caplog.text
        assert find_known(Path("ViT-B-16.pt")) is None  # anybody's file may have that name
    finally:
        known_files._open_clip_files.cache_clear()


def test_openais_files_are_known_by_the_digest_in_their_address() -> None:
    digest = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    known = find_known(Path("x.pt"), digest)
    assert known is not None
    assert (known.act, known.reason) == ("quickgelu", "open_clip's ViT-B-32-quickgelu:openai")
    assert find_known(Path("x.pt"), digest[::-1]) is None


def test_every_entry_of_the_table_is_complete() -> None:
    for known in catalogue_files():
        assert known.act in ACTS[1:]
        assert known.names
        assert known.reason
    assert find_known(Path("QuiltNet-B-32/open_clip_pytorch_model.bin")) is None
    assert find_known(Path("plip/file.bin")) is not None
    assert find_known(Path("plip/mine/file.bin")) is None


def test_a_config_beside_a_file_says_its_activation(
    tmp_path: Path, tiny_openai: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path / "w" / "pytorch_model.bin")
    config = path.with_name("config.json")
    for content, act, wrong in (
        ({"model_type": "clip", "text_config": {}}, "quickgelu", "tiny-act"),
        ({"model_type": "clip", "text_config": {"hidden_act": "gelu"}}, "gelu", "ViT-B/16"),
    ):
        config.write_text(json.dumps(content))
        caplog.clear()
        load_backbone(wrong, weights=str(path))
        assert f"was trained with {act} (the config.json beside it)" in caplog.text
    for text in ("{", '{"model_type": "vit"}', "[]"):
        config.write_text(text)
        caplog.clear()
        load_backbone("ViT-B/16", weights=str(path))
        assert not caplog.messages


def test_what_a_name_is_published_with_is_replaced_with_a_warning(
    tmp_path: Path,
    tiny_openai: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = save(tmp_path / "downloaded.bin")
    monkeypatch.setattr("open_clip.pretrained.download_pretrained", lambda cfg: str(file))
    assert load_backbone("ViT-B/16").spec == Spec("ViT-B/16")
    assert not caplog.messages
    backbone = load_backbone("ViT-B/16", act="gelu")
    assert backbone.spec == Spec("ViT-B/16", options={"act": "gelu"})
    assert "act=gelu replaces quickgelu, with which 'ViT-B/16' is published" in caplog.text


def test_values_of_act() -> None:
    with pytest.raises(UserError, match=r"act='quickgel' \(MODEL.BACKBONE.ACT\) is none of auto, "):
        load_backbone("ViT-B/16", act="quickgel", pretrained=False)
    source = Source("x", Spec("x"), {"quick_gelu": True})
    choose_activation(source, "auto")
    assert source.config == {"quick_gelu": True}


def test_random_weights_run_what_is_asked_for(tmp_path: Path) -> None:
    name = write_clip_dir(tmp_path, tiny_clip_config(**NARROW))
    backbone = load_backbone(name, pretrained=False, act="quickgelu")
    assert backbone.activation == "quickgelu"
    assert load_backbone(**backbone.spec.as_dict()).activation == "quickgelu"


def test_towers_that_differ_are_said_apart() -> None:
    model = nn.ModuleDict({"visual": nn.Sequential(nn.ReLU(), nn.SiLU()), "text": nn.GELU("tanh")})
    assert running_activations(model) == {"image": "relu+silu", "text": "gelu_tanh"}
    assert running_activations(nn.ModuleDict({"visual": nn.Sequential(nn.GELU())})) == {
        "image": "gelu",
        "text": "none",
    }


def test_a_checkpoint_says_the_activation_of_the_file_it_was_trained_with(
    tmp_path: Path, tiny_openai: str
) -> None:
    file = save(tmp_path / "mine.pt")
    names = ["river", "forest"]
    path = tmp_path / "prompts.safetensors"

    def header(**arguments: str) -> dict[str, object]:
        clip = load_backbone("ViT-B/16", weights=str(file), **arguments)
        dplq.create_model("CoOp", clip, names, n_ctx=2).save(path)
        return checkpoint.read_header(path)

    auto = header()
    assert auto["activation"] == "quickgelu"
    assert "act" not in auto["backbone"]
    chosen = header(act="gelu")
    assert (chosen["activation"], chosen["backbone"]["act"]) == ("gelu", "gelu")
    assert dplq.load(path, weights=str(file)).clip.activation == "gelu"
    # Without a file of one's own the header is what it was.
    dplq.create_model("CoOp", tiny_backbone(seed=1, **NARROW), names, n_ctx=2).save(path)
    assert "activation" not in checkpoint.read_header(path)


def test_a_header_without_the_activation_fits_as_before(tmp_path: Path, tiny_openai: str) -> None:
    clip = load_backbone("ViT-B/16", weights=str(save(tmp_path / "mine.pt")))
    model = dplq.create_model("CoOp", clip, ["river", "forest"], n_ctx=2)
    path = tmp_path / "older.safetensors"
    checkpoint.save(path, model.prompt_learner.state_dict(), model.header())
    assert "activation" not in model.load(path)
    other = load_backbone("ViT-B/16", weights=str(tmp_path / "mine.pt"), act="gelu")
    with pytest.raises(UserError, match="act"):
        dplq.create_model("CoOp", other, ["river", "forest"], n_ctx=2).load(path)


def test_equal_weights_with_the_other_activation_are_refused(tmp_path: Path) -> None:
    folders = {}
    for act in ("gelu", "quickgelu"):
        config = {**tiny_clip_config(**NARROW), "quick_gelu": act == "quickgelu"}
        folders[act] = write_clip_dir(tmp_path / act, config)
        save(tmp_path / act / "open_clip_pytorch_model.bin")
    names, path = ["river", "forest"], tmp_path / "prompts.safetensors"
    first, second = (load_backbone(folders[act]) for act in ("gelu", "quickgelu"))
    assert first.spec.sha256 == second.spec.sha256
    dplq.create_model("CoOp", first, names, n_ctx=2).save(path)
    said = r"activation: there 'gelu', now 'quickgelu'.* act= .*\(MODEL\.BACKBONE\.ACT\)"
    with pytest.raises(UserError, match=said):
        dplq.create_model("CoOp", second, names, n_ctx=2).load(path)
    with pytest.raises(UserError, match=said):
        dplq.load(path, weights=str(tmp_path / "quickgelu"))
    # How the activation was chosen does not matter.
    for name, act in ((folders["quickgelu"], "gelu"), (folders["gelu"], "gelu")):
        dplq.create_model("CoOp", load_backbone(name, act=act), names, n_ctx=2).load(path)


def test_a_name_alone_with_another_activation_is_not_mixed_up(
    tmp_path: Path, tiny_openai: str
) -> None:
    names, path = ["river", "forest"], tmp_path / "prompts.safetensors"
    chosen, auto = (load_backbone(tiny_openai, pretrained=False, act=a) for a in ACTS[::-2])
    dplq.create_model("CoOp", chosen, names, n_ctx=2).save(path)
    with pytest.raises(UserError, match="activation: there 'quickgelu', now 'gelu'"):
        dplq.create_model("CoOp", auto, names, n_ctx=2).load(path)


def test_gelu_keeps_the_form_that_a_model_has() -> None:
    kwargs = {"act_kwargs": {"approximate": "tanh"}}
    for act, kept in (("gelu", kwargs), ("quickgelu", {})):
        source = Source("x", Spec("x"), {"vision_cfg": kwargs, "text_cfg": kwargs})
        choose_activation(source, act)
        assert source.config["vision_cfg"] == source.config["text_cfg"] == kept
        assert bool(source.spec.options) == (act == "quickgelu")


def test_a_model_of_the_hub_is_known_by_digest_and_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "models--vinid--plip" / "snapshots" / "1a2b"
    local = write_clip_dir(folder, tiny_clip_config(**NARROW))
    file = save(folder / "open_clip_pytorch_model.bin")

    use_hub(monkeypatch, folder)
    clip = load_backbone("hf-hub:vinid/plip")
    assert f"{file.name} was trained with quickgelu (P" in caplog.text
    model = dplq.create_model("CoOp", clip, ["river", "forest"], n_ctx=2)
    path = tmp_path / "prompts.safetensors"
    model.save(path)
    header = checkpoint.read_header(path)
    assert header["activation"] == "gelu"
    assert header["backbone"]["weights_sha256"] == load_backbone(local).spec.sha256
    # As earlier versions wrote it.
    older = model.header()
    del older["backbone"]["weights_sha256"]
    checkpoint.save(path, model.prompt_learner.state_dict(), older)
    caplog.clear()
    model.load(path)
    assert "does not record the content of its CLIP hf-hub:vinid/plip" in caplog.text


def test_an_activation_that_is_not_published_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "require_weights", lambda name: save(tmp_path / "w.pt"))
    for act, used in (("auto", "gelu"), ("gelu", "gelu"), ("quickgelu", "quickgelu")):
        caplog.clear()
        source = sources.find_source("georsclip-vit-l-14", "", True, 0)
        choose_activation(source, act)
        (warning,) = caplog.messages
        assert f"do not say whether it was trained with GELU or QuickGELU: {used} is" in warning
