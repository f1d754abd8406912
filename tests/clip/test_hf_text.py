"""Hugging Face's text towers: equal to the library and to a naive BERT, at any length and chunk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn

import dplq
from dplq.clip import memory
from dplq.clip.backbone import load_backbone
from dplq.clip.hf_configs import HF_CONFIGS, offline_text_cfg
from dplq.clip.hub_tokenizer import HubTokenizer
from dplq.clip.towers.hf_text import HFText
from dplq.errors import UserError
from dplq.io import checkpoint
from tests.references.naive_biomedclip import bert_features
from tests.tiny import VOCABULARY, bert_facts, write_biomedclip_dir

LENGTH, WIDTH, LAYERS, DIM = 24, 32, 3, 16
TEXTS = ["a photo of a river.", "a photo of an image with dense parking lots, a river", "x"]
ROBERTA = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "type_vocab_size": 1}
SMALL: dict[str, dict[str, Any]] = {
    "bert": bert_facts(WIDTH, LAYERS),
    "roberta": bert_facts(WIDTH, LAYERS, **ROBERTA, model_type="roberta"),
    "xlm-roberta": bert_facts(WIDTH, LAYERS, **ROBERTA, model_type="xlm-roberta"),
    "mt5": {
        **HF_CONFIGS["google/mt5-base"],
        **{"vocab_size": 40, "d_model": WIDTH, "d_kv": 8, "d_ff": 64},
        **{"num_layers": LAYERS, "num_heads": 4},
    },
    "m2m_100": {
        **HF_CONFIGS["facebook/nllb-200-distilled-600M"],
        **{"vocab_size": 40, "d_model": WIDTH, "max_position_embeddings": 64},
        **{"encoder_layers": LAYERS, "decoder_layers": 1, "encoder_ffn_dim": 64},
        **{"decoder_ffn_dim": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 4},
    },
}


def encoder(
    folder: Path, facts: dict[str, Any], pooler: str | None = None, proj: str | None = "mlp"
) -> HFTextEncoder:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(facts))
    torch.manual_seed(1)
    module = HFTextEncoder(str(folder), DIM, None, pooler, proj, pretrained=False)
    with torch.no_grad():  # so that no bias is 0
        for parameter in module.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("biomedclip")
    write_biomedclip_dir(path)
    return path


def bert_tokenizer(folder: Path) -> HubTokenizer:
    return HubTokenizer("microsoft/bert", LENGTH, "tiny", folder=folder)


def tower(module: nn.Module, folder: Path) -> HFText:
    return HFText(module, bert_tokenizer(folder), LENGTH)


def ids(module: Any, start: bool = True) -> Tensor:
    """Return padded ids of three texts of 4, 9 and 7 tokens, for a tower of any kind."""
    pad = module.config.pad_token_id
    rows = [[2] * start + [10, 11, 12][: k % 3 + 1] + [20 + k] * k + [3] for k in (2, 6, 4)]
    tokens = torch.full((3, LENGTH), pad)
    for row, own in zip(tokens, rows, strict=True):
        row[: len(own)] = torch.tensor(own)
    return tokens


def draw(*shape: int, seed: int, grad: bool = False) -> Tensor:
    values = 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.requires_grad_(grad)


@pytest.mark.parametrize("kind", SMALL)
def test_without_prompts_equal_to_open_clip(kind: str, tmp_path: Path, folder: Path) -> None:
    module = encoder(tmp_path, SMALL[kind])
    own = tower(module, folder)
    tokens = ids(module, start=kind != "mt5")
    torch.testing.assert_close(own.encode_tokens(tokens), module(tokens))
    facts = (own.width, own.layers, own.context_length, own.prompt_start, own.lacks, own.causal)
    assert facts == (WIDTH, LAYERS, LENGTH, int(kind != "mt5"), "", False)
    assert own.count(tokens).tolist() == [5, 7, 6]
    assert own.dtype == torch.float32


@pytest.mark.parametrize(
    ("pooler", "proj"),
    [
        ("cls_last_hidden_state_pooler", "linear"),
        ("cls_pooler", "mlp"),
        ("mean_pooler", "mlp"),
        ("mean_pooler", None),
    ],
)
def test_every_pooling_and_projection(pooler: str, proj: str, tmp_path: Path, folder: Path) -> None:
    facts = SMALL["bert"] if proj else bert_facts(DIM, LAYERS)
    module = encoder(tmp_path, facts, pooler, proj)
    tokens = ids(module)
    torch.testing.assert_close(tower(module, folder).encode_tokens(tokens), module(tokens))


def test_max_pooling_leaves_padding_out(tmp_path: Path, folder: Path) -> None:
    """open_clip's own max pooler cannot run: its mask has the wrong dtype."""
    module = encoder(tmp_path, SMALL["bert"], "max_pooler")
    tokens = ids(module)
    states = module.transformer(tokens, (tokens != 0).long()).last_hidden_state
    expected = [row[:n].amax(dim=0) for row, n in zip(states, (7, 9, 8), strict=True)]
    features = tower(module, folder).encode_tokens(tokens)
    torch.testing.assert_close(features, module.proj(torch.stack(expected)))


