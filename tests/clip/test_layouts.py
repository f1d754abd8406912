"""Layouts of public CLIP checkpoints: features equal to the library that wrote them."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from dplq.clip import sources
from dplq.clip.backbone import Backbone, load_backbone
from dplq.clip.layouts import LAYOUTS, OPEN_CLIP, conch, find_layout, transformers_config
from dplq.errors import UserError
from tests.clip.test_open_text import t5_tokenizer
from tests.hub import use_hub
from tests.peers import peer
from tests.tiny import tiny_clip_config, write_clip_dir

transformers = pytest.importorskip("transformers")

TEXTS = ["a photo of a river.", "x"]
TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32}
ACTS = ("quick_gelu", "gelu", "gelu_pytorch_tanh")


def transformers_clip(act: str = "quick_gelu", **vision: Any) -> nn.Module:
    """A tiny CLIPModel: its MLPs are 3 and 5.5 times as wide as its towers."""
    config = transformers.CLIPConfig(
        text_config={**TEXT, "intermediate_size": 48, "hidden_act": act},
        vision_config={
            **{**VISION, "intermediate_size": 176, "patch_size": 8, "hidden_act": act},
            **vision,
        },
        projection_dim=12,
    )
    torch.manual_seed(0)
    return randomised(transformers.CLIPModel(config))


def randomised(model: nn.Module) -> nn.Module:
    """Return a model whose biases and norms count, too."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def write(model: Any, folder: Path, preprocessor: dict[str, Any] | None = None) -> Path:
    """Save a model as transformers does; return the folder."""
    model.save_pretrained(folder)
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def pixels(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def features(model: Any, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Un-normalised features of transformers' model, in all of its versions."""
    found = (model.get_image_features(images), model.get_text_features(tokens))
    image, text = (getattr(each, "pooler_output", each) for each in found)
    return image, text


def differences(backbone: Backbone, model: Any) -> list[float]:
    images, tokens = pixels(), backbone.tokenize(TEXTS)
    with torch.no_grad():
        ours = backbone.encode_image(images), backbone.encode_text(tokens)
        theirs = features(model, images, tokens)
    return [float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("act", ACTS)
def test_a_folder_of_transformers_clip(tmp_path: Path, act: str) -> None:
    model = transformers_clip(act)
    statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 1.0, 2.0]}
    backbone = load_backbone(f"local-dir:{write(model, tmp_path, statistics)}")
    assert max(differences(backbone, model)) < 1e-5
    assert (backbone.image_mean, backbone.image_std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 2.0))
    expected = {"quick_gelu": "quickgelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
    assert backbone.activation == expected[act]
    assert torch.equal(backbone.logit_scale, model.logit_scale.exp())
    again = load_backbone(backbone.spec.name)
    assert max(differences(again, model)) < 1e-5


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("prefix", ["", "clip.", "module.model."])
@pytest.mark.parametrize("custom", [False, True])
def test_a_file_of_transformers_clip(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, act: str, prefix: str, custom: bool
) -> None:
    model = transformers_clip(act, patch_size=16, intermediate_size=128)
    state = {prefix + key: value for key, value in model.state_dict().items()}
    # a buffer of its older versions
    state[f"{prefix}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    file = tmp_path / "pytorch_model.bin"
    torch.save({"state_dict": state, "epoch": 3}, file)
    architecture = tiny_clip_config(vision_width=32, text_width=16, text_layers=2, embed_dim=12)
    architecture["text_cfg"] |= {"heads": 2, "mlp_ratio": 3.0}
    architecture |= {"quick_gelu": act == "quick_gelu", "custom_text": custom}
    name = write_clip_dir(tmp_path / "architecture", architecture)
    text = model.config.text_config
    assert text.intermediate_size == 48
    with caplog.at_level(logging.INFO, "dplq"):
        backbone = load_backbone(name, weights=str(file))
    assert max(differences(backbone, model)) < 1e-5
    assert f"{file}: converted from the layout of transformers' CLIPModel" in caplog.text
    assert (f"the prefix '{prefix}', which is removed" in caplog.text) == bool(prefix)


CONTAINERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Any]]] = {
    "open_clip": lambda s: {
        "epoch": 3,
        "name": "run",
        "state_dict": {f"module.{key}": value for key, value in s.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1.0}]},
    },
    "model": lambda s: {"model": s, "optimizer": {"state": {}}, "scaler": {"scale": 2.0}},
    "lightning": lambda s: {
        "pytorch-lightning_version": "2.1.0",
        "state_dict": {f"model.clip.{key}": value for key, value in s.items()},
        "callbacks": {"checkpoint": {"best": "x.ckpt"}},
        "optimizer_states": [{"state": {}}],
        "hyper_parameters": {"lr": 1e-4},
    },
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {}}},
    "net": lambda s: {"net": {f"_orig_mod.{key}": value for key, value in s.items()}, "step": 1},
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_training_checkpoints_of_transformers_clip(tmp_path: Path, container: str) -> None:
    model = transformers_clip()
    folder = write(model, tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(CONTAINERS[container](model.state_dict()), folder / "epoch_3.pt")
    assert max(differences(load_backbone(f"local-dir:{folder}"), model)) < 1e-5


def test_a_checkpoint_with_two_copies_is_refused(tmp_path: Path) -> None:
    state = transformers_clip().state_dict()
    folder = write(transformers_clip(), tmp_path)
    torch.save({"net": state, "ema": state}, folder / "epoch_3.pt")
    with pytest.raises(UserError, match=r"holds the model 2 times.*'net\.' and 'ema\.'"):
        load_backbone(f"local-dir:{folder}", weights=str(folder / "epoch_3.pt"))


def test_a_hub_model_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = transformers_clip()
    write(model, tmp_path)
    hub = use_hub(monkeypatch, tmp_path)
    assert max(differences(load_backbone("hf-hub:org/name"), model)) < 1e-5
    assert [file for _, file, _ in hub.asked] == [
        *("open_clip_config.json", "config.json", "preprocessor_config.json"),
        "model.safetensors",
    ]
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert max(differences(load_backbone("hf-hub:org/name"), model)) < 1e-5
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"'hf-hub:org/name' holds none of the weights model\.saf"):
        load_backbone("hf-hub:org/name")


