"""Whole models with other text towers than CLIP's: loaded from files, prompted, refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import dplq
from dplq.clip.backbone import Backbone, load_backbone
from dplq.errors import UserError
from dplq.io.files import file_digest
from dplq.methods.coop import CoOpModel
from dplq.methods.zeroshot import ZeroshotModel
from tests.clip.test_hf_text import SMALL, draw
from tests.clip.test_open_text import t5_tokenizer
from tests.tiny import (
    biomedclip_config,
    tiny_clip_config,
    write_biomedclip_dir,
    write_clip_dir,
)

NAMES = ["river", "parking lot", "dense image with river"]
WEIGHTS = "open_clip_pytorch_model.bin"


def with_text(folder: Path, **text: Any) -> str:
    """Write a tiny CLIP's config with another text tower; return its backbone name."""
    config = tiny_clip_config(custom_text=True, text_width=32)
    config["text_cfg"] |= text
    return write_clip_dir(folder, config)


def biomedclip(folder: Path) -> str:
    return write_biomedclip_dir(folder)


def roberta(folder: Path) -> str:
    write_biomedclip_dir(folder)
    (folder / "config.json").write_text(json.dumps(SMALL["roberta"] | {"pad_token_id": 0}))
    return write_clip_dir(folder, biomedclip_config(pooler="mean_pooler"))


def mt5(folder: Path) -> str:
    t5_tokenizer(folder, "<pad>")
    (folder / "config.json").write_text(json.dumps(SMALL["mt5"]))
    return write_clip_dir(folder, biomedclip_config(pooler="mean_pooler"))


def siglip(folder: Path) -> str:
    t5_tokenizer(folder, "</s>")
    text = {"context_length": 20, "vocab_size": 16, "pool_type": "last", "proj_bias": True}
    text |= {"hf_tokenizer_name": "t5", "tokenizer_kwargs": {"clean": "canonicalize"}}
    return with_text(folder, no_causal_mask=True, **text)


def clipa(folder: Path) -> str:
    write_biomedclip_dir(folder)
    text = {"context_length": 20, "vocab_size": 64, "pool_type": "last", "no_causal_mask": True}
    text |= {"hf_tokenizer_name": "bert", "tokenizer_kwargs": {"strip_sep_token": True}}
    return with_text(folder, **text)


def worldwide(folder: Path) -> str:
    write_biomedclip_dir(folder)
    text = {"context_length": 20, "vocab_size": 64, "pool_type": "eos", "eos_id": 3}
    return with_text(folder, **text, hf_tokenizer_name="xlm-v")


def mobileclip(folder: Path) -> str:
    return with_text(folder, no_causal_mask=True)


def coca(folder: Path) -> str:
    config = tiny_clip_config(custom_text=True, text_width=32)
    config["text_cfg"] |= {"context_length": 76, "embed_cls": True, "output_tokens": True}
    config["vision_cfg"] |= {
        "output_tokens": True,
        "attentional_pool": True,
        "attn_pooler_heads": 4,
    }
    config["multimodal_cfg"] = {"width": 32, "context_length": 76, "layers": 1, "heads": 4}
    return write_clip_dir(folder, config)


KINDS: dict[str, Callable[[Path], str]] = {
    **{"BiomedCLIP": biomedclip, "RoBERTa": roberta, "mT5": mt5, "SigLIP": siglip},
    **{"CLIPA": clipa, "worldwide": worldwide, "MobileCLIP": mobileclip, "CoCa": coca},
}


@pytest.fixture(params=KINDS)
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    return load_backbone(KINDS[request.param](tmp_path), pretrained=False)