@pytest.mark.parametrize("per_text", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_prompts_and_gradients_equal_a_naive_bert(
    depth: int, per_text: bool, tmp_path: Path, folder: Path
) -> None:
    module = encoder(tmp_path, SMALL["bert"], "cls_last_hidden_state_pooler")
    own, n = tower(module, folder), 2
    tokens = own.tokenize(TEXTS)
    end, words = own.end(tokens), own.embed(tokens)
    context = draw(n, WIDTH, seed=1, grad=True)
    lead = (3,) if per_text else ()
    deep = [draw(*lead, n, WIDTH, seed=9 + i, grad=True) for i in range(1, depth)]
    x = torch.cat([words[:, :1], context.expand(3, -1, -1), words[:, 1 + n :]], dim=1)
    ours, naive = own.encode(x, end, deep), bert_features(module, x, end.tolist(), deep)
    torch.testing.assert_close(ours, naive, rtol=1e-4, atol=1e-5)
    weights, learnable = draw(3, DIM, seed=5), [context, *deep]
    grads, expected = (
        torch.autograd.grad((f * weights).sum(), learnable, retain_graph=True)
        for f in (ours, naive)
    )
    torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_deep_prompts_reach_every_layer_but_the_first(
    kind: str, tmp_path: Path, folder: Path
) -> None:
    module = encoder(tmp_path, SMALL[kind])
    own = tower(module, folder)
    tokens = ids(module, start=kind != "mt5")
    words, end = own.embed(tokens), own.end(tokens)
    none, new = torch.empty(0, WIDTH), draw(2, WIDTH, seed=3)
    plain = own.encode(words, end)
    torch.testing.assert_close(own.encode(words, end, [none, none]), plain)
    one, other = own.encode(words, end, [new, none]), own.encode(words, end, [none, new])
    assert all((f - plain).abs().max() > 1e-3 for f in (one, other, one - other + plain))
    with pytest.raises(UserError, match="prompt depth 4 is more than the tower's 3 layers"):
        own.encode(words, end, [new] * 3)
    torch.testing.assert_close(own.encode(words, end), plain)  # no hook is left


@pytest.mark.parametrize("kind", SMALL)
def test_padding_changes_nothing_and_is_not_computed(
    kind: str, tmp_path: Path, folder: Path
) -> None:
    module = encoder(tmp_path, SMALL[kind])
    own = tower(module, folder)
    tokens = ids(module, start=kind != "mt5")
    words, end = own.embed(tokens), own.end(tokens)
    assert own.ignores_padding
    spoiled = words.clone()
    for row, last in zip(spoiled, end.tolist(), strict=True):
        row[last + 1 :] = 7.0
    lengths: list[int] = []
    hook = own._blocks[0].register_forward_pre_hook(
        lambda _, given: lengths.append(given[0].shape[1])
    )
    torch.testing.assert_close(own.encode(spoiled, end), own.encode(words, end))
    hook.remove()
    longest = int(end.max()) + 1
    assert lengths == [longest] * 2
    assert longest < LENGTH


@pytest.mark.parametrize("grad", [False, True])
def test_chunks_give_the_same_features_and_gradients(
    grad: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(write_biomedclip_dir(tmp_path), pretrained=False)
    tokens = backbone.trim(backbone.tokenize(TEXTS))
    words = backbone.embed_tokens(tokens).clone().requires_grad_(grad)
    deep = [draw(3, 2, WIDTH, seed=1, grad=grad), draw(2, WIDTH, seed=2, grad=grad)]
    end = backbone.text_end(tokens)
    calls: list[int] = []
    backbone.clip.text.proj.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    with torch.set_grad_enabled(grad), monkeypatch.context() as patch:
        whole = backbone.encode_prompted_text(words, end, deep)
        parts = backbone.encode_prompted_text(words, end, deep, 2)
        # too little for two texts' activations, enough for one's
        one_text = words[0].numel() * 4 * memory.ACTIVATIONS_PER_LAYER * (LAYERS if grad else 1)
        patch.setattr(memory, "HOST_BYTES", 1.5 * one_text / memory.TEXT_FRACTION)
        automatic = backbone.encode_prompted_text(words, end, deep)
        assert calls == [3, 2, 1, 1, 1, 1]
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(automatic, whole)
    if grad:
        results = [
            torch.autograd.grad(features.sum(), [words, *deep])
            for features in (whole, parts, automatic)
        ]
        for found in results[1:]:
            torch.testing.assert_close(found, results[0], rtol=1e-4, atol=1e-5)
        assert sorted(calls[6:]) == [1, 1, 1, 1, 2]  # recomputed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype, tmp_path: Path, folder: Path) -> None:
    module = encoder(tmp_path, SMALL["bert"])
    own, tokens = tower(module, folder), ids(module)
    exact = own.encode_tokens(tokens)
    module.to(dtype)
    low = own.encode(own.embed(tokens).float(), own.end(tokens))
    assert low.dtype == dtype
    assert torch.cosine_similarity(low.float(), exact, dim=-1).min() > 0.999


# --- facts without the hub ------------------------------------------------------------------------


def test_a_known_tower_is_built_from_the_table() -> None:
    name = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    with offline_text_cfg({"hf_model_name": name, "context_length": 256}) as given:
        assert given["hf_model_pretrained"] is False
        with torch.device("meta"):
            module = HFTextEncoder(given["hf_model_name"], 512, None, None, "mlp", pretrained=False)
    config = module.config
    found = (config.vocab_size, config.hidden_size, config.num_hidden_layers)
    assert found == (30522, 768, 12)
    # BERT base without its pooler and with BiomedCLIP's two projections, 768 -> 640 -> 512.
    bert = 30522 * 768 + 512 * 768 + 2 * 768 + 2 * 768 + 12 * 7_087_872
    assert sum(p.numel() for p in module.parameters()) == bert + 768 * 640 + 640 * 512


def test_the_folder_s_facts_come_first_and_others_stay_the_hub_s(folder: Path) -> None:
    known = {"hf_model_name": "roberta-base"}
    with offline_text_cfg(known, folder) as given:
        assert given["hf_model_name"] == str(folder)
    with offline_text_cfg({"hf_model_name": "somebody/bert"}) as given:
        assert given == {"hf_model_name": "somebody/bert", "hf_model_pretrained": False}
    with offline_text_cfg({"width": 3}) as given:
        assert given == {"width": 3}


def test_timm_s_config_is_no_text_tower_s(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "vit_base_patch16_224"}')
    with offline_text_cfg({"hf_model_name": "roberta-base"}, tmp_path) as given:
        facts = json.loads(Path(given["hf_model_name"], "config.json").read_text())
    assert facts == HF_CONFIGS["roberta-base"]


# --- tokenizers -----------------------------------------------------------------------------------


def test_tokens_are_open_clip_s(folder: Path) -> None:
    from open_clip.tokenizer import HFTokenizer

    ours = bert_tokenizer(folder)
    theirs = HFTokenizer(str(folder), context_length=LENGTH)
    assert torch.equal(ours(TEXTS), theirs(TEXTS))
    assert ours([]).shape == (0, LENGTH)
    tokens = ours(["A photo of RIVER"])
    words = [VOCABULARY[i] for i in tokens[0].tolist()]
    assert words[:7] == ["[CLS]", "a", "photo", "of", "river", "[SEP]", "[PAD]"]
    assert (ours.markers, ours.end(tokens).item(), ours.count(tokens).item()) == ((1, 1), 5, 4)


def test_a_vocabulary_alone_is_enough_and_lower_case(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text((folder / "vocab.txt").read_text())
    whole, words = bert_tokenizer(folder), bert_tokenizer(tmp_path)
    assert torch.equal(whole(TEXTS), words(TEXTS))


def test_too_long_a_text_is_refused_by_name(folder: Path) -> None:
    longest = " ".join(["river"] * (LENGTH - 2))
    tokenizer = bert_tokenizer(folder)
    assert tokenizer([longest])[0, -1] == VOCABULARY.index("[SEP]")
    with pytest.raises(
        UserError, match=r"'river .* river' has 25 tokens .* tiny accepts at most 24"
    ):
        tokenizer([longest + " river"])


def test_a_tokenizer_that_cannot_be_had_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    tokenizer = HubTokenizer("microsoft/bert", LENGTH, "tiny", folder=tmp_path)
    with pytest.raises(UserError) as caught:
        tokenizer(["x"])
    message = str(caught.value)
    start = "cannot get the tokenizer 'microsoft/bert' of tiny (OSError: no network); use a machine"
    assert message.startswith(start)
    assert "put tokenizer.json and tokenizer_config.json (or, for BERT, vocab.txt)" in message
    assert f"into '{tmp_path}'" in message
    (tmp_path / "tokenizer.json").touch()
    (tmp_path / "tokenizer_config.json").touch()
    with pytest.raises(UserError, match=r"cannot read the tokenizer in .*; get tokenizer\.json"):
        tokenizer(["x"])


def test_a_tokenizer_mode_is_refused(folder: Path) -> None:
    tokenizer = HubTokenizer("bert", LENGTH, "tiny", folder=folder, mode="clips")
    with pytest.raises(UserError, match="tiny uses open_clip's tokenizer mode 'clips', which is"):
        tokenizer(["x"])


def test_transformers_missing_says_how_to_install_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"the tokenizer of tiny needs .* pip install transformers"):
        bert_tokenizer(folder)(["x"])


@pytest.mark.parametrize(
    ("kept", "changed"),
    [
        (("vocab.txt", "tokenizer.json", "tokenizer_config.json"), "tokenizer.json"),
        (("vocab.txt",), "vocab.txt"),
        (("tokenizer.json",), "tokenizer.json"),
    ],
)
def test_another_tokenizer_in_the_folder_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: tuple[str, ...], changed: str
) -> None:
    here = tmp_path / "clip"
    name = write_biomedclip_dir(here)
    for file in {"vocab.txt", "tokenizer.json", "tokenizer_config.json"}.difference(kept):
        (here / file).unlink()
    clip = dplq.load_backbone(name, pretrained=False)
    model = dplq.create_model("LinearProbe", clip, ["river", "park"])
    path = tmp_path / "model.safetensors"
    model.save(path)
    assert str(tmp_path) not in json.dumps(checkpoint.read_header(path))
    (tmp_path / "elsewhere").mkdir()
    here = here.rename(tmp_path / "elsewhere/clip")
    dplq.load(path, weights=str(here))
    assert "has changed since" not in caplog.text
    (here / changed).write_text((here / changed).read_text().replace("river", "stream"))
    dplq.load(path, weights=str(here))
    assert f"The tokenizer of local-dir:{here} has changed since" in caplog.text
