"""Encoders in folders and hub repositories, and checkpoints that know them by content."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file

import dplq
from dplq.domain.encoder import IMAGENET_MEAN, IMAGENET_STD
from dplq.domain.load import find_domain_weights, load_domain_encoder
from dplq.domain.repository import WEIGHTS
from dplq.errors import UserError
from dplq.io.checkpoint import read, save
from dplq.io.files import file_digest
from dplq.io.spec import Spec
from tests.domain.helpers import (
    SMALL_VIT,
    clip_images,
    mae_state,
    normalise,
    random_pixels,
    randomise,
    small,
)
from tests.domain.helpers import save as save_file
from tests.tiny import tiny_backbone

NAMES = ["forest", "river"]
MEAN, STD = [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]


def write_folder(
    folder: Path, *, seed: int = 1, mean: list[float] = MEAN, as_safetensors: bool = True
) -> Path:
    """Write a small ViT as timm publishes one: config.json with model_args, model.safetensors."""
    torch.manual_seed(seed)
    args = {**SMALL_VIT, "init_values": 0.5}
    model = timm.create_model("vit_base_patch16_224", num_classes=5, **args)
    model.pretrained_cfg.update({"mean": mean, "std": STD, "input_size": (3, 32, 32)})
    timm.models.save_for_hf(model, folder, model_args=args, safe_serialization=as_safetensors)
    return folder


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone()


def model_with(clip, domain):
    """Return a small model that uses a domain encoder."""
    settings = {"n_ctx": 1, "prompt_depth": 2, "head_weight": 0.0}
    return dplq.create_model("QuaternionPrompt", clip, NAMES, domain=domain, seed=3, **settings)


def test_a_folder_in_timm_s_layout_equals_timm(tmp_path):
    folder = write_folder(tmp_path / "vit")
    # timm reads its folders with torch.load, which in old torch cannot read safetensors.
    same = write_folder(tmp_path / "timm", as_safetensors=False)
    theirs = timm.create_model(f"local-dir:{same}", pretrained=True, num_classes=0).eval()
    encoder = load_domain_encoder(f"local-dir:{folder}")
    pixels = random_pixels(32)
    with torch.no_grad():
        tokens = theirs.forward_features(normalise(pixels, tuple(MEAN), tuple(STD)))
    torch.testing.assert_close(encoder(clip_images(pixels)), tokens[:, 1:].mean(1))
    assert (encoder.image_size, encoder.feature_dim) == (32, 32)
    assert encoder.spec.header()["name"] == "local-dir:vit"
    assert len(encoder.spec.sha256) == 64


def test_the_digest_covers_weights_and_config_and_not_the_name(tmp_path):
    one, other, mean = (
        write_folder(tmp_path / "a" / "vit"),
        write_folder(tmp_path / "b" / "vit", seed=2),
        write_folder(tmp_path / "c" / "vit", mean=[0.1, 0.1, 0.1]),
    )
    renamed = shutil.copytree(one, tmp_path / "renamed")
    specs = [load_domain_encoder(f"local-dir:{path}").spec for path in (one, renamed, other, mean)]
    assert specs[0].identity() == specs[1].identity()
    assert "name" not in specs[0].identity()
    assert len({spec.sha256 for spec in specs}) == 3


def test_a_checkpoint_knows_its_encoder_s_folder_by_content(clip, tmp_path):
    """The right weights load from a renamed folder; others under the same name are refused."""
    folder = write_folder(tmp_path / "there" / "vit")
    model = model_with(clip, load_domain_encoder(f"local-dir:{folder}", backbone=clip)).eval()
    model.save(tmp_path / "m.safetensors")
    renamed = shutil.copytree(folder, tmp_path / "renamed")
    write_folder(tmp_path / "vit", seed=2)  # beside the checkpoint, as the header's name says
    again = dplq.load(tmp_path / "m.safetensors", clip=clip, domain_weights=str(renamed))
    images = clip_images(random_pixels(32))
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    with pytest.raises(UserError, match=r"domain.weights_sha256"):
        dplq.load(tmp_path / "m.safetensors", clip=clip)


def test_a_folder_with_a_file_of_weights_can_be_reopened(clip, tmp_path):
    """The folder gives the architecture; it is found beside the file, and by domain_weights."""
    folder = write_folder(tmp_path / "there" / "vit")
    weights = shutil.copy(folder / "model.safetensors", tmp_path / "there" / "mine.safetensors")
    (folder / "model.safetensors").unlink()
    name = f"local-dir:{folder}"
    model = model_with(clip, load_domain_encoder(name, weights=str(weights), backbone=clip)).eval()
    assert model.domain.spec.sha256 == file_digest(weights)  # as earlier versions recorded it
    file = tmp_path / "m.safetensors"
    model.save(file)
    images = clip_images(random_pixels(32))
    with torch.no_grad():
        expected = model(images)
        assert torch.equal(
            dplq.load(file, clip=clip, domain_weights=str(weights))(images), expected
        )
    shutil.copy(weights, folder)
    again = dplq.load(file, clip=clip, domain_weights=str(folder))
    assert again.domain.spec == model.domain.spec.__class__.from_header(
        {**model.header()["domain"], "name": name}
    )
    with pytest.raises(UserError, match="neither in the current folder nor"):
        dplq.load(file, clip=clip)


def test_a_checkpoint_without_a_digest_of_the_folder_still_loads(clip, tmp_path, caplog):
    """As earlier versions wrote it; the log says what is not checked."""
    folder = write_folder(tmp_path / "vit")
    model = model_with(clip, load_domain_encoder(f"local-dir:{folder}", backbone=clip))
    file = tmp_path / "m.safetensors"
    model.save(file)
    tensors, header = read(file)
    del header["domain"]["weights_sha256"]
    save(file, tensors, {k: v for k, v in header.items() if k not in ("format", "checksum")})
    with caplog.at_level(logging.WARNING, "dplq"):
        dplq.load(file, clip=clip)
    assert "does not record the content of its domain encoder local-dir:vit" in caplog.text
    caplog.clear()
    model.save(file)
    dplq.load(file, clip=clip)
    assert "does not record" not in caplog.text


def test_a_norm_after_the_average_is_recorded_and_old_checkpoints_keep_theirs(
    clip, tmp_path, caplog
):
    """Earlier versions averaged without `fc_norm`: their checkpoints load with those features."""
    args = {"global_pool": "avg", "depth": 2, "img_size": 32}
    given = {"pretrained": False, "args": args}
    encoder = load_domain_encoder("test_vit", **given, backbone=clip)
    assert encoder.spec.options["pool"] == "avg"
    randomise(encoder.encoder.fc_norm)
    images = clip_images(random_pixels(32))
    with torch.no_grad():
        tokens = encoder.encoder.forward_features(encoder.prepare(images))
    torch.testing.assert_close(encoder(images), encoder.encoder.fc_norm(tokens[:, 1:].mean(1)))

    model = model_with(clip, load_domain_encoder("test_vit", **given, backbone=clip))
    file = tmp_path / "m.safetensors"
    model.save(file)
    assert dplq.load(file, clip=clip).domain.pool == "avg"
    assert "left out" not in caplog.text
    tensors, header = read(file)
    del header["domain"]["pool"]
    save(file, tensors, {k: v for k, v in header.items() if k not in ("format", "checksum")})
    again = dplq.load(file, clip=clip).domain
    assert "the checkpoint is of a version that left out the norm after the average" in caplog.text
    torch.testing.assert_close(again(images), tokens[:, 1:].mean(1))
    cure = r"does not record pool of its domain encoder.*dplq\.load .*opens it as it was trained"
    with pytest.raises(UserError, match=rf"domain.pool: there (None|nothing), now 'avg'.*{cure}"):
        model.load(file)


@pytest.mark.parametrize(
    ("name", "args", "text"),
    [
        (
            "convnext_atto",
            {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
            "left out the norm after the average",
        ),
        (
            "coat_lite_tiny",
            {"embed_dims": [16] * 4, "serial_depths": [1] * 4},
            "averaged class tokens among the patches",
        ),
    ],
)
def test_old_checkpoints_of_models_that_were_pooled_otherwise_keep_their_features(
    clip, tmp_path, caplog, name, args, text
):
    encoder = load_domain_encoder(name, pretrained=False, args=args, backbone=clip)
    images = clip_images(random_pixels(224))
    with torch.no_grad():
        tokens = encoder.encoder.forward_features(encoder.prepare(images))
    earlier = tokens.mean((2, 3)) if tokens.ndim == 4 else tokens.mean(1)
    file = tmp_path / "m.safetensors"
    model_with(clip, encoder).save(file)
    torch.testing.assert_close(dplq.load(file, clip=clip).domain(images), encoder(images))
    assert "the checkpoint is of a version" not in caplog.text
    tensors, header = read(file)
    assert header["domain"].pop("pool") == "avg"
    save(file, tensors, {k: v for k, v in header.items() if k not in ("format", "checksum")})
    again = dplq.load(file, clip=clip).domain
    assert f"the checkpoint is of a version that {text}, and its features are pooled as" in (
        caplog.text
    )
    torch.testing.assert_close(again(images), earlier)
    assert (again(images) - encoder(images)).abs().max() > 1e-3


def test_a_repository_of_the_hub_is_a_downloaded_folder(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "vit")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    asked = []

    def download(repository, file, revision):
        asked.append((repository, file, revision))
        if not (folder / file).is_file():
            raise EntryNotFoundError(file)
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    encoder = load_domain_encoder("hf-hub:org/vit@v1")
    assert asked == [
        ("org/vit", "config.json", "v1"),
        ("org/vit", "model.safetensors", "v1"),
        ("org/vit", "pytorch_model.bin", "v1"),
    ]
    local = load_domain_encoder(f"local-dir:{folder}")
    assert encoder.spec.sha256 == local.spec.sha256
    images = clip_images(random_pixels(32))
    assert torch.equal(encoder(images), local(images))


def test_offline_is_not_taken_for_a_repository_without_the_file(tmp_path, monkeypatch):
    """Without its statistics or weights an encoder is refused, not run with others."""
    folder = write_folder(tmp_path / "vit")
    (folder / "config.json").write_text(json.dumps(DINOV2))
    missing = ["preprocessor_config.json"]

    def download(repository, file, revision):
        if file in missing:
            raise LocalEntryNotFoundError("offline")
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for file in ("preprocessor_config.json", "model.safetensors"):
        with pytest.raises(UserError, match=rf"its {file} cannot be downloaded"):
            load_domain_encoder("hf-hub:org/vit")
        (folder / "preprocessor_config.json").write_text("{}")
        missing = list(WEIGHTS)

    def fail(*args, **kwargs):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(UserError, match="'test_vit': its weights cannot be downloaded"):
        load_domain_encoder("test_vit")


DINOV2 = {
    "model_type": "dinov2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def of_transformers(folder: Path, **changes: object) -> str:
    """Replace a folder's config by one of transformers' Dinov2; return the encoder's name."""
    write_folder(folder)
    (folder / "config.json").write_text(json.dumps(DINOV2 | changes))
    return f"local-dir:{folder}"


