"""TCP: class-aware tokens in the text tower, the loss, the optimiser, what is refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

import dplq
import dplq.trainers
from dplq.errors import UserError
from dplq.methods.prompts.tcp import TCPModel
from dplq.trainers._engine.base import PromptTrainer
from dplq.trainers.tcp import TCP
from tests.tiny import tiny_backbone

NAMES = ["river", "parking_lot", "Dense Residential Area"]


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone()


def naive_text_features(model, layer):
    """Every class alone, block by block; before `layer` the context is replaced by its tokens."""
    net, tower, features = model.prompt_learner.meta_net, model.clip.clip, []
    for name, fixed in zip(model.classnames, model.reference_text()[0], strict=True):
        ids = model.clip.tokenize([f"X X X {name.replace('_', ' ')}."])
        hidden = net[0].weight @ fixed + net[0].bias
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        own = (net[2].weight @ hidden + net[2].bias).view(3, -1)
        x = model.clip.embed_tokens(ids)[0]
        x = torch.cat([x[:1], model.prompt_learner.ctx, x[4:]]) + tower.positional_embedding
        for number, block in enumerate(tower.transformer.resblocks):
            if number == layer:
                x = torch.cat([x[:1], own, x[4:]])
            x = block(x[None], attn_mask=tower.attn_mask)[0]
        feature = tower.ln_final(x[ids[0].argmax()]) @ tower.text_projection
        features.append(feature / feature.norm())
    return torch.stack(features)


@pytest.mark.parametrize("layer", [1, 2])
def test_features_equal_the_classes_run_alone(layer, clip):
    model = TCPModel(clip, NAMES, n_ctx=3, class_layer=layer, seed=0)
    features = model.text_features(model.prompts(torch.zeros(1)))
    assert features.shape == (1, 3, clip.embed_dim)
    torch.testing.assert_close(features[0], naive_text_features(model, layer), rtol=1e-4, atol=1e-5)
    # Tokens of other classes would give other features.
    prompts = model.prompts(torch.zeros(1))
    deep = [*prompts.deep_text[:-1], prompts.deep_text[-1].flip(0)]
    swapped = model.text_features(replace(prompts, deep_text=deep))
    assert (swapped - features).abs().max() > 1e-3


def test_the_loss_is_the_distance_to_the_hand_written_text(clip):
    model = TCPModel(clip, NAMES, n_ctx=3, class_layer=1, w=3.0, seed=0)
    size = clip.image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0])
    terms, logits = model.losses(images, labels)
    text = model.text_features(model.prompts(images))[0]
    distance = 1 - (text * model.reference_text()[0]).sum(dim=1).mean()
    torch.testing.assert_close(terms["text"], 3 * distance, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["ce"], F.cross_entropy(logits, labels))
    torch.testing.assert_close(logits, model(images))


def test_a_layer_that_the_text_tower_lacks_is_refused(clip):
    with pytest.raises(UserError, match=r"CLASS_LAYER 3 does not fit .* of layers 1 to 2\."):
        TCPModel(clip, NAMES, class_layer=3)
    with pytest.raises(UserError, match="CLASS_LAYER is 0; it must be at least 1"):
        TCPModel(clip, NAMES, class_layer=0)


def test_a_checkpoint_is_tested_with_another_text(clip, tmp_path, caplog):
    """The net gets the new text's features."""
    path, same = tmp_path / "m.safetensors", {"n_ctx": 3, "class_layer": 1}
    model = TCPModel(clip, NAMES, template="a {}.", seed=0, **same)
    model.save(path)
    other = TCPModel(clip, NAMES, template="a map of {}.", seed=1, **same)
    other.load(path)
    assert caplog.messages == [
        f"TEMPLATE is 'a map of {{}}.', but {path} was trained with 'a {{}}.'."
    ]
    features = other.text_features(other.prompts(torch.zeros(1)))[0]
    torch.testing.assert_close(features, naive_text_features(other, 1), rtol=1e-4, atol=1e-5)
    assert (features - model.text_features(model.prompts(torch.zeros(1)))[0]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_adam_has_the_eps_of_the_config(kind, monkeypatch):
    optimizer = kind([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    monkeypatch.setattr(PromptTrainer, "build_optimizer", lambda self, learner: optimizer)
    monkeypatch.setattr(TCP, "keys", SimpleNamespace(ADAM_EPS=0.25))
    TCP.build_optimizer(TCP.__new__(TCP), torch.nn.Identity())
    assert optimizer.param_groups[0].get("eps") == (0.25 if kind is torch.optim.Adam else None)


def test_the_release_s_checkpoint_is_told_from_cocoop_s(clip, tmp_path):
    """The names are the same; the net makes a token for each context token, or one."""
    for method, tokens in (("TCP", 2), ("CoCoOp", 1)):
        settings = {"class_layer": 2} if method == "TCP" else {}
        model = dplq.create_model(method, clip, NAMES, n_ctx=2, seed=1, **settings)
        ours = model.prompt_learner.state_dict()
        theirs = {"0": "linear1", "2": "linear2"}
        state = {"ctx": ours["ctx"]}
        for name, tensor in ours.items():
            if name != "ctx":
                _, layer, part = name.split(".")
                state[f"meta_net.{theirs[layer]}.{part}"] = tensor
        assert len(state["meta_net.linear2.bias"]) == tokens * 64
        path = tmp_path / f"model.pth.tar-{tokens}"
        torch.save({"state_dict": state, "epoch": 1}, path)
        again = dplq.load(path, NAMES, clip=clip, **settings)
        assert type(again) is type(model)
        loaded = again.prompt_learner.state_dict()
        assert all(loaded[name].equal(ours[name]) for name in ours)
