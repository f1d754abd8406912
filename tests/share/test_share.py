"""`dplq share` and what reads it back: the same model bit for bit, no paths, an honest card."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard, constants
from huggingface_hub.errors import LocalEntryNotFoundError, LocalTokenNotFoundError

import dplq
from dplq import UserError, create_model
from dplq.__main__ import main
from dplq.io import checkpoint
from dplq.io import hub as hub_client
from dplq.io.process import host_digest
from dplq.io.shared import CARD, FILES, PROMPTS
from dplq.share.card import model_card
from dplq.share.folder import foreign_files
from dplq.share.origins import Origin, data_origin, origins
from dplq.share.source import Source
from tests.tiny import tiny_backbone

NAMES = ["river", "dense forest", "parking_lot"]
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
RESULTS = {
    "format": 1,
    "trainer": "CoOp",
    "dataset": "EuroSAT",
    "subsample": "base",
    "shots": 16,
    "seed": 2,
    "epochs": 3,
    "accuracy": 87.5,
    "macro_f1": 80.25,
    "per_class_accuracy": {"river": 75.0, "dense forest": 100.0, "parking_lot": 87.5},
    "total": 24,
    "hits": "ff",
    "device": "gpu of the clinic",
    "config": {
        "OUTPUT_DIR": "/home/anna/output/river",
        "SEED": 2,
        "DATASET": {"ROOT": "patients/data", "NAME": "EuroSAT", "SPLIT_FILE": ""},
        "MODEL": {"BACKBONE": {"NAME": "ViT-B/16:/home/anna/clip.pt"}},
    },
}


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone()


@pytest.fixture
def run(clip, tmp_path):
    """The folder of a finished run."""
    folder = tmp_path / "run"
    model = create_model("CoOp", clip, NAMES, seed=3, n_ctx=2)
    model.save(folder / "prompt_learner/model-3.safetensors", epoch=3)
    (folder / "results.json").write_text(json.dumps(RESULTS))
    (folder / "predictions.csv").write_text("path,label\n/home/anna/patient1.png,river\n")
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for the Hub: a folder of repositories, without network."""
    root = tmp_path / "hub"

    class Api:
        def repo_exists(self, repository):
            return (root / repository).is_dir()

        def list_repo_files(self, repository):
            return [str(p.relative_to(root / repository)) for p in (root / repository).rglob("*.*")]

        def create_repo(self, repository, *, private, exist_ok):
            assert exist_ok
            (root / repository).mkdir(parents=True, exist_ok=True)
            (root / "private").write_text(str(private))
            return f"https://huggingface.co/{repository}"

        def upload_folder(self, *, repo_id, folder_path, commit_message, allow_patterns):
            for name in allow_patterns:
                shutil.copy(Path(folder_path) / name, root / repo_id / name)
            (root / "message").write_text(commit_message)

    def download(repository, file, revision=None):
        (root / "revision").write_text(str(revision))
        return str(root / repository / file)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return root


def share(*arguments):
    return main(["share", *map(str, arguments)])


def logits(model):
    with torch.no_grad():
        return model(IMAGES)


def test_a_shared_folder_is_the_same_model(run, clip, tmp_path):
    assert share(run, "--to", tmp_path / "shared") == 0
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == sorted(FILES)
    expected = dplq.load(run, clip=clip)
    again = dplq.load(tmp_path / "shared", clip=clip)
    assert again.header() == expected.header()
    assert torch.equal(logits(again), logits(expected))
    other = dplq.load(tmp_path / "shared", ["lake", "farm"], clip=clip)
    assert other.classnames == ["lake", "farm"]


def test_a_repository_of_the_hub_is_the_same_model(run, clip, hub, capsys):
    given = ("--to", "hf-hub:lab/river-prompts", "--private", "--message", "first")
    assert share(run, *given) == 0
    assert "Pushed to https://huggingface.co/lab/river-prompts" in capsys.readouterr().out
    assert (hub / "private").read_text() == "True"
    assert (hub / "message").read_text() == "first"
    expected = logits(dplq.load(run, clip=clip))
    again = dplq.load("hf-hub:lab/river-prompts@v2", clip=clip)
    assert torch.equal(logits(again), expected)
    assert (hub / "revision").read_text() == "v2"
    folder = clip.spec.name.removeprefix("local-dir:")
    assert torch.equal(logits(dplq.load("hf-hub:lab/river-prompts", weights=folder)), expected)