DINOV3 = {"model_type": "dinov3_vit", "patch_size": 16, "image_size": 32}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"hidden_act": "mish"},
            "hidden_act is 'mish', which is not supported; it must be one of gelu, gelu_new, "
            "gelu_fast, gelu_pytorch_tanh, quick_gelu, relu, silu, swish",
        ),
        ({"hidden_act": None}, "hidden_act is None, which is not supported"),
        (DINOV3 | {"key_bias": True}, "key_bias is True; timm builds DINOv3 with key_bias False"),
        (DINOV3 | {"query_bias": False}, "query_bias is False; timm builds DINOv3 with query_bias"),
        (DINOV3 | {"hidden_act": "relu"}, "hidden_act is 'relu'; timm builds DINOv3 with hidden"),
        (DINOV3 | {"use_gated_mlp": True}, "describes a DINOv3 with gated layers"),
    ],
)
def test_configs_of_transformers_that_timm_cannot_build(tmp_path, changes, text):
    with pytest.raises(UserError) as caught:
        load_domain_encoder(of_transformers(tmp_path / "vit", **changes), pretrained=False)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("content", "mean", "std", "text"),
    [
        (None, IMAGENET_MEAN, IMAGENET_STD, "there is no {}, so ImageNet's mean and std are taken"),
        (
            {"size": 28},
            IMAGENET_MEAN,
            IMAGENET_STD,
            "its {} has no image_mean and no image_std, so ImageNet's mean and std are taken",
        ),
        (
            {"image_mean": MEAN},
            MEAN,
            IMAGENET_STD,
            "its {} has no image_std, so ImageNet's std is taken",
        ),
        ({"image_mean": MEAN, "image_std": STD, "do_normalize": True}, MEAN, STD, ""),
        ({"image_mean": MEAN, "image_std": STD, "do_normalize": False}, (0.0,) * 3, (1.0,) * 3, ""),
        (
            {"image_mean": [127.5] * 3, "image_std": [51] * 3, "do_rescale": False},
            (0.5,) * 3,
            (0.2,) * 3,
            "",
        ),
        ({"do_normalize": False, "rescale_factor": 2 / 255}, (0.0,) * 3, (0.5,) * 3, ""),
    ],
)
def test_statistics_of_a_transformers_folder(tmp_path, caplog, content, mean, std, text):
    name, file = of_transformers(tmp_path / "vit"), "preprocessor_config.json"
    if content is not None:
        (tmp_path / "vit" / file).write_text(json.dumps(content))
    encoder = load_domain_encoder(name, pretrained=False)
    warnings = [line.getMessage() for line in caplog.records if file in line.getMessage()]
    assert len(warnings) == bool(text)
    assert all(text.format(file) in line for line in warnings)
    pixels = random_pixels(28)
    expected = normalise(pixels, tuple(mean), tuple(std))
    torch.testing.assert_close(encoder.prepare(clip_images(pixels)), expected)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("do_normalize", "no", "do_normalize is 'no'; it must be true or false"),
        ("do_rescale", 1.5, r"do_rescale is 1\.5; it must be true or false"),
        ("rescale_factor", 0, "rescale_factor is 0; it must be a number above 0"),
        ("rescale_factor", "1/255", "rescale_factor is '1/255'; it must be a number above 0"),
    ],
)
def test_values_of_a_preprocessor_that_cannot_be(tmp_path, key, value, said):
    name = of_transformers(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps({key: value}))
    with pytest.raises(UserError, match=said):
        load_domain_encoder(name, pretrained=False)