def edited(folder: Path, **changes: Any) -> str:
    """Change a folder's config.json; return the backbone's name."""
    file = folder / "config.json"
    content = json.loads(file.read_text())
    for key, value in changes.items():
        *path, leaf = key.split("__")
        node = content
        for part in path:
            node = node[part]
        node[leaf] = value
    file.write_text(json.dumps(content))
    return f"local-dir:{folder}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "blip"}, r"describes a model of type 'blip'; .* clip, siglip can be load"),
        ({"model_type": None}, "describes a model of type None"),
        ({"text_config__hidden_act": "gelu"}, "is gelu of the text and quick_gelu of the image"),
        (
            {"text_config__hidden_act": "silu", "vision_config__hidden_act": "silu"},
            "hidden_act 'silu' is not supported; open_clip's towers run one of quick_gelu",
        ),
        ({"vision_config__num_channels": 13}, "its images have 13 channels"),
        ({"vision_config__image_size": 0}, "image_size: expected `int` >= 1"),
        ({"text_config__hidden_size": "wide"}, "hidden_size: expected `int`, got `str`"),
        ({"text_config": 3}, "expected `object`, got `int`"),
        ({"projection_dim": -1}, "expected `int` >= 1"),
    ],
)
def test_a_config_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    (tmp_path / "config.json").write_text(transformers_clip().config.to_json_string())
    name = edited(tmp_path, **changes)
    with pytest.raises(UserError, match=rf"config\.json.*{said}"):
        load_backbone(name, pretrained=False)


