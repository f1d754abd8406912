"""Domain features at test time: asked once, the same result."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import dplq
from dplq.errors import UserError
from tests.runner import make_project, train


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


def prepare(cache: str, forbid: bool) -> None:
    """Set the cache folder of a child; `forbid` makes every call of the domain encoder fail."""
    os.environ["DPLQ_CACHE"] = cache
    if forbid:
        from dplq.domain.load import DomainEncoder

        def forward(self, images):
            raise RuntimeError("the domain encoder was asked")

        DomainEncoder.forward = forward


@pytest.mark.parametrize("trainer", ["QuaternionPrompt", "DCPL"])
def test_a_second_test_asks_no_domain_encoder(project, tmp_path, trainer):
    flags = [trainer if flag == "QuaternionPrompt" else flag for flag in project]
    options = ["OPTIM.MAX_EPOCH", "1", f"TRAINER.{trainer.upper()}.PROMPT_DEPTH", "2"]
    options += [f"TRAINER.{trainer.upper()}.PREC", "fp32", "TRAIN.FEATURE_CACHE", "0"]
    again = ["--model-dir", str(tmp_path / "run0"), "--eval-only"]
    accuracies = []
    for number, (extra, cached) in enumerate([([], True), (again, True), (again, False)]):
        run = tmp_path / f"run{number}"
        flags_now = [*flags, "--output-dir", str(run), *extra]
        done = train(
            tmp_path / f"log{number}",
            [*flags_now, *options, "DOMAIN.CACHE", str(cached)],
            prepare,
            str(tmp_path / "cache"),
            number == 1,
        )
        assert done.code == 0, done.err
        accuracies.append(json.loads((run / "results.json").read_text())["accuracy"])
    assert accuracies[0] == accuracies[1] == accuracies[2]
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 1


def test_two_encoders_and_changed_ones(project, tmp_path):
    """Both in the header, the cache serves the test, and `dplq.load` rebuilds them."""
    run, cache = tmp_path / "run", str(tmp_path / "cache")
    options = ["OPTIM.MAX_EPOCH", "1", "DOMAIN.ENCODER", "[clip, test_vit]"]
    options += ["DOMAIN.PRETRAINED", "False"]
    done = train(
        tmp_path / "log", [*project, "--output-dir", str(run), *options], prepare, cache, 0
    )
    assert done.code == 0, done.err
    assert "Loading domain encoder (clip, test_vit)" in done.out
    again = ["--model-dir", str(run), "--eval-only", "--output-dir", str(tmp_path / "again")]
    done = train(tmp_path / "log2", [*project, *again, *options], prepare, cache, True)
    assert done.code == 0, done.err
    first, second = (
        json.loads((folder / "results.json").read_text())["accuracy"]
        for folder in (run, tmp_path / "again")
    )
    assert first == second
    model = dplq.load(run, weights=str(Path(project[1]).parent / "clip"))
    assert [part.name for part in model.domain.spec.parts] == ["clip", "test_vit"]
    assert model.domain.feature_dim == model.clip.embed_dim + 64

    changed = ["DOMAIN.ENCODER", "test_vit", "DOMAIN.PRETRAINED", "False", "DOMAIN.POOL", "both"]
    changed += ["DOMAIN.ARGS", "depth=2, img_size=32", "DOMAIN.MEAN", "[0.1, 0.2, 0.3]"]
    changed += ["DOMAIN.STD", "[0.4, 0.5, 0.6]", "OPTIM.MAX_EPOCH", "1"]
    other = tmp_path / "other"
    done = train(
        tmp_path / "log3", [*project, "--output-dir", str(other), *changed], prepare, cache, 0
    )
    assert done.code == 0, done.err
    header = dplq.load(other, weights=str(Path(project[1]).parent / "clip")).header()["domain"]
    assert header["args"] == "depth=2, img_size=32"
    assert (header["pool"], header["mean"], header["std"]) == (
        "both",
        [0.1, 0.2, 0.3],
        [0.4, 0.5, 0.6],
    )


def test_clip_s_own_features_depend_on_its_activation(project, tmp_path):
    """The encoder's name and weights are the same."""
    cache, fresh, flags = str(tmp_path / "cache"), str(tmp_path / "fresh"), [*project]
    options = ["OPTIM.MAX_EPOCH", "1", "DOMAIN.ENCODER", "clip", "TRAIN.FEATURE_CACHE", "0"]
    runs = [("gelu", cache), ("quickgelu", cache), ("quickgelu", fresh)]
    rows = []
    for number, (act, folder) in enumerate(runs):
        run = tmp_path / f"run{number}"
        words = [*flags, "--output-dir", str(run), *options, "MODEL.BACKBONE.ACT", act]
        done = train(tmp_path / f"log{number}", words, prepare, folder, False)
        assert done.code == 0, done.err
        rows.append((run / "predictions.csv").read_bytes())
    assert rows[1] == rows[2]
    assert rows[0] != rows[1]


def test_keys_that_the_choice_of_encoder_disables_are_said(caplog):
    from yacs.config import CfgNode

    from dplq.trainers._engine.domain import load_domain

    domain = CfgNode(
        {
            "ENCODER": "none",
            "WEIGHTS": "sam.pth",
            "FEATURE": "encoder",
            "NORMALIZE": "clip",
            "PRETRAINED": True,
            "CACHE": True,
        }
    )
    assert load_domain(CfgNode({"DOMAIN": domain}), None, "default") is None
    assert [record.getMessage() for record in caplog.records] == [
        "DOMAIN.WEIGHTS sam.pth is not used: DOMAIN.ENCODER is none.",
        "DOMAIN.NORMALIZE clip is not used: DOMAIN.ENCODER is none.",
    ]


def domain_config(**changes):
    """Return a host's config: it has none of the keys that change an encoder."""
    from yacs.config import CfgNode

    keys = {"WEIGHTS": "", "FEATURE": "encoder", "NORMALIZE": None, "PRETRAINED": False}
    return CfgNode({"DOMAIN": {**keys, "CACHE": True, **changes}})


def test_a_host_s_config_holds_a_list_as_text():
    from dplq.trainers._engine.domain import load_domain
    from tests.tiny import tiny_backbone

    clip = tiny_backbone()
    cfg = domain_config(ENCODER="[clip, test_vit]", WEIGHTS="['', '']")
    encoder = load_domain(cfg, clip, "default")
    assert [part.name for part in encoder.spec.parts] == ["clip", "test_vit"]


@pytest.mark.parametrize("listed", [["clip"], "[clip]"])
def test_a_list_of_one_encoder_is_that_encoder(listed, caplog):
    from dplq.trainers._engine.domain import load_domain
    from tests.tiny import tiny_backbone

    cfg = domain_config(ENCODER=listed)
    assert load_domain(cfg, tiny_backbone(), "default").spec.name == "clip"
    assert "DOMAIN.PRETRAINED False is not used: DOMAIN.ENCODER is clip." in caplog.text
    cfg.DOMAIN.ENCODER = "[none]"
    assert load_domain(cfg, None, "default") is None


def test_an_encoder_of_more_bands_is_refused_by_a_trainer():
    from dplq.trainers._engine.domain import load_domain

    cfg = domain_config(ENCODER="test_resnet", ARGS="in_chans=5", MEAN=[0.0] * 5, STD=[1.0] * 5)
    cfg.DOMAIN.NORMALIZE = "native"
    with pytest.raises(UserError, match=r"test_resnet takes 5 bands.*INPUT.BANDS.*RGB images"):
        load_domain(cfg, None, "default")
