"""CLIPs of the hub: what cannot be had is not taken for absent, and revisions are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import dplq
from dplq.clip.backbone import load_backbone
from dplq.clip.hub_tokenizer import HubTokenizer
from dplq.errors import UserError
from dplq.io import checkpoint
from tests.hub import use_hub
from tests.tiny import tiny_backbone, tiny_clip_config, write_clip_dir

PREPROCESSOR = "preprocessor_config.json"
MEAN = [0.1, 0.2, 0.3]
TOWER = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}


@pytest.fixture
def plip(tmp_path: Path) -> Path:
    """Return a folder in transformers' layout, with statistics of its own."""
    transformers = pytest.importorskip("transformers")
    small = {**TOWER, "intermediate_size": 256}
    config = transformers.CLIPConfig(
        text_config=small,
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=48,
    )
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    (tmp_path / PREPROCESSOR).write_text(json.dumps({"image_mean": MEAN, "image_std": [0.5] * 3}))
    return tmp_path


def test_statistics_that_cannot_be_downloaded_are_not_guessed(
    plip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = use_hub(monkeypatch, plip)
    assert load_backbone("hf-hub:org/plip").image_mean == tuple(MEAN)
    for kind, problem in (("broken", "ConnectionError: no network at all"), ("uncached", "")):
        setattr(hub, kind, {PREPROCESSOR})
        with pytest.raises(UserError) as caught:
            load_backbone("hf-hub:org/plip")
        setattr(hub, kind, ())
        start = f"cannot get {PREPROCESSOR} of 'hf-hub:org/plip' ({problem}"
        assert str(caught.value).startswith(start)
        assert str(caught.value).endswith("huggingface.co/org/plip and name it local-dir:PATH")


def test_a_repository_without_statistics_has_those_of_openai(
    plip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plip / PREPROCESSOR).unlink()
    use_hub(monkeypatch, plip)
    assert load_backbone("hf-hub:org/plip").image_mean == dplq.load_backbone("demo").image_mean


def test_the_cache_records_what_a_repository_lacks(
    plip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that without network it loads as it did with it."""
    (plip / PREPROCESSOR).unlink()
    hub = use_hub(monkeypatch, plip)
    hub.uncached = {PREPROCESSOR, "open_clip_config.json"}
    with pytest.raises(UserError, match=f"cannot get {PREPROCESSOR}"):
        load_backbone("hf-hub:org/plip")
    repository = Path(constants.HF_HUB_CACHE) / "models--org--plip"
    absent = repository / ".no_exist" / "1a2b" / PREPROCESSOR
    absent.parent.mkdir(parents=True)
    absent.touch()
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("1a2b")
    (repository / "snapshots/1a2b").mkdir(parents=True)
    assert load_backbone("hf-hub:org/plip").image_mean != tuple(MEAN)


@pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:"])
@pytest.mark.parametrize(("at", "revision"), [("", None), ("@v2", "v2")])
def test_a_revision_is_downloaded_and_recorded(
    prefix: str, at: str, revision: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip_dir(tmp_path, tiny_clip_config())
    state = tiny_backbone().clip.state_dict()
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    hub = use_hub(monkeypatch, tmp_path)
    clip = load_backbone(f"{prefix}org/name{at}")
    assert set(hub.asked) == {
        ("org/name", "open_clip_config.json", revision),
        ("org/name", "open_clip_model.safetensors", revision),
        ("org/name", "open_clip_pytorch_model.safetensors", revision),
        ("org/name", "open_clip_pytorch_model.bin", revision),
    }
    dplq.create_model("CoOp", clip, ["river"], n_ctx=1).save(tmp_path / "m.safetensors")
    header = checkpoint.read_header(tmp_path / "m.safetensors")
    assert header["backbone"]["name"] == f"{prefix}org/name{at}"
    hub.asked.clear()
    again = dplq.load(tmp_path / "m.safetensors").clip
    assert {asked for *_, asked in hub.asked} == {revision}
    assert again.spec == clip.spec


def test_the_tokenizer_is_of_the_same_revision(plip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads((plip / "config.json").read_text())
    content["text_config"]["vocab_size"] = 1000  # not CLIP's own
    content["text_config"]["eos_token_id"] = 999
    (plip / "config.json").write_text(json.dumps(content))
    asked = []

    def tokenizer(name: str, **options: str) -> object:
        asked.append((name, options))
        raise OSError("no network")

    use_hub(monkeypatch, plip)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", tokenizer)
    for at, options in (("", {}), ("@v2", {"revision": "v2"})):
        clip = load_backbone(f"hf-hub:org/plip{at}", pretrained=False)
        assert isinstance(clip.text.tokenizer, HubTokenizer)
        with pytest.raises(UserError, match="cannot get the tokenizer 'org/plip"):
            clip.tokenize(["a"])
        assert asked.pop() == ("org/plip", options)


@pytest.mark.parametrize("name", ["hf-hub:name", "hf-hub:org/name@", "hf_hub:a/b/c", "hf-hub:"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UserError) as caught:
        load_backbone(name)
    assert str(caught.value) == (
        f"'{name}' names no repository of the Hub: write hf-hub:org/name, or "
        "hf-hub:org/name@revision."
    )