def test_nothing_of_this_machine_is_shared(run, tmp_path, capsys):
    share(run, "--to", tmp_path / "shared")
    printed = capsys.readouterr().out
    for key in ("OUTPUT_DIR", "DATASET.ROOT", "MODEL.BACKBONE.NAME"):
        assert key in printed
    for name in FILES:
        content = (tmp_path / "shared" / name).read_bytes()
        for secret in (b"anna", b"patient", b"clinic", str(tmp_path).encode()):
            assert secret not in content, (name, secret)
    config = json.loads((tmp_path / "shared/config.json").read_text())
    assert config["run"]["OUTPUT_DIR"] == "river"
    assert config["run"]["MODEL"]["BACKBONE"]["NAME"] == "ViT-B/16:clip.pt"
    assert config["settings"]["n_ctx"] == 2
    assert json.loads((tmp_path / "shared/classes.json").read_text()) == NAMES


def test_the_card_has_the_hubs_metadata_numbers_and_licences(run, tmp_path):
    share(run, "--to", tmp_path / "shared", "--license", "cc-by-4.0")
    card = ModelCard.load(tmp_path / "shared" / CARD)
    data = card.data
    assert (data.license, data.library_name) == ("cc-by-4.0", "dplq")
    assert data.pipeline_tag == "zero-shot-image-classification"
    assert data.datasets == ["torchgeo/eurosat"]
    values = {result.metric_type: result.metric_value for result in data.eval_results}
    assert values == {"accuracy": 0.875, "f1": 0.8025}
    assert {result.dataset_name for result in data.eval_results} == {"EuroSAT, base classes"}
    assert "| EuroSAT, base classes | test | 24 | 87.50 | 80.25 |" in card.text
    assert "trained on EuroSAT with 16 images per class" in card.text
    assert "| data | [EuroSAT](https://github.com/phelber/EuroSAT) | MIT (torchgeo) |" in card.text
    assert "Not known is the licence of local-dir:default, random weights" in card.text
    assert "river, dense forest, parking_lot" in card.text


def test_the_snippet_of_the_card_runs(run, clip, hub, monkeypatch):
    share(run, "--to", "hf-hub:lab/river-prompts")
    text = (hub / "lab/river-prompts" / CARD).read_text()
    lines = text.partition("```python\n")[2].partition("```")[0].splitlines()
    (call,) = (line.partition("= ")[2] for line in lines if "dplq.load" in line)
    assert call == 'dplq.load("hf-hub:lab/river-prompts", weights="default")'
    monkeypatch.chdir(Path(clip.spec.name.removeprefix("local-dir:")).parent)
    assert eval(call, {"dplq": dplq}).classnames == NAMES


def test_what_users_named_is_quoted_in_the_card():
    names = ["oak\n# y", "<script>", "a*b_c_", "parking_lot"]
    parts = [{"name": "demo"}, {"name": "mae-vit-b", "weights": "my mae.pth"}]
    header = {
        "method": "QuaternionPrompt",
        "backbone": {"name": "ViT-B/16", "weights": "my clip.pt"},
        "domain": {"name": "demo + mae-vit-b", "parts": parts},
        "classnames": names,
    }
    source = Source(Path("x"), {}, header, dataset="My\n# set")
    text = str(model_card(source, origins(header), [], place="", licence=""))
    command = """dplq predict FOLDER --weights 'my clip.pt' --domain-weights '["", "my mae.pth"]'"""
    assert f"\n{command} images/\n" in text
    call = 'dplq.load("FOLDER", weights="my clip.pt", domain_weights=["", "my mae.pth"])'
    assert f"\nmodel = {call}\n" in text
    assert r"oak # y, &lt;script&gt;, a\*b_c\_, parking_lot." in text
    assert "trained on My # set" in text
    assert "\n# y" not in text
    assert "\n# set" not in text


@pytest.mark.parametrize("licence", ["nonsense\nx: y", "cc by", "-mit", "a: b"])
def test_a_licence_is_an_id(licence, run, tmp_path, capsys):
    assert share(run, "--to", tmp_path / "shared", f"--license={licence}") == 2
    assert "give an id of the Hub" in capsys.readouterr().err
    assert not (tmp_path / "shared").exists()