def edited(part="pretrained_cfg", **changes):
    """Return an edit of a folder's config: keys of one of its parts."""

    def change(folder):
        path = folder / "config.json"
        content = json.loads(path.read_text())
        content[part] |= changes
        path.write_text(json.dumps(content))

    return change


def test_the_size_of_a_folder_of_an_earlier_timm(tmp_path):
    """It wrote `img_size` among the arguments, and left `input_size` as the architecture has it."""
    expected = load_domain_encoder(f"local-dir:{write_folder(tmp_path / 'vit')}")
    assert expected.image_size != 224
    edited(input_size=[3, 224, 224])(tmp_path / "vit")
    edited("model_args", img_size=expected.image_size)(tmp_path / "vit")
    encoder = load_domain_encoder(f"local-dir:{tmp_path / 'vit'}")
    assert encoder.image_size == expected.image_size
    pixels = random_pixels(expected.image_size)
    assert torch.equal(encoder(pixels), expected(pixels))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (edited(mean="abc"), "in its config.json mean is 'abc'; it must be a list of numbers"),
        (edited(std=[1, 0, 1]), "in its config.json std is"),
        (edited(input_size=[3, "a", 2]), "input_size is .*; it must be channels, height"),
        (edited("model_args", img_size=[32, 64]), "requires 32x64 images; only square ones"),
        (edited("model_args", img_size="32"), "img_size is '32'; it must be the side of a square"),
        (lambda f: shutil.rmtree(f), "there is no folder"),
        (lambda f: (f / "config.json").unlink(), "no config.json in"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "must hold an object"),
        (
            lambda f: (f / "config.json").write_text(json.dumps({"model_type": "swin"})),
            "its config.json describes 'swin', not a model of timm",
        ),
        (
            lambda f: (f / "config.json").write_text(json.dumps({"model_type": "dinov2"})),
            "lacks a size of the model",
        ),
        (
            lambda f: [path.unlink() for path in f.glob("*model*")],
            "expected model.safetensors or one single weights file in",
        ),
    ],
)
def test_folders_that_hold_no_encoder(tmp_path, change, text):
    folder = write_folder(tmp_path / "vit")
    change(folder)
    with pytest.raises(UserError, match=text) as caught:
        load_domain_encoder(f"local-dir:{folder}")
    assert "cannot be downloaded" not in str(caught.value)