def test_the_older_form_of_a_config(tmp_path: Path) -> None:
    model = transformers_clip()
    write(model, tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    older = {
        "text_config_dict": content["text_config"],
        "text_config": {"hidden_size": 999},
        "vision_config_dict": None,
    }
    assert max(differences(load_backbone(edited(tmp_path, **older)), model)) < 1e-5


def test_statistics_that_are_not_said_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(transformers_clip(), tmp_path)
    with caplog.at_level(logging.INFO, "dplq"):
        load_backbone(f"local-dir:{folder}")
    assert "no preprocessor_config.json with image_mean and image_std" in caplog.text
    assert "those of OpenAI's CLIP" in caplog.text


def test_a_tower_alone_is_said(tmp_path: Path) -> None:
    model = transformers_clip()
    folder = write(model, tmp_path)
    image = {k: v for k, v in model.state_dict().items() if k.startswith("vision_model.")}
    safetensors.torch.save_file(image, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"holds no text tower of .* checkpoint of Hugging Face CL"):
        load_backbone(f"local-dir:{folder}")


@pytest.mark.parametrize("lacking", ["self_attn.k_proj.weight", "mlp.fc1.bias"])
def test_a_tensor_that_is_not_there_is_named(tmp_path: Path, lacking: str) -> None:
    model = transformers_clip()
    folder = write(model, tmp_path)
    state = {
        k: v
        for k, v in model.state_dict().items()
        if f"vision_model.encoder.layers.1.{lacking}" != k
    }
    safetensors.torch.save_file(state, folder / "model.safetensors")
    ours = {"self_attn.k_proj.weight": "attn.in_proj_weight", "mlp.fc1.bias": "mlp.c_fc.bias"}
    said = rf"1 keys missing \(visual.transformer.resblocks.1.{ours[lacking]}\), 0 keys left over"
    with pytest.raises(UserError, match=said):
        load_backbone(f"local-dir:{folder}")


def test_a_scale_of_two_numbers_is_refused(tmp_path: Path) -> None:
    model = transformers_clip()
    folder = write(model, tmp_path)
    state = {**model.state_dict(), "logit_scale": torch.ones(2)}
    safetensors.torch.save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"1 keys of other shape \(logit_scale \(2,\) instead of"):
        load_backbone(f"local-dir:{folder}")