def test_numbers_of_another_epoch_are_left_out(run, tmp_path, capsys):
    (run / "results.json").write_text(json.dumps({**RESULTS, "epochs": 2}))
    share(run, "--to", tmp_path / "shared")
    said = "results.json is left out: it is of epoch 2, and the checkpoint of 3."
    assert said in capsys.readouterr().out
    assert json.loads((tmp_path / "shared/metrics.json").read_text()) == []


def test_a_checkpoint_alone_is_shared_without_numbers(run, tmp_path):
    alone = shutil.copy(run / "prompt_learner/model-3.safetensors", tmp_path / "mine.safetensors")
    assert share(alone, "--to", tmp_path / "shared") == 0
    assert "No test of this checkpoint is known" in (tmp_path / "shared" / CARD).read_text()
    assert (tmp_path / "shared" / PROMPTS).read_bytes() == Path(alone).read_bytes()


def test_paths_in_a_header_are_replaced(run, clip, tmp_path, capsys):
    model = dplq.load(run, clip=clip)
    path = tmp_path / "mine.safetensors"
    model.save(path, origin={"table": "/home/anna/table.csv"})
    share(path, "--to", tmp_path / "shared")
    assert "origin.table" in capsys.readouterr().out
    header = checkpoint.read_header(tmp_path / "shared" / PROMPTS)
    assert header["origin"] == {"table": "table.csv"}
    again = dplq.load(tmp_path / "shared", clip=clip)
    assert torch.equal(logits(again), logits(model))


def test_text_that_resembles_a_path_stays(clip, tmp_path):
    names = ["A: oak", "/river", "~ lake", "./farm", "\\road", "C:\\dam\\wall"]
    model = create_model("CoCoOp", clip, names, seed=3, ctx_init="/photo of")
    model.save(tmp_path / "prompt_learner/model-3.safetensors", epoch=3)
    config = {"TRAINER": {"COCOOP": {"CTX_INIT": "/photo of", "LOG": "/home/anna/log"}}}
    (tmp_path / "results.json").write_text(json.dumps({**RESULTS, "config": config}))
    assert share(tmp_path, "--to", tmp_path / "shared") == 0
    again = dplq.load(tmp_path / "shared", clip=clip)
    assert again.classnames == names
    assert torch.equal(logits(again), logits(model.eval()))
    kept = json.loads((tmp_path / "shared/config.json").read_text())
    assert kept["settings"]["ctx_init"] == "/photo of"
    assert kept["run"]["TRAINER"]["COCOOP"] == {"CTX_INIT": "/photo of", "LOG": "log"}


def test_a_shared_model_is_shared_again_whole(run, hub, tmp_path, capsys):
    first = tmp_path / "first"
    assert share(run, "--to", first) == 0
    written = {name: (first / name).read_bytes() for name in FILES}
    assert share(first / PROMPTS, "--to", first) == 2
    assert "holds prompts.safetensors, which is to be shared" in capsys.readouterr().err
    assert {name: (first / name).read_bytes() for name in FILES} == written
    for given in (first, first / PROMPTS):
        assert share(given, "--to", tmp_path / "again") == 0
        assert {name: (tmp_path / "again" / name).read_bytes() for name in FILES} == written
    assert share(first, "--to", "hf-hub:lab/river-prompts") == 0
    assert (hub / "lab/river-prompts/metrics.json").read_bytes() == written["metrics.json"]
    assert sorted(path.name for path in first.iterdir()) == sorted(FILES)
    (first / "metrics.json").write_text('[{"accuracy": 101}]')
    assert share(first, "--to", tmp_path / "again") == 2
    assert "metrics.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "foreign"),
    [
        ([], []),
        ([".gitattributes", "README.md"], []),  # a new repository of the Hub
        ([".gitattributes", *FILES], []),
        (["README.md"], ["README.md"]),
        ([".gitattributes", "README.md", "config.json"], ["README.md", "config.json"]),
        (["model.safetensors", PROMPTS, "README.md"], ["model.safetensors"]),
        ([PROMPTS, "onnx/model.onnx"], ["onnx"]),
    ],
)
def test_other_models_are_told_from_shared_ones(names, foreign, tmp_path, run, hub):
    assert foreign_files(names) == foreign
    for folder in (tmp_path / "there", hub / "lab/there"):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("theirs")
    for target in (tmp_path / "there", "hf-hub:lab/there"):
        assert share(run, "--to", target) == (2 if foreign else 0)