def test_words_that_are_not_trained_are_the_plain_text(backbone: Backbone) -> None:
    """CoOp with "a photo of" is zero-shot "a photo of {}.", whatever the tower."""
    images = draw(2, 3, 32, 32, seed=1)
    zero_shot = ZeroshotModel(backbone, NAMES, templates=["a photo of {}."])
    coop = CoOpModel(backbone, NAMES, seed=0, ctx_init="a photo of")
    expected = zero_shot(images)
    torch.testing.assert_close(coop(images), expected, rtol=1e-4, atol=1e-4)
    tokens = backbone.tokenize(["a photo of river."])
    feature = backbone.clip.encode_text(tokens)
    feature = feature[0] if isinstance(feature, tuple) else feature
    # CoCa's own method returns it normalised
    normalised = [F.normalize(f, dim=-1) for f in (backbone.encode_text(tokens), feature)]
    torch.testing.assert_close(*normalised)
    with torch.no_grad():
        coop.prompt_learner.ctx += draw(3, backbone.text_width, seed=2)
    assert (coop(images) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("place", ["middle", "front"])
def test_a_name_before_the_context_is_the_text_in_that_order(
    backbone: Backbone, place: str
) -> None:
    words = {"middle": ["a {} photo.", "an {} image."], "front": ["{} a photo.", "{} an image."]}
    for text, context in zip(words[place], ("a photo", "an image"), strict=True):
        plain = ZeroshotModel(backbone, NAMES, templates=[text])
        coop = CoOpModel(backbone, NAMES, seed=0, ctx_init=context, class_token_position=place)
        features = coop.text_features(coop.prompts(torch.empty(0)))
        torch.testing.assert_close(features, plain.classes, rtol=1e-4, atol=1e-4)


def test_a_context_of_chunks_is_the_same(backbone: Backbone) -> None:
    coop = CoOpModel(backbone, NAMES, seed=0, n_ctx=3)
    whole = coop.text_features(coop.prompts(torch.empty(0)))
    coop.text_chunk = 1
    torch.testing.assert_close(coop.text_features(coop.prompts(torch.empty(0))), whole)


# --- files ----------------------------------------------------------------------------------------


def test_biomedclip_s_file_loads_strictly(tmp_path: Path) -> None:
    name = biomedclip(tmp_path)
    source = load_backbone(name, pretrained=False, seed=3)
    state = source.clip.state_dict()
    # what the published file holds beyond today's model, from an older transformers
    old = {"text.transformer.embeddings.position_ids": torch.arange(512)[None]}
    torch.save({**state, **old}, tmp_path / WEIGHTS)
    backbone = load_backbone(name)
    tokens, images = backbone.tokenize(NAMES), draw(1, 3, 32, 32, seed=1)
    assert torch.equal(backbone.encode_text(tokens), source.encode_text(tokens))
    assert torch.equal(backbone.encode_image(images), source.encode_image(images))
    assert backbone.spec.sha256 == file_digest(tmp_path / WEIGHTS)
    facts = (backbone.text_width, backbone.text_layers, backbone.context_length)
    assert facts == (32, 3, 24)
    assert (backbone.causal, backbone.supports_packing, backbone.prompt_start) == (False, False, 1)
    lost = "text.transformer.encoder.layer.1.attention.self.query.weight"
    torch.save({key: value for key, value in state.items() if key != lost}, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=rf"1 keys missing \({lost}\)"):
        load_backbone(name)


def test_random_weights_come_from_the_seed_alone(tmp_path: Path) -> None:
    name = biomedclip(tmp_path)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, same, other = (load_backbone(name, pretrained=False, seed=s) for s in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    tokens = one.tokenize(NAMES)
    assert torch.equal(one.encode_text(tokens), same.encode_text(tokens))
    assert not torch.equal(one.encode_text(tokens), other.encode_text(tokens))


def test_a_checkpoint_of_coop_opens_again(tmp_path: Path) -> None:
    name = biomedclip(tmp_path)
    torch.save(load_backbone(name, pretrained=False).clip.state_dict(), tmp_path / WEIGHTS)
    model = CoOpModel(load_backbone(name), NAMES, seed=0, n_ctx=2)
    model.save(tmp_path / "prompts.safetensors")
    opened = dplq.load(
        tmp_path / "prompts.safetensors",
        classnames=["river", "kidney stone"],
        weights=str(tmp_path),
    )
    images = draw(2, 3, 32, 32, seed=1)
    torch.testing.assert_close(opened(images)[:, 0], model(images)[:, 0])


# --- refusals -------------------------------------------------------------------------------------


def test_a_tower_that_nothing_is_known_of_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network")

    config = biomedclip_config()
    config["text_cfg"]["hf_model_name"] = "somebody/bert"
    name = write_clip_dir(tmp_path, config)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fail)
    with pytest.raises(UserError) as caught:
        load_backbone(name, pretrained=False)
    message = str(caught.value)
    assert message.startswith(
        f"cannot get the architecture of 'somebody/bert', the text tower of '{name}'"
    )
    assert "put its config.json into the model's folder (local-dir:PATH)" in message


def test_transformers_missing_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    name = biomedclip(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"the text tower of 'local-dir.* pip install transformers"):
        load_backbone(name, pretrained=False)


def test_images_need_no_tokenizer(tmp_path: Path) -> None:
    """A linear probe runs on a model whose tokenizer is not there."""
    name = biomedclip(tmp_path)
    for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).unlink()
    backbone = load_backbone(name, pretrained=False)
    assert backbone.encode_image(draw(1, 3, 32, 32, seed=1)).shape == (1, 16)


def test_a_context_that_x_cannot_stand_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer could write X as two tokens; then the context would not replace all of them."""
    backbone = load_backbone(biomedclip(tmp_path), pretrained=False)
    monkeypatch.setattr(backbone.text, "count", lambda tokens: torch.tensor([6] * len(tokens)))
    with pytest.raises(UserError, match=r"the tokenizer of local-dir:.* writes 3 X as 6 tokens"):
        CoOpModel(backbone, NAMES, seed=0, n_ctx=3)


def test_an_unknown_tokenizer_option_is_refused(tmp_path: Path) -> None:
    config = biomedclip_config()
    config["text_cfg"]["tokenizer_kwargs"] = {"language": "de"}
    write_biomedclip_dir(tmp_path)
    name = write_clip_dir(tmp_path, config)
    with pytest.raises(
        UserError, match="sets language in tokenizer_kwargs, which is not supported"
    ):
        load_backbone(name, pretrained=False)
