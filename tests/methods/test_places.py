"""A run's checkpoint finds its frozen parts where the run's own record says that they were."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import dplq
from dplq.__main__ import main
from dplq.clip.backbone import load_backbone
from dplq.domain.load import load_domain_encoder
from dplq.errors import UserError
from tests.tiny import tiny_backbone, tiny_clip_config, write_clip_dir

NAMES = ["forest", "river"]
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
VIT = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2}
FILE = "model.safetensors"
RESULTS = {
    **{"format": 1, "trainer": "QuaternionPrompt", "dataset": "EuroSAT", "subsample": "base"},
    **{"shots": 1, "seed": 1, "accuracy": 50.0},
}


def write_clip(folder: Path, seed: int = 0) -> Path:
    """Write a tiny CLIP with weights."""
    clip = tiny_backbone(folder, seed=seed)
    state = {key: value.contiguous() for key, value in clip.clip.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def write_encoder(folder: Path, seed: int = 0) -> Path:
    """Write a small ViT in timm's layout."""
    torch.manual_seed(seed)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **VIT)
    timm.models.save_for_hf(model, folder, model_args=VIT, safe_serialization=True)
    return folder


def write_run(run: Path, backbone: dict, domain: dict | None = None, name: str = "results.json"):
    """Write checkpoint and results of a run with these config keys; return its model."""
    clip = load_backbone(backbone["NAME"], weights=backbone.get("INIT_WEIGHTS", ""))
    given = {}
    if domain:
        encoder = load_domain_encoder(
            domain["ENCODER"], weights=domain.get("WEIGHTS", ""), backbone=clip
        )
        given = {"domain": encoder}
    settings = {"n_ctx": 1, "prompt_depth": 2, "head_weight": 0.0} if domain else {"n_ctx": 1}
    method = "QuaternionPrompt" if domain else "CoOp"
    model = dplq.create_model(method, clip, NAMES, seed=3, **given, **settings).eval()
    model.save(run / "prompt_learner/model-1.safetensors")
    config = {
        "OUTPUT_DIR": os.path.relpath(run),
        "MODEL": {
            "BACKBONE": {"NAME": backbone["NAME"]},
            "INIT_WEIGHTS": backbone.get("INIT_WEIGHTS", ""),
        },
        "DOMAIN": {"WEIGHTS": "", "ENCODER": "none", **(domain or {})},
    }
    (run / name).write_text(json.dumps({**RESULTS, "config": config}), encoding="utf-8")
    return model


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Return a folder with models below it, in which training started; the test is in another."""
    write_clip(tmp_path / "start/models/clip")
    write_encoder(tmp_path / "start/models/enc")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "start")
    return tmp_path


def check_same(run: Path, model) -> None:
    """Compare the logits of a run's folder with those of the model that was trained."""
    with torch.no_grad():
        assert torch.equal(dplq.load(run)(IMAGES), model(IMAGES))


@pytest.mark.parametrize("name", ["results.json", "results-base.json"])
def test_folders_are_found_where_the_run_had_them(places, monkeypatch, name):
    models = places / "start/models"
    parts = {"NAME": f"local-dir:{models}/clip"}, {"ENCODER": f"local-dir:{models}/enc"}
    model = write_run(places / "run", *parts, name=name)
    monkeypatch.chdir(places / "elsewhere")
    check_same(places / "run", model)
    monkeypatch.chdir(places / "run/prompt_learner")
    check_same(Path("model-1.safetensors"), model)


def test_the_printed_next_command_works(places, monkeypatch, capsys):
    models = places / "start/models"
    write_run(places / "run", {"NAME": f"local-dir:{models}/clip"})
    Image.new("RGB", (32, 32), (9, 99, 9)).save(places / "a.png")
    monkeypatch.chdir(places / "elsewhere")
    assert main(["predict", str(places / "run"), str(places / "a.png")]) == 0
    assert "a.png" in capsys.readouterr().out
    shutil.rmtree(models)
    assert main(["predict", str(places / "run"), str(places / "a.png")]) == 2
    assert (
        f"was trained with clip, which is neither at {models}/clip nor in the current folder nor "
        "beside the checkpoint: say where it is with --weights PATH"
    ) in capsys.readouterr().err


def test_files_are_found_where_the_run_had_them(places, monkeypatch):
    models = places / "start/models"
    (models / "clip/open_clip_model.safetensors").rename(places / "start/clip.safetensors")
    (models / "enc/model.safetensors").rename(places / "start/enc.safetensors")
    backbone = {
        "NAME": f"local-dir:{models}/clip",
        "INIT_WEIGHTS": f"{places}/start/clip.safetensors",
    }
    domain = {"ENCODER": f"local-dir:{models}/enc", "WEIGHTS": f"{places}/start/enc.safetensors"}
    model = write_run(places / "run", backbone, domain)
    monkeypatch.chdir(places / "elsewhere")
    check_same(places / "run", model)