def test_what_a_killed_process_left_is_removed(run, tmp_path):
    left = tmp_path / f".shared.{host_digest()}-{2**22 + 1}-1.part"
    mine, other = (tmp_path / f".{name}.{os.getpid()}-1.part" for name in ("shared", "x"))
    for folder in (left, mine, other):
        folder.mkdir()
    assert share(run, "--to", tmp_path / "shared") == 0
    assert not left.exists()
    assert mine.exists()
    assert other.exists()


def test_a_foreign_folder_is_refused_and_ours_is_replaced(run, tmp_path, capsys):
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.tex").write_text("text")
    assert share(run, "--to", foreign) == 2
    assert "holds chapter1.tex, which `dplq share` did not write" in capsys.readouterr().err
    assert [path.name for path in foreign.iterdir()] == ["chapter1.tex"]
    for seed in (2, 5):
        (run / "results.json").write_text(json.dumps({**RESULTS, "seed": seed}))
        assert share(run, "--to", tmp_path / "shared") == 0
        assert f"seed {seed}" in (tmp_path / "shared" / CARD).read_text()
    assert not list(tmp_path.glob(".shared.*"))


def test_a_repository_with_another_model_is_not_overwritten(run, hub, capsys):
    other = hub / "lab/bert"
    other.mkdir(parents=True)
    (other / "model.safetensors").write_bytes(b"theirs")
    assert share(run, "--to", "hf-hub:lab/bert") == 2
    assert "another model is there" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["model.safetensors"]


def test_without_a_token_the_folder_stays(run, hub, monkeypatch, capsys):
    def refuse(*_, **__):
        raise LocalTokenNotFoundError("no token")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    assert share(run, "--to", "hf-hub:lab/river-prompts") == 2
    message = capsys.readouterr().err
    assert "lab/river-prompts was not pushed" in message
    assert "`hf auth login`" in message
    assert f"hf upload lab/river-prompts {run / 'share'}" in message
    assert (run / "share" / PROMPTS).is_file()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf-hub:river", "names no repository of the Hub"),
        ("hf-hub:lab/../x", "names no repository of the Hub"),
        ("hf-hub:lab/x@", "names no repository of the Hub"),
    ],
)
def test_names_that_are_none_are_refused(name, said, run):
    with pytest.raises(UserError, match=said):
        dplq.load(name)


def test_without_network_the_message_says_what_to_do(monkeypatch):
    def refuse(*_, **__):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(UserError, match=r"cannot be downloaded .* give their folder"):
        dplq.load("hf-hub:lab/river-prompts")


def test_a_silent_hub_is_not_waited_for(run, clip, monkeypatch, tmp_path):
    monkeypatch.setattr(hub_client, "_answers", {constants.ENDPOINT: (time.monotonic(), False)})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    began = time.monotonic()
    with pytest.raises(UserError, match=rf"and {constants.ENDPOINT} cannot be reached within"):
        dplq.load("hf-hub:lab/river-prompts")
    assert time.monotonic() - began < 10
    cached = tmp_path / "cache/models--lab--river-prompts"
    snapshot = cached / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("0" * 40)
    shutil.copy(run / "prompt_learner/model-3.safetensors", snapshot / PROMPTS)
    assert dplq.load("hf-hub:lab/river-prompts", clip=clip).classnames == NAMES


def test_foreign_content_of_the_hub_is_refused(hub):
    (hub / "lab/evil").mkdir(parents=True)
    (hub / "lab/evil" / PROMPTS).write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match=r"prompts\.safetensors"):
        dplq.load("hf-hub:lab/evil")


def test_licences_come_from_the_catalogue_and_the_libraries():
    header = {"backbone": {"name": "ViT-B/16"}, "domain": {"name": "uni"}}
    clip, encoder = origins(header)
    assert (clip.licence, clip.by_hand) == ("MIT (repository)", False)
    assert encoder.hub == "MahmoodLab/UNI"
    assert encoder.licence == "CC-BY-NC-ND-4.0 (repository)"
    assert encoder.terms() == (
        "no commercial use; no distribution of changed weights; terms to be accepted on its page"
    )
    several = {"name": "a + b", "parts": [{"name": "rad-dino"}, {"name": "clip"}]}
    found = origins({"backbone": {"name": "hf-hub:org/clip"}, "domain": several})
    assert [one.hub for one in found] == ["org/clip", "microsoft/rad-dino", ""]
    assert data_origin("NoSuchData") == Origin("data", "NoSuchData")