def test_weights_that_do_not_fit_are_not_called_unavailable(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "vit")
    with pytest.raises(UserError, match="does not fit domain encoder") as caught:
        load_domain_encoder(f"local-dir:{folder}", args="depth=3")
    assert "Missing: blocks.2.attn" in str(caught.value) or "3 blocks" in str(caught.value)

    def misfit(*args, **kwargs):
        raise RuntimeError("Error(s) in loading state_dict for VisionTransformer: size mismatch")

    monkeypatch.setattr(timm, "create_model", misfit)
    with pytest.raises(UserError) as caught:
        load_domain_encoder("test_vit", args={"depth": 3})
    assert "its pretrained weights do not fit" in str(caught.value)
    assert "Check what changes the architecture: args (DOMAIN.ARGS) are depth=3" in str(
        caught.value
    )
    assert "downloaded" not in str(caught.value)


def test_several_encoders(clip, tmp_path, small_mae, monkeypatch):
    """Features side by side; the header names every part, and each is found again."""
    folder = write_folder(tmp_path / "vit")
    weights = save_file(tmp_path / "mae.pth", mae_state())
    names = ["mae_vit_base_patch16", f"local-dir:{folder}", "clip"]
    both = load_domain_encoder(names, weights=[weights, "", ""], backbone=clip)
    images = clip_images(random_pixels(32))
    parts = [
        load_domain_encoder(n, weights=w, backbone=clip)
        for n, w in zip(names, [weights, "", ""], strict=True)
    ]
    expected = torch.cat([part(images) for part in parts], 1)
    assert torch.equal(both(images), expected)
    assert both.feature_dim == 32 + 32 + clip.embed_dim
    assert not any(p.requires_grad for p in both.parameters())
    assert set(both.identity()) >= {"0.renormalisation", "1.encoder.norm.weight"}

    model = model_with(clip, both).eval()
    file = tmp_path / "m.safetensors"
    model.save(file)
    entry = model.header()["domain"]
    assert entry["name"] == f"mae_vit_base_patch16 + local-dir:{folder} + clip"
    assert [part["name"] for part in entry["parts"]] == [
        "mae_vit_base_patch16",
        "local-dir:vit",
        "clip",
    ]
    monkeypatch.chdir(tmp_path)
    again = dplq.load(file, clip=clip)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    other = dplq.load(file, clip=clip, domain_weights=[weights, str(folder), ""])
    assert other.header() == model.header()
    changed = mae_state()
    changed["norm.bias"] = changed["norm.bias"] + 1
    save_file(tmp_path / "mae.pth", changed)
    with pytest.raises(UserError, match="made with other settings") as caught:
        dplq.load(file, clip=clip)
    assert "domain.parts" in str(caught.value)
    with pytest.raises(UserError, match="domain_weights names 2 of 3 encoders' files"):
        dplq.load(file, clip=clip, domain_weights=[weights, ""])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": ["clip", "clip"], "weights": ["a"]}, "names 1 of 2 encoders' files"),
        ({"name": ["clip", ""]}, "give the name of an encoder, or a list of names"),
        ({"name": []}, r"name \(DOMAIN.ENCODER\) is \[\]; give the name of an encoder"),
        ({"name": [5]}, r"name \(DOMAIN.ENCODER\) is \[5\]; give the name of an encoder"),
        ({"name": 5}, r"name \(DOMAIN.ENCODER\) is 5; give the name of an encoder, or a list"),
        ({"name": None}, "is None; give the name of an encoder.* set it to none; in Python give"),
        ({"name": "biomedclip"}, "domain encoder 'biomedclip' is a CLIP: name it MODEL.BACKBONE"),
        ({"name": "None"}, "unknown domain encoder 'None'. For no domain feature set DOMAIN.ENC"),
        ({"name": "null"}, "unknown domain encoder 'null'. For no domain feature set .* to none"),
        ({"name": ["clip", "clip"], "image_size": 64}, "there are 2 encoders, which differ in it"),
        ({"name": "clip", "weights": ["a", "b"]}, "names 2 files and 'clip' is one encoder"),
    ],
)
def test_wrong_lists(arguments, text):
    with pytest.raises(UserError, match=text):
        load_domain_encoder(**arguments)