@pytest.mark.parametrize("eos", [1, 2])
def test_a_clip_with_a_vocabulary_of_its_own(tmp_path: Path, eos: int) -> None:
    text = {**TEXT, "intermediate_size": 48, "vocab_size": 300, "eos_token_id": eos}
    vision = {**VISION, "intermediate_size": 176, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    torch.manual_seed(0)
    model = randomised(transformers.CLIPModel(config))
    folder = write(model, tmp_path)
    with pytest.raises(UserError, match=r"no tokenizer beside it: put its tokenizer\.json"):
        load_backbone(f"local-dir:{folder}")
    t5_tokenizer(folder, "<pad>")
    backbone = load_backbone(f"local-dir:{folder}")
    assert max(differences(backbone, model)) < 1e-5
    assert backbone.prompt_start == 0  # the tokenizer puts no marker before a text
    assert backbone.lacks("CLIP's blocks in the text tower")


@pytest.mark.parametrize(("vocabulary", "eos"), [(300, 49407), (300, None), (49408, 5)])
def test_an_end_token_that_ends_no_text(tmp_path: Path, vocabulary: int, eos: int | None) -> None:
    transformers_clip().config.save_pretrained(tmp_path)
    t5_tokenizer(tmp_path, "<pad>")
    name = edited(tmp_path, text_config__vocab_size=vocabulary, text_config__eos_token_id=eos)
    with pytest.raises(UserError, match=f"eos_token_id of text_config is {eos} .* of {vocabulary}"):
        load_backbone(name, pretrained=False)


# --- SigLIP ---------------------------------------------------------------------------------------


def siglip(image_size: int = 32) -> nn.Module:
    config = transformers.SiglipConfig(
        text_config={**TEXT, "hidden_size": 32, "intermediate_size": 100, "vocab_size": 300},
        vision_config={**VISION, "image_size": image_size, "intermediate_size": 64},
    )
    torch.manual_seed(0)
    return randomised(transformers.SiglipModel(config))


@pytest.fixture
def tiny_siglip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny ViT of timm with SigLIP's pooling, for images of 48 pixels."""
    import timm

    tiny = {"img_size": 48, "embed_dim": 32, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0}

    def tiny_test_siglip(num_classes: int, global_pool: str, **options: Any) -> nn.Module:
        assert not options["pretrained"]
        return timm.create_model(
            "vit_base_patch16_siglip_224", num_classes=num_classes, global_pool=global_pool, **tiny
        )

    registry = timm.models._registry
    monkeypatch.setitem(registry._model_entrypoints, "tiny_test_siglip", tiny_test_siglip)
    sizes = (32, 3, 2, 64, 16)
    monkeypatch.setitem(transformers_config.SIGLIP_TRUNKS, sizes, "tiny_test_siglip")


@pytest.mark.parametrize("image_size", [32, 48, 64])
def test_siglip_in_open_clips_towers(tmp_path: Path, tiny_siglip: None, image_size: int) -> None:
    model = siglip(image_size)
    folder = write(model, tmp_path)
    t5_tokenizer(folder, "</s>")
    backbone = load_backbone(f"local-dir:{folder}")
    images, tokens = pixels(image_size), torch.randint(3, 300, (2, 64))
    with torch.no_grad():
        image, text = features(model, images, tokens)
        assert (backbone.encode_image(images) - image).abs().max() < 1e-5
        assert (backbone.encode_text(tokens) - text).abs().max() < 1e-5
    assert backbone.image_size == image_size
    assert backbone.activation == "gelu_tanh"
    assert backbone.image_mean == backbone.image_std == (0.5, 0.5, 0.5)
    assert torch.equal(backbone.logit_scale, model.logit_scale.exp()[0])


def test_a_siglip_file_in_an_architecture_of_open_clip(
    tmp_path: Path, tiny_siglip: None, caplog: pytest.LogCaptureFixture
) -> None:
    model = siglip(48)
    folder = write(model, tmp_path / "model")
    t5_tokenizer(folder, "</s>")
    config = transformers_config.describe(folder / "config.json", None).config
    del config["text_cfg"]["act_kwargs"]  # as open_clip's own architectures of SigLIP
    name = write_clip_dir(tmp_path / "architecture", config)
    backbone = load_backbone(name, weights=str(folder / "model.safetensors"))
    assert "transformers' SiglipModel runs gelu_tanh, 'local-dir:" in caplog.text
    image, _ = features(model, pixels(48), torch.ones(1, 64, dtype=torch.long))
    difference = (backbone.encode_image(pixels(48)) - image).abs().max() / image.abs().max()
    assert 1e-6 < difference < 1e-2
    caplog.clear()
    load_backbone(f"local-dir:{folder}")
    assert not caplog.messages


def test_a_siglip_that_timm_has_not(tmp_path: Path) -> None:
    siglip().config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no SigLIP tower .* 32, 3, 2, 64, 16; it has"):
        transformers_config.describe(tmp_path / "config.json", None)


@pytest.mark.parametrize(
    ("vocabulary", "repository", "expected"),
    [(32000, "", "timm/ViT-B-16-SigLIP"), (256000, "org/name", "org/name"), (256000, "", None)],
)
def test_the_tokenizer_of_a_siglip(
    tmp_path: Path, tiny_siglip: None, vocabulary: int, repository: str, expected: str | None
) -> None:
    siglip().config.save_pretrained(tmp_path)
    edited(tmp_path, text_config__vocab_size=vocabulary)
    file = tmp_path / "config.json"
    if expected is None:
        with pytest.raises(UserError, match=r"no tokenizer beside it: .*spiece\.model"):
            transformers_config.describe(file, None, repository)
    else:
        config = transformers_config.describe(file, None, repository).config
        assert config["text_cfg"]["hf_tokenizer_name"] == expected


@pytest.mark.parametrize("change", [{"hidden_act": "quick_gelu"}, {"layer_norm_eps": 1e-5}])
def test_what_timms_siglip_towers_do_not_run(
    tmp_path: Path, tiny_siglip: None, change: dict[str, Any]
) -> None:
    siglip().config.save_pretrained(tmp_path)
    t5_tokenizer(tmp_path, "</s>")
    edited(tmp_path, **{f"vision_config__{key}": value for key, value in change.items()})
    with pytest.raises(UserError, match=r"image tower has hidden_act .* timm's SigLIP towers run"):
        transformers_config.describe(tmp_path / "config.json", None)


# --- recognition ----------------------------------------------------------------------------------


def test_layouts_are_recognised_by_their_keys(tiny_siglip: None) -> None:
    clip, other = transformers_clip().state_dict(), siglip().state_dict()
    unimed = {"visual.proj": 0, "text_encoder.transformer.embeddings.word_embeddings.weight": 0}
    own = {"visual.attn_pool_contrast.query": 0, "text.cls_emb": 0}
    states: list[Mapping[str, Any]] = [clip, other, unimed, own]
    for layout, state in zip(LAYOUTS, states, strict=True):
        assert find_layout(state) is layout
        assert find_layout({f"module.{key}": value for key, value in state.items()}) is layout
    assert find_layout(["visual.proj", "token_embedding.weight"]) is OPEN_CLIP
    assert OPEN_CLIP.model_key("visual.proj") == "visual.proj"


def test_the_text_tower_of_unimed_clip() -> None:
    layout = find_layout(["text_encoder.transformer.embeddings.word_embeddings.weight"])
    state = {"visual.proj": torch.ones(1), "text_encoder.proj.2.weight": torch.zeros(1)}
    assert layout.convert(state).keys() == {"visual.proj", "text.proj.2.weight"}


def test_the_usual_names_of_transformers_files(tmp_path: Path) -> None:
    folder = write(transformers_clip(), tmp_path)
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    load_backbone(f"local-dir:{folder}")
    (folder / "second.bin").touch()
    with pytest.raises(UserError, match=r"expected model\.safetensors or one single weights file"):
        load_backbone(f"local-dir:{folder}")
    assert sources.TRANSFORMERS_WEIGHT_FILES[0] == "model.safetensors"


# --- CONCH ----------------------------------------------------------------------------------------

CONCH_TEXT = {"width": 32, "heads": 4, "layers": 2, "vocab_size": 300, "embed_cls": True}


@pytest.fixture
def tiny_conch(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A tiny CONCH; returns the arguments of the original for the same architecture."""
    import timm

    def tiny_test_vit(num_classes: int, global_pool: str, **options: Any) -> nn.Module:
        return timm.create_model(
            "vit_base_patch16_224",
            **{"num_classes": num_classes, "global_pool": global_pool, "img_size": 48},
            **{"embed_dim": 32, "depth": 3, "num_heads": 4},
        )

    monkeypatch.setitem(timm.models._registry._model_entrypoints, "tiny_test_vit", tiny_test_vit)
    vision = conch.CONFIG["vision_cfg"] | {"image_size": 32, "timm_model_name": "tiny_test_vit"}
    text = {**CONCH_TEXT, "context_length": 15}
    config = {**conch.CONFIG, "embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    monkeypatch.setattr(conch, "CONFIG", config)
    original = {**CONCH_TEXT, "context_length": 16, "output_tokens": True}
    return {
        "embed_dim": 16,
        "embed_dim_caption": 24,
        "vision_cfg": {
            **{"width": 32, "layers": 3, "num_heads": 4, "image_size": 32, "patch_size": 16},
            **{"attentional_pool_contrast": True, "attentional_pool_caption": True},
            **{"n_queries_caption": 4, "output_tokens": True},
        },
        "text_cfg": original,
        "multimodal_cfg": {**original, "output_tokens": False},
    }


def test_conch_equals_its_own_code(
    tmp_path: Path,
    tiny_conch: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.syspath_prepend(str(peer("CONCH")))
    from conch.open_clip_custom.coca_model import CoCa

    torch.manual_seed(0)
    model = CoCa(**tiny_conch)
    with torch.no_grad():  # some tensors are left as they were allocated
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1:].numel() ** 0.5)
    model.eval()
    file = tmp_path / "pytorch_model.bin"
    torch.save(model.state_dict(), file)
    with caplog.at_level(logging.INFO, "dplq"):
        backbone = load_backbone(f"{conch.NAME}:{file}")
    assert "are not used: they encode neither images nor texts" in caplog.text
    images = pixels(32)
    tokens = torch.randint(1, 300, (2, 15))
    tokens[1, 6:] = 0
    with torch.no_grad():
        image = model.encode_image(images, normalize=False)
        text = model.encode_text(torch.nn.functional.pad(tokens, (0, 1)), normalize=False)
        assert (backbone.encode_image(images) - image).abs().max() < 1e-5
        assert (backbone.encode_text(tokens) - text).abs().max() < 1e-5
    assert image.std() > 0.1
    assert text.std() > 0.1


def test_random_weights_of_conch_come_from_the_seed(tiny_conch: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    one, same, other = (load_backbone(conch.NAME, pretrained=False, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.encode_image(pixels()), same.encode_image(pixels()))
    assert not torch.equal(one.encode_image(pixels()), other.encode_image(pixels()))
    assert one.image_size == 32
    assert one.embed_dim == 16


def test_conch_of_another_size_is_refused(tmp_path: Path, tiny_conch: dict[str, Any]) -> None:
    backbone = load_backbone(conch.NAME, pretrained=False)
    start = "visual.head."
    state = {
        (f"visual.{key.removeprefix(start)}" if key.startswith(start) else key): value
        for key, value in backbone.clip.state_dict().items()
    }
    assert find_layout(state) is conch.CONCH
    torch.save(state, tmp_path / "same.bin")
    again = load_backbone(f"{conch.NAME}:{tmp_path / 'same.bin'}")
    assert torch.equal(again.encode_image(pixels()), backbone.encode_image(pixels()))
    state["text_decoder.x"] = torch.ones(1)
    state["visual.trunk.pos_embed"] = torch.ones(1, 10, 32)
    torch.save(state, tmp_path / "other.bin")
    said = r"0 keys left over, 1 keys of other shape \(visual.trunk.pos_embed \(1, 10, 32\) instead"
    with pytest.raises(UserError, match=said):
        load_backbone(f"{conch.NAME}:{tmp_path / 'other.bin'}")


# --- UniMed-CLIP ----------------------------------------------------------------------------------


def unimed_package() -> Any:
    """Import UniMed-CLIP's own `open_clip` under another name than the installed one."""
    name, folder = "unimed_open_clip", peer("UniMed-CLIP") / "src" / "open_clip"
    places = [str(folder)]
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=places
    )
    package = types.ModuleType(name)  # its __init__ needs packages that its models do not
    package.__path__, package.__spec__ = places, spec
    sys.modules[name] = package
    return importlib.import_module(f"{name}.model")


@pytest.mark.parametrize("wrapped", [False, True])
def test_unimed_clip_equals_its_own_code(tmp_path: Path, wrapped: bool) -> None:
    code = unimed_package()
    bert = transformers.BertConfig(
        **{"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        intermediate_size=64,
    )
    folder = tmp_path / "bert"
    transformers.BertModel(bert, add_pooling_layer=False).save_pretrained(folder)
    vision = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 3, "head_width": 16}
    torch.manual_seed(0)
    model = code.CLIP(
        **{"embed_dim": 24, "vision_cfg": vision, "text_cfg": {}, "quick_gelu": True},
        text_encoder_name=str(folder),
    )
    randomised(model)
    state = model.state_dict()
    # a buffer of the version of transformers that it was trained with
    state["text_encoder.transformer.embeddings.position_ids"] = torch.arange(512)[None]
    if wrapped:
        state = {f"module.{key}": value for key, value in state.items()}
    file = tmp_path / "unimed_clip_vit_b16.pt"
    torch.save({"epoch": 1, "name": "run", "state_dict": state, "optimizer": {"state": {}}}, file)
    text = {
        **{"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "hf_proj_type": "mlp"},
        **{"hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 32},
    }
    config = {"embed_dim": 24, "quick_gelu": True, "custom_text": True}
    name = write_clip_dir(tmp_path / "ours", {**config, "vision_cfg": vision, "text_cfg": text})
    backbone = load_backbone(name, weights=str(file))
    tokens = torch.randint(1, 200, (2, 32))
    tokens[1, 9:] = 0
    with torch.no_grad():
        image, text = model.encode_image(pixels()), model.encode_text(tokens)
        assert (backbone.encode_image(pixels()) - image).abs().max() < 1e-5
        assert (backbone.encode_text(tokens) - text).abs().max() < 1e-5
    assert backbone.activation == "image quickgelu, text gelu"