@pytest.mark.parametrize("here", ["start", "elsewhere"])
def test_relative_paths_are_from_where_the_run_was_started(places, monkeypatch, here):
    """The run's own folder tells where that was: OUTPUT_DIR is relative, too."""
    domain = {"ENCODER": "local-dir:models/enc"}
    model = write_run(Path("out/a"), {"NAME": "local-dir:models/clip"}, domain)
    monkeypatch.chdir(places / here)
    check_same(Path(os.path.relpath(places / "start/out/a")), model)


def test_the_home_folder_is_written_as_a_tilde(places, monkeypatch):
    monkeypatch.setenv("HOME", str(places / "start"))
    model = write_run(places / "run", {"NAME": "local-dir:~/models/clip"})
    monkeypatch.chdir(places / "elsewhere")
    check_same(places / "run", model)


def test_each_of_several_encoders_has_its_own_path(places, monkeypatch):
    """Also where their folders have one name."""
    write_encoder(places / "other/enc", seed=1)
    names = [f"local-dir:{places}/start/models/enc", f"local-dir:{places}/other/enc"]
    run = places / "run"
    backbone = {"NAME": f"local-dir:{places}/start/models/clip"}
    model = write_run(run, backbone, {"ENCODER": names})
    monkeypatch.chdir(places / "elsewhere")
    check_same(run, model)
    content = json.loads((run / "results.json").read_text())
    content["config"]["DOMAIN"]["ENCODER"] = f"[{', '.join(names)}]"  # as a host's config has it
    (run / "results.json").write_text(json.dumps(content), encoding="utf-8")
    check_same(run, model)


def test_other_content_at_the_path_is_refused(places, monkeypatch):
    models = places / "start/models"
    write_run(places / "run", {"NAME": f"local-dir:{models}/clip"})
    write_clip(models / "clip", seed=7)
    monkeypatch.chdir(places / "elsewhere")
    with pytest.raises(UserError, match=r"other settings\. backbone\.weights_sha256: there"):
        dplq.load(places / "run")


def test_a_folder_of_that_name_in_the_current_one_is_not_taken_for_it(places, monkeypatch):
    """Such as `clip`, the package in trees of CoOp; what the user gives goes before all."""
    models = places / "start/models"
    model = write_run(places / "run", {"NAME": f"local-dir:{models}/clip"})
    (places / "elsewhere/clip").mkdir()
    monkeypatch.chdir(places / "elsewhere")
    check_same(places / "run", model)
    write_clip_dir(places / "given", tiny_clip_config())
    with pytest.raises(UserError, match=r"expected open_clip_model\.safetensors or one single"):
        dplq.load(places / "run", weights=places / "given")


def test_a_file_with_the_recorded_content_goes_before_a_replaced_one(places, monkeypatch):
    models, file = places / "start/models", places / "start/clip.safetensors"
    (models / "clip/open_clip_model.safetensors").rename(file)
    backbone = {"NAME": f"local-dir:{models}/clip", "INIT_WEIGHTS": str(file)}
    model = write_run(places / "run", backbone)
    shutil.copy(file, places / "run/prompt_learner/clip.safetensors")
    other = write_clip(places / "more", seed=7) / "open_clip_model.safetensors"
    other.replace(file)
    monkeypatch.chdir(places / "elsewhere")
    check_same(places / "run", model)


@pytest.mark.parametrize("content", ["{", '{"format": 1}', json.dumps({**RESULTS, "config": {}})])
def test_without_a_usable_record_nothing_changes(places, monkeypatch, content):
    run = places / "run"
    write_run(run, {"NAME": f"local-dir:{places}/start/models/clip"})
    (run / "results.json").write_text(content, encoding="utf-8")
    monkeypatch.chdir(places / "elsewhere")
    with pytest.raises(UserError, match="with clip, which is neither in the current folder nor"):
        dplq.load(run)
    shutil.copytree(places / "start/models/clip", run / "prompt_learner/clip")
    assert dplq.load(run).classnames == NAMES


def test_a_checkpoint_outside_its_run_has_no_record(places, monkeypatch):
    run = places / "run"
    write_run(run, {"NAME": f"local-dir:{places}/start/models/clip"})
    shutil.copy(run / "prompt_learner/model-1.safetensors", places / "run/m.safetensors")
    monkeypatch.chdir(places / "elsewhere")
    with pytest.raises(UserError, match="with clip, which is neither in the current folder nor"):
        dplq.load(run / "m.safetensors")