@pytest.mark.parametrize("name", [None, 5, []])
def test_files_of_what_is_no_name(name):
    with pytest.raises(UserError, match="give the name of an encoder, or a list of names"):
        find_domain_weights(name)


def test_one_name_in_a_list_is_that_encoder(monkeypatch):
    small("mae_vit_base_patch16", monkeypatch, **SMALL_VIT)
    one = load_domain_encoder(["mae_vit_base_patch16"], pretrained=False)
    assert one.spec == load_domain_encoder("mae_vit_base_patch16", pretrained=False).spec
    assert not randomise(one).training


def test_the_config_beside_a_file_of_weights_is_compared(clip, tmp_path):
    """Where a checkpoint records it; those of earlier versions load without."""
    folder = write_folder(tmp_path / "enc")
    other = write_folder(tmp_path / "other", mean=[0.1, 0.1, 0.1])
    weights = str(shutil.copy(folder / "model.safetensors", tmp_path / "mine.safetensors"))
    shutil.copytree(folder, tmp_path / "renamed")
    one, same, changed = (
        model_with(clip, load_domain_encoder(f"local-dir:{place}", weights=weights, backbone=clip))
        for place in (folder, tmp_path / "renamed", other)
    )
    file = tmp_path / "m.safetensors"
    one.save(file)
    same.load(file)
    with pytest.raises(UserError, match=r"domain\.config_sha256: there [0-9a-f']+, now"):
        changed.load(file)
    tensors, header = read(file)
    del header["domain"]["config_sha256"]
    save(file, tensors, {k: v for k, v in header.items() if k not in ("format", "checksum")})
    changed.load(file)


def test_a_hub_name_is_compared_where_no_digest_covers_its_config():
    specs = [
        Spec(f"hf-hub:org/{name}", weights="w.pth", sha256="x", config_sha256=config)
        for name, config in (("one", ""), ("two", ""), ("one", "c"), ("two", "c"))
    ]
    found = [spec.identity() for spec in specs]
    assert found[0] != found[1]
    assert found[2] == found[3]
    assert "name" not in Spec("hf-hub:org/one", sha256="x").identity()
